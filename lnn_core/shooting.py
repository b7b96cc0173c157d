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

from .network import LiftedNetwork
from .points import Point, Report, scale
from .potentials import Energy

#: The largest 1/(1 − s): a longer step is rarely accepted.
LONGEST = 4.0
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
    have no minimum stays where it is, and the report says so.
    """

    tolerance: float = 1e-3
    max_passes: int = 50
    every: bool = False

    def __post_init__(self) -> None:
        if self.max_passes < 1:
            raise ValueError(f"max_passes={self.max_passes} must be at least 1")
        if not self.tolerance >= 0:
            raise ValueError(f"tolerance={self.tolerance} must not be negative")

    def __call__(self, net: LiftedNetwork, energy: Energy, start: Point) -> tuple[Point, Report]:
        """The point where the energy is as low as asked for, and a report."""
        shots = Shots(net, energy, start)
        unbounded = torch.zeros_like(start.energy, dtype=torch.bool)
        for passes in range(1, self.max_passes + 1):
            shots.once()
            gap = (shots.gap / scale(start, shots.point)).masked_fill_(unbounded, 0.0)
            if (gap.amax() if self.every else gap.mean()) <= self.tolerance:
                break
            if passes in SUSPECT:
                unbounded |= (gap > self.tolerance) & falls_forever(net, energy, start, shots.point)
        gap = gap.masked_fill_(unbounded, torch.inf)
        return shots.point, Report(passes, gap, gap <= self.tolerance, unbounded)


class Shots:
    """A batch on its way to the minimum: ``once`` makes one pass.

    point, gap : the best point so far, and how far it is above the minimum, (batch,),
        estimated from what it violates of stationarity.
    """

    def __init__(self, net: LiftedNetwork, energy: Energy, start: Point):
        self.net, self.energy, self.start, self.point = net, energy, start, start
        self.moving = [k for k in range(1, net.depth + 1) if any(net.feeders(k))]
        self.pull, self.curvature = energy.output.pull, energy.output.curvature
        self.aim = self.at_output(start.a[-1])[1]  # φ(a_L) of the point
        self.error = self.aim                      # λ of the next pass
        self.gain = self.last = None               # 1/(1 − s); λ and φ of the last pass
        self.gap = self.drop = torch.full_like(start.energy, torch.inf)
        self.short = None                          # (batch, 1): whose next pass is a short sweep
        self.step = torch.full_like(self.aim[:, :1], 0.5)

    def once(self) -> None:
        """One pass down and up; samples that it would make worse stay where they are."""
        signals, answers, errors = self.down()
        if self.gain is None:
            self.gain = self.newton(signals, answers)
            signals, errors = ([None if v is None else self.gain * v for v in values]
                               for values in (signals, errors))
        trial = self.up(signals, answers)
        if self.last is not None:
            self.gain = self.secant(errors[-1] - self.last[0], trial.e[-1] - self.last[1])
        self.last = errors[-1], trial.e[-1]
        error = torch.lerp(errors[-1], trial.e[-1], self.gain)
        drop = self.point.energy - trial.energy
        gap = self.estimate(trial, errors, drop)
        worse = ~(drop >= -self.rounding())
        if self.short is not None or worse.any():
            return self.recover(trial, error, drop, gap, worse[:, None])
        self.point, self.aim, self.error = trial, trial.e[-1], error
        self.drop, self.gap = drop, gap

    def down(self) -> tuple[list, list, list]:
        """Signals p_k, the answers to them with the a_k of the last pass, and their errors."""
        net, U, z, a = self.net, self.energy.potential, self.point.z, self.point.a
        signals, answers, errors = ([None] * (net.depth + 1) for _ in range(3))
        errors[-1], self.wish = self.error, torch.zeros_like(self.gap)
        for k in range(net.depth - 1, 0, -1):
            signals[k] = net.feedback(k, errors)
            answers[k] = U.respond(k, net.function(k), a[k], signals[k])
            if self.short is not None:
                change = answers[k] - z[k]
                self.wish = self.wish + 0.5 * change.square().sum(-1)
                answers[k] = torch.where(self.short, z[k] + self.step * change, answers[k])
            if k in self.moving:
                errors[k] = U.error(k, net.function(k), answers[k], a[k])
        return signals, answers, errors

    def up(self, signals: list, answers: list) -> Point:
        """Feed the answers forward; short sweeps end where they are."""
        net, U = self.net, self.energy.potential
        z, a = list(self.start.z), list(self.start.a)
        for k in range(1, net.depth + 1):
            if k in self.moving:
                a[k] = net.preactivation(k, z)
            if k == net.depth:
                z[k] = self.at_output(a[k])[0]
                continue
            z[k] = U.respond(k, net.function(k), a[k], signals[k])
            if self.short is not None:
                z[k] = torch.where(self.short, answers[k], z[k])
        return Point.of(net, self.energy, z, a)

    def at_output(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """The output layer's answer z_L to its pre-activations, and its error φ(a_L)."""
        k, U = self.net.depth, self.energy.potential
        z = U.respond(k, self.net.function(k), a, self.pull, self.curvature)
        return z, U.error(k, self.net.function(k), z, a)

    def newton(self, signals: list, answers: list) -> Tensor:
        """1/(1 − φ′κ), shape (batch, 1); sets ``weight``, by which mismatches count in gaps."""
        net, q, gamma = self.net, self.curvature, self.energy.potential.weight(self.net.depth)
        slope = -gamma * q / (gamma + q)  # φ′ where f_L is the identity
        if isinstance(slope, Tensor) and slope.ndim and slope.shape[-1] > 1:
            slope = slope.amax(-1, keepdim=True)
        # Half the squared gradient that a random unit error in layer k makes in those below.
        spread = {k: 0.5 / net.sizes[k] * sum(net.weight(k, j).square().sum()
                                              for j in net.feeders(k) if j) for k in self.moving}
        if net.depth == 1 or not self.energy.potential.minimum_is_zero:
            # Under a tilt the answers are not linear in the signals: κ of W_L alone.
            kappa = torch.ones_like(self.step) * 2 * spread.get(net.depth, 0.0)
        else:
            work = sum((p * (z - old)).sum(-1, keepdim=True) for p, z, old in
                       zip(signals[1:-1], answers[1:-1], self.start.z[1:-1]))
            size = self.error.square().sum(-1, keepdim=True)
            kappa = work / size.clamp_min(torch.finfo(size.dtype).tiny)
        gain = 1 / (1 - slope * kappa).clamp_min(1 / LONGEST)
        self.weight = {k: (gain.clamp_min(1.0) * spread[k])[:, 0] for k in self.moving[:-1]}
        if self.moving:
            self.weight[net.depth] = (0.5 * kappa * gain.maximum(gain**-2))[:, 0]
        return gain

    @staticmethod
    def secant(error: Tensor, aim: Tensor) -> Tensor:
        """1/(1 − s) with the slope s of φ(a_L) along the last change of λ, shape (batch, 1)."""
        size = error.square().sum(-1, keepdim=True)
        slope = (error * aim).sum(-1, keepdim=True) / size.clamp_min(torch.finfo(size.dtype).tiny)
        return 1 / (1 - slope).clamp_min(1 / LONGEST)

    def estimate(self, trial: Point, errors: list, drop: Tensor) -> Tensor:
        """The gap of the trial, (batch,): half its squared gradient, or more if E still falls."""
        gap = sum((weight * (trial.e[k] - errors[k]).square().sum(-1)
                   for k, weight in self.weight.items()), start=torch.zeros_like(drop))
        # Should the energy go on falling in the ratio of the last two passes, by so much.
        left = (self.drop - drop).maximum(0.05 * drop).clamp_min(torch.finfo(drop.dtype).tiny)
        return gap.maximum(drop.clamp_min(0.0).square() / left)

    def rounding(self) -> Tensor:
        """By how much an energy may rise without it meaning anything, shape (batch,)."""
        return 64 * torch.finfo(self.drop.dtype).eps * scale(self.start, self.point)

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
        self.gain = torch.where(worse & ~short, 1.0, self.gain)
        self.aim = torch.where(worse, self.aim, trial.e[-1])
        self.error = torch.where(worse | short, self.aim, error)
        self.gap, self.drop = (torch.where(worse[:, 0], *pair)
                               for pair in ((self.gap, gap), (self.drop, drop)))
        z, a, e = ([None if v is None else torch.where(worse, u, v) for u, v in zip(*lists)]
                   for lists in ((old.z, trial.z), (old.a, trial.a), (old.e, trial.e)))
        self.point = Point([old.z[0], *z[1:]], a, e,
                           torch.where(worse[:, 0], old.energy, trial.energy))


def falls_forever(net: LiftedNetwork, energy: Energy, start: Point, end: Point) -> Tensor:
    """Whether E has no minimum, for the samples where inference shows it, shape (batch,).

    All G_k here are asymptotically quadratic: E(z* + td) ≈ ct² for large t. A negative c,
    found as a second difference far out, proves that E is unbounded below. The direction d
    is z − z* without what would leave the domain of G_k.
    """
    layers = range(1, net.depth + 1)
    d = [torch.zeros_like(start.z[0])] + [end.z[k] - start.z[k] for k in layers]
    for k in layers:
        low, high = energy.potential.domain(net.function(k))
        d[k] = d[k].clamp(0.0 if low > -torch.inf else None, 0.0) if high < torch.inf else (
            d[k].clamp_min(0.0) if low > -torch.inf else d[k])
    size, length = (sum(v_k.square().sum(-1, keepdim=True) for v_k in v).sqrt()
                    for v in (start.z, d))
    far = 1e4 * (1 + size) / length.clamp_min(torch.finfo(size.dtype).tiny)
    z = [start_k + far * d_k for start_k, d_k in zip(start.z, d)]
    a = [None] + [net.preactivation(k, z) if any(net.feeders(k)) else start.a[k] for k in layers]
    there = energy(net, z, a)
    twice = energy(net, *([None if v is None else 2 * v - u for u, v in zip(*lists)]
                          for lists in ((start.z, z), (start.a, a))))
    return twice - 2 * there + start.energy < -1e-3 * (twice.abs() + there.abs())
