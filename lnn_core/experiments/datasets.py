"""The data sets of runs, each loaded once in a process."""

from __future__ import annotations

from functools import lru_cache

from .. import data
from ..data import Dataset, cifar

#: CIFAR-10 by the names that runs have for it, and whether it is in colour.
CIFAR = {"cifar-10-grey": False, "cifar-10-colour": True}


def dataset_of(name: str, *, partial: bool = False) -> Dataset:
    """The data set of this name, one of ``data.NAMES`` or ``CIFAR``.

    Args:
        name: what is loaded, once in each process.
        partial: see :func:`lnn_core.data.load`.
    """
    return _loaded(name, partial and name in data.PARTIAL)  # the others are the same either way


@lru_cache(maxsize=4)
def _loaded(name: str, partial: bool) -> Dataset:
    return cifar.load(colour=CIFAR[name]) if name in CIFAR else data.load(name, partial=partial)
