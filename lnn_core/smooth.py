"""Smooth convex functions: tanh, sigmoid and softplus, accurate where units saturate.

Their G* have all derivatives, as Proposition 4.4 of Zach (2025) asks. Divergences are written so that
neither their values nor their slopes are lost in rounding errors where f(a) is close to an end of
its range.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from .convex import ConvexFunction


class Tanh(ConvexFunction):
    """G(z) = z·artanh(z) + ½log(1 − z²), G*(a) = log cosh(a), f = tanh.

    The smooth member of the family: G* has all derivatives, as Proposition 4.4 asks.
    """

    lower, upper = -1.0, 1.0
    asymptotically_quadratic = True

    def value(self, z: Tensor) -> Tensor:
        inside = z.abs() <= 1.0
        safe = torch.where(inside, z, 0.0)
        entropy = torch.special.xlogy(1 + safe, 1 + safe) + torch.special.xlogy(1 - safe, 1 - safe)
        return torch.where(inside, 0.5 * entropy, math.inf)

    def conjugate(self, a: Tensor) -> Tensor:
        return a.abs() + torch.nn.functional.softplus(-2 * a.abs()) - math.log(2)

    def divergence(self, z: Tensor, a: Tensor) -> Tensor:
        """The relative entropy of two coins, with heads (1 + z)/2 and (1 + f(a))/2: eq. (2)."""
        inside = z.abs() <= 1.0
        safe, a = torch.broadcast_tensors(torch.where(inside, z, 0.0), a)
        return torch.where(inside, _Coins.apply(safe, 1 + safe, 1 - safe, a), math.inf)

    def activation(self, a: Tensor) -> Tensor:
        return a.tanh()

    def derivative(self, a: Tensor) -> Tensor:
        tail = 2 * (-2 * a.abs()).sigmoid()  # 1 − |tanh a|, without its cancellation
        return tail * (2 - tail)

    def prox(self, b: Tensor, q: Tensor | float = 0.0) -> Tensor:
        return _smooth_prox(self, b, q)


class Sigmoid(ConvexFunction):
    """G(z) = z·log z + (1 − z)·log(1 − z), G*(a) = log(1 + e^a), f(a) = 1/(1 + e^−a)."""

    lower, upper = 0.0, 1.0
    asymptotically_quadratic = True

    def value(self, z: Tensor) -> Tensor:
        inside = (z >= 0.0) & (z <= 1.0)
        safe = torch.where(inside, z, 0.5)
        return torch.where(inside, torch.special.xlogy(safe, safe)
                           + torch.special.xlog1py(1 - safe, -safe), math.inf)

    def conjugate(self, a: Tensor) -> Tensor:
        return -torch.nn.functional.logsigmoid(-a)

    def divergence(self, z: Tensor, a: Tensor) -> Tensor:
        """The relative entropy of two coins, with heads z and f(a): eq. (2)."""
        inside = (z >= 0.0) & (z <= 1.0)
        safe, a = torch.broadcast_tensors(torch.where(inside, z, 0.5), a)
        return torch.where(inside, _Coins.apply(2 * safe - 1, 2 * safe, 2 * (1 - safe), 0.5 * a), math.inf)

    def activation(self, a: Tensor) -> Tensor:
        return a.sigmoid()

    def derivative(self, a: Tensor) -> Tensor:
        return a.sigmoid() * (-a).sigmoid()

    def prox(self, b: Tensor, q: Tensor | float = 0.0) -> Tensor:
        return _smooth_prox(self, b, q)


class Softplus(ConvexFunction):
    """G(z) = ∫₀ᶻ log(e^t − 1)dt for z ≥ 0, f(a) = log(1 + e^a): a ReLU with a round corner.

    With B(u) = ∫₀ᵘ t/(e^t − 1)dt, a Debye function, G(z) = ½z² + z·log(1 − e^−z) − B(z) and G*(a) =
    ½f(a)² + B(f(a)), the latter by Landen's identity for the dilogarithm −Li₂(−e^a).
    """

    lower = 0.0
    asymptotically_quadratic = True

    def value(self, z: Tensor) -> Tensor:
        safe = torch.where(z >= 0.0, z, 0.0)
        return torch.where(z >= 0.0, 0.5 * safe.square() + _below_square(safe), math.inf)

    def conjugate(self, a: Tensor) -> Tensor:
        f = self.activation(a)
        return 0.5 * f.square() + _debye(f)

    def divergence(self, z: Tensor, a: Tensor) -> Tensor:
        """½e² + R(z) − R(f) − R′(f)·e with f = f(a), e = z − f and R(z) = G(z) − ½z²: eq. (2)."""
        safe, a = torch.broadcast_tensors(torch.where(z >= 0.0, z, 0.0), a)
        return torch.where(z >= 0.0, _SoftplusDivergence.apply(safe, a), math.inf)

    def activation(self, a: Tensor) -> Tensor:
        return -torch.nn.functional.logsigmoid(-a)  # torch's softplus cuts its tail off at 20

    def derivative(self, a: Tensor) -> Tensor:
        return a.sigmoid()

    def prox(self, b: Tensor, q: Tensor | float = 0.0) -> Tensor:
        return _smooth_prox(self, b, q)


def _smooth_prox(G: ConvexFunction, b: Tensor, q: Tensor | float) -> Tensor:
    """z = f(u) where u + q·f(u) = b, by bisection; f is 1-Lipschitz and q > −1, so that u is unique."""
    q = torch.as_tensor(q, dtype=b.dtype, device=b.device)
    if not q.any():
        return G.activation(b)
    # At u = b the left side is off by q·f(b), and its slope is at least 1 + min(q, 0).
    reach = (q * G.activation(b)).abs() / (1 + q.clamp_max(0.0))
    low, high = b - reach, b + reach
    for _ in range(60):
        u = 0.5 * (low + high)
        above = u + q * G.activation(u) > b
        low, high = torch.where(above, low, u), torch.where(above, u, high)
    return G.activation(0.5 * (low + high))


class _Coins(torch.autograd.Function):
    """D(z‖a) of tanh for |z| ≤ 1, to full precision also where tanh a rounds to ±1.

    Also given are 1 + z and 1 − z, which may be known better than z, and which carry no gradient.
    By symmetry a ≥ 0. With the tails t = 1 − z and q = 1 − tanh a = 2σ(−2a) of the coins and
    h(r) = (1 + r)·log(1 + r) − r,

        D = ½·q·h((t − q)/q) + ½·(2 − q)·h((q − t)/(2 − q)),

    a sum of positive terms. Where q ≪ t its own term is t·log(t/q) − (t − q), with
    log q = log 2 + log σ(−2a), which never underflows. Slopes are artanh z − a and f(a) − z.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, heads: Tensor, tails: Tensor, a: Tensor) -> Tensor:
        z, t, a = torch.where(a < 0, -z, z), torch.where(a < 0, heads, tails), a.abs()
        q = 2 * (-2 * a).sigmoid()
        e = torch.where(a < 0.5, a.tanh() - z, t - q)  # both are t − q
        near = e.abs() < 0.25 * q
        # Not softplus(2a): torch cuts it off at 20, where its tail still counts.
        log_q = math.log(2) + torch.nn.functional.logsigmoid(-2 * a)
        own = torch.where(near, q * _excess(e / torch.where(near, q, 1.0)),
                          torch.special.xlogy(t, t) - t * log_q - e)
        return 0.5 * (own + (2 - q) * _excess((-e / (2 - q)).clamp_min(-1.0)))

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, slope: Tensor) -> tuple[Tensor, Tensor]:
        z, heads, tails, a = ctx.saved_tensors
        f = a.tanh()
        # z = f(a), which rounding has moved to the end.
        forward = ((heads == 0) | (tails == 0)) & (z == f)
        inner = torch.where(z.abs() < 0.5, z.atanh(), 0.5 * (heads.log() - tails.log()))
        inner = torch.where(forward, 0.0, inner - a)
        return slope * inner, None, None, slope * (f - z)


def _excess(r: Tensor) -> Tensor:
    """h(r) = (1 + r)·log(1 + r) − r for r ≥ −1: about ½r² near zero.

    There by log(1 + r) = 2·artanh(v) = 2(v + v³/3 + …) with v = r/(2 + r):
    h = 2(v² + (1 + v)(v³/3 + v⁵/5 + …))/(1 − v).
    """
    near = r.abs() < 0.25
    v = torch.where(near, r, 0.0)
    v = v / (2 + v)
    square, series = v.square(), torch.zeros_like(v)
    for i in range(19, 1, -2):
        series = (series + 1 / i) * square
    close = 2 * (square + (1 + v) * v * series) / (1 - v)
    return torch.where(near, close, torch.special.xlog1py(1 + r, r) - r)


class _SoftplusDivergence(torch.autograd.Function):
    """D(z‖a) of softplus for z ≥ 0: ½e² + R(z) + B(f) − z·log σ(a), where log σ(a) = R′(f).

    Near f the three last terms cancel; there they are the integral of e·(R′(f + se) − R′(f)) over
    s in [0, 1], by Gauss and Legendre's rule: its integrand is smooth. Slopes are R′(z) + z − a and
    f(a) − z.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, a: Tensor) -> Tensor:
        f = -torch.nn.functional.logsigmoid(-a)
        e = z - f
        near = e.abs() < 0.25 * f.clamp_max(1.0)
        e_near, f_near = torch.where(near, e, 0.0), torch.where(near, f, 1.0)
        close = sum(weight * e_near * torch.log1p(-torch.expm1(-s * e_near) / torch.expm1(f_near))
                    for s, weight in _legendre())
        far = _below_square(z) + _debye(f) - z * torch.nn.functional.logsigmoid(a)
        return 0.5 * e.square() + torch.where(near, close, far)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, slope: Tensor) -> tuple[Tensor, Tensor]:
        z, a = ctx.saved_tensors
        f = -torch.nn.functional.logsigmoid(-a)
        forward = (z == 0) & (f == 0)  # z = f(a), which rounding has moved to the end
        inner = torch.where(forward, 0.0, z + (-torch.expm1(-z)).log() - a)
        return slope * inner, slope * (f - z)


def _below_square(z: Tensor) -> Tensor:
    """R(z) = z·log(1 − e^−z) − B(z) = G(z) − ½z² of softplus, for z ≥ 0."""
    return torch.special.xlogy(z, -torch.expm1(-z)) - _debye(z)


def _debye(u: Tensor) -> Tensor:
    """B(u) = ∫₀ᵘ t/(e^t − 1)dt for u ≥ 0; by its series for small u, by B(u) = π²/6 − u·v − B(v) with
    e^−v = 1 − e^−u for others."""
    v = -torch.log1p(-(-u.clamp_min(0.5)).exp())
    small = torch.where(u < 1, u, v)
    square, series = small.square(), torch.zeros_like(small)
    for b in _DEBYE:
        series = (series + b) * square
    series = small * (1 - 0.25 * small + series)
    return torch.where(u < 1, series, math.pi**2 / 6 - u * v - series)


#: B_2k/(2k + 1)! for k = 10, …, 1, with the Bernoulli numbers B_2k.
_DEBYE = tuple(bernoulli / math.factorial(2 * k + 1) for k, bernoulli in zip(range(10, 0, -1), (
    -174611 / 330, 43867 / 798, -3617 / 510, 7 / 6, -691 / 2730, 5 / 66, -1 / 30, 1 / 42, -1 / 30, 1 / 6)))


@cache
def _legendre() -> list[tuple[float, float]]:
    """Nodes and weights of Gauss and Legendre's rule on [0, 1]."""
    from numpy.polynomial.legendre import leggauss

    return [(0.5 + 0.5 * float(s), 0.5 * float(weight)) for s, weight in zip(*leggauss(7))]
