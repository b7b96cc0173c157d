"""What LRRNs are trained on: the unsupervised loss (18) and the contrastive loss (21).

Both are minima of the energy, so that their gradients are partial derivatives of E at the
inferred activations, held fixed (envelope theorem). For layer k and with β = β_k they are

    ∂E/∂W = γ^{k−1} ( β z_k (Wᵀz_k − z_{k−1} − c)ᵀ − (z_k − W z_{k−1} − b) z_{k−1}ᵀ ),
    ∂E/∂b = −γ^{k−1} (z_k − W z_{k−1} − b),    ∂E/∂c = −γ^{k−1} β (Wᵀz_k − z_{k−1} − c),

which autograd works out here. (The gradient printed in section 4 of the paper has a wrong
index, a wrong sign and a missing transpose.)

    loss = Contrastive()
    loss(net, x, y).backward()
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from ..checks import check_input, check_reduction, not_negative
from ..kinds import expect
from .boxqp import QPReport, Solver, chosen
from .inference import clamped_target, solve_clamped
from .model import LRRN


class EnergyLoss(ABC):
    """A loss: call it with a network, inputs and, where it needs them, labels or targets.

    Args:
        solver: default ``SpectralDescent()``.

    Attributes:
        report: the inference report of the last call.
    """

    #: Whether y matters; where it does not, it need not fit the network.
    uses_targets = True

    def __init__(self, solver: Solver | None = None):
        self.solver = chosen(solver)
        self.report: QPReport | None = None

    def __call__(self, net: LRRN, x: Tensor, y: Tensor | None = None,
                 reduction: str = "mean") -> Tensor:
        """The mean over the batch, or with ``reduction="none"`` one value per sample.

        Differentiable in the network's parameters, and in x, once: the activations are held
        fixed. A second derivative (``create_graph=True``, which all of ``torch.func`` uses)
        raises RuntimeError; :meth:`~lnn_core.lrrn.LRRN.forward` has them.

        Raises:
            ValueError: input that does not fit, before any computing.
            TypeError: input of another kind, before any computing.
        """
        check_reduction(reduction)
        expect("net", net, LRRN, "an LRRN")
        check_input(net, x)
        values = _OnceDifferentiable.apply(self.value(net, x, y))
        return values.mean() if reduction == "mean" else values

    def over(self, net: LRRN, x: Tensor, y: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """A function of the rows of a mini-batch: its mean, with the gradient in every ``grad``."""
        def step(rows: Tensor) -> Tensor:
            value = self(net, x[rows], None if y is None else y[rows])
            net.zero_grad()
            value.backward()
            return value.detach()

        return step

    @abstractmethod
    def value(self, net: LRRN, x: Tensor, y: Tensor | None) -> Tensor:
        """One value per sample, shape (batch,)."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Unsupervised(EnergyLoss):
    """min_z E(z; x), eq. (18): how far x is from what the network can represent.

    Convex in x (Remark 3). y is ignored. Give the last layer a β > 0 too: a free output
    layer with β_L = 0 adds nothing to the energy.
    """

    uses_targets = False

    def value(self, net: LRRN, x: Tensor, y: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            z, self.report = self.solver(net.quadratic(x))
        return net.energy(net.split(x, z))


class Contrastive(EnergyLoss):
    """E(ẑ; x) − E(z*; x) ≥ 0, eq. (21): the energy that clamping the output to y costs.

    E is quadratic, so that with d = ẑ − z* the difference is exactly dᵀ∇E((ẑ + z*)/2): no
    two large numbers are subtracted, and what depends on x alone cancels. The value is off
    by at most the gaps that the report states, each way; it can be negative by no more.
    """

    def value(self, net: LRRN, x: Tensor, y: Tensor | None) -> Tensor:
        if y is None:
            raise ValueError("the contrastive loss needs labels or targets y")
        target, qp = clamped_target(net, x, y), net.quadratic(x)
        with torch.no_grad():
            fixed = qp.detach()
            free, first = self.solver(fixed)
            clamped, second = solve_clamped(fixed, target, self.solver, free)
            self.report = QPReport(first.passes + second.passes,
                                   first.residual.maximum(second.residual),
                                   first.converged & second.converged)
        return ((clamped - free) * qp.slope((clamped + free) / 2)).sum(1)


class _OnceDifferentiable(torch.autograd.Function):
    """The identity, whose gradient refuses to be differentiated.

    torch's ``once_differentiable`` does not object where the incoming gradient needs none.
    """

    @staticmethod
    def forward(values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        pass

    @staticmethod
    def backward(ctx, slope: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise RuntimeError("this gradient holds the activations fixed and cannot be "
                               "differentiated again: create_graph and torch.func are not supported")
        return slope


def parameter_groups(net: LRRN, decay: float) -> list[dict]:
    """Groups for a torch optimizer: weight decay on the last weight W_{L−1}, none elsewhere.

    That matrix alone decides the Lipschitz constant of a network as in Corollary 2; the
    paper decays it "to favor non-contracting, distance-preserving features" below it.
    """
    expect("net", net, LRRN, "an LRRN")
    decay = not_negative("decay", decay)
    last = net.weights[-1]
    rest = [p for p in net.parameters() if p is not last and p.requires_grad]
    return [{"params": rest}, {"params": [last], "weight_decay": decay}]
