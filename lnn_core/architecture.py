"""What a network is made of, checked: its sizes, its convex functions, and what feeds what."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from .convex import Box, ConvexFunction, Identity, LeakyReLU, ReLU
from .kinds import described, expect, expect_sequence, integers
from .smooth import Sigmoid, Softplus, Tanh

#: Modules that compute an activation that is lifted, and the convex function G with f = ∂G*.
ACTIVATIONS = {
    nn.ReLU: lambda module: ReLU(),
    nn.ReLU6: lambda module: Box(0.0, 6.0),
    nn.Hardtanh: lambda module: Box(module.min_val, module.max_val),
    nn.Tanh: lambda module: Tanh(),
    nn.Sigmoid: lambda module: Sigmoid(),
    nn.LeakyReLU: lambda module: LeakyReLU(module.negative_slope),
    nn.Softplus: lambda module: Softplus(),
}


def checked_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """The sizes as a tuple; TypeError unless all are integers, ValueError unless positive."""
    sizes = integers("sizes", sizes)
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes={list(sizes)} must hold at least two positive integers")
    return sizes


def function_of(module: nn.Module) -> ConvexFunction | None:
    """The convex function of torch's activation module; None for a module that is none of them."""
    if isinstance(module, nn.Softplus) and (module.beta != 1 or module.threshold < 20):
        raise TypeError(f"{module!r} is not lifted: use nn.Softplus() with its defaults")
    make = ACTIVATIONS.get(type(module))
    return make(module) if make else None


def checked_functions(depth: int, activation, output) -> tuple[ConvexFunction, ...]:
    """The convex functions of layers 1, …, depth: one for all hidden ones, or one for each.

    None stands for ``ReLU()`` in hidden layers and ``Identity()`` at the output; torch's activation
    modules stand for theirs.

    Raises:
        TypeError: what is not a ConvexFunction.
        ValueError: the wrong number of them.
    """
    hidden = ReLU() if activation is None else activation
    what = "a ConvexFunction such as ReLU()"
    if isinstance(hidden, nn.Module) and function_of(hidden) is None:
        raise TypeError(f"activation is {described(hidden)}; expected {what}")
    if isinstance(hidden, (ConvexFunction, nn.Module)):
        hidden = [hidden] * (depth - 1)
    functions = tuple(
        function_of(function) or function if isinstance(function, nn.Module) else function for function in
        (*expect_sequence("activation", hidden, what), Identity() if output is None else output))
    if len(functions) != depth:
        raise ValueError(f"{len(functions) - 1} activations given for {depth - 1} hidden layers")
    for k, function in enumerate(functions, 1):
        expect("output" if k == depth else f"activation {k}", function, ConvexFunction, what)
    return functions


def checked_edges(depth: int, edges) -> tuple[tuple[int, int], ...]:
    """The edges, sorted by the layer that they feed; the chain for None.

    Raises:
        TypeError: an entry that is not a pair of integers.
        ValueError: an edge that would close a cycle, a layer that nothing feeds or that feeds nothing.
    """
    if edges is None:
        return tuple((k - 1, k) for k in range(1, depth + 1))
    what = "pairs (j, k) of layers"
    pairs = {integers("edges", expect_sequence("an entry of edges", edge, what))
             for edge in expect_sequence("edges", edges, what)}
    for pair in pairs:
        if len(pair) != 2:
            raise ValueError(f"edge {pair} has {len(pair)} entries; expected {what}")
    edges = tuple(sorted(pairs, key=lambda edge: edge[::-1]))
    for j, k in edges:
        if not 0 <= j < k <= depth:
            raise ValueError(f"edge {(j, k)} must satisfy 0 <= j < k <= {depth}: W is strictly "
                             "lower triangular (eq. 4), anything else would close a cycle")
    for k in range(1, depth + 1):
        if all(to != k for _, to in edges):
            raise ValueError(f"nothing feeds layer {k}; edges={list(edges)}")
    for j in range(1, depth):
        if all(source != j for source, _ in edges):
            raise ValueError(f"layer {j} feeds nothing; edges={list(edges)}")
    return edges
