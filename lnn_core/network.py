"""Feed-forward networks, seen as the pre-activations that a potential compares with.

Activations are always a list ``z`` with ``z[0] = x`` and ``z[k]`` of shape
(batch, d_k) for the layers k = 1, …, L, so that code reads like the paper.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from .convex import ConvexFunction, Identity, ReLU
from .kinds import described, expect, expect_sequence, integers

Activations = list[Tensor]


class Parameters(nn.ParameterList):
    """A parameter list that torch's tools can work on: a call returns its entries.

    ``torch.nn.utils.parametrize`` puts a computed entry in an original's place, pruning and
    the older ``weight_norm`` and ``spectral_norm`` do so just before the module is called.
    """

    __call__ = nn.Module.__call__  # ParameterList's own refuses

    def forward(self) -> list[Tensor]:
        """The entries in the order of their numbers, whatever stands in for them."""
        plain = self._parameters  # its look-up takes a tenth of getattr's time
        return [plain[name] if name in plain else getattr(self, name)
                for name in map(str, range(len(self)))]

    def entries(self) -> list[Tensor]:
        """``self()`` where one of torch's tools waits for the call. Elsewhere without one, which
        costs less, and counters of operations, which look at what every call returns, need not
        make sense of a list of parameters."""
        return self() if self._forward_pre_hooks else self.forward()


class LiftedNetwork(nn.Module):
    """Layers z_k = f_k(a_k) with pre-activations a_k = Σ_j W_kj z_j + b_k.

    Args:
        sizes: (d_0, d_1, …, d_L); d_0 is the input's dimension.
        activation: the convex function of the hidden layers, or one for each of them.
        output: the convex function of the output layer (default: ``Identity``).
        edges: the pairs (j, k) for which z_j feeds layer k. Default: the chain (0, 1), (1, 2), …,
            eq. (1)–(3) of Zach (2025). Any j < k is allowed, which is the strictly lower-triangular
            W of eq. (4): skips and residual connections.
        bias: whether layers have a bias.
        init: ``"uniform"`` draws weights from U(−1/√fan_in, 1/√fan_in), ``"normal"`` from N(0,
            1/fan_in). Biases start at zero.
        generator: the source of the initial weights (default: torch's global one).
        dtype: of weights and activations, as for torch's modules.
        device: of the weights, as for torch's modules.

    torch's tools for parameters are applied to an entry of ``weights`` or ``biases``, named
    by its number: ``prune.l1_unstructured(net.weights, "0", 0.5)``,
    ``parametrizations.spectral_norm(net.weights, "0")``. A forward pass, an inference, an
    objective or a bound computes such an entry once. What asks for ``nn.Linear`` modules
    (quantisation, fusing, hooks on a layer's output) is not supported.

    Raises:
        TypeError: sizes or edges that are not integers, activations that are not a ConvexFunction.
        ValueError: fewer than two sizes, a size below 1, the wrong number of activations, an edge
            that would close a cycle, or a layer that nothing feeds.
    """

    #: The weights and biases of a network made by ``fixed``.
    _fixed: tuple[list[Tensor], list[Tensor]] | None = None

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
        self._hidden_fed = tuple(k for k in range(1, self.depth + 1)
                             if any(j for _, j in self._incoming[k]))
        factory = {"dtype": dtype, "device": device}
        self.weights = Parameters(
            torch.empty(self.sizes[k], self.sizes[j], **factory) for j, k in self.edges)
        self.biases = Parameters(
            torch.zeros(size, **factory) for size in self.sizes[1:]) if bias else None
        self.reset_parameters(init, generator)

    @torch.no_grad()
    def reset_parameters(self, init: str = "uniform",
                         generator: torch.Generator | None = None) -> None:
        """Draw fresh weights; the fan-in of a layer counts all that feeds it."""
        for (_, k), weight in zip(self.edges, self.weights):
            if not isinstance(weight, nn.Parameter):
                raise TypeError(f"a weight into layer {k} is computed by one of torch's tools; "
                                "draw fresh weights before they are applied")
            draw_weight(weight, sum(self.sizes[j] for _, j in self._incoming[k]), init, generator)

    def function(self, k: int) -> ConvexFunction:
        """The convex function G_k of layer k = 1, …, L."""
        return self.functions[k - 1]

    def weight(self, k: int, j: int | None = None) -> Tensor:
        """W from z_j to layer k, shape (d_k, d_j); by default from the layer before."""
        edge = (k - 1 if j is None else j, k)
        if edge not in self.edges:
            raise ValueError(f"no connection {edge}; the network has {list(self.edges)}")
        return self.tensors()[0][self.edges.index(edge)]

    def tensors(self) -> tuple[list[Tensor], list[Tensor]]:
        """The weight of every edge, and the biases of layers 1…L (or none), as they are now.

        What is not a plain parameter is computed, with its gradient.
        """
        return self._fixed or (self.weights.entries(),
                               [] if self.biases is None else self.biases.entries())

    def fixed(self, dtype: torch.dtype | None = None) -> LiftedNetwork:
        """This network with its weights and biases computed once, and in the dtype asked for.

        Reading them is faster, and they do not change: a spectral norm's power iteration,
        for one, moves on whenever its weight is computed. Gradients reach the parameters.
        """
        weights, biases = self.tensors()
        if self._fixed is not None and dtype in (None, weights[0].dtype):
            return self
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        view.__dict__["_fixed"] = (weights, biases) if dtype is None else (
            [W.to(dtype) for W in weights], [b.to(dtype) for b in biases])
        return view

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the weights, and so of inputs and activations."""
        return self.tensors()[0][0].dtype

    def weights_into(self, k: int) -> list[tuple[int, Tensor]]:
        """The layers j that feed layer k (0 is the input), each with its W_kj."""
        weights, _ = self.tensors()
        return [(j, weights[i]) for i, j in self._incoming[k]]

    @property
    def is_chain(self) -> bool:
        """Whether every layer is fed by the layer before it and by nothing else."""
        return self.edges == tuple((k - 1, k) for k in range(1, self.depth + 1))

    def preactivation(self, k: int, z: Activations) -> Tensor:
        """a_k = Σ_j W_kj z_j + b_k, shape (batch, d_k)."""
        (first, j), *rest = self._incoming[k]
        weights, biases = self.tensors()
        bias = biases[k - 1] if biases else None
        a = nn.functional.linear(z[j], weights[first], bias)
        for i, j in rest:
            a = a + nn.functional.linear(z[j], weights[i])
        return a

    def feedback(self, k: int, errors: Sequence[Tensor | None]) -> Tensor | None:
        """Σ_{k′>k} W_k′kᵀ e_k′, the error signal that reaches layer k in eq. (17).

        ``errors[k′]`` has shape (batch, d_k′). Returns None for the output layer.
        """
        weights, _ = self.tensors()
        signals = [errors[child] @ weights[i] for i, child in self._outgoing[k]]
        return sum(signals[1:], signals[0]) if signals else None

    def children_of(self, k: int) -> list[int]:
        """The layers that z_k feeds."""
        return [child for _, child in self._outgoing[k]]

    @property
    def hidden_fed_layers(self) -> tuple[int, ...]:
        """The layers whose pre-activations depend on activations, and not on the input alone."""
        return self._hidden_fed

    def activations(self, x: Tensor) -> Activations:
        """The forward pass z*: [x, z_1, …, z_L] with z_k = f_k(a_k) and U(z*; x) = 0."""
        net, z = self.fixed(), [x]
        for k in range(1, self.depth + 1):
            z.append(self.function(k).activation(net.preactivation(k, z)))
        return z

    def forward(self, x: Tensor) -> Tensor:
        """The output z_L of the forward pass, shape (batch, d_L)."""
        return self.activations(x)[-1]

    def extra_repr(self) -> str:
        arrows = "" if self.is_chain else f", edges={list(self.edges)}"
        return f"sizes={list(self.sizes)}, functions={list(self.functions)}{arrows}"


def draw_weight(weight: Tensor, fan_in: int, init: str,
                generator: torch.Generator | None) -> None:
    """Fill with U(−1/√fan_in, 1/√fan_in), ``"uniform"``, or N(0, 1/fan_in), ``"normal"``.

    Drawn where the generator lives, so that its numbers are the same for every device.
    """
    if init not in ("uniform", "normal"):
        raise ValueError(f'init={init!r} must be "uniform" or "normal"')
    scale = 1 / math.sqrt(fan_in)
    drawn = weight if generator is None else torch.empty_like(weight, device=generator.device)
    if init == "uniform":
        drawn.uniform_(-scale, scale, generator=generator)
    else:
        drawn.normal_(0.0, scale, generator=generator)
    weight.copy_(drawn)


def checked_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """The sizes as a tuple; TypeError unless all are integers, ValueError unless positive."""
    sizes = integers("sizes", sizes)
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes={list(sizes)} must hold at least two positive integers")
    return sizes


def checked_functions(depth: int, activation, output) -> tuple[ConvexFunction, ...]:
    """The convex functions of layers 1, …, depth: one for all hidden ones, or one for each.

    None stands for ``ReLU()`` in hidden layers and ``Identity()`` at the output.

    Raises:
        TypeError: what is not a ConvexFunction.
        ValueError: the wrong number of them.
    """
    hidden = ReLU() if activation is None else activation
    what = "a ConvexFunction such as ReLU()"
    if isinstance(hidden, ConvexFunction):
        hidden = [hidden] * (depth - 1)
    elif isinstance(hidden, torch.nn.Module):
        raise TypeError(f"activation is {described(hidden)}; expected {what}")
    functions = (*expect_sequence("activation", hidden, what),
                 Identity() if output is None else output)
    if len(functions) != depth:
        raise ValueError(f"{len(functions) - 1} activations given for {depth - 1} hidden layers")
    for k, function in enumerate(functions, 1):
        expect("output" if k == depth else f"activation {k}", function, ConvexFunction, what)
    return functions


def _checked_edges(depth: int, edges) -> tuple[tuple[int, int], ...]:
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
