"""What users pass in, by kind: every function names a wrong argument in the same words.

    net is a float (0.5); expected a LiftedNetwork
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from numbers import Real

import torch
from torch import Tensor

#: More passes or steps than any computation here can use.
MOST = 10**6


def expect(name: str, value: object, kinds: type | tuple[type, ...], what: str) -> None:
    """TypeError unless the value is an instance of one of the kinds."""
    if not isinstance(value, kinds):
        raise TypeError(f"{name} is {described(value)}; expected {what}")


def expect_function(name: str, value: object, what: str, *, but: tuple[type, ...] = ()) -> Callable:
    """The value; TypeError unless it can be called, is no class, and no instance of ``but``."""
    if not callable(value) or isinstance(value, (type, *but)):
        raise TypeError(f"{name} is {described(value)}; expected {what}")
    return value


def expect_sequence(name: str, value: object, what: str) -> tuple:
    """The value as a tuple; TypeError where it has no entries, or is a text."""
    if isinstance(value, (str, bytes)) or not isinstance(value, (Iterable, Tensor)) or (
            isinstance(value, Tensor) and value.ndim == 0):
        raise TypeError(f"{name} is {described(value)}; expected {what}")
    return tuple(value)


def integers(name: str, values: Sequence[int]) -> tuple[int, ...]:
    """The values as a tuple of int; TypeError where one is no integer (2.0 and True are none)."""
    values = expect_sequence(name, values, "integers")
    for value in values:
        if isinstance(value, (bool, Tensor)) or not hasattr(value, "__index__"):
            raise TypeError(f"{name} holds {described(value)}; expected integers")
    return tuple(map(operator.index, values))


def described(value: object) -> str:
    """The kind of a value and, where it is short, the value: "a float (0.5)"."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name, text = type(value).__name__, repr(value)
    article = "an" if name[0] in "aeiouAEIOU" else "a"
    short = len(text) <= 60 and "\n" not in text and not isinstance(value, torch.nn.Module)
    return f"{article} {name} ({text})" if short else f"{article} {name}"


def number(name: str, value: float) -> float:
    """The value as a float; TypeError where it is not a single number."""
    if isinstance(value, Tensor):
        single = value.numel() == 1 and value.dtype != torch.bool and not value.is_complex()
    else:
        single = isinstance(value, Real) and not isinstance(value, bool)
    if not single:
        raise TypeError(f"{name} is {described(value)}; expected a number")
    return float(value)
