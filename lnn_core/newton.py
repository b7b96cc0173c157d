"""The output layer's answer to a loss with log-sum-exp, by Newton's method."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: The most Newton steps, those that are taken back included; three or four are the rule.
STEPS = 50


def logit_prox(prox: Callable[[Tensor], Tensor], pull: Tensor, s: float | Tensor,
                 start: Tensor) -> Tensor:
    """argmin_z D(z) + (q/2)·‖z‖² − pullᵀz + s·lse(z), shape (batch, d_L), for a quadratic D.

    Stationary is z = prox(pull − s·p) with p = softmax(z), where prox(p) = argmin_z D(z) + (q/2)·‖z‖² −
    pᵀz is affine, with a diagonal matrix: the compliance C⁻¹ of each unit. Newton's step solves

        (C + s·(diag p − ppᵀ))Δ = C·(z − prox(pull − s·p))

    and is halved, sample by sample, until the residual falls. For s < 0 the matrix is positive
    definite as long as |s| < 2C, since the Hessian of lse is at most ½.

    Args:
        prox: the layer's answer to a linear pull of shape (batch, d_L).
        pull: shape (batch, d_L), or one that broadcasts to it.
        s: the weight of log-sum-exp, which broadcasts to (batch, 1).
        start: a first guess of z, shape (batch, d_L).
    """
    pull = (pull + torch.zeros_like(start)) if isinstance(pull, Tensor) else torch.full_like(start, pull)
    rest = prox(pull)
    reach = 1 + rest.abs().amax(1, keepdim=True)
    stiffness = reach / (prox(pull + reach) - rest)  # C: prox is affine

    def residual(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        p = z.softmax(1)
        F = z - prox(pull - s * p)
        return p, F, torch.linalg.vector_norm(F, dim=1, keepdim=True)

    z = prox(pull - s * start.softmax(1))
    p, F, size = residual(z)
    step = torch.ones_like(size)
    limit = 8 * torch.finfo(z.dtype).eps * (reach + z.abs().amax(1, keepdim=True))
    for _ in range(STEPS):
        # Where many halvings do not help, rounding is all that is left.
        if not ((size > limit) & (step > 1e-6)).any():
            break
        trial = z - step * solve(stiffness, s, p, stiffness * F)
        new = residual(trial)
        better = new[2] < size
        z, (p, F, size) = torch.where(better, trial, z), (
            torch.where(better, new_v, v) for new_v, v in zip(new, (p, F, size)))
        step = torch.where(better, (2 * step).clamp_max(1.0), 0.5 * step)
    return z


def solve(C: Tensor, s: float | Tensor, p: Tensor, v: Tensor) -> Tensor:
    """Δ with (diag C + s·(diag p − ppᵀ))Δ = v, shape (batch, d_L), in O(d_L) operations per sample.

    The unit with the largest p is eliminated last (a Schur complement): without it the diagonal
    C + s·p is positive for |s| < 2C, as the other p are at most ½, and ppᵀ is one rank (Sherman and
    Morrison's formula).
    """
    top = p.argmax(1, keepdim=True)
    C_top, p_top, v_top = (torch.gather(values, 1, top) for values in (C.expand_as(p), p, v))
    r = p.scatter(1, top, 0.0)
    diagonal = (C + s * r).scatter(1, top, 1.0)

    def inverse(u: Tensor) -> Tensor:
        u = u / diagonal
        return u + s * (r / diagonal) * (r * u).sum(1, keepdim=True) / (
            1 - s * (r.square() / diagonal).sum(1, keepdim=True))

    beside = -s * p_top * r
    rest, bent = inverse(v.scatter(1, top, 0.0)), inverse(beside)
    schur = C_top + s * p_top * (1 - p_top) - (beside * bent).sum(1, keepdim=True)
    change_top = (v_top - (beside * rest).sum(1, keepdim=True)) / schur
    return (rest - bent * change_top).scatter(1, top, change_top)
