"""Verified data sets as tensors in [0, 1].

``load("mnist" | "fashion-mnist" | "kmnist" | "digits")`` gives training, validation and test
samples. Each file comes from the first of these that has it:

1. ``$LNN_DATA/<name>/<file>.gz``, where the environment variable LNN_DATA is set;
2. the cache (``$LNN_CACHE``, or this user's folder for caches), filled from the publishers' mirrors.

A source that cannot be used is named, and the next one is tried. Every file is checked at every
load: gzip container, IDX header, size, SHA-256; no more of it is read, downloaded or unpacked than
it should have. Nothing that fails is used, and nothing unchecked is written to the cache. Only
with ``fallback=True`` do scikit-learn's bundled digits stand in for a data set that cannot be had,
and ``Dataset.notice`` then says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..checks import one_of
from ..extras import extra
from .files import DataUnavailable, obtain
from .idx import CLASSES, DataCorrupted
from .published import SOURCES, Source

__all__ = ["NAMES", "PARTIAL", "DataCorrupted", "DataUnavailable", "Dataset", "Split", "load", "one_hot",
           "standardised"]


class Split(NamedTuple):
    """Samples ``x``: (n, d) float32 in [0, 1], and their labels ``y``: (n,) int64."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True, eq=False)
class Dataset:
    """What the samples are (``name``), where they come from (``source``), and the fixed splits.

    ``notice`` is for the reader of a page: set when the samples are not all that was asked for.
    """

    name: str
    train: Split = field(repr=False)
    validation: Split = field(repr=False)
    test: Split = field(repr=False)
    source: str
    notice: str | None = None
    classes: ClassVar[int] = CLASSES

    @property
    def dim(self) -> int:
        """The number d of values in one sample."""
        return self.train.x.shape[1]

    def subset(self, n: int, seed: int, part: str = "train") -> Split:
        """Draw ``n`` training samples, or of another ``part``, without replacement.

        The draw depends on n, the seed and the data set only, so that methods compared at one seed
        see the same samples.

        Raises:
            ValueError: not 1 ≤ n ≤ the number of samples, or an unknown part.
        """
        one_of("part", part, ("train", "validation", "test"))
        split = getattr(self, part)
        available = len(split.y)
        if not 1 <= n <= available:
            raise ValueError(f"n={n} must lie between 1 and {self.name}'s {available} samples")
        generator = torch.Generator(device="cpu").manual_seed(seed)
        return _take(split, torch.randperm(available, generator=generator, device="cpu")[:n])


def standardised(train: Split, *others: Split) -> list[Split]:
    """The splits with mean 0 and standard deviation 1 over all values of the training samples."""
    mean, sd = train.x.mean(), train.x.std()
    return [Split((split.x - mean) / sd, split.y) for split in (train, *others)]


#: What ``load`` knows.
NAMES = (*SOURCES, "digits")
#: What has a part that ``load(…, partial=True)`` takes where the whole cannot be had.
PARTIAL = tuple(name for name, source in SOURCES.items() if source.partial)


def load(
    name: str, *, fallback: bool = False, partial: bool = False, quiet: bool | None = None
) -> Dataset:
    """Load a data set; the last 10,000 of the official training samples validate.

    Args:
        name: "mnist", "fashion-mnist", "kmnist" or "digits" (scikit-learn's, 8×8).
        fallback: where ``name`` cannot be had, give the digits and a notice.
        partial: where the whole training set cannot be had, give the first part of it that LNN_DATA
            holds (KMNIST only: 7,011 samples, of which the last 1,000 validate) and a notice.
        quiet: True hides a download's progress bar, False shows it, None shows it on a terminal.

    Raises:
        ValueError: ``name`` is none of the four.
        DataUnavailable: no source has the data set, and no allowed substitute.
        DataCorrupted: a file in LNN_DATA is damaged, or one in the cache is and a new download
            failed. Nothing else is tried then, whatever is allowed.
    """
    if name == "digits":
        return _digits()
    if name not in NAMES:
        raise ValueError(f"unknown data set {name!r}: choose from {[*NAMES]}")
    source = SOURCES[name]
    try:
        return _load_idx(name, source, partial, quiet)
    except DataUnavailable as error:
        reason = f"{source.title} is not available: {error}."
    if fallback:
        instead = "The numbers on this page are about scikit-learn's bundled 8×8 digits"
        return _digits(f"{reason} {instead}, not about {source.title}.")
    in_part = "partial=True takes the part of the training set that LNN_DATA holds; "
    raise DataUnavailable(
        f"{reason}\nWhat helps: internet access; LNN_DATA=folder with the published files in "
        f"folder/{name}/; {in_part if source.partial else ''}fallback=True takes small digits."
    )


def one_hot(y: Tensor, classes: int = 10) -> Tensor:
    """Integer labels (n,) as (n, classes) float32; ValueError names a label outside 0…classes−1."""
    if y.is_floating_point() or y.is_complex():
        raise ValueError(f"labels must be integers, not {y.dtype}")
    outside = y[(y < 0) | (y >= classes)]
    if outside.numel():
        raise ValueError(f"label {outside[0].item()} is outside 0…{classes - 1}")
    return torch.nn.functional.one_hot(y.long(), classes).float()


def _load_idx(name: str, source: Source, partial: bool, quiet: bool | None) -> Dataset:
    """The published data set, whole or in part; DataUnavailable carries the bare reason."""
    notice, held_out = None, source.validation
    test = [obtain(name, file, source.mirrors, quiet) for file in source.test]
    try:
        train = [obtain(name, file, source.mirrors, quiet) for file in source.train]
    except DataUnavailable as whole:
        if not (partial and source.partial):
            raise
        try:
            train = [obtain(name, file, (), quiet) for file in source.partial]
        except DataUnavailable as part:
            raise DataUnavailable(f"{whole}; {part}") from None
        held_out = source.partial_validation
        notice = (
            f"{source.title}: only the first {len(train[1][0]):,} of the "
            f"{source.train[1].shape[0]:,} training samples are available here, of which the last "
            f"{held_out:,} are for validation. The test set is complete."
        )
    origins = sorted({origin for _, origin in train + test})
    samples, test_samples = (_to_split(*(array for array, _ in part)) for part in (train, test))
    return Dataset(
        name=name,
        train=_take(samples, slice(-held_out)),
        validation=_take(samples, slice(-held_out, None)),
        test=test_samples,
        source=f"{source.title}, files verified by SHA-256 ({' and '.join(origins)})",
        notice=notice,
    )


def _digits(notice: str | None = None) -> Dataset:
    """Scikit-learn's 1,797 digits in file order: the last 300 test, the 300 before validate."""
    with extra("data"):
        from sklearn.datasets import load_digits  # importing it takes longer than most loads

    bundle = load_digits()
    x = torch.from_numpy(bundle.data.astype(np.float32)) / 16
    samples = Split(x, torch.from_numpy(bundle.target).long())
    bounds = slice(-600), slice(-600, -300), slice(-300, None)
    source = "scikit-learn's bundled digits (8×8), fixed split"
    return Dataset("digits", *(_take(samples, part) for part in bounds), source, notice)


def _to_split(images: np.ndarray, labels: np.ndarray) -> Split:
    """Bytes 0…255 to floats in [0, 1], one image per row."""
    x = images.reshape(len(images), -1).astype(np.float32)
    x /= 255
    return Split(torch.from_numpy(x), torch.from_numpy(labels.astype(np.int64)))


def _take(split: Split, index: slice | Tensor) -> Split:
    return Split(split.x[index], split.y[index])
