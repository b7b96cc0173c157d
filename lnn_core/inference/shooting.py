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
from functools import cached_property
from itertools import islice

import torch
from torch import Tensor

from ..checks import at_least
from ..kinds import MOST, expect, number
from ..network import LiftedNetwork
from ..potentials import Energy, FenchelYoung, LeastSquares, Potential, innermost
from .compiled import Kernels
from .iterate import InferenceDiverged, Iterate, Report, is_unbounded_below, scale
from .passes import (
    MAX_OMEGA,
    ROUNDING,
    FirstPass,
    Signals,
    Sweep,
    Trial,
    descends,
    first_pass,
    first_pass_from_input,
    mismatch,
    pass_down,
    pass_up,
    vecdot,
)

#: Samples are left where they are once their gap is this part of the tolerance: that early, only those
#: which another pass could change but little.
LEFT_AT = 0.1
#: After this many passes, samples that have not converged are tested for a minimum.
TESTED_AFTER = {2**i for i in range(2, 20)}


@dataclass(frozen=True)
class Shooting:
    """Never increases the energy; stops when the mean relative gap is at most ``tolerance``.

    Args:
        tolerance: of the mean over the batch of the gap, as estimated (see ``Report``).
        max_passes: the most passes.
        every: stop only when each sample's gap is within the tolerance.
        compiled: run the forward and the first pass through ``torch.compile``, in ``gradients`` and
            ``over`` of an objective the gradients, too; results are equal to rounding. The first call
            for each β and each size of a batch takes seconds. Where that fails (no C++ compiler,
            cross-entropy, affine modules that are neither matrices nor convolutions), a
            ``CompilationWarning`` says so, and nothing else changes.

    Once half of the samples on their way are within a tenth of the tolerance, passes are made for
    the others alone. A pass that would raise a sample's energy is taken back; that sample's next one is a
    sweep of eq. (17) with a step short enough to descend. A sample whose energy is found to
    have no minimum stays where it is, and the report says so; the others go on to their local
    optimum, though their energies have no minimum either (``Report.infinite``).
    """

    tolerance: float = 1e-3
    max_passes: int = 50
    every: bool = False
    compiled: bool = False

    def __post_init__(self) -> None:
        at_least("max_passes", self.max_passes, 1, MOST)
        expect("every", self.every, bool, "True or False")
        expect("compiled", self.compiled, bool, "True or False")
        if not number("tolerance", self.tolerance) >= 0:
            raise ValueError(f"tolerance={self.tolerance} must not be negative")

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "kernels"}  # no pickle has those

    @cached_property
    def kernels(self) -> Kernels:
        """What was compiled for this solver."""
        return Kernels()

    def __call__(self, net: LiftedNetwork, energy: Energy, start: Iterate) -> tuple[Iterate, Report]:
        """The iterate at which the energy is as low as asked for, and a report."""
        return self.after(net, energy, start, first_pass(net, energy, start))

    def from_input(self, net: LiftedNetwork, x: Tensor, energy: Energy,
                   rows: Tensor | None = None) -> tuple[Iterate, Report]:
        """The same from the input x (these ``rows`` of it), forward and first pass compiled together."""
        start, first = self.kernels(first_pass_from_input, net, x, energy, rows)
        return self.after(net, energy, start, first)

    def after(self, net: LiftedNetwork, energy: Energy, start: Iterate,
              first: FirstPass) -> tuple[Iterate, Report]:
        """The same after the first pass."""
        if report := self.enough(first):
            return first.trial.iterate, report
        batch = Batch(ShootingState(net, energy, start, first))
        for state in islice(_after(batch.state), self.max_passes):
            gap = state.relative_gap()
            if self.is_done(batch.filled(batch.gap, gap)):
                break
            if state.passes in TESTED_AFTER:
                state.find_unbounded(gap > self.tolerance)
            batch.leave_where_they_are(gap <= LEFT_AT * self.tolerance)
        state.check_numbers()
        end, gap, unbounded = batch.merged()
        gap = gap.masked_fill(unbounded, torch.inf)
        return end, Report(state.passes, gap, gap <= self.tolerance, unbounded)

    def enough(self, first: FirstPass) -> Report | None:
        """The report of a first pass where no other is needed, as in most training steps."""
        if self.is_done(first.gap):
            return Report(1, first.gap, first.gap <= self.tolerance, settled=True)
        return None

    def is_done(self, gap: Tensor) -> bool:
        """Whether relative gaps, (batch,), are as small as asked for."""
        return bool((gap.amax() if self.every else gap.mean()) <= self.tolerance)

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
        yield from _after(ShootingState(net, energy, start, first_pass(net, energy, start, omega)))


def _after(state: ShootingState) -> Iterator[ShootingState]:
    """The state, and that after each further pass."""
    while True:
        yield state
        state.step()


class Batch:
    """A batch of which only some samples are still on their way: passes are made for those alone.

    Near the border of stability one sample may take ten times as many passes as the others.

    Attributes:
        state: of the samples on their way.
        rows: which they are, (samples,); None for all.
        gap: (batch,), relative gaps of the samples that were left where they are.
    """

    def __init__(self, state: ShootingState):
        self.state = state
        self.rows: Tensor | None = None
        self.end, self.gap = state.iterate, state.relative_gap()
        base = type(innermost(state.energy.potential)[0])  # a user's own may have parameters by sample
        self.divisible = base in (FenchelYoung, LeastSquares) or base.take is not Potential.take
        self.unbounded = torch.zeros_like(self.gap, dtype=torch.bool)

    def filled(self, values: Tensor, new: Tensor) -> Tensor:
        """Values of all samples, (batch,), with new ones for those on their way."""
        return new if self.rows is None else values.index_copy(0, self.rows, new)

    def merged(self) -> tuple[Iterate, Tensor, Tensor]:
        """Where all samples are, their gaps, and which are unbounded."""
        state, unbounded = self.state, self.state.unbounded
        if unbounded is None:
            unbounded = torch.zeros_like(state.scale, dtype=torch.bool)
        end = state.iterate if self.rows is None else self.end.with_rows(self.rows, state.iterate)
        return (end, self.filled(self.gap, state.relative_gap()),
                self.filled(self.unbounded, unbounded))

    def leave_where_they_are(self, done: Tensor) -> None:
        """Go on without those that are done, (samples,), if they are at least half of all."""
        if not self.divisible or 2 * int(done.sum()) < len(done):
            return
        self.end, self.gap, self.unbounded = self.merged()
        left = (~done).nonzero()[:, 0]
        self.rows = left if self.rows is None else self.rows[left]
        self.state.keep(left)


class ShootingState:
    """A batch on its way to the minimum, after its first pass; ``step`` makes one more.

    What one needs from outside: ``iterate``, the best point so far; ``passes``; and
    ``relative_gap()``, by how much it is estimated to be above the minimum.
    """

    def __init__(self, net: LiftedNetwork, energy: Energy, start: Iterate, first: FirstPass):
        self.net, self.energy = net, energy
        self.start = first.origin                  # what gaps are relative to
        self.iterate = start
        self.passes = 1
        self.phi = self.lam = first.lam            # (batch, d_L): φ(a_L) of the iterate, λ of the next pass
        self.omega = first.omega                   # (batch, 1)
        self.gap_weights = first.weights           # (batch,) per layer: see passes.relaxation
        self.last: tuple[Tensor, Tensor] | None = None  # λ and φ(a_L) of the last pass
        self.gap: Tensor | None = None             # (batch,): estimate of E − min E
        self.scale = first.trial.scale             # (batch,)
        self.decrease: Tensor | None = None        # (batch,): of E in the last pass
        self.sweep: Sweep | None = None            # whose next pass is a damped sweep
        self.unbounded: Tensor | None = None       # (batch,): whose energy has no minimum
        self.not_a_number: Tensor | None = None    # (batch,): whose last trial had no energy
        self.accept(first.trial)

    def keep(self, rows: Tensor) -> None:
        """Go on with these samples alone."""
        self.energy = self.energy.take(rows)
        self.start, self.iterate = self.start.take(rows), self.iterate.take(rows)
        self.gap_weights = {k: weight[rows] for k, weight in self.gap_weights.items()}
        self.last = self.last[0][rows], self.last[1][rows]
        if self.sweep is not None:
            self.sweep = Sweep(self.sweep.samples[rows], self.sweep.step[rows])
        for name in ("phi", "lam", "omega", "gap", "scale", "decrease", "unbounded", "not_a_number"):
            if (value := getattr(self, name)) is not None:
                setattr(self, name, value[rows])

    def step(self) -> None:
        """One pass: propose, accept."""
        self.accept(self.propose())
        self.passes += 1

    def relative_gap(self) -> Tensor:
        """The estimated gap in units of ``scale``, (batch,); 0 for what has no minimum."""
        gap = self.gap / self.scale
        return gap if self.unbounded is None else gap.masked_fill_(self.unbounded, 0.0)

    def propose(self) -> Trial:
        """A pass down with λ and up again, and what it is worth."""
        signals = pass_down(self.net, self.energy.potential, self.iterate, self.lam, self.sweep)
        end = pass_up(self.net, self.energy, self.start, signals, self.sweep)
        decrease, size = self.iterate.energy - end.energy, scale(self.start, end)
        gap = self.with_slowing(mismatch(self.gap_weights, signals, end, decrease), decrease, size)
        return Trial(signals, end, decrease, size, gap,
                     self.without_unbounded(descends(decrease, size, self.sufficient(signals))))

    def sufficient(self, signals: Signals) -> Tensor | float:
        """The decrease that is asked for: in a sweep half of what a step that is short enough gains.

        Without the condition passes near a kink go round in a cycle of equal energies.
        """
        if self.sweep is None:
            return 0.0
        return torch.where(self.sweep.samples, 0.5 * self.sweep.step, 0.0)[:, 0] * signals.decrease

    def without_unbounded(self, better: Tensor) -> Tensor:
        """Samples whose energy has no minimum stay where they are."""
        return better if self.unbounded is None else better & ~self.unbounded

    def with_slowing(self, gap: Tensor, decrease: Tensor, size: Tensor) -> Tensor:
        """At least what is left should E go on falling in the ratio of the last two passes."""
        if self.decrease is None:
            return gap
        eps, tiny = torch.finfo(decrease.dtype).eps, torch.finfo(decrease.dtype).tiny
        decrease = torch.sub(decrease, size, alpha=ROUNDING * eps).clamp_min_(0.0)
        slowing = (self.decrease - decrease).maximum(0.05 * decrease).clamp_min(tiny)
        return gap.maximum(decrease.square() / slowing)

    def accept(self, trial: Trial) -> None:
        """Go to the trial; samples that it would make worse stay where they are."""
        lam = self.relax(trial.signals.e[-1], trial.iterate.e[-1])
        if self.sweep is not None or not trial.better.all():
            self.safeguard(trial, lam)
        else:
            self.iterate, self.phi, self.lam = trial.iterate, trial.iterate.e[-1], lam
            self.decrease, self.gap, self.scale = trial.decrease, trial.gap, trial.scale
            self.not_a_number = None

    def relax(self, lam: Tensor, phi: Tensor) -> Tensor:
        """The next λ, (batch, d_L), from the λ of this pass and the φ(a_L) that came of it."""
        if self.last is not None:
            self.omega = secant_omega(lam - self.last[0], phi - self.last[1])
        self.last = lam, phi
        return torch.lerp(lam, phi, self.omega)

    def safeguard(self, trial: Trial, lam: Tensor) -> None:
        """Keep what is better; samples that would be worse go on with a sweep."""
        signals, end, worse = trial.signals, trial.iterate, ~trial.better[:, None]
        swept = torch.zeros_like(worse) if self.sweep is None else self.sweep.samples
        step, gap = torch.full_like(trial.decrease[:, None], 0.5), trial.gap
        if self.sweep is not None:  # of a sweep it is known what it wanted to change
            gap = torch.where(swept[:, 0], gap.maximum(signals.decrease), gap)
            step = torch.where(worse & swept, 0.5 * self.sweep.step, 0.5)
        self.sweep = Sweep(worse, step) if worse.any() else None
        self.not_a_number = end.energy.isnan()
        if self.not_a_number.any():  # unless activations are so large that their squares overflow
            squares = sum(vecdot(v, v) for v in (*end.z[1:], *end.a[1:]))
            self.not_a_number &= squares.isfinite()
        self.omega = torch.where(worse & ~swept, 1.0, self.omega)
        self.phi = torch.where(worse, self.phi, end.e[-1])
        self.lam = torch.where(worse | swept, self.phi, lam)
        self.gap = torch.where(worse[:, 0], torch.inf if self.gap is None else self.gap, gap)
        self.decrease = (trial.decrease if self.decrease is None
                         else torch.where(worse[:, 0], self.decrease, trial.decrease))
        self.iterate = self.iterate.where(worse, end)
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
                f"the energy is not a number at activations that are, for {int(self.not_a_number.sum())} "
                "samples: a convex function or the potential returns NaN")


def secant_omega(dlam: Tensor, dphi: Tensor) -> Tensor:
    """1/(1 − s) with the slope s of φ(a_L) along the last change of λ, shape (batch, 1)."""
    slope = vecdot(dlam, dphi) / (vecdot(dlam, dlam) + 1e-30)
    return (1 / (1 - slope).clamp_min(1 / MAX_OMEGA))[:, None]
