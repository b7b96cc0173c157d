"""γ learned along the way: by the derivative of a validation loss through one training step.

"Ideally, γ is meta-learned" (Zach, 2025, section 3.1). A training step θ′ = θ − η∇_θA(θ, γ) of
A = AROVR depends on γ, and so does what the new weights lose on validation samples:

    dℓ_val(θ′)/dγ = −η ∂²A/∂γ∂θ · v,    v = ∇ℓ_val(θ′).

The mixed derivative along v is a difference of two *first* derivatives in γ,
(∂A/∂γ(θ + εv) − ∂A/∂γ(θ − εv))/2ε, and those are in closed form at the adversary,
∂A/∂γ_k = −D_k(z⁻_k, a_k)/β (envelope theorem): two inferences for all entries of γ together.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from ..checks import at_least, positive
from ..data import Split
from ..inference import Shooting
from ..inference.iterate import Solver
from ..losses import Euclidean, LossFamily
from ..network import LiftedNetwork
from ..objectives import AROVR, BackPropagation, Objective
from ..potentials import Reweighted

#: ε times the norm of v, as a share of the weights' norm: small enough that the difference is a
#: derivative and, with the solver below, large enough for float32.
SHARE = 1e-4
#: D_k at the adversary is not stationary in z: an error of inference shows in it at first order.
SOLVER = Shooting(1e-6)


def hypergradient(net: LiftedNetwork, objective: AROVR, x: Tensor, y: Tensor, validation: Split,
                  learning_rate: float) -> list[Tensor]:
    """dℓ_val(θ′)/dγ for each entry of γ that requires a gradient, θ′ = θ − η∇_θA(θ, γ).

    Args:
        net: the network, which is not changed.
        objective: AROVR with ``potential=Reweighted(gamma)`` and a solver such as ``SOLVER``.
        x: the training step's inputs.
        y: their labels.
        validation: samples whose mean loss counts.
        learning_rate: η of the step, of plain gradient descent.
    """
    ahead = copy.deepcopy(net)
    objective.gradients(ahead, x, y)
    torch.optim.SGD(ahead.parameters(), positive("learning_rate", learning_rate)).step()
    BackPropagation(objective.loss).gradients(ahead, *validation)
    v = [torch.zeros_like(p) if p.grad is None else p.grad for p in ahead.parameters()]  # None: frozen
    size = torch.stack([one.norm() for one in v]).norm()
    if size == 0:  # nothing to learn from
        return [torch.zeros_like(entry) for entry in _learned(objective)]
    weights = torch.stack([parameter.detach().norm() for parameter in net.parameters()]).norm()
    step = SHARE * float(weights / size)
    above, below = (_gamma_gradient(net, objective, x, y, sign * step, v) for sign in (1, -1))
    return [-learning_rate * (a - b) / (2 * step) for a, b in zip(above, below)]


def _learned(objective: AROVR) -> list[Tensor]:
    """The entries of γ that require a gradient; TypeError where there is no γ."""
    potential = objective.potential
    if not isinstance(potential, Reweighted):
        raise TypeError(f"the potential is {potential!r}; expected Reweighted(gamma)")
    return [entry for entry in potential.gamma if isinstance(entry, Tensor) and entry.requires_grad]


def _gamma_gradient(net: LiftedNetwork, objective: AROVR, x: Tensor, y: Tensor, step: float,
                    v: Sequence[Tensor]) -> Sequence[Tensor]:
    """∂A/∂γ at the weights θ + step·v."""
    moved = copy.deepcopy(net).requires_grad_(False)
    with torch.no_grad():
        for parameter, direction in zip(moved.parameters(), v):
            parameter.add_(direction, alpha=step)
    return torch.autograd.grad(objective(moved, x, y), _learned(objective))


class LearnedGamma(Objective):
    """AROVR whose γ_1, …, γ_{L−1} follow the hypergradient; γ_L = 1, on which the bound of β hangs.

    log γ_k is learned, with Adam, once in ``every`` steps.

    Args:
        beta: of AROVR.
        hidden: the number of hidden layers.
        validation: samples that γ is learned from.
        batch: how many of them at a time.
        generator: draws them.
        loss: a function of the targets that returns a Loss.
        every: steps of training from one of γ to the next.
        rate: Adam's learning rate for log γ.
        learning_rate: η of the training step looked through; only the hypergradient's size, to
            which Adam is blind, and the place of v hang on it.

    Attributes:
        path: γ after each of its steps, a list of tuples.
    """

    def __init__(self, beta: float, hidden: int, validation: Split, batch: int, generator: torch.Generator, *,
                 loss: LossFamily = Euclidean, every: int = 10, rate: float = 0.05,
                 learning_rate: float = 0.05):
        super().__init__(loss)
        self.beta, self.validation, self.generator = beta, validation, generator
        self.batch, self.every = at_least("batch", batch, 1), at_least("every", every, 1)
        self.learning_rate = positive("learning_rate", learning_rate)
        self.logarithms = torch.zeros(at_least("hidden", hidden, 1), requires_grad=True)
        self.optimizer = torch.optim.Adam([self.logarithms], lr=positive("rate", rate))
        self.steps, self.path = 0, list[tuple[float, ...]]()
        self.current = self._with(self.gamma)

    @property
    def gamma(self) -> tuple[float, ...]:
        """γ_1, …, γ_L as they are now."""
        return (*self.logarithms.detach().exp().tolist(), 1.0)

    def _with(self, gamma: Sequence[float | Tensor], solver: Solver | None = None) -> AROVR:
        return AROVR(self.beta, self.loss, Reweighted(gamma), solver)

    def value(self, net, x, target):
        return self.current.value(net, x, target)

    def _set_gradients(self, net, x, target):
        if self.steps % self.every == 0:
            self.learn(net, x, target)
        self.steps += 1
        value = self.current.gradients(net, x, target)
        self.report = self.current.report
        return value

    def learn(self, net: LiftedNetwork, x: Tensor, target: Tensor) -> None:
        """One step of log γ."""
        rows = torch.randint(len(self.validation.y), (self.batch,), generator=self.generator)
        drawn = Split(self.validation.x[rows], self.validation.y[rows])
        with torch.enable_grad():
            entries = [value.exp().detach().requires_grad_() for value in self.logarithms]
            found = hypergradient(net, self._with([*entries, 1.0], SOLVER), x, target, drawn,
                                  self.learning_rate)
        self.logarithms.grad = torch.stack([g * e.detach() for g, e in zip(found, entries)])  # by log γ
        self.optimizer.step()
        self.current = self._with(self.gamma)
        self.path.append(self.gamma)
