"""Training objectives, one class per equation.

Every objective is made of one thing, the minimum of the network potential plus a loss,

    m(h) = min_z U(z; x) + h(z_L),

evaluated for two choices of h: see each class. The gradient needs no differentiation
through the minimiser (envelope theorem): z is inferred without autograd, then the energy
is evaluated at that z with autograd on the weights (and on x, if it asks for it).

    loss = AROVR(beta=0.25)
    loss(net, x, y).backward()

or, faster, ``loss.gradients(net, x, y)``, which sets the gradients without an autograd graph.
"""

from __future__ import annotations

import math
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from . import envelope
from .bounds import stability_threshold
from .checks import (
    LEAST,
    as_targets,
    check_double,
    check_reduction,
    no_transforms,
    own_precision,
    positive,
    prepared,
)
from .inference import Report, Shooting, checked_solver, looked_over, minimise
from .inference.iterate import Iterate, Solver
from .inference.passes import FirstPass, first_pass_from_input
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
        checked = self._checked(net, x, y)
        self._start()
        values = self.value(*checked).to(torch.promote_types(x.dtype, LEAST))
        self._warn()
        return values.mean() if reduction == "mean" else values

    @own_precision
    def gradients(self, net: LiftedNetwork, x: Tensor, y: Tensor) -> Tensor:
        """The mean over the batch, and its gradient in every parameter's ``grad``.

        What ``net.zero_grad()``, a call and ``backward()`` do, but x gets no gradient; arguments
        and errors as for a call. For (Distributed)DataParallel use a call and ``backward()``: no
        gradient is seen by what synchronises replicas.
        """
        with torch.enable_grad():
            checked = self._checked(net, x, y)
        return self._gradients(*checked).to(torch.promote_types(x.dtype, LEAST))

    @own_precision
    def over(self, net: LiftedNetwork, x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
        """``gradients`` for mini-batches of these samples, which are checked once.

        Labels become one-hot targets of all samples at once.

        Returns:
            A function of the rows of x and y that a mini-batch is made of. It sees weights that an
            optimizer changes in place; make another one where modules or parameters are replaced.
        """
        with torch.enable_grad():
            fixed, inputs, target = self._checked(net, x, y)
        own = {id(tensor) for tensor in (*fixed.parameters(), *fixed.buffers())}
        if all(id(tensor) in own for tensor in fixed.tensors()):
            return lambda rows: self._gradients(fixed, inputs[rows], target[rows])
        # Weights are computed from parameters, in another precision or by one of torch's tools.
        return lambda rows: self.gradients(net, x[rows], y[rows])

    @own_precision
    def _gradients(self, net: LiftedNetwork, x: Tensor, target: Tensor) -> Tensor:
        """``gradients`` for checked input."""
        if not len(x):
            raise ValueError("no rows: a mini-batch has at least one sample")
        self._start()
        value = self._set_gradients(net, x.detach(), target)
        self._warn()
        return value

    def _set_gradients(self, net: LiftedNetwork, x: Tensor, target: Tensor) -> Tensor:
        with torch.enable_grad():
            value = self.value(net, x, target).mean()
            net.zero_grad()
            value.backward()
        return value.detach()

    def _start(self) -> None:
        """Forget what the last computation has come upon."""

    def _checked(self, net: LiftedNetwork, x: Tensor, y: Tensor) -> tuple[LiftedNetwork, Tensor, Tensor]:
        """The network, its input and targets, checked, and in the precision to compute in."""
        net, x = prepared(net, x)
        dtype = self.precision(x.dtype)
        if dtype == torch.float64 != x.dtype:
            check_double(x.device, repr(self))
        target = as_targets(net, x, y)
        return net.fixed(dtype), x.to(dtype), target.to(dtype)

    def _warn(self) -> None:
        """Warn of what the last computation has come upon."""

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


def _level_of_the_caller() -> int:
    """The ``stacklevel`` at which a warning points out of this package, and out of torch's wrappers."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in ("lnn_core", "torch"):
        level, frame = level + 1, frame.f_back
    return level


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

    def _infer(self, net: LiftedNetwork, x: Tensor, energy: Energy,
               rows: Tensor | None = None) -> Iterate:
        """Where the minima are, with what the inference says kept."""
        no_transforms()
        end, report = minimise(net, x.detach(), energy, self.solver, rows)
        self._note(net, energy, end, report)
        return end

    def _note(self, net: LiftedNetwork, energy: Energy, end: Iterate, report: Report) -> None:
        self.report = report
        self._alerts.add(net, end.z[0], energy, report)

    def _start(self):
        self._alerts = _Alerts()

    def _warn(self):
        if text := self._alerts.text(self.beta):
            warnings.warn(text, StabilityWarning, stacklevel=_level_of_the_caller())

    def _checked(self, net, x, y):
        if isinstance(y, Tensor) and y.requires_grad and torch.is_grad_enabled():
            raise ValueError("gradients in the targets are not supported: pass y.detach()")
        return super()._checked(net, x, y)

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


class Difference(NamedTuple):
    """factor·(m(h + change) − m(h)) with m(h) = min_z U(z; x) + h(z_L).

    Attributes:
        U: the potential.
        h: None for no loss: then m(h) is 0 unless U is tilted (eq. 6).
        change: what is added to h.
        factor: such as 1/β.
    """

    U: Potential
    h: Loss | None
    change: Loss
    factor: float

    @property
    def copies(self) -> int:
        """How many minima there are to find."""
        return 1 if self.h is None and self.U.minimum_is_zero else 2

    def check(self, net: LiftedNetwork, samples: int) -> None:
        """ValueError where the losses or U do not fit the network and a batch of this size."""
        for output in ([self.change] if self.copies == 1 else [self._h, self._h + self.change]):
            Energy(self.U, output).check(net, samples)

    @property
    def _h(self) -> Loss:
        return Loss() if self.h is None else self.h

    def energy(self, x: Tensor) -> tuple[Energy, Tensor | None]:
        """What to minimise, and for which rows of x: two minima are those of a batch of twice the size."""
        if self.copies == 1:
            return Energy(self.U, self.change), None
        h = self._h
        rows = torch.arange(len(x), device=x.device).repeat(2)
        second = torch.cat([x.new_zeros(len(x), 1), x.new_ones(len(x), 1)])
        return Energy(self.U.take(rows), h.take(rows) + self.change.take(rows).times(second)), rows

    def of(self, minima: Tensor) -> Tensor:
        """The values, (batch,), from the minima, (copies, batch)."""
        return self.factor * (minima[0] if self.copies == 1 else minima[1] - minima[0])

    def slopes(self, minima: Tensor) -> Tensor:
        """The derivatives of the values' mean in all minima, shape (copies, batch)."""
        samples = len(minima) // self.copies
        slope = self.factor / samples
        if self.copies == 1:
            return minima.new_tensor(slope).expand(1, samples)
        return minima.new_tensor([[-slope], [slope]]).expand(2, samples)


def value_and_gradients(net: LiftedNetwork, x: Tensor, difference: Difference,
                        end: Iterate) -> tuple[Tensor, list[Tensor | None]]:
    """The mean of the values at these minima, and its gradients in ``net.tensors()``."""
    return (difference.of(end.energy.view(difference.copies, -1)).mean(),
            envelope.gradients(net, x, end, difference.slopes(end.energy)))


def first_value_and_gradients(
        net: LiftedNetwork, x: Tensor,
        difference: Difference) -> tuple[Iterate, FirstPass, Tensor, list[Tensor | None]]:
    """A whole training step that needs no second pass, but for the optimizer: what is compiled."""
    start, first = first_pass_from_input(net, x, *difference.energy(x))
    return start, first, *value_and_gradients(net, x, difference, first.trial.iterate)


class DifferenceObjective(LiftedObjective):
    """The objectives that are a difference of two minima, ROVR, AROVR and their targeted variants.

    Arguments as for :class:`~lnn_core.AROVR`.
    """

    @abstractmethod
    def difference(self, net: LiftedNetwork, target: Tensor) -> Difference:
        """What the objective is for these targets, (batch, d_L)."""

    def value(self, net, x, target):
        difference = self._checked_difference(net, x, target)
        end = self._infer(net, x, *difference.energy(x))
        return difference.of(envelope.minima(net, x, end))

    def _set_gradients(self, net, x, target):
        if any(p._backward_hooks or p._post_accumulate_grad_hooks for p in net.parameters()):
            return super()._set_gradients(net, x, target)  # autograd calls them
        with torch.no_grad():
            difference = self._checked_difference(net, x, target)
            value, found = self._value_and_gradients(net, x, difference)
        with torch.enable_grad():
            envelope.assign(net, found)
        return value

    def _value_and_gradients(self, net: LiftedNetwork, x: Tensor,
                             difference: Difference) -> tuple[Tensor, list[Tensor | None]]:
        solver = self.solver
        if not (isinstance(solver, Shooting) and solver.compiled):
            end = self._infer(net, x, *difference.energy(x))
            return value_and_gradients(net, x, difference, end)
        no_transforms()
        start, first, value, found = solver.kernels(first_value_and_gradients, net, x, difference)
        if report := solver.enough(first):
            self.report = report
            return value, found
        energy, _ = difference.energy(x)
        end, report = solver.after(net, energy, start, first)
        self._note(net, energy, end, looked_over(net, energy, end, report))
        return value_and_gradients(net, x, difference, end)

    def _checked_difference(self, net: LiftedNetwork, x: Tensor, target: Tensor) -> Difference:
        difference = self.difference(net, target)
        difference.check(net, len(x))
        return difference


class ROVR(DifferenceObjective):
    """ROVR_β = min_z ℓ(z) + U(z; x)/β = (m(βℓ) − m(0))/β ≤ ℓ(z*).

    Zach (2025), section 2.2; contrastive form eq. (6). β > 0 may be as large as you like.

    Args:
        beta: β ≥ 1e-12.
        loss: a function of the targets that returns a Loss (default: ``Euclidean``).
        potential: U (default: ``FenchelYoung()``).
        solver: what infers (default: ``Shooting()``).
    """

    def difference(self, net, target):
        return Difference(self.potential, None, self.beta * loss_of(self.loss, target),
                          1 / self.beta)  # eq. (6)

    def __repr__(self):
        return f"ROVR(beta={self.beta:g})"


class AROVR(DifferenceObjective):
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

    def difference(self, net, target):
        loss = loss_of(self.loss, target)
        self.check_beta(net, loss)
        return Difference(self.potential, None, -self.beta * loss, -1 / self.beta)  # eq. (8)

    def __repr__(self):
        return f"AROVR(beta={self.beta:g})"
