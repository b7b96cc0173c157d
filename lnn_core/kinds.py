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


def expect_function(name: str, value: object, what: str, *,
                    but: tuple[type, ...] = (type,)) -> Callable:
    """The value; TypeError unless it can be called and is not an instance of ``but``.

    By default classes are refused: ``Shooting`` where its instance ``Shooting()`` belongs.
    """
    if not callable(value) or isinstance(value, but):
        raise TypeError(f"{name} is {described(value)}; expected {what}")
    return value


def expect_sequence(name: str, value: object, what: str) -> tuple:
    """The value as a tuple; TypeError where it has no entries, or is a string."""
    if isinstance(value, (str, bytes)) or not isinstance(value, (Iterable, Tensor)) or (
            isinstance(value, Tensor) and value.ndim == 0):
        raise TypeError(f"{name} is {described(value)}; expected {what}")
    return tuple(value)


def integer(name: str, value: int) -> int:
    """The value as an int; TypeError where it is not an integer (2.0 and True are not)."""
    try:
        if isinstance(value, (bool, Tensor)):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {described(value)}; expected an integer") from None


def integers(name: str, values: Sequence[int]) -> tuple[int, ...]:
    """The values as a tuple of int; TypeError where one is not an integer."""
    return tuple(integer(f"an entry of {name}", value)
                 for value in expect_sequence(name, values, "integers"))


def expect_generator(name: str, value: torch.Generator | None) -> torch.Generator | None:
    """The value; TypeError where it is neither None nor a torch.Generator."""
    if value is not None:
        expect(name, value, torch.Generator, "a torch.Generator")
    return value


def described(value: object) -> str:
    """The kind of a value and, where it is short, the value: "a float (0.5)"."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    name, text = type(value).__name__, repr(value)
    spelled = name.isupper() and name[0] in "FHLMNRSX"  # an LRRN, but a Loss
    article = "an" if spelled or name[0] in "aeiouAEIO" else "a"
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
