"""Minimal energies as torch functions of the weights, without a graph through inference.

At a minimum z of E the derivative of min_z E is the partial derivative of E with z held
fixed (envelope theorem), and all of it is in the errors e_k = −∂U/∂a_k:

    ∂E/∂W_kj = −Σ e_k z_jᵀ (over the batch),    ∂E/∂b_k = −Σ e_k,    ∂E/∂x = −Σ_k W_k0ᵀe_k.

One product a weight matrix, as many as the last step of back-propagation.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .network import LiftedNetwork
from .points import Point


def value(net: LiftedNetwork, x: Tensor, point: Point) -> Tensor:
    """The point's energy, shape (batch,), differentiable in the weights, biases and x.

    The point may hold several batches after one another that all share the input x.
    """
    return _Envelope.apply(net, point, x, *net.weights, *(net.biases or ()))


class _Envelope(torch.autograd.Function):
    @staticmethod
    def forward(ctx, net: LiftedNetwork, point: Point, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.net, ctx.point = net, point
        ctx.save_for_backward(x, *parameters)  # detects weights changed before backward
        return point.energy.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, slope: Tensor):
        x, *parameters = ctx.saved_tensors
        net, point = ctx.net, ctx.point
        e = [None] + [e_k * -slope[:, None] for e_k in point.e[1:]]
        # What the input sees is linear in e: copies of the batch add up first.
        shared = [None] + [e_k.view(-1, *x.shape[:1], e_k.shape[1]).sum(0) if len(e_k) > len(x)
                           else e_k for e_k in e[1:]]
        needed = ctx.needs_input_grad[2:]
        to_x = sum(shared[k] @ W for (j, k), W in zip(net.edges, parameters) if j == 0) \
            if needed[0] else None
        edges, biases = len(net.edges), len(parameters) - len(net.edges)
        to_W = [(shared[k].T @ x if j == 0 else e[k].T @ point.z[j]) if wanted else None
                for (j, k), wanted in zip(net.edges, needed[1:1 + edges])]
        to_b = [shared[k].sum(0) for k in range(1, biases + 1)]
        return None, None, to_x, *to_W, *to_b
