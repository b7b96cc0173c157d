"""AROVR with any distance in place of the network potential, Zach (2025), eq. (10).

AROVR ties the adversarial region to the potential U. Here a distance d_γ(z⁻, z*) shapes
it. Two distances bring (10) back to AROVR (``ElementWise``, ``PotentialDistance``); with
any other, both z⁻ and z* are found by a quasi-Newton method.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from . import envelope
from .checks import no_transforms, positive
from .inference import InferenceDiverged, Report, infer
from .inference.iterate import Solver
from .kinds import described, expect_function
from .losses import Euclidean, Loss, LossFamily, largest, loss_of
from .network import Activations, LiftedNetwork
from .objectives import AROVR, LiftedObjective
from .potentials import Energy, Potential, Reweighted

Pair = tuple[Activations, Activations]
DistanceFunction = Callable[[Activations, Activations], Tensor]


class GeneralizedAROVR(LiftedObjective):
    """max over z⁻, z* of ℓ(z⁻) − (λ/β)·d_γ(z⁻, z*) − U(z*; x)/β, Zach (2025), eq. (10).

    The Lagrangian form of (9): the adversary z⁻ stays near the nominal activations z*, in
    a region shaped by d_γ, and z* near the forward pass. Both range over the domain of U
    (for Fenchel–Young, what the layers can output). If d_γ(z, z) = 0 for all z, the value
    is at least AROVR_β (Proposition 3.1). For a tilted U, min U/β is added as in (6).

    Args:
        beta: β > 0.
        distance: ``ElementWise(gamma)`` (12), ``PotentialDistance(gamma)`` (15), or your own
            function d(z, z′) of two activation lists that returns one value per sample, shape
            (batch,), differentiable in torch. Tensors that it holds, a learned γ say, get their
            gradient too.
        weight: λ > 0, the weight of the distance.
        loss: a function of the targets that returns a Loss (default: ``Euclidean``).
        potential: U (default: ``FenchelYoung()``).
        solver: what infers where (10) is an AROVR (default: ``Shooting()``).

    Raises:
        ValueError: β too large for the distance; d(z, z) ≠ 0 or a wrong shape (from a call, before
            any computing).
        InferenceDiverged: the maximum is, or looks, infinite.

    Attributes:
        activations: (z⁻, z*) of the last call.
    """

    activations: Pair | None = None

    def __init__(self, beta: float, distance: Distance | DistanceFunction, weight: float = 1.0, *,
                 loss: LossFamily = Euclidean, potential: Potential | None = None,
                 solver: Solver | None = None):
        super().__init__(beta, loss, potential, solver)
        self.distance = distance if isinstance(distance, Distance) else _UserDistance(distance)
        self.weight = positive("weight", weight)

    def value(self, net, x, target):
        no_transforms()
        loss = loss_of(self.loss, target)
        Energy(self.potential, loss).check_shapes(net, len(x))
        self.distance.check(self, net, x.detach(), loss)
        rest = 0.0 if self.potential.minimum_is_zero else self._rest(net, x)
        with torch.no_grad():
            pair, self.report = self.distance.maximise(self, net, x.detach(), loss)
        self.activations = pair
        adversary, nominal = ([x, *z[1:]] for z in pair)
        return envelope.once(rest - self.energy(net, loss, adversary, nominal)) / self.beta

    def _rest(self, net: LiftedNetwork, x: Tensor) -> Tensor:
        """min_z U(z; x), shape (batch,)."""
        energy = Energy(self.potential, Loss())
        energy.check(net, len(x))
        return envelope.minima(net, x, self._infer(net, x, energy), self.potential)[0]

    def energy(self, net: LiftedNetwork, loss: Loss, adversary: Activations,
               nominal: Activations) -> Tensor:
        """U(z*; x) + λ·d_γ(z⁻, z*) − β·ℓ(z⁻): what is minimised, shape (batch,)."""
        distance = self.distance(net, adversary, nominal)
        return (self.potential(net, nominal) + self.weight * distance
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
        objective.check_beta(net, loss)

    def maximise(self, objective: GeneralizedAROVR, net: LiftedNetwork, x: Tensor,
                 loss: Loss) -> tuple[Pair, Report]:
        """(z⁻, z*) by L-BFGS-B from two starts, the better end point of each sample.

        Both copies start at the forward pass, then both at AROVR's optimum. No end point
        is worse than its start, so that Proposition 3.1 holds by construction.
        """
        energy = Energy(objective.potential, -objective.beta * loss)
        adversary, _ = infer(net, x, energy, solver=objective.solver)
        joint = _Joint(objective, net, x, loss)
        (one, passes), (two, more) = (joint.descend(joint.pack(z))
                                      for z in (net.activations(x), adversary))
        best = torch.where((joint.energy(two) < joint.energy(one))[:, None], two, one)
        return joint.unpack(best, like=x), joint.report(best, passes + more, like=x)


class ElementWise(Distance):
    """d_γ(z, z′) = Σ_k γ_k‖z_k − z′_k‖², Zach (2025), eq. (12); no factor ½.

    Only the output feels the loss, so z_k⁻ = z_k* below it and, with ∇²ℓ = q,

        z_L⁻ = z_L* + β∇ℓ(z_L*)/(2λγ_L − βq),

    which leaves max_z c·ℓ(z) − U(z; x)/β with c = 2λγ_L/(2λγ_L − βq), eq. (13): AROVR
    with a larger loss, c·AROVR_{cβ}. Finite only for 2λγ_L > βq and cβq < γ_L of U.
    (Where the domain of z_L has an end, z⁻ may stop there, and with cross-entropy there is no such
    formula: both are then found jointly.)

    Args:
        gamma: L positive entries, each a number or a tensor of shape (d_k,), as ``Reweighted``.
    """

    def __init__(self, gamma: Sequence[float | Tensor]):
        self.weighted = Reweighted(gamma)

    def __call__(self, net, z, other):
        return sum((gamma * (z_k - other_k).square()).sum(-1)
                   for gamma, z_k, other_k in zip(self.weighted.gamma, z[1:], other[1:]))

    def check(self, objective, net, x, loss):
        self.weighted.check(net)
        if not loss.is_quadratic or all(map(math.isfinite, self._ends(objective, net))):
            return super().check(objective, net, x, loss)
        bound, q = 2 * objective.weight * self.weighted.curvature(net.depth), loss.curvature
        steepest = largest(q)
        if not objective.beta * steepest < bound:
            raise ValueError(f"beta={objective.beta:g} must be below 2*weight*gamma_L"
                             f"{'' if steepest == 1 else f'/{steepest:g}'}={bound / steepest:g} of "
                             "the distance, or z⁻ runs to infinity (Zach 2025, eq. 13)")
        objective.check_beta(net, (bound / (bound - objective.beta * q)) * loss)

    def maximise(self, objective, net, x, loss):
        if not loss.is_quadratic or any(map(math.isfinite, self._ends(objective, net))):
            return super().maximise(objective, net, x, loss)
        bound = 2 * objective.weight * self.weighted.gamma[-1]
        left = bound - objective.beta * loss.curvature
        energy = Energy(objective.potential, -objective.beta * (bound / left) * loss)
        z, report = infer(net, x, energy, solver=objective.solver)
        return ([*z[:-1], z[-1] + objective.beta * loss.gradient(z[-1]) / left], z), report

    @staticmethod
    def _ends(objective: GeneralizedAROVR, net: LiftedNetwork) -> tuple[float, float]:
        return objective.potential.domain(net.function(net.depth))

    def __repr__(self):
        return f"ElementWise({list(self.weighted.gamma)})"


class PotentialDistance(Distance):
    """d_γ(z, z*) = U^⊙γ(z; x), Zach (2025), eq. (15): AROVR in another geometry, eq. (16).

    z* no longer enters the distance: it is the forward pass, and the value is AROVR_β with
    the potential λU^⊙γ. Finite only for β < λγ_L. Here d_γ(z, z) = U^⊙γ(z; x) is zero at the
    forward pass only, which is not what Proposition 3.1 assumes: the value is at least
    AROVR_β if all λγ_k ≤ 1, but at most AROVR_β if all λγ_k ≥ 1.

    Args:
        gamma: as for ``Reweighted``.
        base: the potential to reweight (default: ``FenchelYoung()``).
    """

    def __init__(self, gamma: Sequence[float | Tensor], base: Potential | None = None):
        self.potential = Reweighted(gamma, base)

    def __call__(self, net, z, other):
        return self.potential(net, z)

    def check(self, objective, net, x, loss):
        AROVR(objective.beta, potential=self._scaled(objective)).check_beta(net, loss)
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
        self.function = expect_function(
            "distance", function, "ElementWise(gamma), PotentialDistance(gamma) or a function of "
            "two activation lists")

    def __call__(self, net, z, other):
        return self.function(z, other)

    def check(self, objective, net, x, loss):
        """d(z, z) = 0 at the forward pass and near it; one value per sample; a gradient."""
        super().check(objective, net, x, loss)
        joint = _Joint(objective, net, x, loss)
        with torch.no_grad():
            forward = joint.pack(net.activations(x))
        one = forward[:, :forward.shape[1] // 2]
        noise = torch.randn(one.shape, generator=torch.Generator("cpu").manual_seed(0),
                            device="cpu").to(one)
        for where, v in (("the forward pass", forward),
                         ("random activations", joint.inside((one + noise).repeat(1, 2)))):
            d = self(net, *joint.unpack(v))
            if not isinstance(d, Tensor) or d.shape != (len(x),):
                shape = f"has shape {tuple(d.shape)}" if isinstance(d, Tensor) else (
                    f"returns {described(d)}")
                raise ValueError(f"distance {shape}; expected ({len(x)},), one value per sample")
            if not (d.abs() <= 1e-9 * (1 + v.square().sum(1))).all():
                worst = d[d.abs().argmax()].item()
                raise ValueError(f"distance d(z, z)={worst:g} at {where} must be 0, or Proposition "
                                 "3.1 need not hold (for eq. 15 use PotentialDistance)")
        if not joint.slope(forward)[1].isfinite().all():
            raise ValueError("distance has no finite gradient at d(z, z): smooth it there")

    def __repr__(self):
        return getattr(self.function, "__name__", repr(self.function))


class _Joint:
    """The energy of (10) as a function of one float64 matrix v = [z⁻, z*], (batch, 2·Σd_k)."""

    def __init__(self, objective: GeneralizedAROVR, net: LiftedNetwork, x: Tensor, loss: Loss):
        with torch.no_grad():  # no gradient to the weights from here
            self.net, self.x = net.fixed(torch.float64), x.double()
        self.objective, self.loss = objective, loss
        ends = [objective.potential.domain(G)
                for G, size in zip(net.functions, net.sizes[1:]) for _ in range(size)]
        lower, upper = torch.tensor(ends * 2, dtype=torch.float64, device=x.device).T
        # Just inside the domain: the slope of Tanh's G is infinite at its ends.
        self.lower, self.upper = lower + 1e-12, upper - 1e-12

    def pack(self, z: Activations) -> Tensor:
        """v with both copies at z."""
        return self.inside(torch.cat([*z[1:], *z[1:]], 1).double())

    def inside(self, v: Tensor) -> Tensor:
        """The nearest v within the domain of U."""
        return v.clamp(self.lower, self.upper)

    def unpack(self, v: Tensor, like: Tensor | None = None) -> Pair:
        """(z⁻, z*), in the type of ``like``."""
        x, v = (self.x, v) if like is None else (like, v.to(like))
        z, depth = v.split(self.net.sizes[1:] * 2, 1), self.net.depth
        return [x, *z[:depth]], [x, *z[depth:]]

    def energy(self, v: Tensor) -> Tensor:
        """The energy, shape (batch,)."""
        return self.objective.energy(self.net, self.loss, *self.unpack(v))

    @torch.enable_grad()
    def slope(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """The energy and its gradient in v."""
        v = v.detach().requires_grad_()
        energy = self.energy(v)
        return energy.detach(), torch.autograd.grad(energy.sum(), v)[0]

    def descend(self, v: Tensor) -> tuple[Tensor, int]:
        """A local minimum from v and the iterations taken; no sample ends above its start."""
        from scipy.optimize import minimize  # takes a third of torch's time to import

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

    def report(self, v: Tensor, passes: int, like: Tensor) -> Report:
        """How far a projected gradient step would move v, and would move the forward pass."""
        def residual(v):
            return (self.inside(v - self.slope(v)[1]) - v).norm(dim=1)

        first, last = residual(self.pack(self.net.activations(self.x))), residual(v)
        floor = 1e-8 * (1 + v.norm(dim=1))
        converged = last <= (1e-4 * first).maximum(floor)
        gap = 0.5 * last.square() / self.energy(v).abs().clamp_min(floor**2)
        return Report(passes, gap.to(like), converged, torch.zeros_like(converged))
