"""How much the output of an LRRN can move when its input does.

Everything rests on one inequality. Let P(x) = argmin_z ½‖z − Wx‖² + (β/2)‖Wᵀz − x‖² + G(z)
with a convex G, as in eq. (4) of Høier and Zach (2020), that stays convex when (m/2)‖z‖² is
taken off. For two inputs that differ by u, the solutions differ by v with

    (1 + β) uᵀWᵀv ≥ (1 + m)‖v‖² + β‖Wᵀv‖²,

since subgradients of G are monotone. With σ = ‖Wᵀv‖/‖v‖ ≤ ‖W‖₂ and Cauchy–Schwarz,

    ‖v‖ ≤ (1 + β)σ / (1 + m + βσ²) · ‖u‖.

At m = 0 the right side is f_β(σ)‖u‖, the function of section 3.1. Its maximum over all σ,
(β^½ + β^−½)/2 at σ = 1/√β, is Lemma 1 and, at β = 1, Corollary 1; its maximum over
σ ≤ ‖W‖₂ is Lemma 2 at β = 0 and in between improves on both wherever ‖W‖₂ < 1/√β.

In a network layer k is such a P of z_{k−1}: minimising over the layers above leaves a convex
G of z_k alone. Constants multiply (Theorem 1); the discount γ cancels in each factor.
"""

from __future__ import annotations

import math
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from ..bounds import margin
from ..checks import check_input, check_margin, not_negative, positive
from ..kinds import expect
from .boxqp import Solver, SpectralDescent, chosen
from .implicit import minimiser
from .inference import infer
from .model import LRRN

#: One number or many.
Numbers = Tensor | np.ndarray | float


def gain(sigma: Numbers, beta: float, m: float = 0.0) -> Numbers:
    """f_β(σ) = (1 + β)σ / (1 + βσ²), and (1 + β)σ / (1 + m + βσ²) with curvature m.

    f_β(σ) = f_β(1/(βσ)): it is symmetric about its maximum at 1/√β on a logarithmic scale.
    """
    expect("sigma", sigma, (Real, Tensor, np.ndarray), "a number, tensor or array")
    beta, m = not_negative("beta", beta), not_negative("m", m)
    return (1 + beta) * sigma / (1 + m + beta * sigma**2)


def largest_gain(beta: float) -> float:
    """max_σ f_β(σ) = (β^½ + β^−½)/2, the constant of Lemma 1, at σ = 1/√β."""
    root = positive("beta", beta) ** 0.5
    return (root + 1 / root) / 2


@torch.no_grad()
def layer_constants(net: LRRN) -> list[float]:
    """ρ_k of eq. (13) for k = 1, …, L: ``largest_gain(β_k)``, and ‖W_{k−1}‖₂ where β_k = 0.

    (The paper prints ‖W_k‖₂; its proof uses W_{k−1}, the weight that feeds layer k.)
    """
    expect("net", net, LRRN, "an LRRN")
    net.check_parameters()
    return [largest_gain(beta) if beta > 0 else _norm(W)
            for W, beta in zip(net.weights.entries(), net.beta)]


@torch.no_grad()
def refined_constants(net: LRRN) -> list[float]:
    """Constants that are at most ρ_k, from the module's inequality, which the paper lacks.

    They use the norm of W where it is small, and the curvature m_k that the layers above
    give to z_k: the smallest eigenvalue of P_k, where ½zᵀP_k z is what minimising over these
    layers without their constraints leaves (which add convex functions only). From
    P_L = 0 downwards, with layer k + 1's W and β,

        P_k = γ ( WᵀW + βI − (1 + β)² Wᵀ (I + βWWᵀ + P_{k+1})⁻¹ W ).
    """
    expect("net", net, LRRN, "an LRRN")
    net.check_parameters()
    constants, P = [], None
    for W, beta in zip(reversed(net.weights.entries()), reversed(net.beta)):
        W = W.double()
        out, into = (torch.eye(side, dtype=W.dtype, device=W.device) for side in W.shape)
        P = torch.zeros_like(out) if P is None else P
        m = max(float(torch.linalg.eigvalsh(P)[0]), 0.0)  # rounding can leave a −1e-17
        best = math.sqrt((1 + m) / beta) if beta > 0 else math.inf
        constants.append(gain(min(_norm(W), best), beta, m))
        inner = torch.linalg.solve(out + beta * W @ W.T + P, W)
        P = net.gamma * (W.T @ W + beta * into - (1 + beta) ** 2 * W.T @ inner)
    return constants[::-1]


def lipschitz(net: LRRN, *, refined: bool = False) -> float:
    """An upper bound of the Lipschitz constant of x ↦ z_L*(x): Π_k ρ_k (Theorem 1).

    For β = (1, …, 1, 0) this is ‖W_{L−1}‖₂ (Corollary 2). ``refined`` takes the product of
    :func:`refined_constants`.
    """
    return math.prod(refined_constants(net) if refined else layer_constants(net))


def jacobian(net: LRRN, x: Tensor, *, solver: Solver | None = None) -> Tensor:
    """∂z_L*/∂x, shape (batch, d_L, d_0); its largest norm is a lower bound for Lipschitz.

    The output is piecewise linear in x, so that this is exact off the kinks.
    """
    expect("net", net, LRRN, "an LRRN")
    check_input(net, x)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        z = minimiser(net.quadratic(x), chosen(solver, SpectralDescent(1e-6)))
        rows = [torch.autograd.grad(output.sum(), x, retain_graph=True)[0]
                for output in z[:, -net.sizes[-1]:].unbind(1)]
    return torch.stack(rows, 1)


@torch.no_grad()
def certified_radius(net: LRRN, x: Tensor, *, rho: float | None = None,
                     solver: Solver | None = None) -> Tensor:
    """m_x/(√2ρ), shape (batch,): no change of x that is shorter changes the prediction.

    m_x is the margin between the two largest outputs. Overturning it moves two outputs by
    m_x between them, which takes ‖Δz_L‖ ≥ m_x/√2, and ‖Δz_L‖ ≤ ρ‖Δx‖. What inference may
    have left of the way to z_L* is taken off: ‖z_L − z_L*‖² ≤ 2·gap·λ_max((H⁻¹)_LL).

    Args:
        net: the network.
        x: shape (batch, d_0).
        rho: the Lipschitz constant; default ``lipschitz(net)``.
        solver: default ``SpectralDescent(1e-5)``.

    Raises:
        ValueError: a network with one output, or ρ not positive.
    """
    expect("net", net, LRRN, "an LRRN")
    outputs = net.sizes[-1]
    check_margin(outputs)
    rho = positive("rho", lipschitz(net) if rho is None else rho)
    z, report = infer(net, x, solver=chosen(solver, SpectralDescent(1e-5)))
    inverse = torch.linalg.inv(net.quadratic(x[:1]).H)[-outputs:, -outputs:]
    error = (2 * report.gap * torch.linalg.eigvalsh(inverse)[-1]).sqrt()
    return (margin(z[-1]) / math.sqrt(2) - error).clamp_min(0) / rho


def _norm(W: Tensor) -> float:
    return float(torch.linalg.matrix_norm(W.double(), 2))
