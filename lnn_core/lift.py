"""Lifting a network of torch modules: affine ones become connections, activations convex functions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from .architecture import checked_edges, function_of
from .connections import Shape, connection
from .convex import Box, ConvexFunction, Identity
from .kinds import expect, integers
from .network import LiftedNetwork

_POOL = "it is not affine: use nn.AvgPool2d, or a convolution with a stride"
_NORM = "it divides by a statistic of its input: use nn.BatchNorm2d, frozen by .eval()"
_BUMP = "it is not monotone, so that no convex G has it as its f = ∂G*: use nn.ReLU or nn.Softplus"
_SHARE = "it mixes units: leave it out and use lnn_core.CrossEntropy on the logits"
_NOISE = "it is random: leave it out and use tilts.DropoutTilt"
_GATE = "its weights depend on its input: keep it in an ordinary encoder in front of the lifted network"
_SCALED = "its G is not among those here: write it as a ConvexFunction"
#: Modules that cannot be lifted, and what to do instead.
REFUSED = {
    "AdaptiveMaxPool": _POOL, "MaxPool": _POOL, "FractionalMaxPool": _POOL, "LPPool": _POOL,
    "LayerNorm": _NORM, "RMSNorm": _NORM, "GroupNorm": _NORM, "InstanceNorm": _NORM,
    "LocalResponseNorm": _NORM,
    "GELU": _BUMP, "SiLU": _BUMP, "Mish": _BUMP, "Hardswish": _BUMP,
    "Softmax": _SHARE, "LogSoftmax": _SHARE, "Softmin": _SHARE,
    "Dropout": _NOISE, "AlphaDropout": _NOISE, "FeatureAlphaDropout": _NOISE, "RReLU": _NOISE,
    "MultiheadAttention": _GATE, "Transformer": _GATE, "LSTM": _GATE, "GRU": _GATE, "RNN": _GATE,
    "Bilinear": _GATE, "GLU": _GATE, "Embedding": _GATE,
    "ELU": _SCALED, "SELU": _SCALED, "CELU": _SCALED, "PReLU": _SCALED, "Softsign": _SCALED,
    "LogSigmoid": _SCALED, "Softshrink": _SCALED, "Threshold": _SCALED,
}


class Scale(nn.Module):
    """x ↦ factor·x + shift, the affine half of ``nn.Hardsigmoid``."""

    def __init__(self, factor: float, shift: float):
        super().__init__()
        self.factor, self.shift = factor, shift

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """factor·x + shift, of the shape of x."""
        return self.factor * x + self.shift


def lift(module: nn.Module, input_shape: Sequence[int], *,
         skips: Mapping[tuple[int, int], nn.Module] | None = None) -> LiftedNetwork:
    """The lifted network that computes the same outputs, with the module's own parameters.

    A run of affine modules becomes the connection into a layer, the activation behind it the
    layer's function; without one behind the last run the output layer is linear. Affine are
    ``nn.Linear``, convolutions, average pooling, padding, ``nn.Flatten``, batch normalisation in
    evaluation mode, ``nn.Sequential`` of these, and whatever passes a test of f(u + v) + f(0) =
    f(u) + f(v) on random inputs. Activations: ``nn.ReLU``, ``nn.ReLU6``, ``nn.Hardtanh``,
    ``nn.Hardsigmoid``, ``nn.Tanh``, ``nn.Sigmoid``, ``nn.Softplus``, ``nn.LeakyReLU``.

    Args:
        module: an ``nn.Sequential``, which may hold others; or one affine module.
        input_shape: the shape of one sample of x, such as (1, 28, 28).
        skips: affine modules by their edge (j, k) with j < k − 1, from activations z_j to layer k:
            ``{(1, 3): nn.Identity()}`` adds z_1 to a_3, a residual connection (Zach 2025, eq. 4).

    Raises:
        TypeError: a module that cannot be lifted, with what to write instead.
        ValueError: shapes that do not fit, or two activations in a row.

    Training the lifted network trains the module, and conversely: they share parameters.
    """
    expect("module", module, nn.Module, "an nn.Sequential")
    shape = integers("input_shape", input_shape)
    if not shape or min(shape) < 1:
        raise ValueError(f"input_shape={shape} must hold at least one positive integer")
    runs, functions = _runs(module)
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
    return LiftedNetwork.of(edges, [modules[edge] for edge in edges], functions, shapes)


def _runs(module: nn.Module) -> tuple[list[nn.Module], list[ConvexFunction]]:
    """The affine modules into layers 1, 2, …, each one module, and the layers' functions."""
    runs: list[nn.Module] = []
    functions: list[ConvexFunction] = []
    run: list[nn.Module] = []
    for child in _leaves(module):
        function = function_of(child)
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


def _leaves(module: nn.Module) -> Iterator[nn.Module]:
    """The modules of nested ``nn.Sequential`` in order; TypeError for one that cannot be lifted."""
    if type(module) is nn.Sequential:
        for child in module:
            yield from _leaves(child)
        return
    if reason := REFUSED.get(re.sub(r"[123]d$", "", type(module).__name__)):
        raise TypeError(f"{module!r} cannot be lifted: {reason}")
    yield module


@torch.no_grad()
def _checked(module: nn.Module, source: Shape, what: str) -> Shape:
    """The shape that one sample has behind the module; TypeError where it is not affine."""
    try:
        affine = connection(module, source)
        like = affine.tensors[0] if affine.tensors else torch.zeros(())
        u, v = torch.randn(2, 4, math.prod(source), generator=torch.Generator("cpu").manual_seed(0),
                           device="cpu").to(like)
        at_zero, at_u, at_v, at_both = map(affine, (0.0 * u, u, v, u + v))
    except RuntimeError as error:  # of torch
        raise ValueError(f"{module!r} into {what} does not take samples of shape {source}: "
                         f"{error}") from error
    excess, size = at_both + at_zero - at_u - at_v, at_u.abs() + at_v.abs()
    if not like.is_meta and (excess.abs().amax() > torch.finfo(excess.dtype).eps**0.5 * size.amax()):
        named = " + ".join(type(part).__name__ for part in _leaves(module))
        raise TypeError(f"{named} into {what} is not affine and not an activation that is lifted: keep "
                        "it in an ordinary encoder in front of the lifted network")
    return affine.target
