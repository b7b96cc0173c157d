"""Feed-forward networks, seen as the pre-activations that a potential compares with.

Activations are always a list ``z`` with ``z[0] = x`` and ``z[k]`` of shape
(batch, d_k) for the layers k = 1, …, L, so that code reads like the paper.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from .architecture import checked_edges, checked_functions, checked_sizes
from .connections import Connection, Matrix, Shape, connection
from .convex import ConvexFunction
from .kinds import described

Activations = list[Tensor]

class LiftedNetwork(nn.Module):
    """Layers z_k = f_k(a_k) with pre-activations a_k = Σ_j W_kj z_j + b_k.

    Fully connected; :func:`~lnn_core.lift` makes one of any affine torch modules.

    Args:
        sizes: (d_0, d_1, …, d_L); d_0 is the input's dimension.
        activation: the convex function of the hidden layers, or one for each of them. torch's
            activation modules, such as ``nn.ReLU()``, stand for theirs.
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

    Attributes:
        connections: the module of every edge, in the order of ``edges``: an ``nn.Linear`` each, of
            which the first one into a layer has its bias. torch's tools work on them as on any
            module: ``prune.l1_unstructured(net.connections[0], "weight", 0.5)``.
        shapes: that of one sample of z_0, z_1, …, z_L as the modules see them. Activations are kept
            flat, ``sizes[k]`` numbers per sample.

    A forward pass ``net(x)`` calls the modules. Inference, objectives and bounds read the parameters
    of linear layers and convolutions once, so that hooks on those do not run there.

    Raises:
        TypeError: sizes or edges that are not integers, activations that are not a ConvexFunction.
        ValueError: fewer than two sizes, a size below 1, the wrong number of activations, an edge
            that would close a cycle, or a layer that nothing feeds.
    """

    #: The connections of a network made by ``fixed``.
    _fixed: list[Connection] | None = None

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
        sizes = checked_sizes(sizes)
        functions = checked_functions(len(sizes) - 1, activation, output)
        edges = checked_edges(len(sizes) - 1, edges)
        first = {k: i for i, (_, k) in reversed(list(enumerate(edges)))}
        modules = [nn.Linear(sizes[j], sizes[k], bias and first[k] == i, dtype=dtype, device="meta")
                   for i, (j, k) in enumerate(edges)]
        self._build(edges, modules, functions, [(size,) for size in sizes])
        self.to_empty(device=torch.get_default_device() if device is None else device)
        self.reset_parameters(init, generator)

    @classmethod
    def of(cls, edges: Sequence[tuple[int, int]], modules: Sequence[nn.Module],
           functions: Sequence[ConvexFunction], shapes: Sequence[Shape]) -> LiftedNetwork:
        """The network whose edges are these affine modules, between samples of these shapes.

        What :func:`~lnn_core.lift` returns; nothing is checked.
        """
        net = object.__new__(cls)
        nn.Module.__init__(net)
        net._build(edges, modules, functions, shapes)
        net.training = any(module.training for module in modules)
        return net

    def _build(self, edges, modules, functions, shapes) -> None:
        self.shapes = tuple(map(tuple, shapes))
        self.sizes = tuple(map(math.prod, self.shapes))
        self.depth = len(self.sizes) - 1
        self.functions = tuple(functions)
        self.edges = tuple(edges)
        self.connections = nn.ModuleList(modules)
        self._incoming = [[(i, j) for i, (j, to) in enumerate(self.edges) if to == k]
                          for k in range(self.depth + 1)]
        self._outgoing = [[(i, k) for i, (j, k) in enumerate(self.edges) if j == source]
                          for source in range(self.depth + 1)]
        self._hidden_fed = tuple(k for k in range(1, self.depth + 1)
                                 if any(j for _, j in self._incoming[k]))
        self.register_load_state_dict_pre_hook(_translate_version_0_1)

    @torch.no_grad()
    def reset_parameters(self, init: str = "uniform",
                         generator: torch.Generator | None = None) -> None:
        """Draw fresh weights; the fan-in of a layer counts all that feeds it. Biases become zero.

        Raises:
            TypeError: a connection that is not an ``nn.Linear``, or whose weight is computed by one of
                torch's tools.
        """
        for (_, k), module in zip(self.edges, self.connections):
            if not isinstance(module, nn.Linear):
                raise TypeError(f"a connection into layer {k} is {described(module)}: draw its weights by "
                                "its own reset_parameters()")
            if "weight" not in module._parameters:
                raise TypeError(f"a weight into layer {k} is computed by one of torch's tools; "
                                "draw fresh weights before they are applied")
            draw_weight(module.weight, sum(self.sizes[j] for _, j in self._incoming[k]), init, generator)
            if module.bias is not None:
                module.bias.zero_()

    def train(self, mode: bool = True) -> LiftedNetwork:
        """As for torch's modules; batch normalisation and dropout stay frozen."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, (_BatchNorm, _DropoutNd)):
                module.eval()
        return self

    @property
    def input_shape(self) -> Shape:
        """The shape of one sample of x."""
        return self.shapes[0]

    def function(self, k: int) -> ConvexFunction:
        """The convex function G_k of layer k = 1, …, L."""
        return self.functions[k - 1]

    def connection(self, i: int) -> Connection:
        """The affine map of edge number i, with its parameters as they are now."""
        if self._fixed is not None:
            return self._fixed[i]
        return connection(self.connections[i], self.shapes[self.edges[i][0]])

    def weight(self, k: int, j: int | None = None) -> Tensor:
        """W from z_j to layer k, shape (d_k, d_j); by default from the layer before.

        Raises:
            ValueError: no such connection.
            TypeError: a connection that is not a matrix.
        """
        edge = (k - 1 if j is None else j, k)
        if edge not in self.edges:
            raise ValueError(f"no connection {edge}; the network has {list(self.edges)}")
        return self._matrix(self.edges.index(edge)).weight

    @property
    def weights(self) -> list[Tensor]:
        """The matrix W_kj of every edge (j, k); TypeError where one is another module."""
        return [self._matrix(i).weight for i in range(len(self.edges))]

    @property
    def biases(self) -> list[Tensor] | None:
        """b_k of the layers 1, …, L, or None where no layer has one; TypeError as for ``weights``."""
        own = [[b for i, _ in self._incoming[k] for b in self._matrix(i).tensors[1:]]
               for k in range(1, self.depth + 1)]
        if not any(own):
            return None
        like = self._like()
        return [sum(found[1:], found[0]) if found else like.new_zeros(size)
                for found, size in zip(own, self.sizes[1:])]

    def _matrix(self, i: int) -> Matrix:
        found = self.connection(i)
        if not isinstance(found, Matrix):
            raise TypeError(f"connection {self.edges[i]} is {described(self.connections[i])}; this needs "
                            "a matrix, nn.Linear")
        return found

    def tensors(self) -> list[Tensor]:
        """What all connections are made of, as it is now: what is not a plain parameter is computed."""
        return [tensor for i in range(len(self.edges)) for tensor in self.connection(i).tensors]

    def fixed(self, dtype: torch.dtype | None = None) -> LiftedNetwork:
        """This network with its connections read once, and in the dtype asked for.

        Reading them is faster, and they do not change: a spectral norm's power iteration,
        for one, moves on whenever its weight is computed. Gradients reach the parameters.
        """
        if self._fixed is None:
            found = [connection(module, self.shapes[j])
                     for module, (j, _) in zip(self.connections, self.edges)]
        elif dtype in (None, self.dtype):
            return self
        else:
            found = self._fixed
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        view.__dict__["_fixed"] = found if dtype is None else [A.to(dtype) for A in found]
        return view

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the weights, and so of inputs and activations."""
        return self._like().dtype

    def _like(self) -> Tensor:
        """A tensor of the network's type, on its device."""
        return next(A.tensors[0] for A in map(self.connection, range(len(self.edges))) if A.tensors)

    def connections_into(self, k: int) -> list[tuple[int, Connection]]:
        """The layers j that feed layer k (0 is the input), each with its affine map."""
        return [(j, self.connection(i)) for i, j in self._incoming[k]]

    @property
    def is_chain(self) -> bool:
        """Whether every layer is fed by the layer before it and by nothing else."""
        return self.edges == tuple((k - 1, k) for k in range(1, self.depth + 1))

    def preactivation(self, k: int, z: Activations) -> Tensor:
        """a_k = Σ_j W_kj z_j + b_k, shape (batch, d_k)."""
        (first, j), *rest = self._incoming[k]
        a = self.connection(first)(z[j])
        for i, j in rest:
            a = a + self.connection(i)(z[j])
        return a

    def feedback(self, k: int, errors: Sequence[Tensor | None]) -> Tensor | None:
        """Σ_{k′>k} W_k′kᵀ e_k′, the error signal that reaches layer k in eq. (17).

        ``errors[k′]`` has shape (batch, d_k′). Returns None for the output layer.
        """
        signals = [self.connection(i).transpose(errors[child]) for i, child in self._outgoing[k]]
        return sum(signals[1:], signals[0]) if signals else None

    def children_of(self, k: int) -> list[int]:
        """The layers that z_k feeds."""
        return [child for _, child in self._outgoing[k]]

    @property
    def hidden_fed_layers(self) -> tuple[int, ...]:
        """The layers whose pre-activations depend on activations, and not on the input alone."""
        return self._hidden_fed

    def activations(self, x: Tensor) -> Activations:
        """The forward pass z*: [x, z_1, …, z_L], flat, with z_k = f_k(a_k) and U(z*; x) = 0."""
        z = [x.flatten(1)]
        for k in range(1, self.depth + 1):
            z.append(self.function(k).activation(self.preactivation(k, z)))
        return z

    def forward(self, x: Tensor) -> Tensor:
        """The output z_L of the forward pass, shape (batch, d_L)."""
        if self._fixed is not None:
            return self.activations(x)[-1]
        z = [x]  # not flat: in the shapes that the modules expect
        for k in range(1, self.depth + 1):
            first, *others = (self.connections[i](z[j]) for i, j in self._incoming[k])
            z.append(self.function(k).activation(sum(others, first)))
        return z[-1].flatten(1) if len(self.shapes[-1]) > 1 else z[-1]

    def extra_repr(self) -> str:
        arrows = "" if self.is_chain else f", edges={list(self.edges)}"
        return f"sizes={list(self.sizes)}, functions={list(self.functions)}{arrows}"


def _translate_version_0_1(net: LiftedNetwork, state: dict[str, Tensor], prefix: str, *_) -> None:
    """Checkpoints from before layers were modules have "weights.i" for edge i and "biases.i" for layer
    i + 1."""
    for i, (_, k) in enumerate(net.edges):
        if (weight := state.pop(f"{prefix}weights.{i}", None)) is not None:
            state[f"{prefix}connections.{i}.weight"] = weight
        if (bias := state.pop(f"{prefix}biases.{k - 1}", None)) is not None:
            state[f"{prefix}connections.{i}.bias"] = bias


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
