"""Minimal energies as torch functions of the weights, without a graph through inference.

At a minimum z of E the derivative of min_z E is the partial derivative of E with z held
fixed (envelope theorem), and all of it is in the errors e_k = −∂U/∂a_k:

    ∂E/∂W_kj = −Σ e_k z_jᵀ (over the batch),    ∂E/∂b_k = −Σ e_k,    ∂E/∂x = −Σ_k W_k0ᵀe_k.

One product per connection, as many as the last step of back-propagation.

z moves with the weights, so that with z held fixed *second* derivatives are wrong: asking
for them raises an error.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import own_precision
from .inference.iterate import Iterate
from .network import LiftedNetwork


def minima(net: LiftedNetwork, x: Tensor, end: Iterate) -> Tensor:
    """The energies at their minima, (copies, batch), differentiable in weights, biases and x.

    ``end`` is where inference ended for one or more copies of the batch, one after the other.
    """
    return _Envelope.apply(net, end, x, *net.tensors())


def once(values: Tensor) -> Tensor:
    """The values, of which z is held fixed: they can be differentiated, their gradient cannot."""
    return _Once.apply(values) if values.requires_grad else values


class _Envelope(torch.autograd.Function):
    @staticmethod
    def forward(ctx, net: LiftedNetwork, end: Iterate, x: Tensor, *tensors: Tensor) -> Tensor:
        ctx.net, ctx.end = net, end
        ctx.save_for_backward(x, *tensors)  # so that torch notices weights changed since
        return end.energy.reshape(-1, len(x))

    @staticmethod
    @own_precision
    def backward(ctx, slope: Tensor):
        x, *tensors = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True
            slope = _Last.apply(slope, x, *tensors)
        net, z, copies = ctx.net, ctx.end.z, len(slope)
        slopes = -slope.reshape(-1, 1)
        e = [None] + [slopes * e_k for e_k in ctx.end.e[1:]]
        to_x_wanted, *wanted = ctx.needs_input_grad[2:]
        to_x, found = None, []
        for i, (j, k) in enumerate(net.edges):
            affine, source, error = net.connection(i), z[j], e[k]
            if j == 0:  # the input is the same for all copies: what reaches it adds up first
                source, error = x, error if copies == 1 else error.view(copies, len(x), -1).sum(0)
                if to_x_wanted:
                    sent = affine.transpose(error)
                    to_x = sent if to_x is None else to_x + sent
            own, wanted = wanted[:len(affine.tensors)], wanted[len(affine.tensors):]
            found += affine.gradients(source, error, own)
        return None, None, to_x, *found


class _Once(torch.autograd.Function):
    """The identity; its gradient depends on all that the values depend on, through ``_Last``."""

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return values.view_as(values)

    @staticmethod
    def backward(ctx, slope: Tensor) -> Tensor:
        return _Last.apply(slope, *ctx.saved_tensors) if torch.is_grad_enabled() else slope


class _Last(torch.autograd.Function):
    """A slope that must not be differentiated in anything that the value depends on."""

    @staticmethod
    def forward(ctx, slope: Tensor, *_: Tensor) -> Tensor:
        return slope.view_as(slope)

    @staticmethod
    def backward(ctx, *_):
        raise RuntimeError("second derivatives of an inferred objective are not supported: its "
                           "gradient holds the activations fixed (envelope theorem); use "
                           "differences of gradients")
