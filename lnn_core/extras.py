"""What only some modules need: the extras of pyproject.toml, named where one is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Where an import within it finds no module, the error says which extra brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.__cause__ or (error.name or "").startswith("lnn_core"):
            raise  # said by a module that was imported within, or a fault of this library
        raise ModuleNotFoundError(
            f"{error}; it comes with the extra {name!r} of lnn-core, as by "
            f"pip install '.[{name}]' in its checkout", name=error.name) from error
