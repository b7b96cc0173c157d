"""Checks of what users pass in: each names the value and the bound it broke."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .network import LiftedNetwork


def check_input(net: LiftedNetwork, x: Tensor) -> None:
    """x is a finite (batch, d_0) tensor of the network's type with at least one sample."""
    check_rows("x", x)
    if x.ndim != 2 or x.shape[1] != net.sizes[0]:
        raise ValueError(f"x has shape {tuple(x.shape)}; the network takes (batch, {net.sizes[0]})")
    if len(x) == 0:
        raise ValueError("x is an empty batch, shape (0, %d)" % net.sizes[0])
    expected = net.weights[0].dtype
    if x.dtype != expected:
        raise ValueError(f"x has dtype {x.dtype}; the network has {expected}")
    _check_finite("x", x)


def as_targets(net: LiftedNetwork, x: Tensor, y: Tensor) -> Tensor:
    """Targets of shape (batch, d_L): labels become one-hot, floating-point y passes.

    Raises ValueError for a batch size other than x's, labels outside 0…d_L − 1, another
    width, or values that are not finite.
    """
    check_rows("y", y)
    outputs = net.sizes[-1]
    if len(y) != len(x):
        raise ValueError(f"y has {len(y)} samples; x has {len(x)}")
    if not y.is_floating_point():
        if y.ndim != 1:
            raise ValueError(f"labels have shape {tuple(y.shape)}; expected ({len(x)},)")
        low, high = map(int, torch.aminmax(y))
        if low < 0 or high >= outputs:
            bad = y[(y < 0) | (y >= outputs)][0]
            raise ValueError(f"label {int(bad)} is outside 0…{outputs - 1}")
        return x.new_zeros(len(y), outputs).scatter_(1, y.long()[:, None], 1.0)
    if y.shape != (len(x), outputs):
        raise ValueError(f"y has shape {tuple(y.shape)}; expected {(len(x), outputs)}")
    _check_finite("y", y)
    return y.to(x.dtype)


def instance(name: str, value: object, *kinds: type) -> None:
    """TypeError unless the value is of one of the kinds: "net is a float (0.5); expected an LRRN"."""
    if not isinstance(value, kinds):
        expected = " or ".join(_article(_WORDS.get(kind, kind.__name__)) for kind in kinds)
        raise TypeError(f"{name} is {_described(value)}; expected {expected}")


#: What is said of kinds whose names are not those a user knows.
_WORDS = {Real: "number", Integral: "integer", Tensor: "tensor", Callable: "callable",
          Iterable: "sequence", Sequence: "sequence"}


def _described(value: object) -> str:
    if value is None or isinstance(value, type):
        return repr(value)
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    text = " ".join(repr(value).split())
    return f"{_article(type(value).__name__)} ({text if len(text) <= 60 else text[:57] + '…'})"


def _article(noun: str) -> str:
    spelled = noun.isupper() and noun[0] in "FHLMNRSX"  # an LRRN, but a Loss
    return f"{'an' if spelled or noun[0].lower() in 'aeio' else 'a'} {noun}"


def finite(name: str, values: Tensor) -> None:
    """ValueError unless all values are finite numbers."""
    if not _all_finite(values):
        values = torch.func.debug_unwrap(values)
        bad = values[~torch.isfinite(values)][0].item()
        raise ValueError(f"{name} holds {bad}; all values must be finite")


def positive(name: str, value: float) -> float:
    """The value, or ValueError where it is not positive and finite; TypeError for no number."""
    instance(name, value, Real)
    if not 0 < value < float("inf"):
        raise ValueError(f"{name}={value} must be positive and finite")
    return float(value)


def not_negative(name: str, value: float) -> float:
    """The value, or ValueError where it is negative or not finite; TypeError for no number."""
    instance(name, value, Real)
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name}={value} must be finite and not negative")
    return float(value)


def at_least(name: str, value: int, least: int) -> None:
    """ValueError unless the value is an integer of at least ``least``."""
    if not (isinstance(value, int) and value >= least):
        raise ValueError(f"{name}={value!r} must be an integer of at least {least}")


def one_of(name: str, value: str, allowed: Iterable[str]) -> None:
    """ValueError unless the value is among those allowed."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r} must be one of {', '.join(allowed)}")


def check_rows(name: str, value: Tensor) -> None:
    """TypeError unless the value is a tensor of at least one dimension."""
    if not isinstance(value, Tensor) or value.ndim == 0:
        what = "a single number" if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} is {what}; expected a tensor with one row a sample")


def _all_finite(values: Tensor) -> bool:
    values = torch.func.debug_unwrap(values)  # under vmap: all mapped calls' values
    # A sum is ten times as fast as a look at every entry; it may overflow where all are finite.
    return math.isfinite(values.detach().sum().item()) or bool(torch.isfinite(values).all())


def _check_finite(name: str, values: Tensor) -> None:
    if not _all_finite(values):
        values = torch.func.debug_unwrap(values).reshape(-1, values.shape[-1])
        row = int((~torch.isfinite(values)).any(1).nonzero()[0])
        raise ValueError(f"{name} holds {values[row][~torch.isfinite(values[row])][0].item()} "
                         f"in sample {row}; all values must be finite")
