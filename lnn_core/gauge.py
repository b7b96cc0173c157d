"""Networks that compute the same function: hidden units, rescaled.

What a unit of a hidden layer k sends on may be multiplied by any s > 0 if what follows divides by it:

    W_k → D W_k,   b_k → D b_k,   W_{k+1} → W_{k+1} D⁻¹    with D = diag(s).

Proof that the function stays: f(Da) = D f(a) for ReLU and the identity, so that z_k becomes D z_k, and
W_{k+1}D⁻¹·D z_k = W_{k+1}z_k: all other layers stay what they are, the output among them.

U, κ, borders of stability and budgets do *not* stay. Networks can be compared by them only where a rule
fixes the scales: a gauge.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .checks import check_finite_weights, check_network, finite
from .convex import ConvexFunction, Identity, LeakyReLU, ReLU
from .kinds import expect, expect_sequence
from .network import LiftedNetwork

#: f(sa) = s·f(a) for s > 0.
HOMOGENEOUS = (Identity, LeakyReLU, ReLU)
#: ``balanced`` has converged once no unit's scale changes by more than this share in a sweep.
TOLERANCE = 1e-12
SWEEPS = 10_000


@torch.no_grad()
def chain(weights: Sequence[Tensor], biases: Sequence[Tensor] | None,
          functions: Sequence[ConvexFunction]) -> LiftedNetwork:
    """The chain with copies of these matrices W_1, …, W_L and biases, and these functions G_1, …, G_L."""
    first = weights[0]
    net = LiftedNetwork([first.shape[1], *map(len, weights)], functions[:-1], functions[-1],
                        bias=biases is not None, dtype=first.dtype, device=first.device,
                        generator=torch.Generator(first.device))  # torch's global one is left alone
    for own, W in zip(net.weights, weights):
        own.copy_(W)
    for own, b in zip(net.biases or (), biases or ()):
        own.copy_(b)
    return net


@torch.no_grad()
def rescaled(net: LiftedNetwork, scales: Sequence[Tensor]) -> LiftedNetwork:
    """A copy that computes the same function, with z_k multiplied by ``scales[k − 1]``.

    Args:
        net: a chain whose hidden layers are ReLU, leaky ReLU or the identity.
        scales: for each hidden layer a tensor of positive numbers, shape (d_k,).

    Raises:
        ValueError: another network, or scales that do not fit it or are not positive and finite.
        TypeError: a connection that is not a matrix, or scales that are not tensors.
    """
    net = _checked(net)
    scales = expect_sequence("scales", scales, "one tensor per hidden layer")
    if len(scales) != net.depth - 1:
        raise ValueError(f"scales has {len(scales)} entries; the network has {net.depth - 1} hidden layers")
    for k, s in enumerate(scales, 1):
        expect(f"scales[{k - 1}]", s, Tensor, "a tensor of shape (d_k,)")
        if s.shape != (net.sizes[k],):
            raise ValueError(f"scales[{k - 1}] has shape {tuple(s.shape)}; "
                             f"layer {k} has {net.sizes[k]} units")
        finite(f"scales[{k - 1}]", s)
        if not (s > 0).all():
            raise ValueError(f"scales[{k - 1}] holds {float(s.min()):g}; scales must be positive")
    return _scaled(net, [W.double() for W in net.weights], [s.double() for s in scales])


@torch.no_grad()
def balanced(net: LiftedNetwork) -> LiftedNetwork:
    """A copy that computes the same function, of whose hidden units each takes in as much as it sends on:

        ‖row i of W_k‖² + b_{k,i}² = ‖column i of W_{k+1}‖².

    A bias counts as what it is, a weight from a unit that is always 1: else a unit with nothing but a bias
    could not be balanced. (It is the difference of these sides that gradient flow leaves unchanged: Du, Hu
    and Lee, 2018.) A unit that nothing reaches, or that reaches no output, is dead: it gets weights and a
    bias of 0.

    Whatever rescaling of hidden units went before, the result is the same. Proof: with scales s = eᵗ the
    sum of all squared weights and biases of layers below the output's is a sum of exponentials of
    differences of the t. Each of them is on a path from the input, or a bias, to the output, so that the sum
    is strictly convex and grows without bound in every direction: it has one minimum among all rescalings,
    and its gradient in t is twice the difference of the sides above.

    Each sweep balances the layers in turn. It shrinks the largest error of t, weighted by sin(πk/L) for layer
    k, by at least cos(π/L).

    Args:
        net: a chain whose hidden layers are ReLU, leaky ReLU or the identity.

    Raises:
        ValueError: another network, or weights that are not finite.
        TypeError: a connection that is not a matrix.
        RuntimeError: scales that have not settled after ``SWEEPS`` sweeps.
    """
    net = _checked(net)
    weights = [W.double() for W in net.weights]
    squares = [W.square() for W in weights]
    constant = [b.double().square() for b in net.biases or [W.new_zeros(len(W)) for W in weights]]
    alive = _alive(squares, constant)
    for k in range(net.depth):
        mask = alive[k + 1][:, None] * alive[k]
        weights[k], squares[k] = weights[k] * mask, squares[k] * mask
    r = [torch.ones_like(a) for a in alive]  # r_k = s_k²
    for _ in range(SWEEPS):
        settled = True
        for k in range(1, net.depth):
            taken = squares[k - 1] @ (1 / r[k - 1]) + constant[k - 1]  # times r_k
            sent = squares[k].mT @ r[k + 1]  # divided by r_k
            new = torch.where(alive[k] > 0, (sent / taken).sqrt(), 1.0)
            settled = settled and bool(((new / r[k] - 1).abs() <= TOLERANCE).all())  # false for NaN
            r[k] = new
        if settled:
            return _scaled(net, weights, [a.sqrt() for a in r[1:-1]], alive)
    raise RuntimeError(f"scales have not settled after {SWEEPS} sweeps: a very deep network, or weights "
                       "whose squares overflow")


def _checked(net: LiftedNetwork) -> LiftedNetwork:
    """The network with its weights held fixed; ValueError where rescaling changes its function."""
    net = check_network(net)
    if not net.is_chain:
        raise ValueError(f"hidden units are rescaled in chains; the network has {list(net.edges)}")
    for k in range(1, net.depth):
        if not isinstance(net.function(k), HOMOGENEOUS):
            raise ValueError(f"layer {k} is {net.function(k)!r}: rescaling its units changes the function")
    check_finite_weights(net)
    return net


def _alive(squares: Sequence[Tensor], constant: Sequence[Tensor]) -> list[Tensor]:
    """For layers 0, …, L a tensor with 1 for every unit that something reaches and that reaches an output.

    What is found dead on the way down fed nothing that is alive: one way up and one down suffice.
    """
    alive = [squares[0].new_ones(squares[0].shape[1])]
    for P, c in zip(squares, constant):
        alive.append((P @ alive[-1] + c > 0).to(P))
    alive[-1] = torch.ones_like(alive[-1])
    for k in range(len(squares) - 1, 0, -1):
        alive[k] *= squares[k].mT @ alive[k + 1] > 0
    return alive


def _scaled(net: LiftedNetwork, weights: Sequence[Tensor], scales: Sequence[Tensor],
            alive: Sequence[Tensor] | None = None) -> LiftedNetwork:
    """The network with these matrices, float64, and its own biases (0 for dead units), rescaled."""
    ends = (weights[0].new_ones(net.sizes[0]), *scales, weights[0].new_ones(net.sizes[-1]))
    matrices = [after[:, None] * W / before for before, W, after in zip(ends, weights, ends[1:])]
    biases = net.biases and [b.double() * s for b, s in zip(net.biases, ends[1:])]
    if biases and alive is not None:
        biases = [b * a for b, a in zip(biases, alive[1:])]
    return chain([W.to(net.dtype) for W in matrices], biases and [b.to(net.dtype) for b in biases],
                 net.functions)
