"""Inferring activations: minimise an energy E(z) = U(z; x) + h(z_L) over z.

The energy is convex in each layer's activations, not in all of them together, so
inference goes layer by layer. One pass of eq. (17) visits the output layer first and the
first hidden layer last: what the output wants travels down the whole network in one pass.

``PaperSweeps`` repeats that pass a fixed number of times. ``Sweeps``, the default, stops
when there is little left to gain, slows down samples that oscillate, and never returns
activations that are worse than the forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .checks import check_input
from .network import Activations, LiftedNetwork
from .potentials import Energy


class InferenceDiverged(RuntimeError):
    """The activations ran away: the energy is, or looks, unbounded below."""


@dataclass(frozen=True)
class Report:
    """What inference did.

    passes : backward passes run.
    residual : shape (batch,); how far the last pass wanted to move a sample's activations
        (Euclidean norm over all layers). Zero exactly at a fixed point of eq. (17).
    converged : shape (batch,); whether that is a small enough part of the first pass's.
    """

    passes: int
    residual: Tensor
    converged: Tensor

    def __str__(self) -> str:
        return (f"{self.passes} passes, largest residual {self.residual.max():.1e}, "
                f"{int(self.converged.sum())} of {len(self.converged)} samples converged")


Solver = Callable[[LiftedNetwork, Energy, Activations], Report]


def sweep(net: LiftedNetwork, energy: Energy, z: Activations,
          a: list[Tensor | None] | None = None, step: Tensor | float = 1.0) -> Tensor:
    """One backward pass of eq. (17) over z_L, …, z_1, in place.

        z_k ← argmin over z of  D_k(z, a_k) − zᵀ Σ_{k′>k} W_k′kᵀ e_k′   [+ h(z) for k = L]

    For the Fenchel–Young potential this is z_k = f_k(a_k + (1/γ_k) Σ γ_k′ W_k′kᵀ
    (z_k′ − f_k′(a_k′))). A ``step`` below 1, one a sample, shape (batch, 1), goes only
    that part of the way. ``a`` caches pre-activations between passes: what a pass did not
    change is not computed again. Returns ‖Δz‖/step, shape (batch,).
    """
    h = energy.output
    a = [None] * (net.depth + 1) if a is None else a
    errors: list[Tensor | None] = [None] * (net.depth + 1)
    wanted = 0.0
    for k in range(net.depth, 0, -1):
        for child in net.fed_by(k):
            # In a chain the child's a is still the one it was updated with; where a skip
            # connection fed it a new z since, it is computed afresh.
            a[child] = net.preactivation(child, z) if a[child] is None else a[child]
            errors[child] = energy.potential.error(child, net.function(child), z[child], a[child])
        a[k] = net.preactivation(k, z) if a[k] is None else a[k]
        signal = net.feedback(k, errors)
        pull, curvature = (h.pull, h.curvature) if signal is None else (signal, 0.0)
        change = energy.potential.respond(k, net.function(k), a[k], pull, curvature) - z[k]
        wanted = wanted + change.square().sum(-1)
        z[k] = z[k] + step * change
        for child in net.fed_by(k):
            a[child] = None
    return wanted.sqrt()


@dataclass(frozen=True)
class PaperSweeps:
    """The procedure of Zach (2025), section 5, literally: ``passes`` full steps of (17)."""

    passes: int = 20

    def __post_init__(self) -> None:
        if self.passes < 1:
            raise ValueError(f"passes={self.passes} must be at least 1")

    def __call__(self, net: LiftedNetwork, energy: Energy, z: Activations) -> Report:
        """Improve z in place."""
        a: list[Tensor | None] = [None] * (net.depth + 1)
        wanted = [sweep(net, energy, z, a) for _ in range(self.passes)]
        return _report(self.passes, wanted[0], wanted[-1], z, tolerance=1e-3)


def paper_sweeps(n: int = 20) -> PaperSweeps:
    """The paper's solver: n backward passes after the forward pass."""
    return PaperSweeps(n)


@dataclass(frozen=True)
class Sweeps:
    """Passes of eq. (17) until they hardly move the batch; oscillating samples slow down.

    Stops when the batch's mean squared residual is ``tolerance`` times that of the first
    pass (with ``every``: when each sample's is), or after ``max_passes``. From pass
    ``patience`` on, a sample whose residual does not shrink takes a smaller step. A sample
    that would end above the energy of the activations that it started from goes back to
    them, so that always ROVR ≤ ℓ(z*) ≤ AROVR.
    """

    tolerance: float = 1e-2
    max_passes: int = 50
    patience: int = 8
    every: bool = False

    def __post_init__(self) -> None:
        if self.max_passes < 1:
            raise ValueError(f"max_passes={self.max_passes} must be at least 1")
        if not self.tolerance >= 0:
            raise ValueError(f"tolerance={self.tolerance} must not be negative")

    def __call__(self, net: LiftedNetwork, energy: Energy, z: Activations) -> Report:
        """Improve z in place."""
        a: list[Tensor | None] = [None] * (net.depth + 1)
        start, step = list(z), z[-1].new_ones(len(z[-1]), 1)
        first = last = sweep(net, energy, z, a)
        rounding, passes = _rounding(z), 1
        while passes < self.max_passes and not self._small(last, first, rounding):
            wanted = sweep(net, energy, z, a, step)
            if passes >= self.patience:
                step = torch.where((wanted >= last)[:, None], 0.7 * step, step).clamp_min(0.25)
            last, passes = wanted, passes + 1
        report = _report(passes, first, last, z, self.tolerance)
        worse = energy(net, z) > energy(net, start)
        for k in range(1, net.depth + 1):
            z[k] = torch.where(worse[:, None], start[k], z[k])
        # Where the start was a fixed point already, "worse" is a matter of rounding.
        return replace(report, converged=report.converged & (~worse | (first <= rounding)))

    def _small(self, last: Tensor, first: Tensor, rounding: Tensor) -> bool:
        enough = (self.tolerance * first.square()).maximum(rounding.square())
        if self.every:
            return bool((last.square() <= enough).all())
        return bool(last.square().mean() <= enough.mean())


def _report(passes: int, first: Tensor, last: Tensor, z: Activations, tolerance: float) -> Report:
    """Near the optimum the gap is quadratic in the residual: hence the tolerance's root."""
    lost = ~torch.isfinite(last)
    if lost.any():
        raise InferenceDiverged(f"activations of {int(lost.sum())} of {len(lost)} samples ran away "
                                f"within {passes} passes: lower beta or raise gamma")
    return Report(passes, last, last <= (tolerance**0.5 * first).maximum(_rounding(z)))


def _rounding(z: Activations) -> Tensor:
    """A residual, shape (batch,), that is no more than rounding of the activations."""
    size = sum(z_k.square().sum(-1) for z_k in z[1:]).sqrt()
    return 8 * torch.finfo(size.dtype).eps * size


@torch.no_grad()
def infer(net: LiftedNetwork, x: Tensor, energy: Energy, *,
          solver: Solver | None = None) -> tuple[Activations, Report]:
    """Activations that minimise the energy, starting from the forward pass.

    Parameters
    ----------
    net, x : the network and its input, shape (batch, d_0).
    energy : what to minimise, such as ``FenchelYoung() - 0.25 * Euclidean(y)``.
    solver : default ``Sweeps()``; ``paper_sweeps()`` for the paper's 20 passes.

    Returns
    -------
    z, report : [x, z_1, …, z_L] without autograd history, and a :class:`Report`.

    Raises
    ------
    ValueError : x or the energy does not fit the network (before any computing).
    InferenceDiverged : activations that are no longer finite.
    """
    check_input(net, x)
    energy.check(net)
    z = net.activations(x)
    report = (solver or Sweeps())(net, energy, z)
    return z, report
