"""Convex functions and the activations they define.

A layer of a lifted network is described by one convex function G. Its conjugate
G*(a) = max_z zᵀa − G(z) has the activation as its derivative, f = ∂G*, and the
Fenchel–Young divergence D(z‖a) = G(z) − zᵀa + G*(a) measures how far z is from f(a):
it is never negative, and zero exactly where z = f(a) (Zach 2025, eq. 2).

All functions here are separable and 1-strongly convex, so that every method acts
element by element on tensors of any (broadcastable) shape and f is 1-Lipschitz.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from .kinds import number


class ConvexFunction(ABC):
    """A separable, closed, 1-strongly convex function G of one layer's activations."""

    #: The interval of activations on which G is finite.
    lower: float = -math.inf
    upper: float = math.inf
    #: Whether G(z)/z² tends to a constant for z → ±∞, or the domain is bounded: then it is known which
    #: energies have no minimum (``Report.infinite``).
    asymptotically_quadratic: bool = False

    @abstractmethod
    def value(self, z: Tensor) -> Tensor:
        """G(z), element-wise; +∞ outside [lower, upper]."""

    @abstractmethod
    def conjugate(self, a: Tensor) -> Tensor:
        """G*(a) = max_z z·a − G(z), element-wise."""

    @abstractmethod
    def activation(self, a: Tensor) -> Tensor:
        """f(a) = ∂G*(a) = argmin_z D(z‖a), element-wise."""

    @abstractmethod
    def derivative(self, a: Tensor) -> Tensor:
        """f′(a), element-wise; at a kink the value that torch's autograd uses."""

    @abstractmethod
    def prox(self, b: Tensor, q: Tensor | float = 0.0) -> Tensor:
        """argmin_z G(z) + (q/2)·z² − b·z, element-wise, for q > −1."""

    def divergence(self, z: Tensor, a: Tensor) -> Tensor:
        """D(z‖a) = G(z) − z·a + G*(a) ≥ 0, element-wise (Zach 2025, eq. 2)."""
        return self.value(z) - z * a + self.conjugate(a)

    def divergence_sum(self, z: Tensor, a: Tensor, e: Tensor) -> Tensor:
        """Σ D over the last axis, given e = z − f(a), for z in [lower, upper]."""
        return self.divergence(z, a).sum(-1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Box(ConvexFunction):
    """G(z) = ½z² + indicator(lower ≤ z ≤ upper); f projects onto [lower, upper].

    ``Box(0, 1)`` gives the hard sigmoid. An end may be infinite: ``Identity`` and
    ``ReLU`` are the boxes (−∞, ∞) and [0, ∞).
    """

    asymptotically_quadratic = True

    def __init__(self, lower: float = 0.0, upper: float = 1.0):
        number("lower", lower), number("upper", upper)
        if not lower < upper:
            raise ValueError(f"Box needs lower < upper; got lower={lower}, upper={upper}")
        self.lower, self.upper = float(lower), float(upper)

    def value(self, z: Tensor) -> Tensor:
        inside = (z >= self.lower) & (z <= self.upper)
        return torch.where(inside, 0.5 * z.square(), math.inf)

    def conjugate(self, a: Tensor) -> Tensor:
        z = self.activation(a)
        return z * a - 0.5 * z.square()

    def activation(self, a: Tensor) -> Tensor:
        return a.clamp(self.lower, self.upper)

    def derivative(self, a: Tensor) -> Tensor:
        return ((a >= self.lower) & (a <= self.upper)).to(a.dtype)

    def prox(self, b: Tensor, q: Tensor | float = 0.0) -> Tensor:
        return self.activation(b if isinstance(q, float) and q == 0.0 else b / (1.0 + q))

    def divergence(self, z: Tensor, a: Tensor) -> Tensor:
        """e·(z − ½e − a) with e = z − f(a): eq. (2) without its cancellation.

        Both factors have the same sign for z in the box (f is the projection of a), so the
        result stays accurate where z is close to f(a).
        """
        inside, e = (z >= self.lower) & (z <= self.upper), z - self.activation(a)
        return torch.where(inside, e * (z - 0.5 * e - a), math.inf)

    def divergence_sum(self, z: Tensor, a: Tensor, e: Tensor) -> Tensor:
        return torch.linalg.vecdot(e, (z - a).sub_(e, alpha=0.5))

    def __repr__(self) -> str:
        return f"Box({self.lower:g}, {self.upper:g})"


class Identity(Box):
    """G(z) = ½z², f(a) = a, D(z‖a) = ½(z − a)²."""

    def __init__(self) -> None:
        super().__init__(-math.inf, math.inf)

    def activation(self, a: Tensor) -> Tensor:
        return a

    def divergence(self, z: Tensor, a: Tensor) -> Tensor:
        return 0.5 * (z - a).square()

    def divergence_sum(self, z: Tensor, a: Tensor, e: Tensor) -> Tensor:
        return 0.5 * torch.linalg.vecdot(e, e)

    __repr__ = ConvexFunction.__repr__


class ReLU(Box):
    """G(z) = ½z² + indicator(z ≥ 0), f(a) = max(a, 0), G*(a) = ½·max(a, 0)²."""

    def __init__(self) -> None:
        super().__init__(0.0, math.inf)

    def activation(self, a: Tensor) -> Tensor:
        return a.relu()

    def derivative(self, a: Tensor) -> Tensor:
        return (a > 0).to(a.dtype)

    __repr__ = ConvexFunction.__repr__


class LeakyReLU(ConvexFunction):
    """G(z) = ½z² for z ≥ 0 and ½z²/s for z < 0, f(a) = max(a, s·a) with 0 < s ≤ 1.

    Args:
        slope: s, of f for a < 0.

    Raises:
        ValueError: a slope outside (0, 1]: for s = 0 take ``ReLU()``; above 1 f is steeper than G allows.
    """

    asymptotically_quadratic = True

    def __init__(self, slope: float = 0.01):
        if not 0 < number("slope", slope) <= 1:
            raise ValueError(f"slope={slope} must be in (0, 1]")
        self.slope = float(slope)

    def value(self, z: Tensor) -> Tensor:
        return 0.5 * z.square() * torch.where(z < 0, 1 / self.slope, 1.0).to(z)

    def conjugate(self, a: Tensor) -> Tensor:
        return 0.5 * a * self.activation(a)

    def divergence(self, z: Tensor, a: Tensor) -> Tensor:
        """½(z − f(a))²·G″ where z and a have one sign; elsewhere no term of eq. (2) is negative."""
        e, opposite = z - self.activation(a), z * a < 0
        same = 0.5 * e.square() * torch.where((z < 0) | (a < 0), 1 / self.slope, 1.0).to(e)
        return torch.where(opposite, self.value(z) - z * a + self.conjugate(a), same)

    def activation(self, a: Tensor) -> Tensor:
        return torch.nn.functional.leaky_relu(a, self.slope)

    def derivative(self, a: Tensor) -> Tensor:
        return torch.where(a > 0, 1.0, self.slope).to(a)

    def prox(self, b: Tensor, q: Tensor | float = 0.0) -> Tensor:
        return torch.where(b > 0, b / (1.0 + q), b / (1 / self.slope + q))

    def __repr__(self) -> str:
        return f"LeakyReLU({self.slope:g})"
