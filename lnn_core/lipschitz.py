"""The Lipschitz constant of x ↦ z_L of a chain, as a bracket: it is NP-hard to compute.

    lower ≤ Lipschitz constant ≤ certified ≤ trivial    (Euclidean norms)

Each f_k is the derivative of the conjugate of a 1-strongly convex separable G_k, so that its
slopes lie in [0, 1]: all that the upper bounds use of it. Results hold to float64's rounding.
Every function raises ValueError for a network that is not a chain or whose weights are not finite.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .checks import at_least, check_finite_weights, check_network, own_precision, prepared
from .convex import Identity
from .kinds import MOST
from .network import LiftedNetwork

RELAXATIONS = (1.0, 1.25, 1.5)  #: The t that ``certified`` tries; 1 is the published one.
STARTS = 4  #: ``lower`` climbs from this many samples, by these multiples of the longest one.
LENGTHS = (0.0, 1 / 256, 1 / 64, 1 / 16, 1 / 4, 1.0)
REACH = 0.5  #: How far slopes are smoothed to see the way up, in units of the layer's mean |a|.
CHUNK = 2**23  #: Numbers in the largest array of a chunk of samples: 64 MiB.


class Bracket(NamedTuple):
    """lower ≤ Lipschitz constant ≤ certified ≤ trivial; the surrogate may be anywhere."""

    lower: float
    certified: float
    trivial: float
    surrogate: float


def bracket(net: LiftedNetwork, x: Tensor, steps: int = 4) -> Bracket:
    """All four numbers; x, of shape (batch, d_0), and steps are those of :func:`lower`."""
    net = check_network(net)
    return Bracket(lower(net, x, steps), certified(net), trivial(net), surrogate(net))


@own_precision
def jacobian_norms(net: LiftedNetwork, x: Tensor) -> Tensor:
    """‖∂z_L/∂x‖₂ of the forward pass at each sample, shape (batch,), float64.

    At a kink the slope is that of :meth:`~lnn_core.ConvexFunction.derivative`.
    """
    net, x = prepared(net, x)
    return _Linearised(net).norms(x.detach().double())[0]


@own_precision
def lower(net: LiftedNetwork, x: Tensor, steps: int = 4) -> float:
    """A lower bound: the largest ‖∂z_L/∂x‖₂ over the samples and points climbed to from them.

    No derivative exceeds the constant, anywhere in ℝ^d_0. (Exactly on a kink the product of
    slopes may be none; it is still at most ``certified``.) Each of the ``steps`` moves the
    best samples uphill, by the best of a few lengths; steps=0 gives the maximum over x.

    Args:
        net: a chain.
        x: where to start, shape (batch, d_0).
        steps: how many moves uphill.

    Raises:
        ValueError: x does not fit, or steps is negative.
        TypeError: steps is not an integer.
    """
    steps = at_least("steps", steps, 0, MOST)
    net, x = prepared(net, x)
    linearised, coarse = _Linearised(net), _Linearised(net, net.dtype)
    x = x.detach()
    points = x[coarse.norms(x)[0].topk(min(STARTS, len(x))).indices].double()
    norms, pull = linearised.norms(points)
    lengths = points.new_tensor(LENGTHS)[:, None] * torch.linalg.vector_norm(x, dim=1).max()
    rows = torch.arange(len(points), device=x.device)
    for _ in range(steps):
        tried = points[:, None] + lengths * linearised.uphill(points, pull)[:, None]
        found, pulls = (part.unflatten(0, tried.shape[:2])
                        for part in linearised.norms(tried.flatten(0, 1)))
        top = found.argmax(1)
        if not top.any():  # none moves
            break
        norms, points, pull = found[rows, top], tried[rows, top], pulls[rows, top]
    return norms.max().item()


def certified(net: LiftedNetwork) -> float:
    """An upper bound by composition, after ECLipsE-Fast (Xu & Sivaranjani, NeurIPS 2024).

    Slopes in [0, 1] mean Δz_kᵀ(W_kΔz_{k−1} − Δz_k) ≥ 0 for any two inputs, so that ρ is an
    upper bound if some λ_k ≥ 0 (S-procedure) have, for all Δ and with ‖Δz_L‖ ≤ ‖W_LΔz_{L−1}‖,

        ‖Δz_0‖² − ‖W_LΔz_{L−1}‖²/ρ² ≥ Σ_{k<L} λ_k Δz_kᵀ(W_kΔz_{k−1} − Δz_k).

    Eliminating Δz_0, Δz_1, … in turn leaves X_0 = I, X_k = λ_kI − ¼λ_k²W_kX_{k−1}⁻¹W_kᵀ ≻ 0
    and ρ² = σ_max(W_LX_{L−1}⁻¹W_Lᵀ).

    λ_k = 2t/σ_k with σ_k = σ_max(W_kX_{k−1}⁻¹W_kᵀ) is feasible for 0 < t < 2. The published
    t = 1 maximises the smallest eigenvalue of X_k: X_k ⪰ I/σ_k, so that σ_{k+1} ≤
    σ_k‖W_{k+1}‖² and ρ ≤ ``trivial``. A larger t loses in a layer's top direction and gains
    in all others; the best of ``RELAXATIONS`` is close to what an optimiser over all λ_k finds.
    A hidden ``Identity`` is merged with the next layer: for linear networks ρ is exact.
    """
    first, *rest = _weights(net)
    merged = [first]
    for function, weight in zip(net.functions, rest):
        merged.append(weight @ merged.pop() if isinstance(function, Identity) else weight)
    return _composed(merged, first.new_tensor(RELAXATIONS))[0].min().item()


def trivial(net: LiftedNetwork) -> float:
    """Π_k ‖W_k‖₂, the textbook's upper bound."""
    return math.prod(_square(weight).sqrt().item() for weight in _weights(net))


def surrogate(net: LiftedNetwork) -> float:
    """‖W_L⋯W_1‖₂, the Lipschitz constant of the linear network with these weights.

    Often reported as a Lipschitz estimate; for ReLU it is not a bound at all: W_1 = [1, −1]ᵀ and
    W_2 = [1, 1] give 0, and z_2 = |x|; W_2 = [1, −1] gives 2, twice the constant if b_1 ≤ 0.
    """
    return _square(reduce(torch.matmul, reversed(_weights(net)))).sqrt().item()


class _Linearised:
    """The network in some precision, prepared for the Jacobians J = ∂z_L/∂x of many inputs."""

    def __init__(self, net: LiftedNetwork, dtype: torch.dtype = torch.float64):
        self.weights = [weight.to(dtype) for weight in _weights(net)]
        biases = [b.detach().to(dtype) for b in net.biases or ()] or [None] * net.depth
        self.layers = list(zip(net.functions, self.weights, biases))
        # W_1W_1ᵀ = root·rootᵀ with at most d_1 columns: many fewer than an image has pixels.
        self.root = torch.linalg.qr(self.weights[0].mT, mode="r").R.mT
        self.chunk = max(1, CHUNK // (net.sizes[-1] * max(net.sizes[1:])))  # samples

    def norms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """‖J‖₂, (batch,), and uᵀ∂z_L/∂a_1, (batch, d_1), with J's top left singular vector u."""
        if len(x) > self.chunk:
            return tuple(map(torch.cat, zip(*map(self.norms, x.split(self.chunk)))))
        slopes = []
        for function, weight, bias in self.layers:
            a = nn.functional.linear(x, weight, bias)
            slopes.append(function.derivative(a))
            x = function.activation(a)
        J = slopes[-1].diag_embed()
        for slope, weight in zip(slopes[-2::-1], self.weights[:0:-1]):
            J = (J @ weight).mul_(slope[:, None])
        reduced = (J @ self.root).double()
        squares, vectors = torch.linalg.eigh(reduced @ reduced.mT)
        return squares[:, -1].clamp_min(0).sqrt(), (vectors[:, None, :, -1].to(J) @ J).squeeze(1)

    @torch.enable_grad()
    def uphill(self, x: Tensor, pull: Tensor) -> Tensor:
        """Where ‖Jv‖ grows, v being J's top right singular vector: unit vectors, (batch, d_0).

        J is piecewise constant for ReLU: each slope counts as its mean over a ± h, whose
        derivative is (f′(a + h) − f′(a − h))/(2h).
        """
        v = pull @ self.weights[0]
        z = start = x.clone().requires_grad_()
        for function, weight, bias in self.layers:
            a = nn.functional.linear(z, weight, bias)
            at = a.detach()
            h = REACH * at.abs().mean(1, keepdim=True) + torch.finfo(a.dtype).tiny
            bend = (function.derivative(at + h) - function.derivative(at - h)) / (2 * h)
            v = (function.derivative(at) + bend * (a - at)) * (v @ weight.mT)
            z = function.activation(a)
        (gradient,) = torch.autograd.grad(torch.linalg.vector_norm(v, dim=1).sum(), start)
        return nn.functional.normalize(gradient)


def _composed(weights: list[Tensor], t: Tensor) -> tuple[Tensor, list[Tensor]]:
    """ρ and λ_1, …, λ_{L−1} of :func:`certified`, each of t's shape (steps,); all at once.

    Works on Y_k = σ_kX_k = 2tI − t²M/s with M = W_kY_{k−1}⁻¹W_kᵀ and s = σ_max(M) = σ_k/σ_{k−1}:
    its eigenvalues lie in [t(2 − t), 2t], however large or small the weights are.
    """
    V, square, multipliers = weights[0].mT, torch.ones_like(t), []  # M = VᵀV
    for weight in weights[1:]:
        M, s = V.mT @ V, _square(V)
        square = square * s
        if not square.all():  # a layer that passes nothing on
            return square, []
        multipliers.append(2 * t / square)
        Y = (-t.square() / s)[:, None, None] * M
        Y.diagonal(dim1=-2, dim2=-1).add_(2 * t[:, None])
        V = torch.linalg.solve_triangular(torch.linalg.cholesky(Y), weight.mT, upper=False)
    return (square * _square(V)).sqrt(), multipliers


def _square(matrix: Tensor) -> Tensor:
    """‖matrix‖₂² by the smaller Gram matrix, several times as fast as singular values."""
    rows, columns = matrix.shape[-2:]
    gram = matrix @ matrix.mT if rows <= columns else matrix.mT @ matrix
    return torch.linalg.eigvalsh(gram)[..., -1].clamp_min(0)


def _weights(net: LiftedNetwork) -> list[Tensor]:
    """W_1, …, W_L in float64, once they are known to be a chain's and finite."""
    net = check_network(net)
    if not net.is_chain:
        raise ValueError(f"Lipschitz bounds are for chains; the network has {list(net.edges)}")
    check_finite_weights(net)
    return [weight.detach().double() for weight in net.weights]
