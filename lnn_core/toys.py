"""Random toy instances for checking statements about global optima with the oracle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .bounds import kappa
from .convex import Box, ConvexFunction, Identity, ReLU, Tanh
from .losses import Euclidean, Loss
from .network import LiftedNetwork
from .potentials import FenchelYoung, LeastSquares, Potential, Reweighted, Tilted

#: (sizes, edges): chains, a skip connection and a residual block.
CHAINS = (((1, 1, 1), None), ((2, 1, 1), None), ((1, 2, 1), None), ((1, 1, 1, 1), None))
GRAPHS = (*CHAINS, ((1, 1, 1), ((0, 1), (0, 2), (1, 2))),
          ((1, 1, 1, 1), ((0, 1), (1, 2), (1, 3), (2, 3))))
#: The same with two outputs, for statements about predictions.
CLASSIFIERS = tuple((sizes, None) for sizes in ((1, 1, 2), (2, 1, 2), (1, 2, 2), (1, 1, 1, 2)))
ACTIVATIONS = (Identity(), ReLU(), Box(0, 1), Box(-1, 1), Tanh())
BASES = (FenchelYoung(), LeastSquares())


@dataclass(frozen=True)
class Toy:
    """A network, one sample, a target y, an attack's target, γ, a tilt g, and β < 1/κ_γ."""

    net: LiftedNetwork
    x: Tensor
    y: Tensor
    wrong: Tensor
    base: Potential
    gamma: tuple[float | Tensor, ...]
    tilt: tuple[Tensor, ...]
    fraction: float

    @cached_property
    def kappa(self) -> float:
        """κ_γ, so that β·κ_γ = ``fraction``."""
        return kappa(self.net, self.gamma)

    @property
    def beta(self) -> float:
        return self.fraction / self.kappa

    @property
    def potential(self) -> Potential:
        """U^⊙γ."""
        return Reweighted(self.gamma, self.base)

    @property
    def tilted(self) -> Potential:
        """U^⊙γ + gᵀz."""
        return Tilted(self.tilt, self.potential)

    @property
    def loss(self) -> Loss:
        """ℓ(z) = ½‖z_L − y‖²."""
        return Euclidean(self.y)

    @property
    def forward_loss(self) -> Tensor:
        """ℓ(z*), shape (1,)."""
        return self.loss(self.net(self.x)).detach()

    def attack(self, loss, target: Tensor) -> Loss:
        """ℓ⁻(z) = ½‖z_L − y⁻‖² with the toy's own y⁻."""
        return loss(self.wrong)

    def replace(self, **changes) -> Toy:
        return replace(self, **changes)


def draw(seed: int, *, shape=None, activation: ConvexFunction | None = None,
         base: Potential | None = None, fraction: float | None = None,
         clearance: float = 0.0) -> Toy:
    """The toy of a seed; what is not given is drawn from the constants above.

    Parameters
    ----------
    shape : (sizes, edges) as in ``GRAPHS``.
    activation : the hidden layers' convex function.
    base : ``FenchelYoung()`` or ``LeastSquares()``.
    fraction : β·κ_γ; drawn from [0.05, 0.95].
    clearance : every pre-activation of the forward pass is at least this far from a kink.
    """
    rng = np.random.default_rng(seed)

    def normal(*size, scale=1.0):
        return torch.as_tensor(scale * rng.standard_normal(size))

    def pick(given, choices):
        chosen = choices[rng.integers(len(choices))]
        return chosen if given is None else given

    sizes, edges = pick(shape, GRAPHS)
    activation, base = pick(activation, ACTIVATIONS), pick(base, BASES)
    net = LiftedNetwork(sizes, activation, edges=edges, dtype=torch.float64)
    gamma = [torch.as_tensor(rng.uniform(0.5, 2.0, size)) if rng.random() < 0.3
             else float(rng.uniform(0.5, 2.0)) for size in sizes[1:]]
    drawn = float(rng.uniform(0.05, 0.95))
    while True:
        for parameter in net.parameters():
            parameter.data = normal(*parameter.shape, scale=1.0 if parameter.ndim > 1 else 0.5)
        x = normal(1, sizes[0], scale=1.5)
        if _distance_to_kinks(net, x) >= clearance:
            break
    return Toy(net, x, normal(1, sizes[-1]), normal(1, sizes[-1]), base, tuple(gamma),
               tuple(normal(size, scale=0.5) for size in sizes[1:]),
               drawn if fraction is None else fraction)


@torch.no_grad()
def _distance_to_kinks(net: LiftedNetwork, x: Tensor) -> float:
    """How far the forward pass is from where an activation is not smooth."""
    z, distance = net.activations(x), np.inf
    for k in range(1, net.depth + 1):
        G = net.function(k)
        for kink in (G.lower, G.upper) if isinstance(G, Box) else ():
            distance = min(distance, float((net.preactivation(k, z) - kink).abs().min()))
    return distance
