"""What inference works on and what it reports: points, gaps, and how far from stationary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .network import Activations, LiftedNetwork
from .potentials import Energy


class InferenceDiverged(RuntimeError):
    """The activations ran away: the energy is, or looks, unbounded below."""


@dataclass(frozen=True)
class Point:
    """Activations and what they cause; lists are indexed by layer, entry 0 of a and e is None.

    z : [x, z_1, …, z_L].
    a : pre-activations a_k of shape (batch, d_k).
    e : errors e_k = −∂U/∂a_k, shape (batch, d_k): the gradient of E with respect to W_kj is
        −Σ e_k z_jᵀ, summed over the batch.
    energy : E(z), shape (batch,).
    """

    z: Activations
    a: list[Tensor | None]
    e: list[Tensor | None]
    energy: Tensor

    @classmethod
    def of(cls, net: LiftedNetwork, energy: Energy, z: Activations,
           a: list[Tensor | None] | None = None) -> Point:
        """The point of these activations; pre-activations that are not given are computed."""
        layers = range(1, net.depth + 1)
        known = [None] * (net.depth + 1) if a is None else a
        a = [None] + [net.preactivation(k, z) if known[k] is None else known[k] for k in layers]
        U, e, value = energy.potential, [None], energy.output(z[-1])
        for k in layers:
            share, error = U.share_and_error(k, net.function(k), z[k], a[k])
            value = value + share
            e.append(error)
        return cls(z, a, e, value)


@dataclass(frozen=True)
class Report:
    """What inference did, sample by sample.

    passes : backward passes run.
    gap : shape (batch,); an estimate, from what violates stationarity, of how far E(z) is
        above the minimum that it is heading for, relative to ``scale``.
    converged : shape (batch,); whether the gap is within the solver's tolerance.
    unbounded : shape (batch,); samples with a proof that their energy has no minimum.
    """

    passes: int
    gap: Tensor
    converged: Tensor
    unbounded: Tensor

    def __str__(self) -> str:
        unbounded = f", {int(self.unbounded.sum())} unbounded" if self.unbounded.any() else ""
        return (f"{self.passes} passes, mean relative gap {self.gap.mean():.1e}, "
                f"{int(self.converged.sum())} of {len(self.converged)} samples converged{unbounded}")


#: A solver takes the forward pass and returns where it ended, and a report.
Solver = Callable[[LiftedNetwork, Energy, Point], tuple[Point, Report]]


@torch.no_grad()
def residual(net: LiftedNetwork, energy: Energy, point: Point) -> Tensor:
    """‖z − z⁺‖, shape (batch,), for the z⁺ with which every layer would answer the others.

    z⁺_k = argmin over z of D_k(z, a_k) − zᵀ Σ W_k′kᵀ e_k′ [+ h for k = L], all layers at
    once. It is the step of a projected gradient: zero exactly where E is stationary, and
    half its square is about how much E is above its minimum.
    """
    h, total = energy.output, 0.0
    for k in range(1, net.depth + 1):
        signal = net.feedback(k, point.e)
        pull, curvature = (h.pull, h.curvature) if signal is None else (signal, 0.0)
        answer = energy.potential.respond(k, net.function(k), point.a[k], pull, curvature)
        total = total + (answer - point.z[k]).square().sum(-1)
    return total.sqrt()


def scale(start: Point, end: Point) -> Tensor:
    """What gaps are relative to, shape (batch,): max(|E|, the gain over the start).

    A little more, so that it is never below what rounding the outputs would change.
    """
    eps, output = torch.finfo(end.energy.dtype).eps, start.z[-1]
    size = torch.maximum(end.energy.abs(), start.energy - end.energy)
    return size.add_(torch.linalg.vecdot(output, output), alpha=eps).clamp_min_(1e-30)
