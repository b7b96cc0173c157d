"""Random toy instances for checking statements about global optima with the oracle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..bounds import kappa
from ..convex import Box, ConvexFunction, Identity, ReLU
from ..losses import Euclidean, Loss
from ..network import LiftedNetwork
from ..potentials import FenchelYoung, LeastSquares, Potential, Reweighted, Tilted
from ..smooth import Tanh

#: A network's shape: its sizes, and its edges (None for a chain).
Shape = tuple[tuple[int, ...], tuple[tuple[int, int], ...] | None]

#: Chains, a skip connection and a residual block.
SHAPES: tuple[Shape, ...] = (
    ((1, 1, 1), None), ((2, 1, 1), None), ((1, 2, 1), None), ((1, 1, 1, 1), None),
    ((1, 1, 1), ((0, 1), (0, 2), (1, 2))), ((1, 1, 1, 1), ((0, 1), (1, 2), (1, 3), (2, 3))))
#: The chains with two outputs, for statements about predictions.
CLASSIFIERS: tuple[Shape, ...] = (
    ((1, 1, 2), None), ((2, 1, 2), None), ((1, 2, 2), None), ((1, 1, 1, 2), None))
ACTIVATIONS = (Identity(), ReLU(), Box(0, 1), Box(-1, 1), Tanh())
SMOOTH = (Identity(), Tanh())
BASES = (FenchelYoung(), LeastSquares())


@dataclass(frozen=True)
class Toy:
    """A network and one sample with a target y, an attack's target y⁻, γ, a tilt g, α and β.

    β is ``fraction``/κ_γ, so that for a fraction below 1 AROVR is finite.
    """

    net: LiftedNetwork
    x: Tensor
    y: Tensor
    wrong: Tensor
    base: Potential
    gamma: tuple[float | Tensor, ...]
    tilt: tuple[Tensor, ...]
    alpha: float
    fraction: float
    seed: int

    @cached_property
    def kappa(self) -> float:
        """κ_γ of :func:`lnn_core.bounds.kappa`."""
        return kappa(self.net, self.gamma)

    @property
    def beta(self) -> float:
        """β = fraction/κ_γ."""
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
    def attack(self) -> Loss:
        """ℓ⁻(z) = ½‖z_L − y⁻‖²."""
        return Euclidean(self.wrong)

    @property
    def forward_loss(self) -> Tensor:
        """ℓ(z*), shape (1,)."""
        return self.loss(self.net(self.x)).detach()

    def with_(self, **changes) -> Toy:
        """The same toy but for some fields."""
        return replace(self, **changes)

    def random(self) -> np.random.Generator:
        """A generator for what a statement draws besides."""
        return np.random.default_rng((self.seed, 1))


def draw(seed: int, *, shapes: tuple[Shape, ...] = SHAPES,
         activations: tuple[ConvexFunction, ...] = ACTIVATIONS,
         bases: tuple[Potential, ...] = BASES, fraction: float | None = None,
         clearance: float = 0.0) -> Toy:
    """The toy of a seed.

    Args:
        seed: decides everything.
        shapes: lists of sizes, one of which is drawn.
        activations: convex functions, one of which all hidden layers share; the output is linear.
        bases: potentials, one of which is drawn.
        fraction: β·κ_γ; by default drawn from [0.05, 0.95].
        clearance: how far every pre-activation of the forward pass is from a kink, at least.
    """
    rng = np.random.default_rng(seed)

    def normal(*size: int, scale: float = 1.0) -> Tensor:
        return torch.as_tensor(scale * rng.standard_normal(size))

    (sizes, edges), activation, base = (
        choices[rng.integers(len(choices))] for choices in (shapes, activations, bases))
    net = LiftedNetwork(sizes, activation, edges=edges, dtype=torch.float64)
    gamma = tuple(torch.as_tensor(rng.uniform(0.5, 2.0, size)) if rng.random() < 0.3
                  else float(rng.uniform(0.5, 2.0)) for size in sizes[1:])
    alpha, drawn = rng.uniform(0.05, 0.95, 2).tolist()
    x = None
    while x is None or _distance_to_kinks(net, x) < clearance:
        for parameter in (*net.weights, *net.biases):
            parameter.data = normal(*parameter.shape, scale=1.0 if parameter.ndim > 1 else 0.5)
        x = normal(1, sizes[0], scale=1.5)
    tilt = tuple(normal(size, scale=0.5) for size in sizes[1:])
    return Toy(net, x, normal(1, sizes[-1]), normal(1, sizes[-1]), base, gamma, tilt, alpha,
               drawn if fraction is None else fraction, seed)


@torch.no_grad()
def _distance_to_kinks(net: LiftedNetwork, x: Tensor) -> float:
    """How far the forward pass is from where an activation is not smooth."""
    z, distance = net.activations(x), np.inf
    for k in range(1, net.depth + 1):
        G = net.function(k)
        for kink in (G.lower, G.upper) if isinstance(G, Box) else ():
            distance = min(distance, float((net.preactivation(k, z) - kink).abs().min()))
    return distance
