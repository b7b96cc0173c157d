"""Feed-forward networks, seen as the pre-activations that a potential compares with.

Activations are always a list ``z`` with ``z[0] = x`` and ``z[k]`` of shape
(batch, d_k) for the layers k = 1, …, L, so that code reads like the paper.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral

import torch
from torch import Tensor, nn

from .checks import instance
from .convex import ConvexFunction, Identity, ReLU

Activations = list[Tensor]


class LiftedNetwork(nn.Module):
    """Layers z_k = f_k(a_k) with pre-activations a_k = Σ_j W_kj z_j + b_k.

    Parameters
    ----------
    sizes : (d_0, d_1, …, d_L); d_0 is the input's dimension.
    activation : the convex function of the hidden layers, or one for each of them.
    output : the convex function of the output layer (default: ``Identity``).
    edges : the pairs (j, k) for which z_j feeds layer k. Default: the chain
        (0, 1), (1, 2), …, eq. (1)–(3) of Zach (2025). Any j < k is allowed, which is
        the strictly lower-triangular W of eq. (4): skips and residual connections.
    bias : whether layers have a bias.
    init : ``"uniform"`` draws weights from U(−1/√fan_in, 1/√fan_in), ``"normal"``
        from N(0, 1/fan_in). Biases start at zero.
    generator : the source of the initial weights (default: torch's global one).

    Raises
    ------
    ValueError : fewer than two sizes, a size below 1, the wrong number of activations,
        an edge that would close a cycle, or a layer that nothing feeds.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: ConvexFunction | Sequence[ConvexFunction] | None = None,
        output: ConvexFunction | None = None,
        *,
        edges: Iterable[tuple[int, int]] | None = None,
        bias: bool = True,
        init: str = "uniform",
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ):
        super().__init__()
        self.sizes = checked_sizes(sizes)
        self.depth = len(self.sizes) - 1
        self.functions = checked_functions(self.depth, activation, output)
        self.edges = _checked_edges(self.depth, edges)
        self._incoming = [[(i, j) for i, (j, to) in enumerate(self.edges) if to == k]
                          for k in range(self.depth + 1)]
        self._outgoing = [[(i, k) for i, (j, k) in enumerate(self.edges) if j == source]
                          for source in range(self.depth + 1)]
        self._moving = tuple(k for k in range(1, self.depth + 1)
                             if any(j for _, j in self._incoming[k]))
        factory = {"dtype": dtype, "device": device}
        self.weights = nn.ParameterList(
            torch.empty(self.sizes[k], self.sizes[j], **factory) for j, k in self.edges)
        self.biases = nn.ParameterList(
            torch.zeros(size, **factory) for size in self.sizes[1:]) if bias else None
        self.reset_parameters(init, generator)

    @torch.no_grad()
    def reset_parameters(self, init: str = "uniform",
                         generator: torch.Generator | None = None) -> None:
        """Draw fresh weights; the fan-in of a layer counts all that feeds it."""
        for (_, k), weight in zip(self.edges, self.weights):
            draw_weight(weight, sum(self.sizes[j] for _, j in self._incoming[k]), init, generator)

    def function(self, k: int) -> ConvexFunction:
        """The convex function G_k of layer k = 1, …, L."""
        return self.functions[k - 1]

    def weight(self, k: int, j: int | None = None) -> nn.Parameter:
        """W from z_j to layer k, shape (d_k, d_j); by default from the layer before."""
        edge = (k - 1 if j is None else j, k)
        if edge not in self.edges:
            raise ValueError(f"no connection {edge}; the network has {list(self.edges)}")
        return self.weights[self.edges.index(edge)]

    @staticmethod
    def tensors(parameters: nn.ParameterList | None) -> list[nn.Parameter]:
        """The list's entries: its own look-up takes as long as a small matrix product."""
        return [] if parameters is None else list(parameters._parameters.values())

    def weights_into(self, k: int) -> list[tuple[int, nn.Parameter]]:
        """The layers j that feed layer k (0 is the input), each with its W_kj."""
        weights = self.tensors(self.weights)
        return [(j, weights[i]) for i, j in self._incoming[k]]

    @property
    def is_chain(self) -> bool:
        """Whether every layer is fed by the layer before it and by nothing else."""
        return self.edges == tuple((k - 1, k) for k in range(1, self.depth + 1))

    def preactivation(self, k: int, z: Activations) -> Tensor:
        """a_k = Σ_j W_kj z_j + b_k, shape (batch, d_k)."""
        (first, j), *rest = self._incoming[k]
        weights = self.tensors(self.weights)
        bias = None if self.biases is None else self.tensors(self.biases)[k - 1]
        a = nn.functional.linear(z[j], weights[first], bias)
        for i, j in rest:
            a = a + nn.functional.linear(z[j], weights[i])
        return a

    def feedback(self, k: int, errors: Sequence[Tensor | None]) -> Tensor | None:
        """Σ_{k′>k} W_k′kᵀ e_k′, the error signal that reaches layer k in eq. (17).

        ``errors[k′]`` has shape (batch, d_k′). Returns None for the output layer.
        """
        weights = self.tensors(self.weights)
        signals = [errors[child] @ weights[i] for i, child in self._outgoing[k]]
        return sum(signals[1:], signals[0]) if signals else None

    def fed_by(self, k: int) -> list[int]:
        """The layers that z_k feeds."""
        return [child for _, child in self._outgoing[k]]

    @property
    def moving(self) -> tuple[int, ...]:
        """The layers whose pre-activations depend on activations, and not on the input alone."""
        return self._moving

    def activations(self, x: Tensor) -> Activations:
        """The forward pass z*: [x, z_1, …, z_L] with z_k = f_k(a_k) and U(z*; x) = 0."""
        z = [x]
        for k in range(1, self.depth + 1):
            z.append(self.function(k).activation(self.preactivation(k, z)))
        return z

    def forward(self, x: Tensor) -> Tensor:
        """The output z_L of the forward pass, shape (batch, d_L)."""
        return self.activations(x)[-1]

    def extra_repr(self) -> str:
        arrows = "" if self.is_chain else f", edges={list(self.edges)}"
        return f"sizes={list(self.sizes)}, functions={list(self.functions)}{arrows}"


def draw_weight(weight: Tensor, fan_in: int, init: str,
                generator: torch.Generator | None) -> None:
    """Fill with U(−1/√fan_in, 1/√fan_in), ``"uniform"``, or N(0, 1/fan_in), ``"normal"``."""
    if init not in ("uniform", "normal"):
        raise ValueError(f'init={init!r} must be "uniform" or "normal"')
    scale = 1 / math.sqrt(fan_in)
    if init == "uniform":
        weight.uniform_(-scale, scale, generator=generator)
    else:
        weight.normal_(0.0, scale, generator=generator)


def checked_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """The sizes as a tuple; TypeError unless all are integers, ValueError unless positive."""
    instance("sizes", sizes, Iterable)
    sizes = tuple(sizes)
    for size in sizes:
        instance("a size", size, Integral)
    sizes = tuple(int(size) for size in sizes)
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes={list(sizes)} must hold at least two positive integers")
    return sizes


def checked_functions(depth: int, activation, output) -> tuple[ConvexFunction, ...]:
    hidden = ReLU() if activation is None else activation
    if isinstance(hidden, ConvexFunction):
        hidden = [hidden] * (depth - 1)
    functions = (*hidden, Identity() if output is None else output)
    if len(functions) != depth:
        raise ValueError(f"{len(functions) - 1} activations given for {depth - 1} hidden layers")
    for function in functions:
        if not isinstance(function, ConvexFunction):
            raise TypeError(f"an activation is a ConvexFunction such as ReLU(); got {function!r}")
    return functions


def _checked_edges(depth: int, edges) -> tuple[tuple[int, int], ...]:
    if edges is None:
        return tuple((k - 1, k) for k in range(1, depth + 1))
    edges = tuple(sorted({(int(j), int(k)) for j, k in edges}, key=lambda edge: edge[::-1]))
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
