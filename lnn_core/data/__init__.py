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

import os
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..extras import extra
from .idx import CLASSES, DataCorrupted, check_size
from .idx import File as _File
from .idx import decode as _decode


class DataUnavailable(RuntimeError):
    """No source has the data set; the message says what was tried and what helps."""


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

    def subset(self, n: int, seed: int) -> Split:
        """Draw ``n`` training samples without replacement.

        The draw depends on n, the seed and the data set only, so that methods compared at one seed
        see the same samples.

        Raises:
            ValueError: not 1 ≤ n ≤ the number of training samples.
        """
        available = len(self.train.y)
        if not 1 <= n <= available:
            raise ValueError(f"n={n} must lie between 1 and {self.name}'s {available} samples")
        generator = torch.Generator(device="cpu").manual_seed(seed)
        return _take(self.train, torch.randperm(available, generator=generator, device="cpu")[:n])


def standardised(train: Split, *others: Split) -> list[Split]:
    """The splits with mean 0 and standard deviation 1 over all values of the training samples."""
    mean, sd = train.x.mean(), train.x.std()
    return [Split((split.x - mean) / sd, split.y) for split in (train, *others)]


@dataclass(frozen=True)
class _Source:
    """A published data set: (images, labels) files, mirrors, how many training samples validate."""

    title: str
    mirrors: tuple[str, ...]
    train: tuple[_File, _File]
    test: tuple[_File, _File]
    validation: int = 10_000
    partial: tuple[_File, _File] | None = None  # the first training samples; never downloaded
    partial_validation: int = 1_000


def _pair(part: str, n: int, images: str, labels: str, hashes_gzip=False) -> tuple[_File, _File]:
    return (
        _File(f"{part}-images-idx3-ubyte.gz", (n, 28, 28), images, hashes_gzip),
        _File(f"{part}-labels-idx1-ubyte.gz", (n,), labels),
    )


# fmt: off
_SOURCES = {
    "mnist": _Source(
        "MNIST",
        ("https://ossci-datasets.s3.amazonaws.com/mnist/",
         "https://storage.googleapis.com/cvdf-datasets/mnist/"),
        _pair("train", 60_000, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
              "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
        _pair("t10k", 10_000, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
              "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
    ),
    "fashion-mnist": _Source(
        "Fashion-MNIST",
        ("https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
         "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
         "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"),
        _pair("train", 60_000, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
              "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
        _pair("t10k", 10_000, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
              "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
    ),
    "kmnist": _Source(
        "KMNIST",
        ("https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
         "http://codh.rois.ac.jp/kmnist/dataset/kmnist/"),
        # What is public of the training images is the .gz file's hash: a re-packed copy is refused.
        _pair("train", 60_000, "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
              "2a16eeae62da984b8bd24fa32e31d47291f01dac3fe84d5594f304f71e7d374b", hashes_gzip=True),
        _pair("t10k", 10_000, "76fbd229ce87db80dd281af5e6670de4ad0e42fb30a7bd643972994c47c1f42e",
              "a11dc742be8e781a40a92f53d6a4957e7b7d36df2faa097659131ebfd8fd60c6"),
        partial=_pair("partial7011-train", 7_011,
                      "e07d5deda1fd894b9a5dba9fd0fd574ac432195a28a67b25961d5c3c19bb9c13",
                      "576adc0f6c4cfb37c445858fb6203c33039a49942170fee6b3ce3df15a7c0783"),
    ),
}
# fmt: on

#: What ``load`` knows.
NAMES = (*_SOURCES, "digits")
#: What has a part that ``load(…, partial=True)`` takes where the whole cannot be had.
PARTIAL = tuple(name for name, source in _SOURCES.items() if source.partial)
_TIMEOUT = (4.0, 15.0)  # seconds: to connect; without a byte
_PATIENCE = 3600.0  # seconds for all of a file: the largest one in an hour is 50 kB a second


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
    source = _SOURCES[name]
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


def _load_idx(name: str, source: _Source, partial: bool, quiet: bool | None) -> Dataset:
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


def obtain(folder: str, file: _File, mirrors: tuple[str, ...], quiet: bool | None,
           decode=_decode):
    """The checked content of one file, and its origin; the module's docstring has the order.

    ``decode(payload, file)`` gives the content or raises DataCorrupted (default: IDX files).
    """
    tried, damaged = [], None
    local = _file("LNN_DATA", lambda: None, folder, file, tried)
    if local and local.exists():
        return _read(local, file, decode), "LNN_DATA folder"
    if not mirrors:
        raise DataUnavailable(f"no {folder}/{file.name}: {', '.join(tried)}")
    cached = _file("LNN_CACHE", _cache, folder, file, tried)
    if cached and cached.exists():
        try:
            return _read(cached, file, decode), "download"
        except DataCorrupted as error:
            damaged = error
    with extra("data"):
        import requests  # here, as in _download: who has the files does without
        import urllib3
    for mirror in mirrors:
        try:
            payload = _download(mirror + file.name, f"{folder}/{file.name}", file.largest, quiet)
            content = decode(payload, file)
        except requests.HTTPError as error:
            tried.append(f"{mirror} (HTTP {error.response.status_code})")
        except (requests.RequestException, urllib3.exceptions.HTTPError):
            tried.append(f"{mirror} (connection failed)")
        except (OSError, DataCorrupted) as error:  # OSError: no such file of certificates, say
            tried.append(f"{mirror} ({error})")
        else:
            _store(payload, cached, file.name)
            return content, "download"
    if damaged:
        raise DataCorrupted(f"{damaged}; no new copy: {', '.join(tried)}")
    raise DataUnavailable(f"no {folder}/{file.name}: {', '.join(tried)}")


def _cache() -> str:
    """This user's folder for caches, whether or not there is one yet."""
    with extra("data"):
        import platformdirs
    return platformdirs.user_cache_dir("lnn_core", appauthor=False)


def _file(variable: str, default: Callable[[], str | None], folder: str, file: _File,
          tried: list[str]) -> Path | None:
    """Where a file is, or belongs, below the folder that an environment variable names; None
    where that is not a place. What was sought in vain is added to ``tried``."""
    root = os.environ.get(variable)
    try:
        root = root or default()
        if root is None:
            tried.append(f"{variable} is not set")
            return None
        base = Path(root).expanduser().absolute()
        path = base / folder / file.name
        there = path.exists()
    except (OSError, RuntimeError) as error:  # no right to look there; nobody's home
        tried.append(f"{variable}={root or ''} cannot be used ({error})")
        return None
    if not there and variable == "LNN_DATA":  # that a cache is empty is no news
        tried.append(f"LNN_DATA={base} does not hold it")
    return path


def _download(url: str, label: str, most: int, quiet: bool | None) -> bytes:
    """The bytes at ``url``, held in memory: an interrupted transfer leaves nothing on disk.

    DataCorrupted for more than ``most`` bytes, and for a transfer of more than ``_PATIENCE``.
    """
    with extra("data"):
        import requests
        from tqdm import tqdm
    payload, end = bytearray(), time.monotonic() + _PATIENCE
    with requests.get(url, stream=True, timeout=_TIMEOUT,
                      headers={"Accept-Encoding": "identity"}) as response:  # the .gz itself
        response.raise_for_status()
        with tqdm(desc=label, total=response.raw.length_remaining, unit="B", unit_scale=True,
                  leave=False, disable=quiet) as bar:
            # What has arrived, however little: a slow sender must not hold up the clock's check.
            while part := response.raw.read1(2**16, decode_content=False):
                payload += part
                check_size(payload, most)
                if time.monotonic() > end:
                    raise DataCorrupted(f"not there after {_PATIENCE:,.0f} seconds")
                bar.update(len(part))
    return bytes(payload)


def _store(payload: bytes, cached: Path | None, name: str) -> None:
    """Put checked bytes into the cache in one step: no reader ever sees half a file."""
    try:
        if cached is None:
            raise OSError("there is no folder for it")
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cached.parent) as folder:
            Path(folder, cached.name).write_bytes(payload)
            Path(folder, cached.name).replace(cached)
    except OSError as error:
        warnings.warn(f"cannot cache {name} ({error}): set LNN_CACHE=folder", stacklevel=2)


def _read(path: Path, file: _File, decode):
    """The checked content of a file on this machine; DataCorrupted names the file."""
    try:
        with path.open("rb") as stream:
            return decode(stream.read(file.largest + 1), file)
    except (OSError, DataCorrupted) as error:
        raise DataCorrupted(f"{path}: {error}") from error
