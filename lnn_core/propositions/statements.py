"""What a statement about networks is, and the optima that statements are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import oracle
from ..losses import Loss
from ..network import Activations
from ..objectives import LiftedObjective
from ..potentials import Energy, Potential
from .registry import ZACH, Claim, register
from .toys import Toy, draw

#: A slack below −TOLERANCE is a violation: what float64 optima may be off by, with room.
TOLERANCE = 1e-7


@dataclass(frozen=True)
class Statement(Claim):
    """A claim of Zach (2025): its slack, and the instances (of ``draw``) it is made for."""

    paper = ZACH
    tolerance = TOLERANCE
    slack: Callable[[Toy], Tensor]
    instances: dict

    def worst(self, seed: int) -> float:
        """The smallest entry of the slack on the toy of a seed."""
        with torch.device("cpu"):
            return float(self.slack(draw(seed, **self.instances)).detach().min())


def statement(source: str, claim: str, **instances):
    """Register a slack under its function's name."""
    def registered(slack: Callable[[Toy], Tensor]) -> Callable[[Toy], Tensor]:
        register(Statement(slack.__name__, source, claim, slack, instances))
        return slack
    return registered


def exact(toy: Toy, objective: LiftedObjective) -> Tensor:
    """The objective's value by the oracle, shape (1,)."""
    return oracle.objective(objective, toy.net, toy.x, toy.y).detach()


def gradient(toy: Toy, objective: LiftedObjective) -> Tensor:
    """The objective's gradient in all weights and biases, at oracle optima, as one vector."""
    value = oracle.objective(objective, toy.net, toy.x, toy.y).sum()
    return flat_gradient(toy, value)


def flat_gradient(toy: Toy, value: Tensor) -> Tensor:
    """d value/dθ as one vector."""
    gradients = torch.autograd.grad(value, list(toy.net.parameters()), materialize_grads=True)
    return torch.cat([g.flatten() for g in gradients])


def minimum(toy: Toy, potential: Potential, h: Loss) -> tuple[Tensor, Activations]:
    """m(h), shape (1,), and its minimiser."""
    value, z = oracle.minimum(toy.net, toy.x, Energy(potential, h))
    return value.detach(), z


def equal(left: Tensor, right: Tensor) -> Tensor:
    """The slack of an equality: minus the absolute difference."""
    return -(left - right).abs().flatten()


def limit(f: Callable[[float], Tensor], beta: float) -> Tensor:
    """lim f(β) as β → 0⁺ of an f that is smooth in β, from three values: error O(β³)."""
    return (f(beta) - 6 * f(beta / 2) + 8 * f(beta / 4)) / 3
