"""Checks of what users pass in: each names the value and the bound it broke.

TypeError for a value of the wrong kind (:mod:`.kinds`), ValueError for one out of bounds.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from .kinds import described, expect, integer, number
from .network import LiftedNetwork

#: Objectives and bounds of a network in half precision are computed in this one.
LEAST = torch.float32


def check_network(net: LiftedNetwork, name: str = "net") -> LiftedNetwork:
    """The network with its weights held fixed; TypeError where it is something else."""
    if not isinstance(net, LiftedNetwork):
        net = getattr(net, "_orig_mod", net)  # of torch.compile
    if not isinstance(net, LiftedNetwork):
        if isinstance(getattr(net, "module", None), LiftedNetwork):  # (Distributed)DataParallel
            raise TypeError(
                f"{name} is {described(net)} around a LiftedNetwork; wrap a module whose forward "
                "returns objective(net, x, y) instead, and call that with x and y")
        expect(name, net, LiftedNetwork, "a LiftedNetwork" + (
            f": write lnn_core.lift({name}, input_shape=…)" if isinstance(net, torch.nn.Module) else ""))
    return net.fixed()


def prepared(net: LiftedNetwork, x: Tensor) -> tuple[LiftedNetwork, Tensor]:
    """The network with its weights held fixed, and x, flat, once checked; both in at least float32."""
    net = check_network(net)
    check_input(net, x)
    x = x if x.ndim == 2 else x.flatten(1)
    if x.dtype in (torch.float32, torch.float64):
        return net, x
    dtype = torch.promote_types(net.dtype, LEAST)
    return net.fixed(dtype), x.to(dtype)


def check_input(net, x: Tensor) -> None:
    """x is a finite (batch, *input_shape) tensor of the network's type with at least one sample.

    The network is a LiftedNetwork with its weights held fixed, or an LRRN.
    """
    shape, dtype = net.input_shape, net.dtype
    expect("x", x, Tensor, "a tensor with one row per sample")
    if x.ndim < 1 or x.shape[1:] != shape:
        expected = ", ".join(map(str, ("batch", *shape)))
        raise ValueError(f"x has shape {tuple(x.shape)}; the network takes ({expected})")
    if len(x) == 0:
        raise ValueError(f"x is an empty batch, shape {tuple(x.shape)}")
    if x.dtype != dtype:
        raise ValueError(f"x has dtype {x.dtype}; the network has {dtype}")
    finite("x", x)


def as_targets(net: LiftedNetwork, x: Tensor, y: Tensor) -> Tensor:
    """Targets of shape (batch, d_L): labels become one-hot, floating-point y passes.

    Raises:
        ValueError: a batch size other than x's, labels outside 0…d_L − 1, another width, or values
            that are not finite.
        TypeError: y that is not a tensor of either kind.
    """
    expect("y", y, Tensor, "a tensor with one row per sample")
    outputs = net.sizes[-1]
    if y.shape[:1] != x.shape[:1]:
        raise ValueError(f"y has shape {tuple(y.shape)}; x has {len(x)} samples")
    if y.dtype == torch.bool or y.is_complex():
        raise TypeError(f"y has dtype {y.dtype}; expected integer labels or floating-point targets")
    if not y.is_floating_point():
        if y.ndim != 1:
            raise ValueError(f"labels have shape {tuple(y.shape)}; expected ({len(x)},)")
        y = y.long()
        low, high = map(int, torch.aminmax(y))
        if low < 0 or high >= outputs:
            bad = y[(y < 0) | (y >= outputs)][0]
            raise ValueError(f"label {int(bad)} is outside 0…{outputs - 1}")
        return x.new_zeros(len(y), outputs).scatter_(1, y[:, None], 1.0)
    if y.shape != (len(x), outputs):
        raise ValueError(f"y has shape {tuple(y.shape)}; expected {(len(x), outputs)}")
    finite("y", y)
    return y.to(x.dtype)


def own_precision(function: Callable) -> Callable:
    """The function with autocasting off: differences of energies do not survive bfloat16.

    A user's own ``torch.compile`` breaks its graph here: what inference does depends on values.
    """
    def precise(*arguments, **options):
        with torch._C._DisableAutocast():  # torch.autocast(enabled=False) is for one kind of device
            return function(*arguments, **options)

    @functools.wraps(function)
    def call(*arguments, **options):
        return _untraced(precise)(*arguments, **options)

    return call


def _untraced(function: Callable) -> Callable:
    """The function, which torch's tracer, if it was imported, leaves alone."""
    if "torch._dynamo" not in sys.modules:  # an import of a second, for those who compile
        return function
    if function not in _UNTRACED:
        _UNTRACED[function] = torch._dynamo.disable(function)
    return _UNTRACED[function]


_UNTRACED: dict[Callable, Callable] = {}


def check_double(device: torch.device, what: str) -> None:
    """ValueError where a device cannot compute in float64, as Apple's MPS cannot."""
    try:
        torch.empty(0, dtype=torch.float64, device=device)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"{what} is computed in float64, which {device.type} lacks: move the "
                         "network and its data to the CPU, or raise beta (delta)") from error


def no_transforms() -> None:
    """RuntimeError inside torch.func.grad, vmap and their like, which cannot trace inference."""
    if torch._C._are_functorch_transforms_active():
        raise RuntimeError("inference cannot be transformed by torch.func (grad, vmap, jacrev, …): "
                           "use torch.autograd.grad or backward(); reduction=\"none\" gives one "
                           "value per sample")


def positive(name: str, value: float) -> float:
    """The value, or ValueError where it is not a positive finite number."""
    if not 0 < number(name, value) < math.inf:
        raise ValueError(f"{name}={value} must be positive and finite")
    return float(value)


def not_negative(name: str, value: float) -> float:
    """The value, or ValueError where it is negative or not finite."""
    if not 0 <= number(name, value) < math.inf:
        raise ValueError(f"{name}={value} must be finite and not negative")
    return float(value)


def at_least(name: str, value: int, least: int, most: int | None = None) -> int:
    """The value as an int; ValueError where it is below ``least`` or above ``most``."""
    value = integer(name, value)
    if value < least:
        raise ValueError(f"{name}={value} must be at least {least}")
    if most is not None and value > most:
        raise ValueError(f"{name}={value} must be at most {most}")
    return value


def one_of(name: str, value: str, allowed: Iterable[str]) -> None:
    """ValueError unless the value is among those allowed."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r} must be one of {', '.join(allowed)}")


def check_reduction(reduction: str) -> None:
    """ValueError unless an objective can reduce a batch's values in this way."""
    one_of("reduction", reduction, ("mean", "none"))


def check_margin(outputs: int) -> None:
    """ValueError for a single output, which has no margin between the two largest."""
    if outputs < 2:
        raise ValueError(f"a margin needs at least 2 outputs; the network has {outputs}")


def finite(name: str, values: Tensor) -> None:
    """ValueError where an entry of a tensor of any shape is not finite; it says which."""
    if torch._C._are_functorch_transforms_active():
        values = torch.func.debug_unwrap(values)  # under vmap: those of all mapped calls
    values = values.detach()
    # A sum is ten times as fast as a look at every entry; it may overflow where all are finite.
    if math.isfinite(values.sum().item()):
        return
    bad = ~torch.isfinite(values)
    if bad.any():
        where = f" at {bad.nonzero()[0].tolist()}" if values.ndim else ""
        raise ValueError(f"{name} holds {values[bad][0].item()}{where}; all values must be finite")


def check_finite_weights(net: LiftedNetwork) -> None:
    """ValueError where a weight or bias is not finite."""
    for k in range(1, net.depth + 1):
        for _, affine in net.connections_into(k):
            for tensor in affine.tensors:
                finite(f"a weight into layer {k}" if tensor.ndim > 1 else f"the bias of layer {k}", tensor)
