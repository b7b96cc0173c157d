"""AROVR with a hard budget: the constrained form (7) of Zach (2025), and what is certain.

Where AROVR_β charges the adversary for the energy that it spends, here it may spend δ on
every sample. The price 1/β is then found sample by sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import at_least, no_transforms, positive
from .envelope import once
from .inference import InferenceDiverged, Report, Shooting, checked_solver, infer
from .inference.iterate import Solver, without_minimum
from .kinds import MOST
from .losses import Euclidean, Loss, LossFamily, loss_of
from .network import Activations, LiftedNetwork
from .objectives import Objective
from .potentials import Energy, Potential, checked_potential


@dataclass(frozen=True)
class Certificate:
    """What a call of ``ConstrainedAROVR`` knows about (7): tensors of shape (batch,).

    Attributes:
        beta: the inverse multiplier; 0 where none was found and z is the forward pass.
        energy: U(z; x) ≤ δ of the activations found.
        lower: ℓ(z) there, a lower bound of (7).
        upper: the least AROVR_β + δ/β over the β at which inference converged (weak duality): an
            upper bound of (7) if inference found AROVR's global maximum there. No β counts at which
            one sample's energy was found to fall without end (``Report.infinite``). Infinite where
            AROVR may be unbounded without notice: the search reached the largest β allowed, or the
            adversary never left the forward pass (r = 0, Proposition 3.3).
    """

    beta: Tensor
    energy: Tensor
    lower: Tensor
    upper: Tensor

    @property
    def gap(self) -> Tensor:
        """upper − lower: what non-convexity and inference leave open."""
        return self.upper - self.lower

    def __str__(self) -> str:
        known = self.upper.isfinite()
        worst = f"{self.gap[known].max():.1e}" if known.any() else "unknown"
        return (f"largest gap {worst}; no upper bound for {int((~known).sum())} of "
                f"{len(known)} samples")


class ConstrainedAROVR(Objective):
    """max ℓ(z) subject to U(z; x) ≤ δ, Zach (2025), eq. (7).

    AROVR_β's optimum z_β spends more energy U(z_β; x) the larger β is. Bisection finds, for
    every sample, the largest β whose z_β stays within δ; the value is ℓ(z_β). It never
    exceeds (7), since z_β is feasible. Its gradient is −(1/β)·∂U/∂θ at z_β. Where no β was
    found, both are those of ℓ(z*).

    U is not jointly convex: U(z_β; x) may jump over δ as β grows, and inference may stop at
    a local optimum. Either leaves a gap, which ``certificate`` reports. (In any case (7)
    is at most ½(‖z_L* − y‖ + √(2κδ))², where 1/κ is the border (19).)
    The larger δ, the closer β comes to the border where AROVR_β is unbounded. The search
    turns back where inference runs away. If it could not use the budget up,
    ``certificate.energy`` is below δ, and the gap is wide or unknown.

    Args:
        delta: δ > 0, the energy that the adversary may spend on each sample.
        steps: bisections of log β, which starts between 1e-9 and 1 times the largest β:
            0.999·γ_L/∇²ℓ, or 1e6 for a loss without curvature.
        solver: default: ``Shooting`` until every sample's relative gap is 1e-8. With
            ``oracle.Exhaustive()`` (toy networks, one sample per call) ``upper`` is a true bound.

    Raises:
        ValueError: δ that is not positive, or a potential that is not zero at the forward pass;
            fewer than one step.

    Attributes:
        certificate: what the last call knows about (7), see :class:`Certificate`.
        activations: feasible activations z of the last call.
    """

    certificate: Certificate | None = None
    activations: Activations | None = None

    def __init__(self, delta: float, loss: LossFamily = Euclidean,
                 potential: Potential | None = None, solver: Solver | None = None,
                 steps: int = 32):
        super().__init__(loss)
        self.delta, self.steps = positive("delta", delta), at_least("steps", steps, 1, MOST)
        self.potential = checked_potential(potential)
        if not self.potential.minimum_is_zero:
            raise ValueError(f"{self.potential!r} is not zero at the forward pass, as (7) assumes")
        # Each sample has its own β: their residuals may differ by orders of magnitude.
        self.solver = checked_solver(solver) or Shooting(tolerance=1e-8, max_passes=300, every=True)

    def precision(self, dtype):
        # z − z* is about √(2δ), and rounding moves it by eps.
        return dtype if self.delta > torch.finfo(torch.float32).eps else torch.float64

    def value(self, net, x, target):
        no_transforms()
        loss = loss_of(self.loss, target)
        Energy(self.potential, loss).check_shapes(net, len(x))
        z, self.certificate, self.report = self._search(net, x.detach(), loss)
        self.activations, beta = z, self.certificate.beta
        U = self.potential(net, [x, *z[1:]])
        found = beta > 0
        constrained = loss(z[-1]) - (U - U.detach()) / torch.where(found, beta, 1.0)
        return once(torch.where(found, constrained, loss(net(x))))

    @torch.no_grad()
    def _search(self, net: LiftedNetwork, x: Tensor,
                loss: Loss) -> tuple[Activations, Certificate, Report]:
        """Bisect log β, all samples at once, and keep the best feasible z of each."""
        largest = self._largest(net, x, loss)
        low, high, rows = 1e-9 * largest, largest.clone(), torch.arange(len(x), device=x.device)
        z, tried, passes = net.activations(x), [], 0
        beta, energy, gap = x.new_zeros(3, len(x))
        converged = beta > 0
        for _ in range(self.steps):
            middle = (low * high).sqrt()
            if not ((low < middle) & (middle < high)).any():
                break  # no number is left between them
            new, report = self._infer(net, x, loss, middle, rows)
            value, U, passes = loss(new[-1]), self.potential(net, new), passes + report.passes
            moved = U > torch.finfo(U.dtype).eps * self.delta
            tried.append((middle, value, U, report.converged & moved, report.unbounded))
            # Without a minimum, or with one that the solver gave up on, β was too large.
            fits = (U <= self.delta) & ~report.unbounded & (report.converged | (U > 0))
            low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
            keep = fits & (value >= loss(z[-1]))
            z = [torch.where(keep[:, None], new_k, z_k) for new_k, z_k in zip(new, z)]
            beta, energy = torch.where(keep, middle, beta), torch.where(keep, U, energy)
            gap = torch.where(keep, report.gap, gap)
            converged = torch.where(keep, report.converged, converged)
        upper = self._dual(net, loss, *map(torch.stack, zip(*tried)))
        upper[high == largest] = math.inf
        return (z, Certificate(beta, energy, loss(z[-1]), upper),
                Report(passes, gap, converged, torch.zeros_like(converged)))

    def _dual(self, net: LiftedNetwork, loss: Loss, beta: Tensor, values: Tensor, U: Tensor,
              trusted: Tensor, unbounded: Tensor) -> Tensor:
        """min over β of AROVR_β + δ/β, shape (batch,), from tensors of shape (steps, batch).

        AROVR_β is a maximum: all z found, at whichever β, compete for it. It is infinite where
        an energy was found to fall without end, and for all β above.
        """
        rows = torch.arange(beta.shape[1], device=beta.device).repeat(len(beta))
        energy = Energy(self.potential, -beta.flatten()[:, None] * loss.take(rows))
        trusted = trusted & ~without_minimum(net, energy, unbounded.flatten()).view_as(trusted)
        values = values + (self.delta - U) / beta[:, None]
        best = values.nan_to_num(-math.inf, math.inf, -math.inf).amax(1)
        return torch.where(trusted, best, math.inf).amin(0)

    def _largest(self, net: LiftedNetwork, x: Tensor, loss: Loss) -> Tensor:
        """Where the search for each sample's β starts from above, (batch,)."""
        greatest = torch.as_tensor(loss.curvatures[1], dtype=x.dtype, device=x.device)
        steepest = greatest.expand(len(x), net.sizes[-1]).amax(1)
        bound = 0.999 * self.potential.curvature(net.depth) / steepest
        return torch.where(steepest > 0, bound, 1e6)

    def _infer(self, net: LiftedNetwork, x: Tensor, loss: Loss, beta: Tensor,
               rows: Tensor) -> tuple[Activations, Report]:
        """AROVR_β's activations. A sample that runs away comes back as its forward pass.

        One such sample stops the batch: it is halved until the culprits are alone.
        """
        try:
            energy = Energy(self.potential, -beta[rows, None] * loss.take(rows))
            return infer(net, x[rows], energy, solver=self.solver)
        except InferenceDiverged:
            if len(rows) == 1:
                lost = x.new_full((1,), math.inf)
                return net.activations(x[rows]), Report(0, lost, lost.isfinite(), lost.isinf())
        halves, reports = zip(*(self._infer(net, x, loss, beta, part)
                                for part in rows.tensor_split(2)))
        return ([torch.cat(z_k) for z_k in zip(*halves)],
                Report(max(report.passes for report in reports),
                       *(torch.cat([getattr(report, name) for report in reports])
                         for name in ("gap", "converged", "unbounded"))))

    def __repr__(self):
        return f"ConstrainedAROVR(delta={self.delta:g})"
