"""Remark 2 of Høier and Zach (2020) for two layers: when the discounted energy (17) is one of (1).

Two networks are compared by their minimisers, not by their energies: an energy and a multiple
of it have the same minimiser, and so have energies that differ by what no minimiser sees. With
L = 2, a linear output, β = β_2 and W = W_1, minimising over z_2 is free and gives

    z_2 = Mz_1 + const,    M = (1 + β)(I + βWWᵀ)⁻¹W,

without γ. What is left for z_1 is ½z_1ᵀSz_1 minus a linear function, where

    S = (1 + γβ)I + β_1W_0W_0ᵀ + γQ,    Q = WᵀW − (1 + β)²Wᵀ(I + βWWᵀ)⁻¹W.

M has the singular values f_β(σ) and Q the eigenvalues h_β(σ²) of :func:`height`, in the
singular vectors of W (and Q is 0 on what W does not see). So γ asks for other singular values
of W and nothing else, and :func:`without_discount` finds them. What it cannot do is keep the
outputs' directions in proportion: each is scaled by its own factor, a matrix T altogether.
For one output T is a number; for several, scales of single units do not replace it
(``scales_are_not_enough``).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..convex import Identity, ReLU
from ..lrrn.bounds import gain
from ..lrrn.inference import infer
from ..lrrn.model import LRRN
from .lrrn import claim
from .lrrn_toys import EXACT, choice, distance, normal, strength, uniform


def height(rho: Tensor, beta: float) -> Tensor:
    """h_β(ρ) = ρ − (1+β)²ρ/(1+βρ): zero at 0, least at ρ = 1, where it is −β, then rising."""
    return rho - (1 + beta) ** 2 * rho / (1 + beta * rho)


def same_height(rho: Tensor, factor: float, beta: float) -> Tensor:
    """ρ′ on the same side of 1 as ρ with h_β(ρ′) = factor·h_β(ρ), for a factor ≤ 1.

    The roots of ρ′² − (2 + β + k)ρ′ − k/β, k = factor·h_β(ρ) ≥ −β. At ρ = 1, up to rounding,
    the larger one.
    """
    k = factor * height(rho, beta)
    half = (2 + beta + k) / 2
    root = (half.square() + k / beta).clamp_min(0).sqrt()
    return torch.where(rho < 1 - 1e-9, half - root, half + root).clamp_min(0)


@torch.no_grad()
def without_discount(net: LRRN) -> tuple[LRRN, float, Tensor]:
    """(plain, d, T): a network with γ = 1, the same β, and minimisers z_1′ = dz_1, z_2′ = Tz_2.

    d² = (1 + γβ_2)/(1 + β_2), W_0′ = W_0/d, and W_1′ has the singular vectors of W_1 with the
    singular values σ′ for which h(σ′²) = (γ/d²)h(σ²). T is symmetric positive definite, with
    the eigenvalue d·f(σ′)/f(σ) for each left singular vector of W_1: a number where all
    singular values but zero are equal, as for one output.

    For β_2 = 0 see ``lnn_core.propositions.lrrn.undiscounted``, which takes every depth.

    Raises:
        ValueError: not (L = 2, γ ≤ 1, β_2 > 0, z_1 ≥ 0 or free, and z_2 free).
    """
    _check(net)
    (W0, W1), (b0, b1), (c0, c1) = (
        [p.detach() for p in part]
        for part in (net.weights, net.biases, net.reconstruction_biases))
    first, beta = net.beta
    d = math.sqrt((1 + net.gamma * beta) / (1 + beta))
    U, sigma, Vt = torch.linalg.svd(W1, full_matrices=False)
    changed = same_height(sigma.square(), net.gamma / d**2, beta).sqrt()
    factor = torch.where(sigma > 0, d * gain(changed, beta) / gain(sigma, beta), d)
    T = d * torch.eye(len(W1), dtype=W1.dtype, device=W1.device) + (U * (factor - d)) @ U.T

    plain = LRRN(net.sizes, net.functions[0], beta=net.beta, dtype=W0.dtype, device=W0.device)
    V1 = (U * changed) @ Vt
    m = torch.linalg.solve(_regularised(W1, beta), b1 + beta * W1 @ c1)     # z_2 at z_1 = 0
    linear = b0 + first * W0 @ c0 - net.gamma * (W1.T @ b1 + beta * c1)
    linear = linear + net.gamma * (1 + beta) * W1.T @ m                     # in z_1, z_2 gone
    plain.weights[0].copy_(W0 / d)
    plain.weights[1].copy_(V1)
    plain.biases[1].copy_(_regularised(V1, beta) @ T @ m)
    plain.biases[0].copy_(linear / d + V1.T @ plain.biases[1] - (1 + beta) * V1.T @ T @ m)
    return plain, d, T


def _regularised(W: Tensor, beta: float) -> Tensor:
    """I + βWWᵀ."""
    return torch.eye(len(W), dtype=W.dtype, device=W.device) + beta * W @ W.T


def _check(net: LRRN) -> None:
    if net.depth != 2:
        raise ValueError(f"net has {net.depth} layers; this is for 2")
    if net.gamma > 1:
        raise ValueError(f"gamma={net.gamma:g} must be at most 1")
    if not net.beta[1] > 0:
        raise ValueError(f"beta={list(net.beta)}: beta_2 must be positive (see undiscounted)")
    if not isinstance(net.functions[0], (Identity, ReLU)):
        raise ValueError(f"hidden set {net.functions[0]!r} does not stay the same when it scales")
    if not isinstance(net.functions[1], Identity):
        raise ValueError(f"output set {net.functions[1]!r} must be all of space, Identity()")


def _two_layers(draw: torch.Generator, outputs: int) -> LRRN:
    """A random network (17) with biases, z_1 ≥ 0 or free."""
    net = LRRN([choice(draw, range(1, 5)), choice(draw, range(1, 6)), outputs],
               choice(draw, (ReLU(), Identity())), generator=draw, dtype=torch.float64,
               beta=[choice(draw, (0.0, 1.0, strength(draw))), strength(draw)],
               gamma=uniform(draw, 0.05, 1))
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(normal(draw, *p.shape))
    return net


def _minimisers_apart(net: LRRN, plain: LRRN, d: float, T: Tensor, x: Tensor) -> float:
    """The distance of plain's minimisers from dz_1 and Tz_2."""
    z, found = (infer(one, x, solver=EXACT)[0] for one in (net, plain))
    return distance(found[1:], [d * z[1], z[2] @ T.T])


@claim("Remark 2 (corrected)", "L = 2, linear output, γ ≤ 1: (17) is a network (1), in dz_1, Tz_2")
def two_layers_without_discount(draw):
    """How far minimisers are from dz_1 and Tz_2, for one to four outputs."""
    net = _two_layers(draw, choice(draw, range(1, 5)))
    x = 3 * normal(draw, 20, net.sizes[0])
    return _minimisers_apart(net, *without_discount(net), x)


@claim("Remark 2", "L = 2, one linear output, γ ≤ 1: (17) is a network (1) up to scales")
def one_output_without_discount(draw):
    """The same for one output, where T is a number."""
    net = _two_layers(draw, 1)
    x = 3 * normal(draw, 20, net.sizes[0])
    plain, d, T = without_discount(net)
    return _minimisers_apart(net, plain, d, T[0, 0] * torch.eye(1, dtype=T.dtype), x)


def scales_are_not_enough(gamma: float = 0.5, first: float = 1.0) -> LRRN:
    """A network (17), 4-4-2 with β = (first, 1), that is not a network (1) up to scales of units.

    W_1 has the singular values √3 and 1, the left singular vectors (1, ±1)/√2, and rows over
    four units whose null vectors are (1, 1, 1, 1) and (1, −1, 1, −1). The proof is on the page
    "Networks that reconstruct"; its numbers: h_1(3) = 0 and h_1(1) = −1, and 1 is the only ρ
    with f_1(√ρ) = 1.
    """
    net = LRRN([4, 4, 2], ReLU(), beta=[first, 1.0], gamma=gamma, bias=False, dtype=torch.float64)
    right = torch.tensor([[1.0, 1, -1, -1], [1, -1, -1, 1]], dtype=torch.float64) / 2
    left = torch.tensor([[1.0, 1], [1, -1]], dtype=torch.float64) / math.sqrt(2)
    with torch.no_grad():
        net.weights[0].copy_(torch.eye(4, dtype=torch.float64))
        net.weights[0][0, 1] = 1.0
        net.weights[1].copy_(left * torch.tensor([3.0, 1.0], dtype=torch.float64).sqrt() @ right)
    return net


@claim("Remark 2 (corrected)", "two outputs, γ ≤ 0.9: T scales directions apart, by 0.99 or less",
       0.99)
def output_directions_scale_apart(draw):
    """|Tu_2|/|Tu_1| for the network above; it would be 1 for a diagonal T."""
    T = without_discount(scales_are_not_enough(uniform(draw, 0.05, 0.9)))[2]
    directions = torch.tensor([[1.0, 1], [1, -1]], dtype=T.dtype) / math.sqrt(2)
    first, second = (T @ directions).norm(dim=0).tolist()
    return second / first
