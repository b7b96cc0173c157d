"""Adversaries in a region of another shape: any distance (10), or a budget on U (7).

AROVR ties the adversarial region to the network potential. ``GeneralizedAROVR`` measures
it with a distance d_γ(z⁻, z*) instead, and ``ConstrainedAROVR`` bounds U itself instead
of penalising it. Both find activations first; gradients are taken at these (envelope
theorem), as in :mod:`lnn_core.objectives`.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import minimize
from torch import Tensor

from .checks import positive
from .inference import InferenceDiverged, Report, Solver, Sweeps, infer
from .losses import Euclidean, Loss
from .network import Activations, LiftedNetwork
from .objectives import AROVR, LiftedObjective, LossFamily, Objective
from .potentials import Energy, FenchelYoung, Potential, Reweighted

Pair = tuple[Activations, Activations]
DistanceFunction = Callable[[Activations, Activations], Tensor]


class GeneralizedAROVR(LiftedObjective):
    """max over z⁻, z* of ℓ(z⁻) − (λ/β)·d_γ(z⁻, z*) − U(z*; x)/β, Zach (2025), eq. (10).

    The Lagrangian form of (9): the adversary z⁻ stays near the nominal activations z*, in
    a region shaped by d_γ, and z* near the forward pass. Both range over what the layers
    can output, [lower, upper] of G_k. At least AROVR_β when d_γ(z, z) = 0 for all z
    (Proposition 3.1). With a tilted U, min U/β is added as in (6).

    After a call, ``activations`` holds (z⁻, z*).

    Parameters
    ----------
    beta : β > 0.
    distance : ``ElementWise(gamma)`` (12), ``PotentialDistance(gamma)`` (15), or your own
        function d(z, z′) of two activation lists that returns one value a sample, shape
        (batch,), differentiable in torch. Tensors that it holds, a learned γ say, get
        their gradient too.
    weight : λ > 0.

    Raises
    ------
    ValueError : β too large for the distance; d(z, z) ≠ 0 or a wrong shape (from a call,
        before any computing).
    InferenceDiverged : the maximum is, or looks, infinite.
    """

    activations: Pair | None = None

    def __init__(self, beta: float, distance: Distance | DistanceFunction, weight: float = 1.0, *,
                 loss: LossFamily = Euclidean, potential: Potential | None = None,
                 solver: Solver | None = None):
        super().__init__(beta, loss, potential, solver)
        self.distance = distance if isinstance(distance, Distance) else _UserDistance(distance)
        self.weight = positive("weight", weight)

    def value(self, net, x, target):
        loss = self.loss(target)
        self.distance.check(self, net, x.detach(), loss)
        rest = self.rest(net, x, self.potential)
        with torch.no_grad():
            pair, self.report = self.distance.maximise(self, net, x.detach(), loss)
        self.activations = pair
        adversary, nominal = ([x, *z[1:]] for z in pair)
        return rest / self.beta - self.energy(net, self.distance, loss, adversary, nominal) / self.beta

    def energy(self, net: LiftedNetwork, distance: Distance, loss: Loss,
               adversary: Activations, nominal: Activations) -> Tensor:
        """U(z*; x) + λ·d_γ(z⁻, z*) − β·ℓ(z⁻): what is minimised, shape (batch,)."""
        return (self.potential(net, nominal) + self.weight * distance(net, adversary, nominal)
                - self.beta * loss(adversary[-1]))

    def __repr__(self):
        return f"GeneralizedAROVR(beta={self.beta:g}, {self.distance!r}, weight={self.weight:g})"


class Distance(ABC):
    """d_γ(z, z′) of eq. (10), and how (10) is maximised with it: here, over both at once."""

    @abstractmethod
    def __call__(self, net: LiftedNetwork, z: Activations, other: Activations) -> Tensor:
        """d_γ(z, z′), shape (batch,)."""

    def check(self, objective: GeneralizedAROVR, net: LiftedNetwork, x: Tensor,
              loss: Loss) -> None:
        """ValueError where (10) has no finite maximum, or the distance does not fit."""
        objective.check_beta(net, loss.curvature)

    def maximise(self, objective: GeneralizedAROVR, net: LiftedNetwork, x: Tensor,
                 loss: Loss) -> tuple[Pair, Report]:
        """(z⁻, z*) by L-BFGS-B from two starts, the better end point of each sample.

        Both copies start at the forward pass, then both at AROVR's optimum. No end point
        is worse than its start, so that Proposition 3.1 holds by construction.
        """
        energy = Energy(objective.potential, -objective.beta * loss)
        adversary, _ = infer(net, x, energy, solver=objective.solver)
        joint = _Joint(objective, self, net, x, loss)
        runs = [joint.descend(joint.pack(z)) for z in (net.activations(x), adversary)]
        best = runs[0][0]
        for end, _ in runs[1:]:
            best = torch.where((joint.energy(end) < joint.energy(best))[:, None], end, best)
        return joint.unpack(best, like=x), joint.report(best, sum(passes for _, passes in runs))


class ElementWise(Distance):
    """d_γ(z, z′) = Σ_k γ_k‖z_k − z′_k‖², Zach (2025), eq. (12); no factor ½.

    Only the output feels the loss, so z_k⁻ = z_k* below it and, with ∇²ℓ = q,

        z_L⁻ = z_L* + β∇ℓ(z_L*)/(2λγ_L − βq),

    which leaves max_z c·ℓ(z) − U(z; x)/β with c = 2λγ_L/(2λγ_L − βq), eq. (13): AROVR
    with a larger loss, c·AROVR_{cβ}. Finite only for 2λγ_L > βq and cβq < γ_L of U.
    (Where the output's range has an end, z⁻ may stop there: both are then found jointly.)

    Parameters
    ----------
    gamma : L positive entries, each a number or a tensor of shape (d_k,), as ``Reweighted``.
    """

    def __init__(self, gamma: Sequence[float | Tensor]):
        self.weights = Reweighted(gamma)

    def __call__(self, net, z, other):
        return sum((gamma * (z_k - other_k).square()).sum(-1)
                   for gamma, z_k, other_k in zip(self.weights.gamma, z[1:], other[1:]))

    def check(self, objective, net, x, loss):
        self.weights.check(net)
        bound, q = 2 * objective.weight * self.weights.weight(net.depth), loss.curvature
        if _free(net) and not objective.beta * q < bound:
            raise ValueError(f"beta={objective.beta:g} must be below 2*weight*gamma_L"
                             f"{'' if q == 1 else f'/{q:g}'}={bound / q:g} of the distance, or z⁻ "
                             "runs to infinity (Zach 2025, eq. 13)")
        scale = bound / (bound - objective.beta * q) if _free(net) else 1.0
        objective.check_beta(net, scale * q)

    def maximise(self, objective, net, x, loss):
        if not _free(net):
            return super().maximise(objective, net, x, loss)
        bound = 2 * objective.weight * self.weights.gamma[-1]
        left = bound - objective.beta * loss.curvature
        energy = Energy(objective.potential, -objective.beta * (bound / left) * loss)
        z, report = infer(net, x, energy, solver=objective.solver)
        slope = loss.curvature * z[-1] - loss.pull
        return ([*z[:-1], z[-1] + objective.beta * slope / left], z), report

    def __repr__(self):
        return f"ElementWise({list(self.weights.gamma)})"


class PotentialDistance(Distance):
    """d_γ(z, z*) = U^⊙γ(z; x), Zach (2025), eq. (15): AROVR in another geometry, eq. (16).

    z* no longer enters the distance: it is the forward pass, and the value is AROVR_β with
    the potential λU^⊙γ. Finite only for β < λγ_L. Note that d_γ(z, z) = U^⊙γ(z; x) is zero
    at the forward pass only, so that Proposition 3.1 does not apply: with λγ > 1 the value
    is below AROVR_β.

    Parameters
    ----------
    gamma : as for ``Reweighted``.
    base : the potential to reweight (default: ``FenchelYoung()``).
    """

    def __init__(self, gamma: Sequence[float | Tensor], base: Potential | None = None):
        self.potential = Reweighted(gamma, base)

    def __call__(self, net, z, other):
        return self.potential(net, z)

    def check(self, objective, net, x, loss):
        AROVR(objective.beta, potential=self._scaled(objective)).check_beta(net, loss.curvature)
        objective.potential.check(net)

    def maximise(self, objective, net, x, loss):
        energy = Energy(self._scaled(objective), -objective.beta * loss)
        adversary, report = infer(net, x, energy, solver=objective.solver)
        U = objective.potential
        nominal = (net.activations(x) if U.minimum_is_zero
                   else infer(net, x, Energy(U, Loss()), solver=objective.solver)[0])
        return (adversary, nominal), report

    def _scaled(self, objective: GeneralizedAROVR) -> Reweighted:
        return Reweighted([objective.weight * entry for entry in self.potential.gamma],
                          self.potential.base)

    def __repr__(self):
        return f"PotentialDistance({list(self.potential.gamma)}, {self.potential.base!r})"


class _UserDistance(Distance):
    """A function d(z, z′) of the user's, checked before it is used."""

    def __init__(self, function: DistanceFunction):
        self.function = function

    def __call__(self, net, z, other):
        return self.function(z, other)

    def check(self, objective, net, x, loss):
        """d(z, z) = 0 at the forward pass and near it, with one value and slope a sample."""
        super().check(objective, net, x, loss)
        joint = _Joint(objective, self, net, x, loss)
        with torch.no_grad():
            forward = joint.pack(net.activations(x))
        noise = torch.randn(forward[:, ::2].shape, generator=torch.Generator().manual_seed(0))
        half = forward.shape[1] // 2
        elsewhere = forward[:, :half] + noise.to(forward)
        for name, v in (("the forward pass", forward),
                        ("random activations", joint.inside(elsewhere.repeat(1, 2)))):
            d = self(net, *joint.unpack(v))
            if d.shape != (len(x),):
                raise ValueError(f"distance has shape {tuple(d.shape)}; expected ({len(x)},), one "
                                 "value a sample")
            if not (d.abs() <= 1e-9 * (1 + v.square().sum(-1))).all():
                worst = d[d.abs().argmax()].item()
                raise ValueError(f"distance d(z, z)={worst:g} at {name}; it must be 0 for "
                                 "Proposition 3.1 to hold (PotentialDistance is eq. 15)")
        if not joint.slope(forward)[1].isfinite().all():
            raise ValueError("distance has no finite gradient at d(z, z): smooth it there")

    def __repr__(self):
        return getattr(self.function, "__name__", repr(self.function))


def _free(net: LiftedNetwork) -> bool:
    """Whether the output layer ranges over all real numbers."""
    G = net.function(net.depth)
    return math.isinf(G.lower) and math.isinf(G.upper)


class _Joint:
    """The energy of (10) as a function of one float64 matrix v = [z⁻, z*], (batch, 2·Σd_k)."""

    def __init__(self, objective: GeneralizedAROVR, distance: Distance, net: LiftedNetwork,
                 x: Tensor, loss: Loss):
        self.net, self.x = copy.deepcopy(net).double().requires_grad_(False), x.double()
        self.terms = objective.energy, distance, loss
        # Just inside the range: the slope of Tanh's G is infinite at its ends.
        ends = [(G.lower + 1e-12, G.upper - 1e-12)
                for G, size in zip(net.functions, net.sizes[1:]) for _ in range(size)]
        self.lower, self.upper = torch.tensor(ends * 2, dtype=torch.float64, device=x.device).T

    def pack(self, z: Activations) -> Tensor:
        """v with both copies at z."""
        return self.inside(torch.cat([*z[1:], *z[1:]], 1).double())

    def inside(self, v: Tensor) -> Tensor:
        """The nearest v within the range of the layers."""
        return v.clamp(self.lower, self.upper)

    def unpack(self, v: Tensor, like: Tensor | None = None) -> Pair:
        """(z⁻, z*), in the type of ``like``."""
        x, v = (self.x, v) if like is None else (like, v.to(like))
        z, depth = v.split(self.net.sizes[1:] * 2, 1), self.net.depth
        return [x, *z[:depth]], [x, *z[depth:]]

    def energy(self, v: Tensor) -> Tensor:
        """The energy, shape (batch,)."""
        energy, distance, loss = self.terms
        return energy(self.net, distance, loss, *self.unpack(v))

    @torch.enable_grad()
    def slope(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """The energy and its gradient in v."""
        v = v.detach().requires_grad_()
        energy = self.energy(v)
        return energy.detach(), torch.autograd.grad(energy.sum(), v)[0]

    def descend(self, v: Tensor) -> tuple[Tensor, int]:
        """A local minimum from v and the iterations taken; no sample ends above its start."""
        start = self.energy(v).detach()
        # Below this floor no finite maximum is plausible; the line search gets there fast.
        floor = -1e8 * (1 + start.abs())

        def fun(flat):
            energy, gradient = self.slope(torch.from_numpy(flat).to(v).view_as(v))
            lost = ~(energy > floor) | ~gradient.isfinite().all(1)
            if lost.any():
                raise InferenceDiverged(f"{int(lost.sum())} of {len(lost)} samples ran away: lower "
                                        "beta, or raise the distance's weight")
            return energy.sum().item(), gradient.flatten().cpu().numpy()

        rows = len(v)
        bounds = list(zip(self.lower.repeat(rows).tolist(), self.upper.repeat(rows).tolist()))
        found = minimize(fun, v.flatten().cpu().numpy(), jac=True, method="L-BFGS-B", bounds=bounds,
                         options={"maxiter": 5000, "maxfun": 20000, "ftol": 1e-15, "gtol": 1e-9})
        end = torch.from_numpy(found.x).to(v).view_as(v)
        return torch.where((self.energy(end) < start)[:, None], end, v), found.nit

    def report(self, v: Tensor, passes: int) -> Report:
        """How far a projected gradient step would move v, against the same at z⁻ = z* = forward."""
        def residual(v):
            return (self.inside(v - self.slope(v)[1]) - v).norm(dim=1)

        first, last = residual(self.pack(self.net.activations(self.x))), residual(v)
        floor = 1e-8 * (1 + v.norm(dim=1))
        return Report(passes, last.to(self.x), last <= (1e-4 * first).maximum(floor))


@dataclass(frozen=True)
class Certificate:
    """What a call of ``ConstrainedAROVR`` knows about (7), one entry a sample, (batch,).

    beta : the multiplier 1/β's β; 0 where the budget was too small to find one.
    energy : U(z; x) ≤ δ of the activations found.
    lower : ℓ(z) there, a lower bound of (7).
    upper : the least AROVR_β + δ/β over the β tried (weak duality): an upper bound where
        inference found AROVR's global maximum. Infinite where the search ran into the
        largest β allowed without using up δ, for there AROVR may be unbounded unnoticed.
    """

    beta: Tensor
    energy: Tensor
    lower: Tensor
    upper: Tensor

    @property
    def gap(self) -> Tensor:
        """upper − lower ≥ 0: how much non-convexity and inference leave open."""
        return self.upper - self.lower

    def __str__(self) -> str:
        known = self.upper.isfinite()
        worst = f"{self.gap[known].max():.1e}" if known.any() else "unknown"
        return (f"largest gap {worst}; no upper bound for {int((~known).sum())} of "
                f"{len(known)} samples")


class ConstrainedAROVR(Objective):
    """max ℓ(z) subject to U(z; x) ≤ δ, Zach (2025), eq. (7).

    For every sample the multiplier 1/β is found by bisection: AROVR_β's optimum z_β spends
    more energy U(z_β; x) the larger β is. The value is ℓ(z) at the largest β whose z_β is
    within δ. z is feasible by construction, so the value never exceeds (7). Its gradient
    is −(1/β)·∂U/∂θ at z; where no β was found it is ℓ(z*), with back-propagation's.

    U is not jointly convex. Then U(z_β; x) may jump over δ as β grows, and inference may
    miss the global optimum: a gap remains, reported sample by sample in ``certificate``
    (and ½(‖z_L* − y‖ + √(2κδ))², κ the bracket of eq. (19), bounds (7) in any case).
    Past the border of stability AROVR_β is infinite; the search stops short of it, at an
    inference that did not converge or ran away. With a large δ the budget is then not used
    up (``certificate.energy`` < δ) and the gap is wide.

    After a call, ``certificate`` and ``activations`` (z, feasible) describe the result.

    Parameters
    ----------
    delta : δ > 0, the energy that the adversary may spend on each sample.
    steps : bisections of log β, between 1e-9 and 0.999 of the largest β allowed, γ_L/∇²ℓ
        (1e6 for a loss without curvature).
    solver : default ``Sweeps(tolerance=1e-6, max_passes=200)``.
    """

    certificate: Certificate | None = None
    activations: Activations | None = None

    def __init__(self, delta: float, loss: LossFamily = Euclidean,
                 potential: Potential | None = None, solver: Solver | None = None,
                 steps: int = 32):
        super().__init__(loss)
        self.delta, self.steps = positive("delta", delta), steps
        self.potential = FenchelYoung() if potential is None else potential
        if not self.potential.minimum_is_zero:
            raise ValueError(f"{self.potential!r} is not zero on the forward pass: (7) needs min U = 0")
        self.solver = solver or Sweeps(tolerance=1e-6, max_passes=200)

    def value(self, net, x, target):
        self.potential.check(net)
        z, self.certificate, self.report = self._search(net, x.detach(), target)
        self.activations, beta = z, self.certificate.beta
        U = self.potential(net, [x, *z[1:]])
        found = beta > 0
        envelope = (U.detach() - U) / torch.where(found, beta, 1.0)
        loss = self.loss(target)
        return torch.where(found, loss(z[-1]) + envelope, loss(net(x)))

    @torch.no_grad()
    def _search(self, net: LiftedNetwork, x: Tensor, target: Tensor):
        """Bisect log β, all samples at once; keep the last feasible z of each."""
        q = self.loss(target).curvature
        largest = 0.999 * self.potential.weight(net.depth) / q if q > 0 else 1e6
        low, high = x.new_full((len(x),), 1e-9 * largest), x.new_full((len(x),), largest)
        best, upper = net.activations(x), x.new_full((len(x),), math.inf)
        beta, energy, residual = x.new_zeros(3, len(x))
        passes = 0
        for _ in range(self.steps):
            middle = (low * high).sqrt()
            z, report = self._infer(net, x, target, middle)
            passes += report.passes
            U, loss = self.potential(net, z), self.loss(target)(z[-1])
            dual = loss + (self.delta - U) / middle
            upper = torch.where(report.converged, upper.minimum(dual), upper)
            fits = report.converged & (U <= self.delta)
            low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
            best = [torch.where(fits[:, None], new, old) for new, old in zip(z, best)]
            beta, energy = torch.where(fits, middle, beta), torch.where(fits, U, energy)
            residual = torch.where(fits, report.residual, residual)
        upper[high == largest] = math.inf
        certificate = Certificate(beta, energy, self.loss(target)(best[-1]), upper)
        return best, certificate, Report(passes, residual, beta > 0)

    def _infer(self, net: LiftedNetwork, x: Tensor, target: Tensor,
               beta: Tensor) -> tuple[Activations, Report]:
        """AROVR_β's activations; a sample that runs away stays put and is not converged."""
        try:
            energy = Energy(self.potential, -beta[:, None] * self.loss(target))
            return infer(net, x, energy, solver=self.solver)
        except InferenceDiverged:
            if len(x) == 1:
                return net.activations(x), Report(0, x.new_full((1,), math.inf),
                                                  torch.zeros(1, dtype=torch.bool, device=x.device))
        halves = [self._infer(net, *part) for part in
                  zip(*(t.tensor_split(2) for t in (x, target, beta)))]
        z = [torch.cat(parts) for parts in zip(*(z for z, _ in halves))]
        reports = [report for _, report in halves]
        return z, Report(max(r.passes for r in reports), torch.cat([r.residual for r in reports]),
                         torch.cat([r.converged for r in reports]))

    def __repr__(self):
        return f"ConstrainedAROVR(delta={self.delta:g})"
