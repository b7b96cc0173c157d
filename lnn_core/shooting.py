"""The default solver: inference as a search for the output's error, one number an output.

At a minimum of E(z) = U(z; x) + h(z_L) the whole network follows from the error λ = e_L of
its output layer: λ sends signals p_k = Σ W_k′kᵀ e_k′ down, to which hidden layers answer
with z_k = argmin D_k(z, a_k) − p_kᵀz; the answers, fed forward, give the output layer its
pre-activations a_L; and with those the output layer, which feels h, must have the error
that was assumed: λ = φ(a_L). As many equations as outputs, solved by *shooting*:

    down   signals p_L−1, …, p_1 from λ, with the a_k of the last pass
    up     activations z_1, …, z_L with fresh a_k
    λ ← λ + (φ(a_L) − λ)/(1 − s)

As long as no activation pattern changes, a_L is linear in λ with a matrix K (see
``bounds.output_gram``), and Newton's method would divide by I − φ′K. One number a sample
does nearly as well: s is φ′ times the Rayleigh quotient κ = λᵀKλ/‖λ‖² in the first pass,
where κ costs nothing, λᵀKλ = Σ_k p_kᵀ(z_k − z_k*), what went down times what came of it;
and after that the slope of φ(a_L) measured between the last two passes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import at_least
from .kinds import MOST, number
from .network import LiftedNetwork
from .points import InferenceDiverged, Point, Report, scale
from .potentials import Energy

vecdot = torch.linalg.vecdot

#: The largest 1/(1 − s): a longer step is rarely accepted.
LONGEST = 4.0
#: By how many times its rounding error an energy may rise before a pass is taken back.
ROUNDING = 64
#: After so many passes, samples that have not settled are asked whether they ever will.
SUSPECT = {2**i for i in range(2, 20)}


@dataclass(frozen=True)
class Shooting:
    """Never increases the energy; stops when the mean relative gap is at most ``tolerance``.

    Parameters
    ----------
    tolerance : of the mean over the batch of the gap, as estimated (see ``Report``).
    max_passes : the most passes.
    every : stop only when each sample's gap is within the tolerance.

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

    def __call__(self, net: LiftedNetwork, energy: Energy, start: Point) -> tuple[Point, Report]:
        """The point where the energy is as low as asked for, and a report."""
        shots = Shots(net, energy, start)
        for passes in range(1, self.max_passes + 1):
            shots.once()
            gap = shots.gap / shots.scale
            if shots.lost is not None:
                gap.masked_fill_(shots.lost, 0.0)
            if (gap.amax() if self.every else gap.mean()) <= self.tolerance:
                break
            if passes in SUSPECT:
                shots.give_up(gap > self.tolerance)
        shots.check_numbers()
        if shots.lost is None:
            unbounded = torch.zeros_like(gap, dtype=torch.bool)
        else:
            unbounded, gap = shots.lost, gap.masked_fill(shots.lost, torch.inf)
        return shots.point, Report(passes, gap, gap <= self.tolerance, unbounded)


class Shots:
    """A batch on its way to the minimum: ``once`` makes one pass.

    point, gap : the best point so far, and how far it is above the minimum, (batch,),
        estimated from what it violates of stationarity.
    """

    def __init__(self, net: LiftedNetwork, energy: Energy, start: Point):
        self.net, self.energy, self.start, self.point = net, energy, start, start
        self.pull, self.curvature = energy.output.pull, energy.output.curvature
        G, U = net.function(net.depth), energy.potential
        z = U.respond(net.depth, G, start.a[-1], self.pull, self.curvature)
        self.aim = U.error(net.depth, G, z, start.a[-1])  # φ(a_L) of the point
        self.error = self.aim                      # λ of the next pass
        self.gain = self.last = None               # 1/(1 − s); λ and φ of the last pass
        self.gap = self.drop = None                # by how much E fell in the last pass
        self.short = None                          # (batch, 1): whose next pass is a short sweep
        self.step: Tensor | float = 0.5
        self.tilted = not U.minimum_is_zero
        self.lost = None                           # (batch,): whose energy has no minimum
        self.senseless = None                      # (batch,): whose last trial had no energy

    def give_up(self, unsettled: Tensor) -> None:
        """Leave those of these samples where they are that have no minimum to go to."""
        lost = unsettled & falls_forever(self.net, self.energy, self.start, self.point)
        if lost.any():
            self.lost = lost if self.lost is None else self.lost | lost

    def check_numbers(self) -> None:
        """InferenceDiverged where the energy is NaN: that would count as "worse" for ever."""
        if self.senseless is not None and self.senseless.any():
            raise InferenceDiverged(
                f"the energy of {int(self.senseless.sum())} of {len(self.senseless)} samples is not "
                "a number at activations that are: a convex function or the potential returns NaN")

    def once(self) -> None:
        """One pass down and up; samples that it would make worse stay where they are."""
        signals, answers, errors = self.down()
        if self.gain is None:
            self.gain = self.newton(signals, answers)
            for values in (signals, errors):
                values[:] = [None if v is None else self.gain * v for v in values]
        trial = self.up(signals, answers)
        if self.last is not None:
            self.gain = self.secant(errors[-1] - self.last[0], trial.e[-1] - self.last[1])
        self.last = errors[-1], trial.e[-1]
        error = torch.lerp(errors[-1], trial.e[-1], self.gain)
        if self.tilted and self.gap is None:
            # What a tilt gains at the forward pass may be more than all that is left to find.
            self.start = trial
        drop, self.scale = self.point.energy - trial.energy, scale(self.start, trial)
        eps = torch.finfo(drop.dtype).eps
        # Of a sweep whose step is short enough it is known that it gains twice this; without
        # it, passes near a kink go round in a cycle of equal energies.
        promised = 0.0 if self.short is None else torch.where(
            self.short, 0.5 * self.step, 0.0)[:, 0] * self.wish
        fine = torch.add(drop, self.scale, alpha=ROUNDING * eps) >= promised
        fine &= drop < torch.inf
        if self.lost is not None:
            fine &= ~self.lost
        gap = self.estimate(trial, errors, drop)
        if self.short is not None or not fine.all():
            self.recover(trial, error, drop, gap, ~fine[:, None])
        else:
            self.point, self.aim, self.error = trial, trial.e[-1], error
            self.drop, self.gap, self.senseless = drop, gap, None

    def down(self) -> tuple[list, list, list]:
        """Signals p_k, the answers to them with the a_k of the last pass, and their errors."""
        net, U, z, a = self.net, self.energy.potential, self.point.z, self.point.a
        signals, answers, errors = ([None] * (net.depth + 1) for _ in range(3))
        errors[-1], self.wish = self.error, 0.0
        for k in range(net.depth - 1, 0, -1):
            signals[k] = net.feedback(k, errors)
            answers[k] = U.respond(k, net.function(k), a[k], signals[k])
            if self.short is not None:
                change = answers[k] - z[k]
                self.wish = self.wish + 0.5 * change.square().sum(-1)
                answers[k] = torch.where(self.short, z[k] + self.step * change, answers[k])
            if k in net.moving:
                errors[k] = U.error(k, net.function(k), answers[k], a[k])
        return signals, answers, errors

    def up(self, signals: list, answers: list) -> Point:
        """Feed the answers forward; short sweeps end where they are."""
        net, U = self.net, self.energy.potential
        z, a = list(self.start.z), list(self.start.a)
        for k in range(1, net.depth + 1):
            if k in net.moving:
                a[k] = net.preactivation(k, z)
            if k == net.depth:
                z[k] = U.respond(k, net.function(k), a[k], self.pull, self.curvature)
                continue
            z[k] = U.respond(k, net.function(k), a[k], signals[k])
            if self.short is not None:
                z[k] = torch.where(self.short, answers[k], z[k])
        return Point.of(net, self.energy, z, a)

    def newton(self, signals: list, answers: list) -> Tensor:
        """1/(1 − φ′κ), shape (batch, 1); sets ``weight``, by which mismatches count in gaps."""
        net, q, gamma = self.net, self.curvature, self.energy.potential.weight(self.net.depth)
        slope = -gamma * q / (gamma + q)  # φ′ where f_L is the identity
        if isinstance(slope, Tensor):
            slope = slope.reshape(-1, slope.shape[-1] if slope.ndim else 1).amax(1)
        if net.depth == 1 or not self.energy.potential.minimum_is_zero:
            # Under a tilt the answers are not linear in the signals: κ of W_L alone.
            kappa = torch.full_like(self.aim[:, 0], 2 * self.spread(net.depth))
        else:
            kappa = sum((vecdot(p, z - old) for p, z, old in
                         zip(signals[2:-1], answers[2:-1], self.start.z[2:-1])),
                        start=vecdot(signals[1], answers[1] - self.start.z[1]))
            kappa = kappa / (vecdot(self.error, self.error) + 1e-30)
        stiffness = (1 - slope * kappa).clamp_min_(1 / LONGEST)
        gain = stiffness.reciprocal()
        self.weight = {k: self.spread(k) * gain.clamp_min(1.0) for k in net.moving[:-1]}
        if net.moving:  # for ROVR the small gain hides how stiff the output is
            self.weight[net.depth] = 0.5 * kappa * torch.maximum(gain, stiffness.square())
        return gain[:, None]

    def spread(self, k: int) -> float:
        """Half the squared gradient that a random unit error in layer k makes below it."""
        norms = [torch.linalg.vector_norm(W) for j, W in self.net.weights_into(k) if j]
        return 0.5 * sum(float(norm)**2 for norm in norms) / self.net.sizes[k]

    @staticmethod
    def secant(error: Tensor, aim: Tensor) -> Tensor:
        """1/(1 − s) with the slope s of φ(a_L) along the last change of λ, shape (batch, 1)."""
        slope = vecdot(error, aim) / (vecdot(error, error) + 1e-30)
        return (1 / (1 - slope).clamp_min(1 / LONGEST))[:, None]

    def estimate(self, trial: Point, errors: list, drop: Tensor) -> Tensor:
        """The gap of the trial, (batch,): half its squared gradient, or more if E still falls."""
        gap = 0.0 if self.weight else torch.zeros_like(drop)
        for k, weight in self.weight.items():
            mismatch = trial.e[k] - errors[k]
            gap = weight * vecdot(mismatch, mismatch) + gap
        if self.drop is None:
            return gap
        # Should the energy go on falling in the ratio of the last two passes, by so much.
        drop = torch.sub(drop, self.scale, alpha=ROUNDING * torch.finfo(drop.dtype).eps)
        drop = drop.clamp_min_(0.0)
        left = (self.drop - drop).maximum(0.05 * drop).clamp_min(torch.finfo(drop.dtype).tiny)
        return gap.maximum(drop.square() / left)

    def recover(self, trial: Point, error: Tensor, drop: Tensor, gap: Tensor,
                worse: Tensor) -> None:
        """Keep what is better; samples that are worse go on with a short sweep."""
        old, short = self.point, self.short
        if short is None:
            short = torch.zeros_like(worse)
        else:  # of a sweep it is known what it wanted to change
            gap = torch.where(short[:, 0], gap.maximum(self.wish), gap)
        self.step = torch.where(worse & short, 0.5 * self.step, 0.5)
        self.short = worse if worse.any() else None
        self.senseless = trial.energy.isnan()
        if self.senseless.any():  # unless activations are so large that their squares overflow
            squares = sum(vecdot(v, v) for v in (*trial.z[1:], *trial.a[1:]))
            self.senseless &= squares.isfinite()
        self.gain = torch.where(worse & ~short, 1.0, self.gain)
        self.aim = torch.where(worse, self.aim, trial.e[-1])
        self.error = torch.where(worse | short, self.aim, error)
        self.gap = torch.where(worse[:, 0], torch.inf if self.gap is None else self.gap, gap)
        self.drop = drop if self.drop is None else torch.where(worse[:, 0], self.drop, drop)
        z, a, e = ([None if v is None else torch.where(worse, u, v) for u, v in zip(*lists)]
                   for lists in ((old.z, trial.z), (old.a, trial.a), (old.e, trial.e)))
        self.point = Point([old.z[0], *z[1:]], a, e,
                           torch.where(worse[:, 0], old.energy, trial.energy))
        self.scale = scale(self.start, self.point)


def falls_forever(net: LiftedNetwork, energy: Energy, start: Point, end: Point) -> Tensor:
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
    a = [None] + [net.preactivation(k, z) if k in net.moving else start.a[k] for k in layers]
    there = energy(net, z, a)
    twice = energy(net, *([None if v is None else 2 * v - u for u, v in zip(*lists)]
                          for lists in ((start.z, z), (start.a, a))))
    return twice - 2 * there + start.energy < -1e-3 * (twice.abs() + there.abs())
