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
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from . import envelope
from .alerts import Alerts, StabilityWarning, level_of_the_caller
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
from .difference import Difference, first_value_and_gradients, value_and_gradients
from .inference import Report, Shooting, checked_solver, looked_over, minimise
from .inference.iterate import Iterate, Solver
from .losses import Euclidean, Loss, LossFamily, checked_family, loss_of
from .network import LiftedNetwork
from .potentials import Energy, Potential, checked_potential

#: Errors e_k are about β, and rounding moves them by eps: single precision serves for β above
#: the square root of its eps, double precision for all above the second number.
SINGLE, DOUBLE = math.sqrt(torch.finfo(torch.float32).eps), 1e-12


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

        What ``net.zero_grad()``, a call and ``backward()`` do, but x, γ and tilts get no gradient;
        arguments and errors as for a call. For (Distributed)DataParallel use a call and ``backward()``: no
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
        self._alerts = Alerts()

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
        self._alerts = Alerts()

    def _warn(self):
        if text := self._alerts.text(self.beta):
            warnings.warn(text, StabilityWarning, stacklevel=level_of_the_caller())

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


class DifferenceObjective(LiftedObjective):
    """The objectives that are a difference of two minima, ROVR, AROVR and their targeted variants.

    Arguments as for :class:`~lnn_core.AROVR`.
    """

    @abstractmethod
    def difference(self, net: LiftedNetwork, target: Tensor) -> Difference:
        """What the objective is for these targets, (batch, d_L)."""

    def value(self, net, x, target):
        difference = self._checked_difference(net, x, target)
        energy, rows = difference.energy(x)
        end = self._infer(net, x, energy, rows)
        return difference.of(envelope.minima(net, x, end, energy.potential))

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
