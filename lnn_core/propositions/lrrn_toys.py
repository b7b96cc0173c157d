"""Random small networks and operators, on which :mod:`.lrrn` tries the paper's statements.

All is float64 and converged to about 1e-12; ``draw`` is the generator that decides everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from ..convex import Box, Identity, ReLU
from ..lrrn.bounds import jacobian
from ..lrrn.boxqp import SpectralDescent
from ..lrrn.model import LRRN

EXACT = SpectralDescent(1e-12)
SETS = (Identity(), ReLU(), Box(0, 1), Box(-0.5, 2))

Prox = Callable[[Tensor, float], Tensor]

#: prox(v, t) = argmin_z ½‖z − v‖² + t·G(z) of convex functions G, separable and not.
PROXES: dict[str, Prox] = {
    "none": lambda v, t: v,
    "z >= 0": lambda v, t: v.clamp_min(0),
    "box": lambda v, t: v.clamp(-0.5, 0.5),
    "ball": lambda v, t: v / v.norm(dim=1, keepdim=True).clamp_min(1),
    "1-norm": lambda v, t: v.sign() * (v.abs() - t).clamp_min(0),
    "2-norm": lambda v, t: v * (1 - t / v.norm(dim=1, keepdim=True).clamp_min(1e-300)).clamp_min(0),
    "square": lambda v, t: v / (1 + t),
}


def normal(draw: torch.Generator, *shape: int) -> Tensor:
    """Entries from N(0, 1), independent."""
    return torch.randn(shape, generator=draw, dtype=torch.float64)


def uniform(draw: torch.Generator, low: float, high: float) -> float:
    """A number from U(low, high)."""
    return low + (high - low) * float(torch.rand((), generator=draw, dtype=torch.float64))


def strength(draw: torch.Generator) -> float:
    """β between 1/20 and 20, even on a logarithmic scale."""
    return 20 ** uniform(draw, -1, 1)


def choice(draw: torch.Generator, options: Iterable):
    """One of the options, all equally likely."""
    options = list(options)
    return options[int(torch.randint(len(options), (), generator=draw))]


def network(draw: torch.Generator, beta: str = "mixed", depth: int | None = None,
            sets: Sequence[Box] = SETS, gamma: float | None = None) -> LRRN:
    """A random network with biases; β: ``"mixed"`` (some zero), ``"zero"``, ``"corollary"``."""
    depth = choice(draw, range(1, 5)) if depth is None else depth
    sizes = [choice(draw, range(2, 6)) for _ in range(depth + 1)]
    betas = {"mixed": [choice(draw, (0.0, 1.0, strength(draw))) for _ in range(depth)],
             "zero": 0.0, "corollary": None}[beta]
    net = LRRN(sizes, [choice(draw, sets) for _ in range(depth - 1)], beta=betas,
               gamma=uniform(draw, 0.3, 1.5) if gamma is None else gamma,
               generator=draw, dtype=torch.float64)
    with torch.no_grad():
        for W in net.weights:
            W.copy_(uniform(draw, 0.3, 1.5) * normal(draw, *W.shape))
        for bias in (*net.biases, *net.reconstruction_biases):
            bias.copy_(0.5 * normal(draw, len(bias)))
    return net


def proximal(beta: float, W: Tensor, x: Tensor, prox: Prox) -> Tensor:
    """P_{β,W,G}(x) of eq. (4), x: (batch, m), by accelerated proximal gradient steps."""
    H = torch.eye(len(W), dtype=W.dtype, device=W.device) + beta * W @ W.T
    right, step = (1 + beta) * x @ W.T, 1 / float(torch.linalg.matrix_norm(H, 2))
    z = y = torch.zeros_like(right)
    momentum = (1 - step**0.5) / (1 + step**0.5)  # the strong convexity of H is at least 1
    for _ in range(5000):
        previous, z = z, prox(y - step * (y @ H - right), step)
        y = z + momentum * (z - previous)
        if (z - previous).abs().max() <= 1e-15 * (1 + z.abs().max()):
            break
    return z


def steepest(P: Callable[[Tensor], Tensor], W: Tensor, draw: torch.Generator) -> float:
    """The largest ‖P(x) − P(x′)‖/‖x − x′‖ found, moving x′ − x along Wᵀ(P(x) − P(x′)).

    That is the direction in which the proof of Lemma 1 looks for the worst case.
    """
    x, worst = 2 * normal(draw, 64, W.shape[1]), 0.0
    u = normal(draw, *x.shape) * 10 ** (4 * torch.rand(64, 1, generator=draw, dtype=x.dtype) - 3)
    length = u.norm(dim=1, keepdim=True)
    at_x = P(x)
    for _ in range(5):
        v = P(x + u) - at_x
        worst = max(worst, float((v.norm(dim=1, keepdim=True) / length).max()))
        u = v @ W
        u = length * u / u.norm(dim=1, keepdim=True).clamp_min(1e-300)
    return worst


def slope(net: LRRN, draw: torch.Generator, samples: int = 200) -> float:
    """The largest norm of the output's Jacobian over random inputs."""
    x = 3 * normal(draw, samples, net.sizes[0])
    return float(torch.linalg.matrix_norm(jacobian(net, x, solver=EXACT), 2).max())


def distance(a: Tensor | Sequence[Tensor], b: Tensor | Sequence[Tensor]) -> float:
    """The largest absolute difference, relative to the largest entry of b."""
    pairs = [(a, b)] if isinstance(a, Tensor) else list(zip(a, b))
    scale = max(float(q.abs().max()) for _, q in pairs)
    return max(float((p - q).abs().max()) for p, q in pairs) / max(scale, 1e-300)
