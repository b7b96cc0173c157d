"""The energy of a toy network written a second time: activation by activation, in NumPy.

The oracle's own view of E(z) = U(z; x) + h(z_L), in the matrix form of eq. (4) of Zach
(2025): all activations in one vector z of length n, a = Wz + b with W strictly lower
triangular. It shares no formula with :mod:`potentials` and :mod:`convex`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..checks import check_finite_weights, check_network
from ..convex import Box
from ..kinds import expect
from ..network import LiftedNetwork
from ..potentials import Energy, FenchelYoung, LeastSquares, Potential, Reweighted, Tilted
from ..smooth import Tanh

#: The most activations, over all layers, that the oracle takes.
MAX_UNITS = 4


@dataclass(frozen=True)
class Units:
    """The energy of a toy network, activation by activation: a = Wz + b as in eq. (4).

    Arrays over the n activations; those that vary with the sample have shape (batch, n).
    """

    W: np.ndarray            # (n, n), strictly lower triangular
    lower: np.ndarray        # f projects on [lower, upper] …
    upper: np.ndarray
    tanh: np.ndarray         # … unless f = tanh
    gamma: np.ndarray
    curvature: np.ndarray    # of h; zero for hidden activations
    confined: bool           # Fenchel–Young: z itself stays within [lower, upper]
    b: np.ndarray            # (batch, n): biases and what x contributes
    linear: np.ndarray       # (batch, n): the tilt g, minus the pull of h
    offset: np.ndarray       # (batch,): h(0)

    @property
    def n(self) -> int:
        """The number of activations."""
        return len(self.W)

    def confine(self, z: np.ndarray) -> np.ndarray:
        """The nearest point of the domain."""
        return z.clip(*self.domain)

    def activation(self, a: np.ndarray) -> np.ndarray:
        """f(a) for all activations, shape (…, n)."""
        return np.where(self.tanh, np.tanh(a), a.clip(self.lower, self.upper))

    @property
    def domain(self) -> tuple[np.ndarray, np.ndarray]:
        """Where E is finite."""
        limit = np.full(self.n, np.inf)
        return (self.lower, self.upper) if self.confined else (-limit, limit)

    def energy(self, sample: int, z: np.ndarray) -> np.ndarray:
        """E of candidates z, shape (…, n), that lie within the domain: shape (…)."""
        a = z @ self.W.T + self.b[sample]
        f = self.activation(a)
        if self.confined:
            G, conjugate = 0.5 * z**2, f * a - 0.5 * f**2
            for i in np.flatnonzero(self.tanh):
                G[..., i], conjugate[..., i] = _entropy(z[..., i]), _log_cosh(a[..., i])
            D = G - z * a + conjugate
        else:
            D = 0.5 * (z - f) ** 2
        local = self.gamma * D + 0.5 * self.curvature * z**2 + self.linear[sample] * z
        return local.sum(-1) + self.offset[sample]

    def forward(self, sample: int) -> np.ndarray:
        """The forward pass z*, shape (n,)."""
        z = np.zeros(self.n)
        for i in range(self.n):
            z[i] = self.activation(self.W @ z + self.b[sample])[i]
        return z

    @property
    def solvable(self) -> np.ndarray:
        """Whether an activation feeds no other and its best value has a closed form."""
        return ~self.W.any(0) & ~(self.tanh & self.confined) & (self.gamma + self.curvature > 0)

    def complete(self, sample: int, free: np.ndarray, z_free: np.ndarray) -> np.ndarray:
        """z, shape (…, n), from all activations that are not solvable, shape (…, len(free))."""
        z, rest = np.zeros((*z_free.shape[:-1], self.n)), self.solvable
        z[..., free] = z_free
        a = z @ self.W.T + self.b[sample]
        towards = a if self.confined else self.activation(a)
        pull = self.gamma * towards - self.linear[sample]
        z[..., rest] = pull[..., rest] / (self.gamma + self.curvature)[rest]
        return self.confine(z)

    def recession(self) -> Units:
        """What is left of E(t·z)/t² as t → ∞: the energy of a single sample."""
        def far(end):
            return np.where(self.tanh | np.isfinite(end), 0.0, end)
        zero = np.zeros((1, self.n))
        return replace(self, lower=far(self.lower), upper=far(self.upper),
                       tanh=np.zeros_like(self.tanh), b=zero, linear=zero, offset=zero[:, 0])


def _entropy(z: np.ndarray) -> np.ndarray:
    """z·artanh(z) + ½log(1 − z²), finite at z = ±1."""
    safe = np.clip(z, -1 + 1e-16, 1 - 1e-16)
    return 0.5 * ((1 + z) * np.log1p(safe) + (1 - z) * np.log1p(-safe))


def _log_cosh(a: np.ndarray) -> np.ndarray:
    return np.logaddexp(a, -a) - np.log(2)


def flatten(net: LiftedNetwork, energy: Energy, x: Tensor | None = None) -> Units:
    """Flatten the network and the energy; without x, only what does not depend on it."""
    net = check_network(net)
    expect("energy", energy, Energy, "an Energy such as FenchelYoung() - 0.25 * Euclidean(y)")
    n = sum(net.sizes[1:])
    if n > MAX_UNITS:
        raise ValueError(f"{n} activations in all; the exhaustive search takes {MAX_UNITS}")
    if not energy.output.is_quadratic:
        raise ValueError("the oracle solves quadratic programs: no cross-entropy in the output term")
    if net.dtype != torch.float64:
        raise ValueError(f"the oracle needs a float64 network; got {net.dtype}")
    check_finite_weights(net)
    energy.potential.check(net)
    start = np.cumsum([0, 0, *net.sizes[1:]])   # layer k occupies start[k]:start[k + 1]
    W, batch = np.zeros((n, n)), 1 if x is None else len(x)
    b, linear = np.zeros((batch, n)), np.zeros((batch, n))
    for k in range(1, net.depth + 1):
        rows = slice(start[k], start[k + 1])
        for j, affine in net.connections_into(k):
            # Row i of A is Aᵀ of unit vector i, whatever module computes it.
            A, at_zero = (v.detach().numpy() for v in (
                affine.transpose(torch.eye(net.sizes[k], dtype=net.dtype, device="cpu")),
                affine(torch.zeros(1, net.sizes[j], dtype=net.dtype, device="cpu"))))
            if j > 0:
                W[rows, start[j]:start[j + 1]] = A
                b[:, rows] += at_zero if x is not None else 0.0
            elif x is not None:
                b[:, rows] += x.flatten(1).numpy() @ A.T + at_zero
    each = [net.function(k) for k in range(1, net.depth + 1) for _ in range(net.sizes[k])]
    for function in each:
        if not isinstance(function, (Box, Tanh)):
            raise TypeError(f"the oracle knows Identity, ReLU, Box and Tanh; got {function!r}")
    base, gamma, tilts = _unwrap(energy.potential, net)
    outputs, curvature, offset = slice(start[-2], n), np.zeros(n), np.zeros(batch)
    curvature[outputs] = _rows(energy.output.curvature, 1, net.sizes[-1])[0]  # of all samples
    if x is not None:
        for g in tilts:
            linear += np.concatenate([_rows(g_k, batch, d_k) for g_k, d_k in zip(g, net.sizes[1:])],
                                     axis=1)
        linear[:, outputs] -= _rows(energy.output.pull, batch, net.sizes[-1])
        offset = energy.output(x.new_zeros(batch, net.sizes[-1])).numpy()
    return Units(W, np.array([f.lower for f in each]), np.array([f.upper for f in each]),
                 np.array([isinstance(f, Tanh) for f in each]), gamma, curvature,
                 isinstance(base, FenchelYoung), b, linear, offset)


def _unwrap(potential: Potential, net: LiftedNetwork) -> tuple[Potential, np.ndarray, list]:
    """The potential without its wrappers, γ by activation, and the tilts."""
    gamma, tilts = np.ones(sum(net.sizes[1:])), []
    while isinstance(potential, (Reweighted, Tilted)):
        if isinstance(potential, Reweighted):
            gamma *= np.concatenate([_rows(entry, 1, size)[0]
                                     for entry, size in zip(potential.gamma, net.sizes[1:])])
        else:
            tilts.append(potential.g)
        potential = potential.base
    if not isinstance(potential, (FenchelYoung, LeastSquares)):
        raise TypeError(f"the oracle knows FenchelYoung and LeastSquares; got {potential!r}")
    return potential, gamma, tilts


def _rows(entry: Tensor | float | None, batch: int, size: int) -> np.ndarray:
    """A number, a tensor or None (zero), broadcast to (batch, size)."""
    array = 0.0 if entry is None else entry.detach().numpy() if isinstance(entry, Tensor) else entry
    return np.broadcast_to(array[:1] if np.ndim(array) == 2 and batch == 1 else array, (batch, size))
