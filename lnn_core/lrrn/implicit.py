"""The solution of a program over a box as a differentiable function of the program.

On the units i inside the box dz* = (H_ii)⁻¹(dg − dH z*)_i, and zero on those at a bound
(implicit function theorem): z* is smooth wherever none is about to meet or leave its bound.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .boxqp import BoxQP, Solver, chosen


def minimiser(qp: BoxQP, solver: Solver | None = None) -> Tensor:
    """The minimum's place z*, shape (batch, n), differentiable in H and g as often as one likes."""
    return _Minimiser.apply(qp.H, qp.g, qp.lower, qp.upper, chosen(solver))


class _Minimiser(torch.autograd.Function):
    """z*(H, g). Backward solves with H_ii by asking the same solver for the program whose units
    are held at zero where z* lies on a bound, and free elsewhere. Its solution is a minimiser
    again, which gives second derivatives, and so on.
    """

    @staticmethod
    def forward(H: Tensor, g: Tensor, lower: Tensor, upper: Tensor, solver: Solver) -> Tensor:
        return solver(BoxQP(H, g, lower, upper))[0]

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        H, _, lower, upper, ctx.solver = inputs
        ctx.save_for_backward(H, lower, upper, output)

    @staticmethod
    def backward(ctx, v: Tensor):
        H, lower, upper, z = ctx.saved_tensors
        qp = BoxQP(H, v, lower, upper)
        reach = torch.where(qp.inside(z), torch.inf, 0.0).to(z.dtype)
        u = minimiser(replace(qp, lower=-reach, upper=reach), ctx.solver)
        return -u.T @ z if ctx.needs_input_grad[0] else None, u, None, None, None

    @staticmethod
    def vmap(info, in_dims, H: Tensor, g: Tensor, lower: Tensor, upper: Tensor, solver: Solver):
        """One program for the samples of all mapped calls, or one per call where H differs."""
        H, g, lower, upper = (
            part.expand(info.batch_size, *part.shape) if dim is None else part.movedim(dim, 0)
            for part, dim in zip((H, g, lower, upper), in_dims))
        lower, upper = (bound.reshape(len(g), -1, g.shape[2]).expand_as(g)
                        for bound in (lower, upper))
        if in_dims[0] is None:
            parts = (part.flatten(0, 1) for part in (g, lower, upper))
            return _Minimiser.apply(H[0], *parts, solver).view_as(g), 0
        return torch.stack([_Minimiser.apply(*one, solver) for one in zip(H, g, lower, upper)]), 0
