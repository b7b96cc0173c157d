"""The default solver: inference as a search for the error of the output layer, by *shooting*.

At a minimum of E(z) = U(z; x) + h(z_L) the whole network follows from the error λ = e_L of its
output layer: λ sends signals p_k down, to which hidden layers answer; the answers, fed forward,
give the output layer, which feels h, an error φ(a_L); and that must be the one assumed. λ = φ(a_L)
has as many unknowns as the network has outputs. As with boundary-value problems: guess what is
unknown at one end, compute along, and correct by how far the other end was missed.

    z, a ← forward pass,  λ ← φ(a_L)
    repeat
        propose   down, k = L−1, …, 1:  p_k ← Σ_k′ W_k′kᵀ e_k′  with e_L = λ
                                        z_k ← argmin_z D_k(z, a_k) − p_kᵀz,  e_k ← −∂D_k/∂a_k
                  up, k = 1, …, L:      a_k ← Σ_j W_kj z_j + b_k
                                        z_k ← argmin_z D_k(z, a_k) − p_kᵀz,  with h in place of −p_Lᵀz
                  (the first pass, once down, scales λ, p_k and e_k by ω)
        relax     λ ← λ + ω·(φ(a_L) − λ)
        accept    sample by sample: where E rose, z and a stay as they were, and the next pass
                  is a sweep of eq. (17) with a step that is halved until E falls
    until the mean of the estimated gaps is within the tolerance

While no activation pattern changes, a_L = a_L* + K′λ with K′ = K − I/γ_L, the hidden layers' part
of K (``bounds.output_gram``), and Newton's method would multiply by (I − φ′K′)⁻¹. One number ω
per sample does nearly as well:

    first pass   ω = 1/(1 − φ′κ) with the Rayleigh quotient κ = λᵀK′λ/‖λ‖². It is free:
                 λᵀK′λ = Σ_k p_kᵀ(z_k − z_k*), what went down times what came of it.
    later        ω = 1/(1 − s) with the slope s of φ along the last change of λ: secant, or
                 Aitken, relaxation of a fixed-point iteration.

The safeguard is block-coordinate descent, damped by backtracking until its decrease is sufficient
(Armijo's condition with the quadratic model that each block minimises).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import at_least
from ..kinds import MOST, number
from ..network import LiftedNetwork
from ..potentials import Energy, Potential
from .iterate import InferenceDiverged, Iterate, Report, is_unbounded_below, mean_gap, scale

vecdot = torch.linalg.vecdot

#: The largest relaxation factor: a longer step is rarely accepted.
MAX_OMEGA = 4.0
#: By how many times its rounding error an energy may rise before a pass is taken back.
ROUNDING = 64
#: After this many passes, samples that have not converged are tested for a minimum.
TESTED_AFTER = {2**i for i in range(2, 20)}


@dataclass(frozen=True)
class Shooting:
    """Never increases the energy; stops when the mean relative gap is at most ``tolerance``.

    Args:
        tolerance: of the mean over the batch of the gap, as estimated (see ``Report``).
        max_passes: the most passes.
        every: stop only when each sample's gap is within the tolerance.

    A pass that would raise a sample's energy is taken back; that sample's next one is a
    sweep of eq. (17) with a step short enough to descend. A sample whose energy is found to
    have no minimum stays where it is, and the report says so; the others go on to their local
    optimum, though their energies have no minimum either (``Report.infinite``).
    """

    tolerance: float = 1e-3
    max_passes: int = 50
    every: bool = False

    def __post_init__(self) -> None:
        at_least("max_passes", self.max_passes, 1, MOST)
        if not number("tolerance", self.tolerance) >= 0:
            raise ValueError(f"tolerance={self.tolerance} must not be negative")

    def __call__(self, net: LiftedNetwork, energy: Energy, start: Iterate) -> tuple[Iterate, Report]:
        """The iterate at which the energy is as low as asked for, and a report."""
        for state in islice(self.iterate(net, energy, start), self.max_passes):
            gap = state.relative_gap()
            if (gap.amax() if self.every else gap.mean()) <= self.tolerance:
                break
            if state.passes in TESTED_AFTER:
                state.find_unbounded(gap > self.tolerance)
        state.check_numbers()
        if state.unbounded is None:
            unbounded = torch.zeros_like(gap, dtype=torch.bool)
        else:
            unbounded, gap = state.unbounded, gap.masked_fill(state.unbounded, torch.inf)
        return state.iterate, Report(state.passes, gap, gap <= self.tolerance, unbounded)

    @staticmethod
    def iterate(net: LiftedNetwork, energy: Energy, start: Iterate, *,
                omega: float | None = None) -> Iterator[ShootingState]:
        """The state after each pass, without end: always the same object, updated.

        Args:
            net: the network.
            energy: what to minimise.
            start: where to start, such as ``inference.forward_point(net, x, energy)``.
            omega: the relaxation factor of the first pass (default: from the Rayleigh quotient).
        """
        state = ShootingState(net, energy, start, omega)
        while True:
            state.step()
            yield state


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
        z: their answers, given the pre-activations of the last pass.
        e: the errors of the answers, and e[L] = λ.
        decrease: (batch,), what the blocks of a full sweep gain, each by itself: Σ ½‖Δz_k‖².
    """

    p: list[Tensor | None]
    z: list[Tensor | None]
    e: list[Tensor | None]
    decrease: Tensor | float


def pass_down(net: LiftedNetwork, U: Potential, now: Iterate, lam: Tensor,
              sweep: Sweep | None = None) -> Signals:
    """Signals p_L−1, …, p_1 that λ, shape (batch, d_L), causes, with the a_k of the iterate."""
    p, z, e = ([None] * (net.depth + 1) for _ in range(3))
    e[-1] = lam
    decrease = 0.0 if sweep is None else lam.new_zeros(())
    for k in range(net.depth - 1, 0, -1):
        G = net.function(k)
        p[k] = net.feedback(k, e)
        z[k] = U.prox(k, G, now.a[k], p[k])
        if sweep is not None:
            decrease = decrease + 0.5 * (z[k] - now.z[k]).square().sum(-1)
            z[k] = sweep.blend(z[k], now.z[k])
        if k in net.hidden_fed_layers:
            e[k] = U.error(k, G, z[k], now.a[k])
    return Signals(p, z, e, decrease)


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


class ShootingState:
    """A batch on its way to the minimum; ``step`` makes one pass.

    What one needs from outside: ``iterate``, the best point so far; ``passes``; and
    ``relative_gap()``, by how much it is estimated to be above the minimum.
    """

    def __init__(self, net: LiftedNetwork, energy: Energy, start: Iterate,
                 omega: float | None = None):
        self.net, self.energy = net, energy
        self.start = start                         # what gaps are relative to
        self.iterate = start
        self.passes = 0
        self.phi = output_error(net, energy, start.a[-1])  # (batch, d_L): φ(a_L) of the iterate
        self.lam = self.phi                        # (batch, d_L): λ of the next pass
        self.first_omega = omega
        self.omega: Tensor | None = None           # (batch, 1)
        self.last: tuple[Tensor, Tensor] | None = None  # λ and φ(a_L) of the last pass
        self.gap: Tensor | None = None             # (batch,): estimate of E − min E
        self.gap_weights: dict[int, Tensor] = {}   # (batch,) per layer: see start_relaxation
        self.scale = scale(start, start)           # (batch,)
        self.decrease: Tensor | None = None        # (batch,): of E in the last pass
        self.sweep: Sweep | None = None            # whose next pass is a damped sweep
        self.unbounded: Tensor | None = None       # (batch,): whose energy has no minimum
        self.not_a_number: Tensor | None = None    # (batch,): whose last trial had no energy

    def step(self) -> None:
        """One pass: propose, relax, accept."""
        signals, trial = self.propose()
        lam = self.relax(signals.e[-1], trial.e[-1])
        self.accept(signals, trial, lam)
        self.passes += 1

    def relative_gap(self) -> Tensor:
        """The estimated gap in units of ``scale``, (batch,); 0 for what has no minimum."""
        gap = self.gap / self.scale
        return gap if self.unbounded is None else gap.masked_fill_(self.unbounded, 0.0)

    def propose(self) -> tuple[Signals, Iterate]:
        """A pass down with λ and up again; the first one scales its signals by ω."""
        signals = pass_down(self.net, self.energy.potential, self.iterate, self.lam, self.sweep)
        if self.omega is None:
            self.start_relaxation(signals)
            p, e = ([None if v is None else self.omega * v for v in values]
                    for values in (signals.p, signals.e))
            signals = signals._replace(p=p, e=e)
        return signals, pass_up(self.net, self.energy, self.start, signals, self.sweep)

    def relax(self, lam: Tensor, phi: Tensor) -> Tensor:
        """The next λ, (batch, d_L), from the λ of this pass and the φ(a_L) that came of it."""
        if self.last is not None:
            self.omega = secant_omega(lam - self.last[0], phi - self.last[1])
        self.last = lam, phi
        return torch.lerp(lam, phi, self.omega)

    def accept(self, signals: Signals, trial: Iterate, lam: Tensor) -> None:
        """Go to the trial; samples that it would make worse stay where they are."""
        if self.gap is None and not self.energy.potential.minimum_is_zero:
            # What a tilt gains at the forward pass may be more than all that is left to find.
            self.start = trial
        decrease, self.scale = self.iterate.energy - trial.energy, scale(self.start, trial)
        better = self.descends(decrease, signals)
        gap = self.estimate(signals, trial, decrease)
        if self.sweep is not None or not better.all():
            self.safeguard(signals, trial, lam, decrease, gap, ~better[:, None])
        else:
            self.iterate, self.phi, self.lam = trial, trial.e[-1], lam
            self.decrease, self.gap, self.not_a_number = decrease, gap, None

    def descends(self, decrease: Tensor, signals: Signals) -> Tensor:
        """Whether E fell, (batch,), up to rounding; in a sweep, by a sufficient amount."""
        sufficient = 0.0
        if self.sweep is not None:
            # A sweep whose step is short enough gains twice this. Without the condition passes
            # near a kink go round in a cycle of equal energies.
            sufficient = torch.where(self.sweep.samples, 0.5 * self.sweep.step, 0.0)[:, 0]
            sufficient = sufficient * signals.decrease
        eps = torch.finfo(decrease.dtype).eps
        better = torch.add(decrease, self.scale, alpha=ROUNDING * eps) >= sufficient
        better &= decrease < torch.inf
        return better if self.unbounded is None else better & ~self.unbounded

    def start_relaxation(self, signals: Signals) -> None:
        """Set ω = 1/(1 − φ′κ), and the weights by which mismatches count in gaps."""
        net, U = self.net, self.energy.potential
        q = self.energy.output.curvature_along(self.start.z[-1], self.lam)
        gamma = U.curvature(net.depth)
        slope = -gamma * q / (gamma + q)  # φ′ where f_L is the identity
        if isinstance(slope, Tensor):
            slope = slope.reshape(-1, slope.shape[-1] if slope.ndim else 1).amax(1)
        kappa = self.rayleigh_quotient(signals)
        stiffness = (1 - slope * kappa).clamp_min_(1 / MAX_OMEGA)
        omega = stiffness.reciprocal()
        self.gap_weights = {k: mean_gap(net, k) * omega.clamp_min(1.0) for k in net.hidden_fed_layers[:-1]}
        if net.hidden_fed_layers:  # for ROVR the small ω hides how stiff the output is
            self.gap_weights[net.depth] = (
                0.5 * kappa * torch.maximum(omega, stiffness.square()))
        if self.first_omega is not None:
            omega = torch.full_like(omega, self.first_omega)
        self.omega = omega[:, None]

    def rayleigh_quotient(self, signals: Signals) -> Tensor:
        """κ = λᵀK′λ/‖λ‖² = Σ_k p_kᵀ(z_k − z_k*)/‖λ‖², shape (batch,)."""
        net, L = self.net, self.net.depth
        if L == 1 or not self.energy.potential.minimum_is_zero:
            # Under a tilt the answers are not linear in the signals: κ of a random λ, W_L alone.
            return torch.full_like(self.phi[:, 0], 2 * mean_gap(net, L))
        products = (vecdot(signals.p[k], signals.z[k] - self.start.z[k]) for k in range(1, L))
        return sum(products, start=next(products)) / (vecdot(self.lam, self.lam) + 1e-30)

    def estimate(self, signals: Signals, trial: Iterate, decrease: Tensor) -> Tensor:
        """The gap of the trial, (batch,): half its squared gradient, or more if E still falls."""
        gap = 0.0 if self.gap_weights else torch.zeros_like(decrease)
        for k, weight in self.gap_weights.items():
            mismatch = trial.e[k] - signals.e[k]
            gap = weight * vecdot(mismatch, mismatch) + gap
        if self.decrease is None:
            return gap
        # What is left, should the energy go on falling in the ratio of the last two passes.
        eps, tiny = torch.finfo(decrease.dtype).eps, torch.finfo(decrease.dtype).tiny
        decrease = torch.sub(decrease, self.scale, alpha=ROUNDING * eps).clamp_min_(0.0)
        slowing = (self.decrease - decrease).maximum(0.05 * decrease).clamp_min(tiny)
        return gap.maximum(decrease.square() / slowing)

    def safeguard(self, signals: Signals, trial: Iterate, lam: Tensor, decrease: Tensor,
                  gap: Tensor, worse: Tensor) -> None:
        """Keep what is better; samples that are ``worse``, (batch, 1), go on with a sweep."""
        swept = torch.zeros_like(worse) if self.sweep is None else self.sweep.samples
        step = torch.full_like(decrease[:, None], 0.5)
        if self.sweep is not None:  # of a sweep it is known what it wanted to change
            gap = torch.where(swept[:, 0], gap.maximum(signals.decrease), gap)
            step = torch.where(worse & swept, 0.5 * self.sweep.step, 0.5)
        self.sweep = Sweep(worse, step) if worse.any() else None
        self.not_a_number = trial.energy.isnan()
        if self.not_a_number.any():  # unless activations are so large that their squares overflow
            squares = sum(vecdot(v, v) for v in (*trial.z[1:], *trial.a[1:]))
            self.not_a_number &= squares.isfinite()
        self.omega = torch.where(worse & ~swept, 1.0, self.omega)
        self.phi = torch.where(worse, self.phi, trial.e[-1])
        self.lam = torch.where(worse | swept, self.phi, lam)
        self.gap = torch.where(worse[:, 0], torch.inf if self.gap is None else self.gap, gap)
        self.decrease = (decrease if self.decrease is None
                         else torch.where(worse[:, 0], self.decrease, decrease))
        self.iterate = self.iterate.where(worse, trial)
        self.scale = scale(self.start, self.iterate)

    def find_unbounded(self, unconverged: Tensor) -> None:
        """Leave those of these samples where they are that have no minimum to go to."""
        found = unconverged & is_unbounded_below(self.net, self.energy, self.start, self.iterate)
        if found.any():
            self.unbounded = found if self.unbounded is None else self.unbounded | found

    def check_numbers(self) -> None:
        """InferenceDiverged where the energy is NaN: that would count as "worse" every time."""
        if self.not_a_number is not None and self.not_a_number.any():
            raise InferenceDiverged(
                f"the energy of {int(self.not_a_number.sum())} of {len(self.not_a_number)} samples "
                "is not a number at activations that are: a convex function or the potential "
                "returns NaN")


def secant_omega(dlam: Tensor, dphi: Tensor) -> Tensor:
    """1/(1 − s) with the slope s of φ(a_L) along the last change of λ, shape (batch, 1)."""
    slope = vecdot(dlam, dphi) / (vecdot(dlam, dlam) + 1e-30)
    return (1 / (1 - slope).clamp_min(1 / MAX_OMEGA))[:, None]
