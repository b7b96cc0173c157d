"""Lifting a network of torch modules: affine ones become connections, activations convex functions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from .architecture import checked_edges, function_of
from .connections import Shape, connection
from .convex import Box, ConvexFunction, Identity
from .kinds import described, expect, integers
from .network import LiftedNetwork

_POOL = "it is not affine: use nn.AvgPool2d, or a convolution with a stride"
_NORM = "it divides by a statistic of its input: use nn.BatchNorm2d, frozen by .eval()"
_BUMP = "it is not monotone, so that no convex G has it as its f = ∂G*: use nn.ReLU or nn.Softplus"
_STEEP = "its slope may exceed 1, or it jumps, as no f = ∂G* of a 1-strongly convex G does: use nn.LeakyReLU"
_SHARE = "it mixes units: leave it out and use lnn_core.CrossEntropy on the logits"
_NOISE = "it is random: leave it out and use tilts.DropoutTilt"
_GATE = "it multiplies functions of its input: keep it in an ordinary encoder in front of the lifted network"
_LOOP = "it has nonlinearities inside, or takes integers: keep it in an ordinary encoder in front"
_OTHER = "its G is not among those here: write it as a ConvexFunction and pass it in activations"
#: Modules that cannot be lifted, and what to do instead.
REFUSED = {
    **dict.fromkeys(("AdaptiveMaxPool", "MaxPool", "FractionalMaxPool", "LPPool"), _POOL),
    **dict.fromkeys(("LayerNorm", "RMSNorm", "GroupNorm", "InstanceNorm", "LocalResponseNorm"), _NORM),
    **dict.fromkeys(("GELU", "SiLU", "Mish", "Hardswish"), _BUMP),
    **dict.fromkeys(("SELU", "PReLU", "RReLU", "Threshold", "Hardshrink"), _STEEP),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Softmin"), _SHARE),
    **dict.fromkeys(("Dropout", "AlphaDropout", "FeatureAlphaDropout"), _NOISE),
    **dict.fromkeys(("MultiheadAttention", "Bilinear", "GLU"), _GATE),
    **dict.fromkeys(("Transformer", "LSTM", "GRU", "RNN", "Embedding"), _LOOP),
    **dict.fromkeys(("ELU", "CELU", "Softsign", "LogSigmoid", "Softshrink"), _OTHER),
}


#: Sizes of the inputs on which a module is tested for being affine.
SCALES = (1e-3, 1.0, 1e3)


class Scale(nn.Module):
    """x ↦ factor·x + shift, the affine half of ``nn.Hardsigmoid``."""

    def __init__(self, factor: float, shift: float):
        super().__init__()
        self.factor, self.shift = factor, shift

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """factor·x + shift, of the shape of x."""
        return self.factor * x + self.shift


def lift(module: nn.Module, input_shape: Sequence[int], *,
         skips: Mapping[tuple[int, int], nn.Module] | None = None,
         activations: Mapping[type[nn.Module], ConvexFunction] | None = None) -> LiftedNetwork:
    """The lifted network that computes the same outputs, with the module's own parameters.

    A run of affine modules becomes the connection into a layer, the activation behind it the
    layer's function; without one behind the last run the output layer is linear. Affine are
    ``nn.Linear``, convolutions, average pooling, padding, ``nn.Flatten``, batch normalisation in
    evaluation mode, ``nn.Sequential`` of these, and whatever passes a test of f(u + v) + f(0) =
    f(u) + f(v) on random inputs of three scales, which finds most modules that are not, and proves
    nothing. Activations: ``nn.ReLU``, ``nn.ReLU6``, ``nn.Hardtanh``, ``nn.Hardsigmoid``, ``nn.Tanh``,
    ``nn.Sigmoid``, ``nn.Softplus``, ``nn.LeakyReLU``.

    Args:
        module: an ``nn.Sequential``, which may hold others; or one affine module.
        input_shape: the shape of one sample of x, such as (1, 28, 28).
        skips: affine modules by their edge (j, k) with j < k − 1, from activations z_j to layer k:
            ``{(1, 3): nn.Identity()}`` adds z_1 to a_3, a residual connection (Zach 2025, eq. 4).
        activations: convex functions for classes of activation modules that are not named above, with
            ∂G* as the module computes it: ``{nn.ELU: MyELU()}``.

    Raises:
        TypeError: a module that cannot be lifted, with what to write instead.
        ValueError: shapes that do not fit, or two activations in a row.

    Training the lifted network trains the module, and conversely: they share parameters.
    """
    expect("module", module, nn.Module, "an nn.Sequential")
    shape = integers("input_shape", input_shape)
    if not shape or min(shape) < 1:
        raise ValueError(f"input_shape={shape} must hold at least one positive integer")
    runs, functions = _runs(module, _checked_activations(activations))
    shapes = [shape]
    for k, run in enumerate(runs, 1):
        shapes.append(_checked(run, shapes[-1], f"layer {k}"))
    modules = {(k, k + 1): run for k, run in enumerate(runs)}
    for edge, skip in (skips or {}).items():
        expect(f"skip {edge}", skip, nn.Module, "an affine nn.Module such as nn.Identity()")
        if edge in modules:
            raise ValueError(f"skip {edge} is an edge of the chain already")
        modules[edge] = skip
    edges = checked_edges(len(runs), modules)
    for j, k in edges:
        if k != j + 1 and (found := _checked(modules[j, k], shapes[j], f"skip {(j, k)}")) != shapes[k]:
            raise ValueError(f"skip {(j, k)} leads to shape {found}; layer {k} has {shapes[k]}")
    dtypes = {p.dtype for edge in edges for p in modules[edge].parameters()}
    if len(dtypes) != 1:
        raise ValueError(f"the module's parameters have {len(dtypes)} types, "
                         f"{sorted(map(str, dtypes))}; expected one")
    return LiftedNetwork.of(edges, [modules[edge] for edge in edges], functions, shapes)


def _checked_activations(activations: Mapping | None) -> dict[type, ConvexFunction]:
    found = dict(activations or {})
    for kind, function in found.items():
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            raise TypeError(f"activations has the key {described(kind)}; expected a class such as nn.ELU")
        expect(f"the activation for {kind.__name__}", function, ConvexFunction, "a ConvexFunction")
    return found


def _runs(module: nn.Module, known: Mapping[type, ConvexFunction]
          ) -> tuple[list[nn.Module], list[ConvexFunction]]:
    """The affine modules into layers 1, 2, …, each one module, and the layers' functions."""
    runs: list[nn.Module] = []
    functions: list[ConvexFunction] = []
    run: list[nn.Module] = []
    for child in _leaves(module, known):
        function = known.get(type(child)) or function_of(child)
        if isinstance(child, nn.Hardsigmoid):
            function = Box(0.0, 1.0)
            run.append(Scale(1 / 6, 0.5))
        if function is None:
            run.append(child)
            continue
        if not run:
            raise ValueError(f"{child!r} has no affine module before it, which it would be the activation "
                             "of: apply it to the data, or put nn.Identity() there")
        runs.append(_together(run))
        functions.append(function)
        run = []
    if run:
        runs.append(_together(run))
        functions.append(Identity())
    if not runs:
        raise ValueError(f"{module!r} holds nothing to lift")
    return runs, functions


def _together(run: list[nn.Module]) -> nn.Module:
    return run[0] if len(run) == 1 else nn.Sequential(*run)


def _leaves(module: nn.Module, known: Mapping[type, ConvexFunction]) -> Iterator[nn.Module]:
    """The modules of nested ``nn.Sequential`` in order; TypeError for one that cannot be lifted."""
    if type(module) is nn.Sequential:
        for child in module:
            yield from _leaves(child, known)
        return
    if type(module) not in known and (reason := REFUSED.get(re.sub(r"[123]d$", "", type(module).__name__))):
        raise TypeError(f"{module!r} cannot be lifted: {reason}")
    yield module


@torch.no_grad()
def _checked(module: nn.Module, source: Shape, what: str) -> Shape:
    """The shape that one sample has behind the module; TypeError where it is not affine."""
    try:
        affine = connection(module, source)
        like = affine.tensors[0] if affine.tensors else torch.zeros(())
        exact = torch.promote_types(like.dtype, torch.float32)  # half precision overflows soon
        affine, like = affine.to(exact), like.to(exact)
        u, v = torch.randn(2, 3, math.prod(source), generator=torch.Generator("cpu").manual_seed(0),
                           device="cpu").to(like)
        values = affine(torch.cat([0.0 * u, *(s * w for s in SCALES for w in (u, v, u + v))]))
        single = torch.cat([affine(row) for row in u.split(1)])
    except RuntimeError as error:  # of torch
        raise ValueError(f"{module!r} into {what} does not take samples of shape {source}: "
                         f"{error}") from error
    if not (like.is_meta or _is_affine(values.view(-1, *u.shape[:1], values.shape[1]), single)):
        named = " + ".join(type(part).__name__ for part in _leaves(module, {}))
        raise TypeError(f"{named} into {what} is not an affine function of one sample, nor an activation "
                        "that is lifted: keep it in an ordinary encoder in front of the lifted network")
    return affine.target


def _is_affine(values: Tensor, single: Tensor) -> bool:
    """Whether f(su + sv) + f(0) = f(su) + f(sv) at all scales, and f(u) does not depend on the batch.

    Args:
        values: f at 0, then at su, sv and s(u + v) for each scale s; shape (10, batch, d_k).
        single: f(u) of each sample by itself, (batch, d_k).
    """
    at_zero, limit = values[0], torch.finfo(values.dtype).eps**0.5
    ones = zip(*[iter(values[1:])] * 3)
    excesses = [(at_both + at_zero - at_u - at_v, at_u.abs() + at_v.abs() + at_zero.abs())
                for at_u, at_v, at_both in ones]
    first = 1 + 3 * SCALES.index(1.0)
    excesses.append((values[first] - single, values[first].abs() + single.abs()))
    return all(bool(excess.abs().amax() <= limit * size.amax()) for excess, size in excesses)
