"""Minimal energies as torch functions of the weights, without a graph through inference.

At a minimum z of E the derivative of min_z E is the partial derivative of E with z held
fixed (envelope theorem), and all of it is in the errors e_k = −∂U/∂a_k:

    ∂E/∂W_kj = −Σ e_k z_jᵀ (over the batch),    ∂E/∂b_k = −Σ e_k,    ∂E/∂x = −Σ_k W_k0ᵀe_k.

One product per connection, as many as the last step of back-propagation.

z moves with the weights, so that with z held fixed *second* derivatives are wrong: asking
for them raises an error.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .checks import own_precision
from .inference.iterate import Iterate
from .network import LiftedNetwork
from .potentials import Potential, Reweighted, Tilted


def minima(net: LiftedNetwork, x: Tensor, end: Iterate, U: Potential) -> Tensor:
    """The energies at their minima, (copies, batch), differentiable in weights, biases and x, and in
    the γ and the tilts of U, as ∂E/∂γ_k = D_k(z_k, a_k).

    ``end`` is where inference ended for one or more copies of the batch, one after the other.
    """
    values = _Envelope.apply(net, end, x, *net.tensors())
    if torch.is_grad_enabled() and _is_learned(U):
        fixed = U(net, end.z, end.a).view_as(values)  # z and a have no history: a function of γ alone
        values = values + once(fixed) - fixed.detach()
    return values


def _is_learned(U: Potential) -> bool:
    """Whether a γ or a tilt asks for a gradient."""
    while isinstance(U, Reweighted | Tilted):
        entries = U.gamma if isinstance(U, Reweighted) else U.g
        if any(isinstance(entry, Tensor) and entry.requires_grad for entry in entries):
            return True
        U = U.base
    return False


def once(values: Tensor) -> Tensor:
    """The values, of which z is held fixed: they can be differentiated, their gradient cannot."""
    return _Once.apply(values) if values.requires_grad else values


def gradients(net: LiftedNetwork, x: Tensor, end: Iterate, slopes: Tensor,
              wanted: Sequence[bool] | None = None) -> list[Tensor | None]:
    """The gradients of Σ slopes·minima in ``net.tensors()``, those that are ``wanted``.

    Args:
        net: the network.
        x: its input, shape (batch, d_0).
        end: as for :func:`minima`.
        slopes: shape (copies, batch).
        wanted: one entry per tensor (default: those that require a gradient).
    """
    if wanted is None:
        wanted = [tensor.requires_grad for tensor in net.tensors()]
    wanted, copies, found = list(wanted), len(slopes), []
    slopes = -slopes.reshape(-1, 1)
    e = [None if e_k is None else slopes * e_k for e_k in end.e]
    for i, (j, k) in enumerate(net.edges):
        affine, source, error = net.connection(i), end.z[j], e[k]
        if j == 0:  # the input is the same for all copies: what reaches it adds up first
            source, error = x, _together(error, copies)
        own, wanted = wanted[:len(affine.tensors)], wanted[len(affine.tensors):]
        found += affine.gradients(source, error, own)
    return found


def assign(net: LiftedNetwork, gradients: Sequence[Tensor | None]) -> None:
    """Set the ``grad`` of every parameter from the gradients in ``net.tensors()``."""
    tensors = net.tensors()
    computed = [i for i, tensor in enumerate(tensors) if not tensor.is_leaf]
    if computed:  # by one of torch's tools, from parameters that are not among the tensors
        net.zero_grad()
    seen = set()
    for i, (tensor, gradient) in enumerate(zip(tensors, gradients)):
        if i in computed:
            continue
        if id(tensor) not in seen:
            tensor.grad = gradient
            seen.add(id(tensor))
        elif gradient is not None:  # two connections share a parameter
            tensor.grad = gradient if tensor.grad is None else tensor.grad + gradient
    if computed:
        torch.autograd.backward([tensors[i] for i in computed], [gradients[i] for i in computed])


def _together(error: Tensor, copies: int) -> Tensor:
    """The sum over the copies of a batch, (batch, d_k)."""
    return error if copies == 1 else error.view(copies, -1, error.shape[1]).sum(0)


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
        net, end = ctx.net, ctx.end
        to_x, *wanted = ctx.needs_input_grad[2:]
        return (None, None, _input_gradient(net, end, slope) if to_x else None,
                *gradients(net, x, end, slope, wanted))


def _input_gradient(net: LiftedNetwork, end: Iterate, slopes: Tensor) -> Tensor:
    """The gradient of Σ slopes·minima in x, (batch, d_0)."""
    factor = -slopes.reshape(-1, 1)
    sent = [net.connection(i).transpose(_together(factor * end.e[k], len(slopes)))
            for i, (j, k) in enumerate(net.edges) if j == 0]
    return sum(sent[1:], sent[0])


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
