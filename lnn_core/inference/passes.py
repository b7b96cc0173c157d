"""One pass of the shooting method, down through the hidden layers and up again.

Functions of tensors that look at no value and keep nothing, so that ``torch.compile`` can make
one kernel of a first pass; what is decided from their results is in :mod:`.shooting`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..network import LiftedNetwork
from ..potentials import Energy, Potential
from .iterate import Iterate, forward_point, mean_gap, scale

vecdot = torch.linalg.vecdot

#: The largest relaxation factor: a longer step is rarely accepted.
MAX_OMEGA = 4.0
#: By how many times its rounding error an energy may rise before a pass is taken back.
ROUNDING = 64


class Sweep(NamedTuple):
    """The samples, shape (batch, 1), whose pass is a damped sweep of eq. (17), and their steps."""

    samples: Tensor
    step: Tensor

    def blend(self, answer: Tensor, z: Tensor) -> Tensor:
        """The answer; in a sweep only ``step`` of the way to it."""
        return torch.where(self.samples, z + self.step * (answer - z), answer)


class Signals(NamedTuple):
    """What a pass down computes; lists are indexed by layer, None where there is nothing.

    Attributes:
        p: the signals to hidden layers, (batch, d_k).
        z: their answers in a sweep, given the pre-activations of the last pass.
        e: the errors of the answers, and e[L] = λ.
        gain: (batch,), Σ p_kᵀ(z_k − z_k of the iterate): λᵀK′λ from the forward pass.
        decrease: (batch,), what the blocks of a full sweep gain, each by itself: Σ ½‖Δz_k‖².
    """

    p: list[Tensor | None]
    z: list[Tensor | None]
    e: list[Tensor | None]
    gain: Tensor
    decrease: Tensor

    def scale_(self, omega: Tensor) -> Signals:
        """The signals times ω, shape (batch, 1), in place, and so the errors, which are new tensors.

        In place, as what is read once more should still be in the processor's cache.
        """
        p = [None if v is None else v.mul_(omega) for v in self.p]
        return self._replace(p=p, e=[None if v is None else omega * v for v in self.e])


class Trial(NamedTuple):
    """Where a pass leads, and what it is worth.

    Attributes:
        signals: of the pass.
        iterate: where it leads.
        decrease: (batch,), of E.
        scale: (batch,), what gaps are relative to.
        gap: (batch,), how far E is above its minimum, estimated from what violates stationarity.
        better: (batch,), whether E fell, up to rounding.
    """

    signals: Signals
    iterate: Iterate
    decrease: Tensor
    scale: Tensor
    gap: Tensor
    better: Tensor


class FirstPass(NamedTuple):
    """The first pass from a start, and what later ones need of it.

    Attributes:
        trial: where it leads.
        origin: what gaps are relative to the energy of.
        lam: (batch, d_L): the λ that was sent, before it was scaled by ω.
        omega: (batch, 1).
        weights: (batch,) for each layer: by how much a squared mismatch of errors counts in gaps.
        gap: (batch,), in units of the scale; ∞ where E rose.
    """

    trial: Trial
    origin: Iterate
    lam: Tensor
    omega: Tensor
    weights: dict[int, Tensor]
    gap: Tensor


def first_pass_from_input(net: LiftedNetwork, x: Tensor, energy: Energy,
                          rows: Tensor | None = None) -> tuple[Iterate, FirstPass]:
    """The forward pass and the first pass from there: what ``Shooting(compiled=True)`` compiles."""
    start = forward_point(net, x, energy, rows)
    return start, first_pass(net, energy, start)


def first_pass(net: LiftedNetwork, energy: Energy, start: Iterate,
               omega: float | None = None) -> FirstPass:
    """The pass from the forward pass, whose signals are scaled by ω = 1/(1 − φ′κ), or by the one given."""
    lam = output_error(net, energy, start.a[-1])
    signals = pass_down(net, energy.potential, start, lam)
    factor, weights = relaxation(net, energy, start, signals)
    if omega is not None:
        factor = torch.full_like(factor, omega)
    signals = signals.scale_(factor)
    end = pass_up(net, energy, start, signals)
    # What a tilt gains at the forward pass may be more than all that is left to find.
    origin = start if energy.potential.minimum_is_zero else end
    decrease, size = start.energy - end.energy, scale(origin, end)
    trial = Trial(signals, end, decrease, size, mismatch(weights, signals, end, decrease),
                  descends(decrease, size))
    return FirstPass(trial, origin, lam, factor, weights,
                     torch.where(trial.better, trial.gap / size, torch.inf))


def pass_down(net: LiftedNetwork, U: Potential, now: Iterate, lam: Tensor,
              sweep: Sweep | None = None) -> Signals:
    """Signals p_L−1, …, p_1 that λ, shape (batch, d_L), causes, with the a_k of the iterate."""
    p, z, e = ([None] * (net.depth + 1) for _ in range(3))
    e[-1] = lam
    gain = decrease = lam.new_zeros(())
    for k in range(net.depth - 1, 0, -1):
        G = net.function(k)
        p[k] = net.feedback(k, e)
        answer = U.prox(k, G, now.a[k], p[k])
        if sweep is None:
            gain = vecdot(p[k], answer - now.z[k]) + gain
        else:
            decrease = 0.5 * (answer - now.z[k]).square().sum(-1) + decrease
            answer = z[k] = sweep.blend(answer, now.z[k])
        if k in net.hidden_fed_layers:
            e[k] = U.error(k, G, answer, now.a[k])
    return Signals(p, z, e, gain, decrease)


def pass_up(net: LiftedNetwork, energy: Energy, start: Iterate, signals: Signals,
            sweep: Sweep | None = None) -> Iterate:
    """The answers to the signals with fresh pre-activations; a sweep keeps those it has.

    ``start`` has the pre-activations of the layers that the input alone feeds.
    """
    U = energy.potential
    z, a = list(start.z), list(start.a)
    for k in range(1, net.depth + 1):
        if k in net.hidden_fed_layers:
            a[k] = net.preactivation(k, z)
        if k == net.depth:
            z[k] = energy.output_prox(net, a[k])
            continue
        z[k] = U.prox(k, net.function(k), a[k], signals.p[k])
        if sweep is not None:
            z[k] = torch.where(sweep.samples, signals.z[k], z[k])
    return Iterate.of(net, energy, z, a)


def output_error(net: LiftedNetwork, energy: Energy, a: Tensor) -> Tensor:
    """φ(a_L), (batch, d_L): the error of the output layer where it answers h alone."""
    return energy.potential.error(net.depth, net.function(net.depth), energy.output_prox(net, a), a)


def relaxation(net: LiftedNetwork, energy: Energy, start: Iterate,
               signals: Signals) -> tuple[Tensor, dict[int, Tensor]]:
    """ω = 1/(1 − φ′κ), (batch, 1), and the weights by which mismatches count in gaps."""
    U = energy.potential
    q = energy.output.curvature_along(start.z[-1], signals.e[-1])
    gamma = U.curvature(net.depth)
    slope = -gamma * q / (gamma + q)  # φ′ where f_L is the identity
    if isinstance(slope, Tensor):
        slope = slope.reshape(-1, slope.shape[-1] if slope.ndim else 1).amax(1)
    kappa = rayleigh_quotient(net, U, signals)
    stiffness = (1 - slope * kappa).clamp_min_(1 / MAX_OMEGA)
    omega = stiffness.reciprocal()
    weights = {k: mean_gap(net, k) * omega.clamp_min(1.0) for k in net.hidden_fed_layers[:-1]}
    if net.hidden_fed_layers:  # for ROVR the small ω hides how stiff the output is
        weights[net.depth] = 0.5 * kappa * torch.maximum(omega, stiffness.square())
    return omega[:, None], weights


def rayleigh_quotient(net: LiftedNetwork, U: Potential, signals: Signals) -> Tensor:
    """κ = λᵀK′λ/‖λ‖² = Σ_k p_kᵀ(z_k − z_k*)/‖λ‖², shape (batch,)."""
    lam, L = signals.e[-1], net.depth
    if L == 1 or not U.minimum_is_zero:
        # Under a tilt the answers are not linear in the signals: κ of a random λ, W_L alone.
        return torch.zeros_like(lam[:, 0]) + 2 * mean_gap(net, L)
    return signals.gain / (vecdot(lam, lam) + 1e-30)


def mismatch(weights: dict[int, Tensor], signals: Signals, end: Iterate, like: Tensor) -> Tensor:
    """Half the squared gradient of E where errors are not those that were assumed, (batch,)."""
    gap = 0.0 if weights else torch.zeros_like(like)
    for k, weight in weights.items():
        # A norm reads its argument once; a product of it with itself would be written first.
        gap = weight * torch.linalg.vector_norm(end.e[k] - signals.e[k], dim=-1).square() + gap
    return gap


def descends(decrease: Tensor, size: Tensor, sufficient: Tensor | float = 0.0) -> Tensor:
    """Whether E fell, (batch,), by a sufficient amount up to rounding; not to −∞, nor to NaN."""
    eps = torch.finfo(decrease.dtype).eps
    better = torch.add(decrease, size, alpha=ROUNDING * eps) >= sufficient
    better &= decrease < torch.inf
    return better
