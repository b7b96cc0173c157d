"""The global minimum of E(z) = U(z; x) + h(z_L) for toy networks: slow, obvious, trusted.

Inequalities between objectives are statements about global optima of a problem that is
not convex, so a check of them is worth something only against an optimum that cannot be
missed. Here it is, for networks of at most four activations in all:

* Identity, ReLU and Box: E is quadratic on each of finitely many polyhedra, and the
  stationary point of every face of every polyhedron is computed (``_stationary``);
* any Tanh in the network: a dense grid, and pattern search from each of its local minima
  (``_grid``).

Nothing here uses the library's solvers, and E is written a second time (``oracle.units``); the
two must agree at the optimum.

    oracle.minimum(net, x, FenchelYoung() - 0.25 * Euclidean(y))
    AROVR(beta=0.25, solver=oracle.Exhaustive())(net, x, y)
    oracle.objective(AROVR(beta=0.25), net, x, y)
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from torch import Tensor

from ..checks import prepared
from ..envelope import once
from ..inference.iterate import InferenceDiverged, Iterate, Report
from ..kinds import expect
from ..network import Activations, LiftedNetwork
from ..objectives import LiftedObjective
from ..potentials import Energy
from .units import Units, flatten

#: Grid points along each axis, by the number of axes.
_POINTS = {1: 801, 2: 81, 3: 35, 4: 17}


class Unbounded(InferenceDiverged):
    """The energy has no minimum: it falls without limit, or is on the border of doing so."""


def minimum(net: LiftedNetwork, x: Tensor, energy: Energy) -> tuple[Tensor, Activations]:
    """The least value of the energy and activations that attain it, for every sample.

    Args:
        net: a float64 network of at most four activations.
        x: shape (batch, d_0).
        energy: ``FenchelYoung()`` or ``LeastSquares()``, reweighted or tilted, plus a loss.

    Returns:
        The values, shape (batch,), differentiable in the weights with z held fixed (envelope
        theorem), and z = [x, z_1, …, z_L].

    Raises:
        ValueError: too many activations, another dtype, or input that does not fit.
        Unbounded: an energy without a minimum (see :func:`growth`).
    """
    net, x = prepared(net, x)
    expect("energy", energy, Energy, "an Energy such as FenchelYoung() - 0.25 * Euclidean(y)")
    energy.check_shapes(net, len(x))
    q = energy.output.curvature
    if isinstance(q, Tensor) and q.ndim == 2 and (q != q[0]).any():
        return _by_curvature(net, x, energy, q)
    units, rate = flatten(net, energy, x.detach()), growth(net, energy)
    if not rate > 1e-10 * units.gamma.max():
        raise Unbounded(f"E(t·d) grows like {rate:.1e}·t² along some direction d: the energy is "
                        "unbounded below, or on the border; lower beta or raise gamma")
    search = _grid if units.tanh.any() else _stationary
    best = np.stack([search(units, sample) for sample in range(len(x))])
    z = [x, *x.new_tensor(best).split(list(net.sizes[1:]), dim=1)]
    values = energy(net, z)
    ours = np.array([units.energy(s, best[s:s + 1])[0] for s in range(len(x))])
    if not np.allclose(ours, values.detach().numpy(), rtol=1e-9, atol=1e-9):
        raise RuntimeError(f"two ways to compute E disagree: {ours} and {values.tolist()}")
    return once(values), z


def _by_curvature(net: LiftedNetwork, x: Tensor, energy: Energy,
                  q: Tensor) -> tuple[Tensor, Activations]:
    """The minimum where samples differ in the curvature of h: one group after the other."""
    group = q.unique(dim=0, return_inverse=True)[1]
    rows = [(group == i).nonzero()[:, 0] for i in range(int(group.max()) + 1)]
    values, z = zip(*(minimum(net, x[i], energy.take(i)) for i in rows))
    order = torch.cat(rows).argsort()
    return torch.cat(values)[order], [x] + [torch.cat(z_k)[order] for z_k in zip(*z)][1:]


def growth(net: LiftedNetwork, energy: Energy) -> float:
    """min over unit vectors d of lim E(t·d)/t² as t → ∞: E is coercive iff it is positive.

    Far out a bounded activation counts as zero and Box(l, ∞) as ReLU, biases, inputs and
    tilts vanish, and what is left of E is homogeneous of degree two. +∞ where all
    activations are confined. At exactly zero E may or may not have a minimum; the oracle
    then refuses.
    """
    return _growth(flatten(net, energy).recession())


@dataclass(frozen=True)
class Exhaustive:
    """The oracle as a solver, for toy networks: ``AROVR(0.25, solver=Exhaustive())``."""

    def __call__(self, net: LiftedNetwork, energy: Energy, start: Iterate) -> tuple[Iterate, Report]:
        """The global minimiser, wherever one starts."""
        _, z = minimum(net, start.z[0], energy)
        done = torch.ones_like(start.energy, dtype=torch.bool)
        return Iterate.of(net, energy, z), Report(0, torch.zeros_like(start.energy), done, ~done)


def objective(objective: LiftedObjective, net: LiftedNetwork, x: Tensor, y: Tensor) -> Tensor:
    """The exact value of an objective, shape (batch,): every m(h) in it by the oracle."""
    expect("objective", objective, LiftedObjective, "one that infers, such as AROVR(0.25)")
    exact = copy.copy(objective)
    exact.solver = Exhaustive()
    return exact(net, x, y, reduction="none")


def _faces(units: Units, sample: int):
    """Every face of every polyhedron on which E is quadratic, for piecewise linear f.

    For each activation: where a lies (inside the interval, where f(a) = a; beyond an end,
    where f is constant; or exactly at an end) and, for Fenchel–Young, where z lies (free,
    or at an end). Returns, for all N combinations, the quadratic ½zᵀHz + cᵀz and the
    equations Bz = r (two rows per activation, zero where there is no equation):
    shapes (N, n, n), (N, n), (N, 2n, n), (N, 2n).
    """
    choices = [_choices(units, i, sample) for i in range(units.n)]
    index = np.array(list(product(*(range(len(choice)) for choice in choices))))
    H, c, B, r = (
        [np.stack([option[part] for option in choice])[column]
         for choice, column in zip(choices, index.T)]
        for part in range(4))
    return sum(H), sum(c), np.concatenate(B, axis=1), np.concatenate(r, axis=1)


def _choices(units: Units, i: int, sample: int) -> list[tuple]:
    """(H, c, B, r) of one activation's terms in each of its states: see :func:`_faces`."""
    e, w = np.eye(units.n)[i], units.W[i]
    b, gamma, low, high = units.b[sample, i], units.gamma[i], units.lower[i], units.upper[i]
    ends, wide = [end for end in {low, high} if np.isfinite(end)], bool(low < high)
    if not w.any():                                       # a = b whatever z is
        pieces = [(0.0, np.clip(b, low, high), None)]
    else:                                                 # f(a) = s·a + t, perhaps at a = kink
        pieces = [(1.0, 0.0, None)] * wide
        pieces += [(0.0, end, kink) for end in ends for kink in (None, end)]
    pins = [None] * (wide or not units.confined) + ends * units.confined
    options = []
    for (s, t, kink), pin in product(pieces, pins):
        v = e - s * w
        if units.confined:
            H = np.outer(e, e) - np.outer(e, w) - np.outer(w, e) + s * np.outer(w, w)
            c = (s * b + t) * w - b * e
        else:
            H, c = np.outer(v, v), -(s * b + t) * v
        H = gamma * H + units.curvature[i] * np.outer(e, e)
        c = gamma * c + units.linear[sample, i] * e
        B = np.stack([0 * e if pin is None else e, 0 * e if kink is None else w])
        r = np.array([0.0 if pin is None else pin, 0.0 if kink is None else kink - b])
        options.append((H, c, B, r))
    return options


def _growth(units: Units) -> float:
    """The least value, over unit vectors, of an energy that is homogeneous of degree two."""
    H, _, B, _ = _faces(units, sample=0)
    along = np.eye(units.n) - np.linalg.pinv(B, rcond=1e-12) @ B
    # A minimiser over unit vectors, on a face of least dimension, is an eigenvector of the
    # face's quadratic form; projected, as eigenvectors of 0 may leave the face.
    vectors = along @ np.linalg.eigh(along @ H @ along)[1]
    d = np.swapaxes(vectors, 1, 2).reshape(-1, units.n)
    d = units.confine(np.concatenate([d, -d]))
    d = d[np.abs(d).max(1) > 1e-9]
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    return float(units.energy(0, d).min(initial=np.inf))


def _stationary(units: Units, sample: int) -> np.ndarray:
    """The global minimiser for piecewise linear f, shape (n,).

    Why nothing is missed: take a minimiser whose face has the least dimension. E is one
    quadratic there, and equal at all solutions of the face's stationarity equations. They
    all lie in the face, or moving from the minimiser towards one that does not would end
    in a minimiser on a smaller face. So whichever solution is computed is a minimiser.
    Why nothing wrong is returned: no candidate is asked to lie in its face; the true E
    decides between them.
    """
    H, c, B, r = _faces(units, sample)
    none = ~B.any(2)                                      # rows without an equation: λ = 0
    kkt = np.block([[H, np.swapaxes(B, 1, 2)], [B, none[:, :, None] * np.eye(B.shape[1])]])
    right = np.concatenate([-c, r], axis=1)[:, :, None]
    solution = np.linalg.pinv(kkt, rcond=1e-13, hermitian=True) @ right
    z = units.confine(solution[:, :units.n, 0])
    return z[units.energy(sample, z).argmin()]


def _grid(units: Units, sample: int) -> np.ndarray:
    """The global minimiser for any network, shape (n,), by a dense grid and polishing.

    Activations that feed no other are eliminated where that has a closed form. The grid
    covers all z that can be as good as the forward pass; it is finest there, and farther
    out its spacing grows with the distance. Every grid point that is no worse than its
    neighbours is polished.
    """
    free = np.flatnonzero(~units.solvable)
    centre, (low, high) = units.forward(sample)[free], (end[free] for end in units.domain)

    def E(z: np.ndarray) -> np.ndarray:
        return units.energy(sample, units.complete(sample, free, z))

    if not len(free):
        return units.complete(sample, free, centre)
    reach = np.inf if np.isfinite([low, high]).all() else _reach(units, sample)
    first, last = np.arcsinh(low.clip(-reach) - centre), np.arcsinh(high.clip(max=reach) - centre)
    axes = centre[:, None] + np.sinh(np.linspace(first, last, _POINTS[len(free)], axis=1))
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    values = E(points)
    padded = np.pad(values, 1, constant_values=np.inf)
    around = np.lib.stride_tricks.sliding_window_view(padded, (3,) * len(free))
    starts = points[values <= around.min(tuple(range(len(free), 2 * len(free))))]
    spacing = (last - first) / _POINTS[len(free)] * np.hypot(1, starts - centre)
    polished = _polish(E, starts, spacing, low, high)
    return units.complete(sample, free, polished[E(polished).argmin()])


def _reach(units: Units, sample: int) -> float:
    """r such that ‖z‖ ≤ r wherever E(z) ≤ E(z*).

    Least squares bounds Fenchel–Young from below. With f∞ the recession of f, and δ such
    that |f − f∞| ≤ δ, it is at least rate·‖z‖² − slope·‖z‖ + h(0), where rate is the least
    growth and slope = Σ_i γ_iδ_i(1 + ‖W_i‖) + ‖linear‖.
    """
    far = replace(units.recession(), confined=False)
    rate = _growth(far)
    if not rate > 0:
        raise ValueError("with Tanh and an unlimited activation the oracle needs U − βℓ to be "
                         f"coercive for least squares; it grows like {rate:.1e}·t²")
    ends = np.stack([units.lower, units.upper, 0 * units.gamma])
    delta = np.abs(units.b[sample]) + np.abs(np.where(np.isfinite(ends), ends, 0.0)).max(0)
    slope = (units.gamma * delta * (1 + np.linalg.norm(units.W, axis=1))).sum()
    slope += np.linalg.norm(units.linear[sample])
    height = max(0.0, units.energy(sample, units.forward(sample)) - units.offset[sample])
    return (slope + np.sqrt(slope**2 + 4 * rate * height)) / (2 * rate)


def _polish(E: Callable[[np.ndarray], np.ndarray], z: np.ndarray, step: np.ndarray,
            low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Pattern search from each row of z, shape (starts, d), hurried by Newton's steps.

    Goes to the best of the 3^d points around z, or to the stationary point of the quadratic
    fitted to them if that is better; where nothing is gained, the pattern shrinks.
    """
    d = z.shape[1]
    pattern = np.array(list(product([0.0, -1.0, 1.0], repeat=d)))      # row 0 is z itself
    i, j = np.triu_indices(d)
    fit = np.linalg.pinv(np.column_stack([pattern, pattern[:, i] * pattern[:, j]]))
    rows, scale = np.arange(len(z)), np.ones(len(z))
    while scale.max() > 1e-8:
        size = scale[:, None] * step                      # (starts, d)
        around = (z[:, None] + size[:, None] * pattern).clip(low, high)
        values = E(around)
        best = values.argmin(1)
        coefficients = (values - values[:, :1]) @ fit.T
        H = np.zeros((len(z), d, d))
        H[:, i, j] = coefficients[:, d:]
        inverse = np.linalg.pinv(H + np.swapaxes(H, 1, 2), hermitian=True)
        guess = (z - size * (inverse @ coefficients[:, :d, None])[..., 0]).clip(low, high)
        guessed = E(guess)
        better = guessed < values[rows, best]
        z = np.where(better[:, None], guess, around[rows, best])
        gain = values[:, 0] - np.where(better, guessed, values[rows, best])
        scale = np.where(gain > 1e-14 * (1 + np.abs(values[:, 0])), scale, scale / 4)
    return z
