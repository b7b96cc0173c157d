"""Settings as their declared types: settings that are equal must have the same name on disk."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from dataclasses import fields
from functools import cache
from math import isfinite
from numbers import Integral, Real
from types import NoneType, UnionType

import numpy as np

_WORDS = {int: "an integer", float: "a finite number", str: "a string", bool: "True or False"}


def normalise(run: object) -> None:
    """Make each setting of a frozen dataclass the Python number, string or tuple that its field
    declares: a float field's 1 becomes 1.0, and NumPy's scalars become Python's.

    Raises:
        ValueError: a value that is not of that type, or would not be the same in it: a number with
            a point where an integer belongs, NaN, or None where the field does not allow it.
    """
    for name, declared in _declared(type(run)).items():
        value = getattr(run, name)
        try:
            object.__setattr__(run, name, _convert(value, declared))
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"{name}={value!r} must be {_describe(declared)}") from None


@cache
def _declared(cls: type) -> dict[str, object]:
    """The fields of a dataclass and their types."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls)}


def _alternatives(declared: object) -> tuple[object, ...]:
    is_union = isinstance(declared, UnionType) or typing.get_origin(declared) is typing.Union
    return typing.get_args(declared) if is_union else (declared,)


def _convert(value: object, declared: object) -> object:
    """The value in the declared type; TypeError, ValueError or OverflowError if it cannot be."""
    kind, *others = _alternatives(declared)
    if value is None and NoneType in others:
        return None
    if typing.get_origin(kind) is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
            raise TypeError
        return tuple(_convert(part, typing.get_args(kind)[0]) for part in value)
    wanted = {int: Integral, float: Real, str: str, bool: bool | np.bool_}[kind]
    if not isinstance(value, wanted) or (kind is not bool and isinstance(value, bool)):
        raise TypeError
    converted = kind(value)
    if converted != value or (kind is float and not isfinite(converted)):
        raise ValueError
    return converted


def _describe(declared: object) -> str:
    kind, *others = _alternatives(declared)
    words = (f"several, each {_describe(typing.get_args(kind)[0])}"
             if typing.get_origin(kind) is tuple else _WORDS[kind])
    return words + (" or None" if others else "")
