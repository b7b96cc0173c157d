"""What inference works on and what it reports: iterates, gaps, how far from stationary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..network import Activations, LiftedNetwork
from ..potentials import Energy, FenchelYoung, LeastSquares, innermost


class InferenceDiverged(RuntimeError):
    """The activations ran away: the energy is unbounded below, or seems to be."""


@dataclass(frozen=True)
class Iterate:
    """Activations and what they cause; lists are indexed by layer, entry 0 of a and e is None.

    Attributes:
        z: [x, z_1, …, z_L].
        a: pre-activations a_k of shape (batch, d_k).
        e: errors e_k = −∂U/∂a_k, shape (batch, d_k): the gradient of E with respect to W_kj is
            −Σ e_k z_jᵀ, summed over the batch.
        energy: E(z), shape (batch,).
    """

    z: Activations
    a: list[Tensor | None]
    e: list[Tensor | None]
    energy: Tensor

    @classmethod
    def of(cls, net: LiftedNetwork, energy: Energy, z: Activations,
           a: list[Tensor | None] | None = None) -> Iterate:
        """The iterate with these activations; pre-activations that are not given are computed."""
        layers = range(1, net.depth + 1)
        known = [None] * (net.depth + 1) if a is None else a
        a = [None] + [net.preactivation(k, z) if known[k] is None else known[k] for k in layers]
        U, e, value = energy.potential, [None], energy.output(z[-1])
        for k in layers:
            share, error = U.value_and_error(k, net.function(k), z[k], a[k])
            value = value + share
            e.append(error)
        return cls(z, a, e, value)

    def take(self, rows: Tensor) -> Iterate:
        """The iterate of these samples."""
        return Iterate(*([v[rows] if isinstance(v, Tensor) else v for v in values]
                         for values in (self.z, self.a, self.e)), self.energy[rows])

    def with_rows(self, rows: Tensor, new: Iterate) -> Iterate:
        """This iterate with other activations for these samples."""
        z, a, e = ([v.index_copy(0, rows, u) for v, u in zip(old[1:], values[1:])]
                   for old, values in ((self.z, new.z), (self.a, new.a), (self.e, new.e)))
        return Iterate([self.z[0], *z], [None, *a], [None, *e], self.energy.index_copy(0, rows, new.energy))

    def where(self, mask: Tensor, other: Iterate) -> Iterate:
        """This iterate for the samples in the mask, (batch, 1); the other one elsewhere."""
        z, a, e = ([None if v is None else torch.where(mask, u, v) for u, v in zip(*lists)]
                   for lists in ((self.z, other.z), (self.a, other.a), (self.e, other.e)))
        return Iterate([self.z[0], *z[1:]], a, e,
                       torch.where(mask[:, 0], self.energy, other.energy))


@torch.no_grad()
def forward_point(net: LiftedNetwork, x: Tensor, energy: Energy,
                  rows: Tensor | None = None) -> Iterate:
    """The forward pass as a solver's start, with its pre-activations and its energy.

    The energy may be that of these ``rows`` of x, which may repeat.
    """
    z, a = [x], [None]
    for k in range(1, net.depth + 1):
        a.append(net.preactivation(k, z))
        z.append(net.function(k).activation(a[k]))
    if rows is not None:
        z, a = ([None if v is None else v[rows] for v in values] for values in (z, a))
    return Iterate(z, a, [None] + [0.0] * net.depth,
                 energy.potential.forward_value(z) + energy.output(z[-1]))


@dataclass(frozen=True)
class Report:
    """What inference did, sample by sample.

    Attributes:
        passes: backward passes run, for the samples that took the most.
        gap: shape (batch,); an estimate, from what violates stationarity, of how far E(z) is above
            the minimum that it is heading for, relative to ``scale``.
        converged: shape (batch,); whether the gap is within the solver's tolerance.
        unbounded: shape (batch,); samples along whose own direction E was found to fall
            without end.
        infinite: shape (batch,); samples whose energy has no minimum: those, and all for which
            their proof holds, too (:func:`~lnn_core.inference.iterate.without_minimum`). Their
            values are bounds of infinity.
        settled: whether the solver vouches that all energies are finite and none was found
            unbounded, so that nobody need look again.

    ``converged`` promises a local optimum next to the forward pass, to the tolerance as
    estimated. It promises neither that E has a minimum (see ``infinite``) nor that there is
    no lower one; and where γ differs by orders of magnitude between layers, or E is almost
    flat along some direction (near the border of stability), more than the tolerance may be
    left. Least squares near its border may use all passes up without convergence: the
    report then says so, and the gradient may be off by more than the gap.
    """

    passes: int
    gap: Tensor
    converged: Tensor
    unbounded: Tensor = None  # type: ignore[assignment]  # of none: filled in
    infinite: Tensor | None = None
    settled: bool = False

    def __post_init__(self) -> None:
        if self.unbounded is None:
            object.__setattr__(self, "unbounded", torch.zeros_like(self.gap, dtype=torch.bool))
        if self.infinite is None:
            object.__setattr__(self, "infinite", self.unbounded)

    def __str__(self) -> str:
        unbounded = f", {int(self.unbounded.sum())} unbounded" if self.unbounded.any() else ""
        if (more := int(self.infinite.sum())) > int(self.unbounded.sum()):
            unbounded += f" (so that {more} have no minimum)"
        return (f"{self.passes} passes, mean relative gap {self.gap.mean():.1e}, "
                f"{int(self.converged.sum())} of {len(self.converged)} samples converged{unbounded}")


def mean_gap(net: LiftedNetwork, k: int) -> Tensor | float:
    """½‖W_k‖²/d_k: the mean of half the squared gradient below layer k over unit errors e_k."""
    return 0.5 * sum(affine.squared_norm() for j, affine in net.connections_into(k) if j) / net.sizes[k]


def is_unbounded_below(net: LiftedNetwork, energy: Energy, start: Iterate, end: Iterate) -> Tensor:
    """Whether E has no minimum, for the samples where inference shows it, shape (batch,).

    All G_k here are asymptotically quadratic: E(z* + td) ≈ ct² for large t. A negative c,
    found as a second difference far out, proves that E is unbounded below. The direction d
    is z − z* without what would leave the domain of G_k.
    """
    layers = range(1, net.depth + 1)
    d = [torch.zeros_like(start.z[0])]
    for k in layers:
        low, high = energy.potential.domain(net.function(k))
        d.append((end.z[k] - start.z[k]).clamp(0.0 if low > -torch.inf else -torch.inf,
                                               0.0 if high < torch.inf else torch.inf))
    size, length = (sum(v_k.square().sum(-1, keepdim=True) for v_k in v).sqrt()
                    for v in (start.z, d))
    far = 1e4 * (1 + size) / length.clamp_min(torch.finfo(size.dtype).tiny)
    z = [start_k + far * d_k for start_k, d_k in zip(start.z, d)]
    a = [None] + [net.preactivation(k, z) if k in net.hidden_fed_layers else start.a[k] for k in layers]
    there = energy(net, z, a)
    twice = energy(net, *([None if v is None else 2 * v - u for u, v in zip(*lists)]
                          for lists in ((start.z, z), (start.a, a))))
    return twice - 2 * there + start.energy < -1e-3 * (twice.abs() + there.abs())


def without_minimum(net: LiftedNetwork, energy: Energy, proved: Tensor) -> Tensor:
    """Whose energy has no minimum, (batch,), once it is proved for some samples.

    E(z + t·d) ≈ c·t² for large t. Inputs, biases, tilts and targets do not matter so far out,
    and bounded activations count as zero: c depends on d, the weights, γ and the curvature
    of the output term alone. What makes it negative for one sample does so for all whose
    output term has no larger curvature.
    """
    known = (isinstance(innermost(energy.potential)[0], (FenchelYoung, LeastSquares))
             and all(G.asymptotically_quadratic for G in net.functions))
    if not (known and proved.any()):
        return proved
    q = energy.output.curvature
    if not isinstance(q, Tensor) or q.ndim < 2 or len(q) == 1:
        return torch.ones_like(proved)
    if q.shape[1] == 1:
        return q[:, 0] <= q[proved].amax()
    return (q[:, None] <= q[proved]).all(-1).any(1)


#: A solver takes the forward pass and returns where it ended, and a report.
Solver = Callable[[LiftedNetwork, Energy, Iterate], tuple[Iterate, Report]]


@torch.no_grad()
def residual(net: LiftedNetwork, energy: Energy, now: Iterate) -> Tensor:
    """‖z − z⁺‖, shape (batch,), where z⁺_k is the best answer of layer k to the others.

    z⁺_k = argmin over z of D_k(z, a_k) − zᵀ Σ W_k′kᵀ e_k′ [+ h for k = L], all layers at
    once. It is the step of a projected gradient: zero exactly where E is stationary, and
    half its square is about how much E is above its minimum.
    """
    total = 0.0
    for k in range(1, net.depth + 1):
        signal = net.feedback(k, now.e)
        answer = (energy.output_prox(net, now.a[k]) if signal is None
                  else energy.potential.prox(k, net.function(k), now.a[k], signal))
        total = total + (answer - now.z[k]).square().sum(-1)
    return total.sqrt()


def scale(start: Iterate, end: Iterate) -> Tensor:
    """What gaps are relative to, shape (batch,): max(|E|, the gain over the start).

    A little more, so that it is never below what rounding the outputs would change.
    """
    eps, output = torch.finfo(end.energy.dtype).eps, start.z[-1]
    size = torch.maximum(end.energy.abs(), start.energy - end.energy)
    return size.add_(torch.linalg.vecdot(output, output), alpha=eps).clamp_min_(1e-30)
