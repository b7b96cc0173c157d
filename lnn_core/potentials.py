"""Network potentials U(z; x): zero on the forward pass, positive elsewhere.

A potential is a sum over layers, and all that inference and the objectives ask of it is
local to one layer k with activations z_k and pre-activations a_k:

    terms(k, G, z, a)       its terms, one per unit, shape (batch, d_k)
    error(k, G, z, a)       e_k = −∂terms/∂a_k, the signal it sends down through W_k
    prox(k, G, a, p, q)     argmin_z terms + (q/2)·z² − p·z, its answer to a signal p

``Reweighted`` and ``Tilted`` wrap another potential, so that U^⊙γ, U^g and both at once
need no code of their own anywhere else. ``U + h`` with a loss h is an :class:`Energy`,
the thing that inference minimises.
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .convex import ConvexFunction
from .kinds import expect, expect_sequence, number
from .losses import Loss, check_dtype, largest, smallest, take_rows
from .network import Activations, LiftedNetwork
from .newton import logit_prox


class Potential(ABC):
    """U(z; x) = Σ_k D_k(z_k, a_k). Call it with a network and activations for its value."""

    #: Whether min_z U = 0 for every network; if not, objectives subtract it (eq. 6).
    minimum_is_zero = True

    @abstractmethod
    def terms(self, k: int, G: ConvexFunction, z: Tensor, a: Tensor) -> Tensor:
        """The terms of layer k, one per unit, shape (batch, d_k)."""

    @abstractmethod
    def error(self, k: int, G: ConvexFunction, z: Tensor, a: Tensor) -> Tensor:
        """e_k = −∂terms/∂a_k, shape (batch, d_k): layer j receives Wᵀe_k."""

    @abstractmethod
    def prox(self, k: int, G: ConvexFunction, a: Tensor, p: Tensor | float,
                q: Tensor | float = 0.0) -> Tensor:
        """argmin_z terms + (q/2)·z² − p·z, shape (batch, d_k)."""

    def value_and_error(self, k: int, G: ConvexFunction, z: Tensor,
                        a: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's share of U, (batch,), and e_k, for a z in the domain of G.

        Both at once, as solvers need them after every pass.
        """
        return self.terms(k, G, z, a).sum(-1), self.error(k, G, z, a)

    def curvature(self, k: int) -> float:
        """The smallest curvature γ that the terms of layer k give to a unit."""
        return 1.0

    def domain(self, G: ConvexFunction) -> tuple[float, float]:
        """The interval of z where the terms of a layer with this G are finite."""
        return G.lower, G.upper

    def check(self, net: LiftedNetwork) -> None:
        """ValueError where the potential's parameters do not fit the network."""

    def rows(self) -> int | None:
        """The number of samples that the parameters are for; None where for any."""
        return None

    def take(self, rows: Tensor) -> Potential:
        """The potential of these samples, which may repeat; override it where they have parameters each."""
        return self

    def layer_values(self, net: LiftedNetwork, z: Activations,
                     a: Sequence[Tensor | None] | None = None) -> Tensor:
        """What each layer adds to U(z; x), shape (L, batch).

        ``a`` saves computing the pre-activations where they are known.
        """
        return torch.stack([
            self.terms(k, net.function(k), z[k], net.preactivation(k, z) if a is None else a[k])
            .sum(-1) for k in range(1, net.depth + 1)])

    def __call__(self, net: LiftedNetwork, z: Activations,
                 a: Sequence[Tensor | None] | None = None) -> Tensor:
        """U(z; x) with x = z[0], shape (batch,); differentiable in weights, z and x."""
        return self.layer_values(net, z, a).sum(0)

    def forward_value(self, z: Activations) -> Tensor | float:
        """U at the forward pass z, where every D_k is zero."""
        return 0.0

    def __add__(self, loss: Loss) -> Energy:
        return Energy(self, loss) if isinstance(loss, Loss) else NotImplemented

    def __sub__(self, loss: Loss) -> Energy:
        return Energy(self, -loss) if isinstance(loss, Loss) else NotImplemented

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class FenchelYoung(Potential):
    """D_k = G_k(z_k) − z_kᵀa_k + G_k*(a_k) (Zach 2025, eqs. 2 and 3)."""

    def terms(self, k, G, z, a):
        return G.divergence(z, a)

    def error(self, k, G, z, a):
        return z - G.activation(a)

    def value_and_error(self, k, G, z, a):
        e = z - G.activation(a)
        return G.divergence_sum(z, a, e), e

    def prox(self, k, G, a, p, q=0.0):
        return G.prox(a + p, q)


class LeastSquares(Potential):
    """D_k = ½‖z_k − f_k(a_k)‖² (Zach 2025, eq. 1); here z_k may leave the range of f_k.

    U then jumps in slope where a_k crosses a kink. Near the border of stability inference may
    not settle within any number of passes; ``Report.converged`` says so.
    """

    def terms(self, k, G, z, a):
        return 0.5 * (z - G.activation(a)).square()

    def error(self, k, G, z, a):
        return G.derivative(a) * (z - G.activation(a))

    def prox(self, k, G, a, p, q=0.0):
        return (G.activation(a) + p) / (1.0 + q)

    def domain(self, G):
        return -math.inf, math.inf


class Reweighted(Potential):
    """U^⊙γ = Σ_k γ_k D_k (Zach 2025, eq. 14): the same forward pass, another geometry.

    Args:
        gamma: L positive entries for the layers 1…L; each a number, or a tensor of shape (d_k,)
            with one entry per unit. Tensors may require gradients, for a call and ``backward()``.
        base: the potential to reweight (default: ``FenchelYoung()``).

    Raises:
        ValueError: an entry that is not positive and finite; against a network, the wrong number of
            entries or units, or another dtype.
    """

    def __init__(self, gamma: Sequence[float | Tensor], base: Potential | None = None):
        self.base = checked_potential(base, "base")
        if not self.base.minimum_is_zero:
            raise ValueError(f"tilt after reweighting: Tilted(g, Reweighted(gamma)), not {base!r}")
        self.gamma = expect_sequence("gamma", gamma, "a sequence with one entry per layer")
        for k, entry in enumerate(self.gamma, 1):
            if not isinstance(entry, Tensor):
                number(f"gamma_{k}", entry)
            if not (smallest(entry) > 0 and largest(entry) < math.inf):
                raise ValueError(f"gamma_{k}={entry} must be positive and finite")

    def check(self, net):
        self.base.check(net)
        if len(self.gamma) != net.depth:
            raise ValueError(f"gamma has {len(self.gamma)} entries for {net.depth} layers")
        for k, entry in enumerate(self.gamma, 1):
            shape = tuple(entry.shape) if isinstance(entry, Tensor) else ()
            if shape not in ((), (net.sizes[k],)):
                raise ValueError(f"gamma_{k} has shape {shape}; layer {k} has {net.sizes[k]} units")
            check_dtype(f"gamma_{k}", entry, net.dtype)

    def rows(self):
        return self.base.rows()

    def take(self, rows):
        base = self.base.take(rows)
        return self if base is self.base else Reweighted(self.gamma, base)

    def domain(self, G):
        return self.base.domain(G)

    def curvature(self, k):
        return smallest(self.gamma[k - 1]) * self.base.curvature(k)

    def terms(self, k, G, z, a):
        return self.gamma[k - 1] * self.base.terms(k, G, z, a)

    def error(self, k, G, z, a):
        return self.gamma[k - 1] * self.base.error(k, G, z, a)

    def value_and_error(self, k, G, z, a):
        gamma = self.gamma[k - 1]
        if isinstance(gamma, Tensor) and gamma.ndim:
            return super().value_and_error(k, G, z, a)
        share, error = self.base.value_and_error(k, G, z, a)
        return gamma * share, gamma * error

    def prox(self, k, G, a, p, q=0.0):
        gamma = self.gamma[k - 1]
        return self.base.prox(k, G, a, p / gamma, q / gamma)

    def __repr__(self):
        return f"Reweighted({list(self.gamma)}, {self.base!r})"


class Tilted(Potential):
    """U^g = U + gᵀz (Zach 2025, eq. 31): a linear push on the activations.

    Args:
        g: L entries for the layers 1…L; each None (no tilt) or a tensor that broadcasts to (batch,
            d_k).
        base: the potential to tilt (default: ``FenchelYoung()``).

    Raises:
        ValueError: against a network, the wrong number of entries or units, or another dtype.
    """

    minimum_is_zero = False

    def __init__(self, g: Sequence[Tensor | None], base: Potential | None = None):
        self.base = checked_potential(base, "base")
        self.g = expect_sequence("g", g, "a sequence with one entry per layer")
        for k, entry in enumerate(self.g, 1):
            if entry is not None:
                expect(f"g_{k}", entry, Tensor, "None or a tensor that broadcasts to (batch, d_k)")

    def check(self, net):
        self.base.check(net)
        if len(self.g) != net.depth:
            raise ValueError(f"g has {len(self.g)} entries for {net.depth} layers")
        for k, entry in enumerate(self.g, 1):
            if entry is not None and (entry.ndim > 2 or entry.shape[-1:] != (net.sizes[k],)):
                raise ValueError(f"g_{k} has shape {tuple(entry.shape)}; layer {k} has "
                                 f"{net.sizes[k]} units")
            check_dtype(f"g_{k}", entry, net.dtype)

    def rows(self):
        found = {self.base.rows(), *(len(g) for g in self.g if g is not None and g.ndim == 2)}
        found -= {None, 1}
        if len(found) > 1:
            raise ValueError(f"the tilts are for different numbers of samples: {sorted(found)}")
        return found.pop() if found else None

    def take(self, rows):
        return Tilted([take_rows(g, rows) for g in self.g], self.base.take(rows))

    def domain(self, G):
        return self.base.domain(G)

    def curvature(self, k):
        return self.base.curvature(k)

    def terms(self, k, G, z, a):
        terms = self.base.terms(k, G, z, a)
        return terms if self.g[k - 1] is None else terms + self.g[k - 1] * z

    def forward_value(self, z):
        return sum((g * z_k).sum(-1) for g, z_k in zip(self.g, z[1:]) if g is not None)

    def error(self, k, G, z, a):
        return self.base.error(k, G, z, a)

    def value_and_error(self, k, G, z, a):
        share, error = self.base.value_and_error(k, G, z, a)
        g = self.g[k - 1]
        return (share if g is None else share + (g * z).sum(-1)), error

    def prox(self, k, G, a, p, q=0.0):
        g = self.g[k - 1]
        return self.base.prox(k, G, a, p if g is None else p - g, q)

    def __repr__(self):
        return f"Tilted(<{len(self.g)} layers>, {self.base!r})"


@dataclass(frozen=True)
class Energy:
    """E(z) = U(z; x) + h(z_L), what inference minimises; built as ``U + h``."""

    potential: Potential
    output: Loss

    def __post_init__(self) -> None:
        expect("potential", self.potential, Potential, "a Potential such as FenchelYoung()")
        expect("output", self.output, Loss, "a Loss such as Euclidean(y)")

    def __call__(self, net: LiftedNetwork, z: Activations,
                 a: Sequence[Tensor | None] | None = None) -> Tensor:
        """E(z), shape (batch,); ``a`` as for ``Potential.layer_values``."""
        return self.potential(net, z, a) + self.output(z[-1])

    def output_prox(self, net: LiftedNetwork, a: Tensor) -> Tensor:
        """argmin_z D_L(z, a_L) + h(z), shape (batch, d_L): the output layer's answer to the loss.

        In closed form where h is quadratic, by :func:`~lnn_core.newton.logit_prox` where it is not.
        """
        U, h, L, G = self.potential, self.output, net.depth, net.function(net.depth)
        if h.is_quadratic:
            return U.prox(L, G, a, h.pull, h.curvature)
        return logit_prox(lambda p: U.prox(L, G, a, p, h.curvature), h.pull, h.lse, a)

    def take(self, rows: Tensor) -> Energy:
        """The energy of these samples of the batch, which may repeat."""
        return Energy(self.potential.take(rows), self.output.take(rows))

    def check(self, net: LiftedNetwork, samples: int | None = None) -> None:
        """ValueError where E does not fit, or cannot have a minimum over z_L alone."""
        self.check_shapes(net, samples)
        gamma, q = self.potential.curvature(net.depth), self.output.curvature_bounds[0]
        if not gamma + q > 0:
            raise ValueError(f"the output term has curvature {q:g}, which gamma_L={gamma:g} does "
                             "not outweigh: "
                             + ("the energy is unbounded below" if self.output.is_quadratic
                                else "it may have several minima in z_L alone"))

    def check_shapes(self, net: LiftedNetwork, samples: int | None = None) -> None:
        """ValueError where E is not one of this network and a batch of this size."""
        self.potential.check(net)
        if (rows := self.potential.rows()) not in (None, samples) and samples is not None:
            raise ValueError(f"the potential is tilted for {rows} samples; the batch has {samples}")
        self.output.check(net, samples)


def checked_potential(potential: Potential | None, name: str = "potential") -> Potential:
    """The potential, ``FenchelYoung()`` for None; TypeError where it is something else."""
    if potential is None:
        return FenchelYoung()
    expect(name, potential, Potential, "a Potential such as FenchelYoung()")
    return potential


def innermost(potential: Potential) -> tuple[Potential, tuple[float | Tensor, ...] | None]:
    """The potential without what reweights and tilts it, and its γ_1, …, γ_L (None: all 1).

    Together they are its curvature: a linear tilt has none.
    """
    gamma = None
    while isinstance(potential, (Reweighted, Tilted)):
        if isinstance(potential, Reweighted):
            gamma = (potential.gamma if gamma is None
                     else tuple(map(operator.mul, gamma, potential.gamma)))
        potential = potential.base
    return potential, gamma
