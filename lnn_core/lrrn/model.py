"""Lifted regression/reconstruction networks: the energy of Høier and Zach (2020).

Layer k = 1, …, L has activations z_k in a closed convex set C_k, a weight W of shape
(d_k, d_{k−1}), a strength β_k ≥ 0 of its reconstruction, and two biases:

    E(z; x) = ½ Σ_k γ^{k−1} ( ‖z_k − W z_{k−1} − b‖² + β_k ‖Wᵀ z_k − z_{k−1} − c‖² ),  z_0 = x.

For γ = 1 this is their eq. (1), for γ < 1 the discounted energy (17). The paper numbers
W_k, b_k and c_k from 0; in code ``weights[k − 1]``, ``biases[k − 1]`` and
``reconstruction_biases[k − 1]`` are those of layer k, as is ``beta[k − 1]``.

E is strictly convex in z = (z_1, …, z_L) whatever the weights: its first half alone is the
squared norm of a linear map of z that is lower triangular with ones on the diagonal.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor, nn

from ..architecture import checked_functions, checked_sizes
from ..checks import check_input, finite, not_negative, positive
from ..convex import Box, ConvexFunction
from ..kinds import expect, expect_sequence
from ..network import Activations, draw_weight
from .boxqp import BoxQP, Solver, SpectralDescent
from .implicit import minimiser


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


class LRRN(nn.Module):
    """A lifted regression/reconstruction network; calling it gives the output z_L*(x).

    Args:
        sizes: (d_0, d_1, …, d_L); d_0 is the input's dimension.
        activation: the constraint set of the hidden layers, or one for each of them, as the convex
            function of that name: ``ReLU()`` is z ≥ 0 (the default), ``Identity()`` no constraint,
            ``Box(lower, upper)`` an interval.
        output: the set of the output layer (default: ``Identity()``).
        beta: β_k, one number for all layers or one per layer. Default: 1, …, 1, 0 as in
            Corollary 2, non-expansive features under a plain regression layer.
        gamma: the feedback parameter γ > 0 of (17).
        bias: whether layers have the biases b and c.
        init: ``"uniform"`` draws weights from U(−1/√fan_in, 1/√fan_in), ``"normal"`` from N(0,
            1/fan_in). Biases start at zero.
        generator: the source of the initial weights (default: torch's global one).
        dtype: of weights and activations, as for torch's modules.
        device: of the weights, as for torch's modules.

    Raises:
        ValueError: fewer than two sizes, a size below 1, a negative β, γ not positive, or the wrong
            number of sets or β.
        TypeError: a set that is not a box.
    """

    #: What the forward pass infers with (``infer`` and the losses have their own).
    solver: Solver = SpectralDescent(1e-4)

    def __init__(
        self,
        sizes: Sequence[int],
        activation: Box | Sequence[Box] | None = None,
        output: Box | None = None,
        *,
        beta: float | Sequence[float] | None = None,
        gamma: float = 1.0,
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
        for k, function in enumerate(self.functions, 1):
            expect(f"the set of layer {k}", function, Box, "a box such as ReLU()")
        self.beta = checked_beta(self.depth, beta)
        self.gamma = positive("gamma", gamma)
        factory = {"dtype": dtype, "device": device}
        pairs = list(zip(self.sizes[1:], self.sizes[:-1]))
        self.weights = Parameters(torch.empty(*pair, **factory) for pair in pairs)
        self.biases, self.reconstruction_biases = (
            Parameters(nn.Parameter(torch.zeros(pair[side], **factory), requires_grad=bias)
                       for pair in pairs) for side in (0, 1))
        self.reset_parameters(init, generator)

    @torch.no_grad()
    def reset_parameters(self, init: str = "uniform",
                         generator: torch.Generator | None = None) -> None:
        """Draw fresh weights."""
        for weight in self.weights:
            draw_weight(weight, weight.shape[1], init, generator)

    def function(self, k: int) -> ConvexFunction:
        """The function whose domain is the set C_k of layer k = 1, …, L."""
        return self.functions[k - 1]

    @property
    def input_shape(self) -> tuple[int]:
        """The shape of one sample of x."""
        return self.sizes[:1]

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the weights, and so of inputs and activations."""
        return self.weights[0].dtype

    def layers(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """W, b and c of each layer, as pruning or a parametrization makes them."""
        return list(zip(self.weights.entries(), self.biases.entries(),
                        self.reconstruction_biases.entries()))

    @property
    def lower(self) -> Tensor:
        """The lower ends of all units' sets, shape (n,), n = d_1 + … + d_L."""
        return self._bound("lower")

    @property
    def upper(self) -> Tensor:
        """The upper ends of all units' sets, shape (n,)."""
        return self._bound("upper")

    def _bound(self, side: str) -> Tensor:
        # Made when asked for: a buffer that checkpoints lack would stay empty after to_empty.
        like = self.weights[0]
        return torch.cat([like.new_full((size,), getattr(function, side))
                          for size, function in zip(self.sizes[1:], self.functions)])

    def check_parameters(self) -> None:
        """ValueError unless weights and biases are finite."""
        for name, parameter in self.named_parameters():
            finite(name, parameter)

    def check_activations(self, name: str, z: Activations, batch: int | None = None) -> None:
        """ValueError unless z = [x, z_1, …, z_L] has the network's shapes (and that batch)."""
        expect(name, z, Sequence, "[x, z_1, …, z_L]")
        for k, part in enumerate(z):
            expect(f"{name}[{k}]", part, Tensor, "a tensor")
        shapes = [tuple(part.shape) for part in z]
        batches = {shape[:1] for shape in shapes} | ({(batch,)} if batch else set())
        if [shape[1:] for shape in shapes] != [(d,) for d in self.sizes] or len(batches) > 1:
            raise ValueError(f"{name} holds shapes {shapes}; expected "
                             f"{[(batch or 'batch', d) for d in self.sizes]}")

    def residuals(self, z: Activations) -> list[tuple[Tensor, Tensor]]:
        """(z_k − W z_{k−1} − b, Wᵀz_k − z_{k−1} − c) of each layer: regression, reconstruction.

        Raises:
            ValueError: z = [x, z_1, …, z_L] does not fit the network.
        """
        self.check_activations("z", z)
        return [(z[k] - nn.functional.linear(z[k - 1], W, b), z[k] @ W - z[k - 1] - c)
                for k, (W, b, c) in enumerate(self.layers(), 1)]

    def energy(self, z: Activations) -> Tensor:
        """E(z; x) of eqs. (1) and (17), shape (batch,), for z = [x, z_1, …, z_L]."""
        return 0.5 * sum(
            self.gamma**k * (regression.square().sum(1) + beta * reconstruction.square().sum(1))
            for k, (beta, (regression, reconstruction)) in enumerate(
                zip(self.beta, self.residuals(z))))

    def quadratic(self, x: Tensor) -> BoxQP:
        """E as a function of the n = d_1 + … + d_L activations: ½zᵀHz − gᵀz + const(x).

        H, (n, n), does not depend on x: block k on the diagonal is γ^{k−1}(I + β_k W Wᵀ) +
        γ^k(W′ᵀW′ + β_{k+1}I), W′ being the weight of layer k + 1, and the block that joins
        layers k and k − 1 is −γ^{k−1}(1 + β_k)W. It costs one small product per layer for a
        whole batch; then a pass of inference is one product with H. (All blocks are stored,
        zeros too: at two or three layers that saves nothing, at L layers a factor L/3.)
        Differentiable in weights, biases and x.

        Raises:
            ValueError: x does not fit, or parameters are not finite.
        """
        check_input(self, x)
        self.check_parameters()
        diagonal, below, linear = [], [], []
        for k, ((W, b, c), beta) in enumerate(zip(self.layers(), self.beta)):
            scale, out, into = self.gamma**k, _eye(W, 0), _eye(W, 1)
            diagonal.append(scale * (out + beta * W @ W.T))
            linear.append(scale * (b + beta * W @ c))
            if k == 0:
                linear[0] = linear[0] + (1 + beta) * nn.functional.linear(x, W)
            else:
                below.append(-scale * (1 + beta) * W)
                diagonal[k - 1] = diagonal[k - 1] + scale * (W.T @ W + beta * into)
                linear[k - 1] = linear[k - 1] - scale * (b @ W + beta * c)
        g = torch.cat([part.expand(len(x), -1) for part in linear], 1)
        return BoxQP(_tridiagonal(diagonal, below), g, self.lower, self.upper)

    def split(self, x: Tensor, z: Tensor) -> Activations:
        """[x, z_1, …, z_L] of flat activations z, shape (batch, n)."""
        return [x, *z.split(self.sizes[1:], 1)]

    def forward(self, x: Tensor) -> Tensor:
        """The prediction z_L*(x), shape (batch, d_L); differentiable in x and the parameters.

        The derivatives, of any order, are those of the minimiser (implicit function theorem),
        exact wherever no activation sits on a kink. Works under ``torch.func``'s transforms;
        :func:`~.bounds.jacobian` is the fast way to all Jacobians.

        Raises:
            ValueError: x does not fit, or something is not finite.
        """
        return minimiser(self.quadratic(x), self.solver)[:, -self.sizes[-1]:]

    def extra_repr(self) -> str:
        gamma = "" if self.gamma == 1 else f", gamma={self.gamma:g}"
        return (f"sizes={list(self.sizes)}, functions={list(self.functions)}, "
                f"beta={list(self.beta)}{gamma}")


def checked_beta(depth: int, beta: float | Sequence[float] | None) -> tuple[float, ...]:
    """One β ≥ 0 per layer; the default is that of Corollary 2."""
    if beta is None:
        return (1.0,) * (depth - 1) + (0.0,)
    given = ((beta,) * depth if isinstance(beta, Real)
             else expect_sequence("beta", beta, "a number or one for each layer"))
    if len(given) != depth:
        raise ValueError(f"{len(given)} values of beta given for {depth} layers")
    return tuple(not_negative("beta", value) for value in given)


def _eye(like: Tensor, side: int) -> Tensor:
    return torch.eye(like.shape[side], dtype=like.dtype, device=like.device)


def _tridiagonal(diagonal: list[Tensor], below: list[Tensor]) -> Tensor:
    """The symmetric matrix with these blocks on and below its diagonal."""
    def block(i: int, j: int) -> Tensor:
        if i == j:
            return diagonal[i]
        if i == j + 1:
            return below[j]
        if j == i + 1:
            return below[i].T
        return diagonal[0].new_zeros(len(diagonal[i]), len(diagonal[j]))

    layers = range(len(diagonal))
    return torch.cat([torch.cat([block(i, j) for j in layers], 1) for i in layers])
