"""The paper's formulas once more: literal, slow, and sharing no code with lnn_core.

This is the oracle that the tests of the core compare with. Everything is written layer by
layer as it stands in Zach (2025), in plain torch, so that autograd can go through all of it,
the solver included. The network is used only for its parameters and edges.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

import lnn_core as lnn


class Unit(NamedTuple):
    """A convex function, its conjugate, and the conjugate's first two derivatives."""

    G: Callable[[Tensor], Tensor]
    conjugate: Callable[[Tensor], Tensor]
    f: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    lower: float
    upper: float


def box(lower: float, upper: float) -> Unit:
    def f(a):
        return a.clamp(lower, upper)

    return Unit(lambda z: z**2 / 2, lambda a: f(a) * a - f(a) ** 2 / 2, f,
                lambda a: ((a > lower) & (a < upper)).to(a.dtype), lower, upper)


TANH = Unit(lambda z: z * torch.atanh(z) + torch.log(1 - z**2) / 2,
            lambda a: torch.log(torch.cosh(a)), torch.tanh, lambda a: 1 / torch.cosh(a) ** 2,
            -1.0, 1.0)


def unit(net: lnn.LiftedNetwork, k: int) -> Unit:
    G = net.function(k)
    return TANH if isinstance(G, lnn.Tanh) else box(G.lower, G.upper)


def incoming(net, k):
    """(j, W_kj) for every layer j that feeds layer k."""
    return [(j, W) for (j, to), W in zip(net.edges, net.weights) if to == k]


def outgoing(net, k):
    """(k′, W_k′k) for every layer k′ that layer k feeds."""
    return [(to, W) for (j, to), W in zip(net.edges, net.weights) if j == k]


def preactivation(net, k, z):
    """a_k = Σ_j W_kj z_j + b_k."""
    total = sum(z[j] @ W.T for j, W in incoming(net, k))
    return total if net.biases is None else total + net.biases[k - 1]


def forward(net, x):
    """z_k = f_k(a_k), layer by layer."""
    z = [x]
    for k in range(1, net.depth + 1):
        z.append(unit(net, k).f(preactivation(net, k, z)))
    return z


def block_form(net):
    """(W, W_0, b) of eq. (4), with z_1, …, z_L stacked into one vector."""
    start = [0]
    for size in net.sizes[1:]:
        start.append(start[-1] + size)
    rows = [None, *(slice(start[k], start[k + 1]) for k in range(net.depth))]
    W = torch.zeros(start[-1], start[-1], dtype=torch.float64)
    W0 = torch.zeros(start[-1], net.sizes[0], dtype=torch.float64)
    for (j, k), weight in zip(net.edges, net.weights):
        if j == 0:
            W0[rows[k]] = weight.detach()
        else:
            W[rows[k], rows[j]] = weight.detach()
    return W, W0, torch.cat([bias.detach() for bias in net.biases])


def kind_of(base: lnn.Potential) -> str:
    """The name that Model has for one of the two potentials."""
    return {lnn.FenchelYoung: "fenchel-young", lnn.LeastSquares: "least-squares"}[type(base)]


class Model(NamedTuple):
    """A network potential Σ_k γ_k D_k + gᵀz, and w·½‖z_L − y‖² for each (w, y) of ``loss``."""

    kind: str = "fenchel-young"
    gamma: list | None = None
    g: list | None = None
    loss: tuple = ()

    def gamma_of(self, k):
        return 1.0 if self.gamma is None else self.gamma[k - 1]

    def g_of(self, k):
        return 0.0 if self.g is None or self.g[k - 1] is None else self.g[k - 1]

    def potential(self, net, z):
        """Eqs. (1), (3), (14) and (31), one value per sample."""
        total = 0.0
        for k in range(1, net.depth + 1):
            G, a = unit(net, k), preactivation(net, k, z)
            if self.kind == "least-squares":
                D = (z[k] - G.f(a)) ** 2 / 2
            else:
                D = G.G(z[k]) - z[k] * a + G.conjugate(a)
            total = total + (self.gamma_of(k) * D + self.g_of(k) * z[k]).sum(1)
        return total

    def energy(self, net, z):
        return self.potential(net, z) + sum(w * ((z[-1] - y) ** 2).sum(1) / 2 for w, y in self.loss)

    def error(self, net, k, z):
        """γ_k(z_k − f_k(a_k)), for least squares times f_k′(a_k)."""
        G, a = unit(net, k), preactivation(net, k, z)
        slope = G.slope(a) if self.kind == "least-squares" else 1.0
        return self.gamma_of(k) * slope * (z[k] - G.f(a))

    def sweep(self, net, z):
        """A pass of eq. (17), z_L first: new activations, the old ones are left as they are."""
        z = list(z)
        for k in range(net.depth, 0, -1):
            G, a, gamma = unit(net, k), preactivation(net, k, z), self.gamma_of(k)
            push = sum(self.error(net, child, z) @ W for child, W in outgoing(net, k))
            push = push - self.g_of(k)
            curvature = 0.0
            if k == net.depth:
                push = push + sum(w * y for w, y in self.loss)
                curvature = sum(w for w, _ in self.loss)
            if self.kind == "least-squares":
                z[k] = (gamma * G.f(a) + push) / (gamma + curvature)
            elif curvature == 0:
                z[k] = G.f(a + push / gamma)
            else:
                assert G is not TANH, "no closed form"
                z[k] = G.f((gamma * a + push) / (gamma + curvature))
        return z

    def minimum(self, net, x, passes=120):
        """min_z of the energy by passes of (17), with autograd through every one of them."""
        z = forward(net, x)
        for _ in range(passes):
            z = self.sweep(net, z)
        return self.energy(net, z)

    def descend(self, net, x, start=None):
        """Activations at a minimum of the energy, by L-BFGS-B on all of z within G's domain."""
        start = forward(net, x.detach()) if start is None else start
        sizes = [z.numel() for z in start[1:]]
        margin = 1e-12  # G is finite, but its slope is not, at the ends of tanh's range
        bounds = []
        for k, size in enumerate(sizes, 1):
            G = unit(net, k)
            low, high = ((-math.inf, math.inf) if self.kind == "least-squares"
                         else (G.lower + margin, G.upper - margin) if G is TANH
                         else (G.lower, G.upper))
            bounds += [(low, high)] * size

        def unpack(flat):
            parts = torch.as_tensor(flat).split(sizes)
            return [x.detach(), *(part.reshape(z.shape) for part, z in zip(parts, start[1:]))]

        def value_and_gradient(flat):
            flat = torch.tensor(flat, requires_grad=True)
            value = self.energy(net, unpack(flat)).sum()
            return value.item(), torch.autograd.grad(value, flat)[0].numpy()

        flat = np.concatenate([z.detach().reshape(-1).numpy() for z in start[1:]])
        found = minimize(value_and_gradient, flat, jac=True, method="L-BFGS-B", bounds=bounds,
                         options={"ftol": 1e-16, "gtol": 1e-11, "maxiter": 20_000,
                                  "maxfun": 20_000, "maxcor": 30})
        return unpack(found.x)
