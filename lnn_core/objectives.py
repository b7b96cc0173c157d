"""Training objectives, one class per equation.

Every objective is made of one thing, the minimum of the network potential plus a loss,

    m(h) = min_z U(z; x) + h(z_L),

evaluated for two choices of h: see each class. The gradient needs no differentiation
through the minimiser (envelope theorem): z is inferred without autograd, then the energy
is evaluated at that z with autograd on the weights (and on x, if it asks for it).

    loss = AROVR(beta=0.25)
    loss(net, x, y).backward()
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from . import envelope
from .bounds import stability_threshold
from .checks import (
    as_targets,
    check_double,
    check_reduction,
    no_transforms,
    own_precision,
    positive,
    prepared,
)
from .inference import Report, checked_solver, minimise
from .inference.iterate import Solver
from .losses import Euclidean, Loss, LossFamily, checked_family, loss_of
from .network import LiftedNetwork
from .potentials import Energy, FenchelYoung, LeastSquares, Potential, checked_potential, innermost

#: With the default solver, inference that took at most this many passes has converged: its
#: border need not be checked.
SHORT = 10
#: Errors e_k are about β, and rounding moves them by eps: single precision serves for β above
#: the square root of its eps, double precision for all above the second number.
SINGLE, DOUBLE = math.sqrt(torch.finfo(torch.float32).eps), 1e-12


class StabilityWarning(UserWarning):
    """Samples' energies have no minimum, or inference cannot find it and β is beyond the border.

    The latter is checked only where inference took more than ``SHORT`` passes.
    """


class Objective(ABC):
    """A training loss: call it with a network, inputs and labels (or targets).

    Results of the last call are attributes, so that an objective is not re-entrant.

    Autocasting is off inside, and for networks in half precision all is computed in float32,
    which is then the type of the value. Second derivatives and ``torch.func`` are not
    supported. For (Distributed)DataParallel wrap a module whose forward is the loss:

        class Training(nn.Module):
            def __init__(self, net, objective):
                super().__init__()
                self.net, self.objective = net, objective

            def forward(self, x, y):
                return self.objective(self.net, x, y)

    Args:
        loss: a function of the targets that returns a Loss (default: ``Euclidean``).

    Attributes:
        report: the inference report of the last call (None where nothing is inferred); where the
            value is the difference of two minima it has twice as many rows, those of m(h) first.
    """

    report: Report | None = None

    def __init__(self, loss: LossFamily = Euclidean):
        self.loss = checked_family(loss)

    @own_precision
    def __call__(self, net: LiftedNetwork, x: Tensor, y: Tensor,
                 reduction: str = "mean") -> Tensor:
        """The objective's value, differentiable in the network's parameters.

        Args:
            net: the network, a LiftedNetwork.
            x: shape (batch, d_0), or a batch of samples of ``net.input_shape``; of the network's dtype.
            y: integer labels of shape (batch,), or targets of shape (batch, d_L).
            reduction: ``"mean"`` over the batch, or ``"none"`` for one value per sample.

        Raises:
            TypeError: an argument of another kind.
            ValueError: input that does not fit, or β too large, before any computing.
        """
        check_reduction(reduction)
        net, x = prepared(net, x)
        dtype = self.precision(x.dtype)
        if dtype == torch.float64 != x.dtype:
            check_double(x.device, repr(self))
        target = as_targets(net, x, y).to(dtype)
        values = self.value(net.fixed(dtype), x.to(dtype), target).to(x.dtype)
        return values.mean() if reduction == "mean" else values

    def precision(self, dtype: torch.dtype) -> torch.dtype:
        """What to compute in for a network of this dtype."""
        return dtype

    @abstractmethod
    def value(self, net: LiftedNetwork, x: Tensor, target: Tensor) -> Tensor:
        """One value per sample, shape (batch,), for checked input."""


class BackPropagation(Objective):
    """ℓ(z*) at the forward pass z*: what every other objective becomes as β → 0."""

    def value(self, net, x, target):
        loss = loss_of(self.loss, target)
        loss.check(net, len(x))
        return loss(net(x))

    def __repr__(self):
        return "BackPropagation()"


class _Alerts:
    """What the inferences of one call say about stability."""

    def __init__(self) -> None:
        self.infinite = self.beyond = 0.0  # the largest shares of a batch

    def add(self, net: LiftedNetwork, x: Tensor, energy: Energy, report: Report) -> None:
        """Note the share without a minimum, and the share unsettled and beyond 1/λ_max(K)."""
        if report.settled:
            return
        self.infinite = max(self.infinite, int(report.infinite.sum()) / len(x))
        if report.passes > SHORT and (unsettled := ~(report.converged | report.infinite)).any():
            beyond = unsettled & _beyond_border(net, x, energy)
            self.beyond = max(self.beyond, int(beyond.sum()) / len(x))

    def text(self, beta: float) -> str | None:
        """The warning, if any; shares in steps of 10 %, so that a training run does not flood."""
        share = max(self.infinite, self.beyond)
        if not share:
            return None
        why = ("the objective is infinite there (along a direction found for one sample the energy "
               "is unbounded below, and such directions depend on the weights alone): "
               if self.infinite else "")
        return (f"beta={beta:g} is beyond the border of stability for up to "
                f"{10 * math.ceil(10 * share)} % of a batch: {why}their values are lower bounds; "
                "lower beta or raise gamma (bounds.stability_threshold)")


def _beyond_border(net: LiftedNetwork, x: Tensor, energy: Energy) -> Tensor | bool:
    """Whether no local optimum next to the forward pass is left, after ``stability_threshold``."""
    U, gamma = innermost(energy.potential)
    if not (isinstance(U, (FenchelYoung, LeastSquares)) and energy.output.is_quadratic):
        return False
    push = -1.0 * energy.output.curvature
    return stability_threshold(net, x, gamma, base=U, curvature=push) < 1


def above_rounding(name: str, value: float) -> float:
    """The value; ValueError where differences of energies drown in rounding errors."""
    if value < DOUBLE:
        raise ValueError(f"{name}={value:g} must be at least {DOUBLE:g}: below, rounding errors "
                         "exceed what inference changes (the limit is BackPropagation())")
    return value


class LiftedObjective(Objective):
    """What the objectives with a potential have in common: β ≥ 1e-12, U, and m(h).

    For β (αβ) below 3.5e-4 a float32 network is computed with in float64. In float64 rounding
    moves the gradient by about 2e-16/β of itself.

    Args:
        beta: β ≥ 1e-12, the weight of the loss beside the potential.
        loss: a function of the targets that returns a Loss (default: ``Euclidean``).
        potential: U (default: ``FenchelYoung()``).
        solver: what infers (default: ``Shooting()``).

    Raises:
        ValueError: β that is not positive and finite, or below 1e-12.
        TypeError: an argument of another kind.
    """

    def __init__(self, beta: float, loss: LossFamily = Euclidean,
                 potential: Potential | None = None, solver: Solver | None = None):
        super().__init__(loss)
        self.beta = above_rounding("beta", positive("beta", beta))
        self.potential = checked_potential(potential)
        self.solver = checked_solver(solver)
        self._alerts = _Alerts()

    @property
    def strength(self) -> float:
        """The size of what two energies differ by."""
        return self.beta

    def precision(self, dtype):
        return dtype if self.strength > SINGLE else torch.float64

    def minimum(self, net: LiftedNetwork, x: Tensor, U: Potential, h: Loss) -> Tensor:
        """m(h) = min_z U(z; x) + h(z_L), (batch,), with its envelope gradient."""
        energy = Energy(U, h)
        energy.check(net, len(x))
        return self._minima(net, x, energy)[0]

    def minima(self, net: LiftedNetwork, x: Tensor, U: Potential, h: Loss,
               change: Loss) -> tuple[Tensor, Tensor]:
        """m(h) and m(h + change), (batch,) each: one inference of a batch of twice the size."""
        for output in (h, h + change):
            Energy(U, output).check(net, len(x))
        rows = torch.arange(len(x), device=x.device).repeat(2)
        second = x.new_tensor([[0.0], [1.0]]).repeat_interleave(len(x), 0)
        energy = Energy(U.take(rows), h.take(rows) + second * change.take(rows))
        first, last = self._minima(net, x, energy, rows)
        return first, last

    def rest_and_minimum(self, net: LiftedNetwork, x: Tensor, U: Potential,
                         h: Loss) -> tuple[Tensor | float, Tensor]:
        """m(0), which is 0 unless U is tilted (eq. 6), and m(h)."""
        if U.minimum_is_zero:
            return 0.0, self.minimum(net, x, U, h)
        return self.minima(net, x, U, Loss(), h)

    def _minima(self, net: LiftedNetwork, x: Tensor, energy: Energy,
                rows: Tensor | None = None) -> Tensor:
        no_transforms()
        end, self.report = minimise(net, x.detach(), energy, self.solver, rows)
        self._alerts.add(net, end.z[0], energy, self.report)
        return envelope.minima(net, x, end)

    def __call__(self, net: LiftedNetwork, x: Tensor, y: Tensor,
                 reduction: str = "mean") -> Tensor:
        if isinstance(y, Tensor) and y.requires_grad and torch.is_grad_enabled():
            raise ValueError("gradients in the targets are not supported: pass y.detach()")
        self._alerts = _Alerts()
        values = super().__call__(net, x, y, reduction)
        if text := self._alerts.text(self.beta):
            warnings.warn(text, StabilityWarning, stacklevel=2)
        return values

    def check_beta(self, net: LiftedNetwork, h: Loss) -> None:
        """ValueError unless U − β·h is strictly convex in z_L."""
        self.potential.check(net)
        curvature = h.curvature_bounds[1]
        gamma = self.potential.curvature(net.depth)
        if not self.beta * curvature < gamma:
            bound = gamma / curvature
            why = ("the adversary drives the output to infinity (Zach 2025, section 3.1)" if h.is_quadratic
                   else "the output layer's problem may have several solutions")
            raise ValueError(f"beta={self.beta:g} must be below gamma_L"
                             f"{'' if curvature == 1 else f'/{curvature:g}'}={bound:g}, or {why}")


class ROVR(LiftedObjective):
    """ROVR_β = min_z ℓ(z) + U(z; x)/β = (m(βℓ) − m(0))/β ≤ ℓ(z*).

    Zach (2025), section 2.2; contrastive form eq. (6). β > 0 may be as large as you like.

    Args:
        beta: β ≥ 1e-12.
        loss: a function of the targets that returns a Loss (default: ``Euclidean``).
        potential: U (default: ``FenchelYoung()``).
        solver: what infers (default: ``Shooting()``).
    """

    def value(self, net, x, target):
        U, loss = self.potential, loss_of(self.loss, target)
        rest, helped = self.rest_and_minimum(net, x, U, self.beta * loss)
        return (helped - rest) / self.beta  # eq. (6)

    def __repr__(self):
        return f"ROVR(beta={self.beta:g})"


class AROVR(LiftedObjective):
    """AROVR_β = max_z ℓ(z) − U(z; x)/β = (m(0) − m(−βℓ))/β ≥ ℓ(z*).

    Zach (2025), eq. (8), and eq. (16) with ``potential=Reweighted(gamma)``. Adversarial
    training at every layer: to first order it adds (β/2)·Σ_k ‖∂ℓ/∂z_k‖²/γ_k to the loss
    (least squares; for Fenchel–Young each unit's share counts f_k′(a_k) times).
    β must be below γ_L (1 by default). For linear networks the maximum is finite below
    ``bounds.stability_threshold``, 1/λ_max(K). For others that is the *near* border, where the
    local optimum next to the forward pass ceases to be one; whether the maximum is finite is
    a property of the weights alone, certain below ``bounds.safe_beta``. See ``report``.

    Args:
        beta: 1e-12 ≤ β < γ_L; a call raises ValueError for a larger one.
        loss: a function of the targets that returns a Loss (default: ``Euclidean``).
        potential: U (default: ``FenchelYoung()``).
        solver: what infers (default: ``Shooting()``).
    """

    def value(self, net, x, target):
        U, loss = self.potential, loss_of(self.loss, target)
        self.check_beta(net, loss)
        rest, attacked = self.rest_and_minimum(net, x, U, -self.beta * loss)
        return (rest - attacked) / self.beta  # eq. (8)

    def __repr__(self):
        return f"AROVR(beta={self.beta:g})"
