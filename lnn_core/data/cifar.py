"""CIFAR-10 from its official archive, verified, without running what a pickle says.

The archive (``cifar-10-python.tar.gz``, Krizhevsky 2009) holds six Python pickles. A pickle is
a program: loading one can run anything. So nothing is unpacked to disk, the archive's SHA-256
is checked before it is opened, and the unpickler knows three names only, those that an array
is made of, and answers them with stand-ins that keep what they are given and do nothing.

The archive comes from ``$LNN_DATA/cifar-10/``, the cache or the publisher, in this order, like
the files of :mod:`lnn_core.data`, and is checked at every load.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import tarfile
import zlib
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import Dataset, DataUnavailable, Split, obtain
from .idx import DataCorrupted, check_size

_FOLDER = "cifar-10-batches-py"
_TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
_TEST = "test_batch"
_PIXELS = 32 * 32
_LARGEST = 64 * 2**20  # bytes; the largest member of the official archive has 31 million
_MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)

#: Luma of ITU-R BT.601, the usual grey of an RGB image. (The paper does not name its own.)
_GREY = (0.299, 0.587, 0.114)


class _Archive(NamedTuple):
    """The archive: its name, the SHA-256 and bytes of the file, the number of images in a batch."""

    name: str
    sha256: str
    largest: int
    images: int


_OFFICIAL = _Archive("cifar-10-python.tar.gz",
                     "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
                     170_498_071, 10_000)


def load(*, colour: bool = True, quiet: bool | None = None) -> Dataset:
    """CIFAR-10: 40,000 training images, the last 10,000 of the official 50,000 validate.

    Values are in [0, 1]. In colour an image has 3,072 of them, the red plane first, then
    green and blue, each row by row; in grey it has 1,024, 0.299 R + 0.587 G + 0.114 B.

    Raises
    ------
    DataUnavailable : no source has the archive.
    DataCorrupted : an archive is not the official one, or not what it should hold.
    """
    try:
        batches, origin = obtain("cifar-10", _OFFICIAL, _MIRRORS, quiet, decode=_decode)
    except DataUnavailable as error:
        raise DataUnavailable(
            f"CIFAR-10 is not available: {error}.\nWhat helps: internet access; LNN_DATA=folder "
            f"with the published archive as folder/cifar-10/{_OFFICIAL.name}.") from None
    *train, test = (_to_split(*batch, colour) for batch in batches)
    rest = [torch.cat(parts) for parts in zip(*train[:-1])]
    return Dataset(
        name=f"cifar-10-{'colour' if colour else 'grey'}",
        train=Split(*rest), validation=train[-1], test=test,
        source=f"CIFAR-10, archive verified by SHA-256 ({origin})")


def _to_split(images: np.ndarray, labels: np.ndarray, colour: bool) -> Split:
    x = torch.from_numpy(images.astype(np.float32)).div_(255)
    return Split(x if colour else grey(x), torch.from_numpy(labels.astype(np.int64)))


def grey(x: Tensor) -> Tensor:
    """Colour images (n, 3072) as grey ones (n, 1024)."""
    weights = torch.tensor(_GREY, dtype=x.dtype, device=x.device)
    return torch.einsum("c,ncp->np", weights, x.view(len(x), 3, _PIXELS))


def _decode(payload: bytes, archive: _Archive) -> list[tuple[np.ndarray, np.ndarray]]:
    """(images, labels) of the five training batches and the test batch.

    DataCorrupted names the first thing wrong.
    """
    check_size(payload, archive.largest)
    digest = hashlib.sha256(payload).hexdigest()
    if digest != archive.sha256:
        raise DataCorrupted(f"SHA-256 {digest[:12]}…, expected {archive.sha256[:12]}…")
    members = _members(payload)
    return [_batch(name, members[name], archive.images) for name in (*_TRAIN, _TEST)]


def _members(payload: bytes) -> dict[str, bytes]:
    """The batches of a .tar.gz by name, read in memory.

    DataCorrupted for anything that a folder of plain files, each once, does not need: links,
    devices, other folders, sizes beyond reason; and for a batch that is missing.
    """
    found = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(payload), mode="r:gz") as archive:
            for member in archive:
                folder, _, name = member.name.partition("/")
                if folder != _FOLDER or "/" in name or name == "..":
                    raise DataCorrupted(f"member {member.name!r} is outside {_FOLDER}/")
                if not (member.isreg() or (member.isdir() and not name)):
                    raise DataCorrupted(f"member {member.name!r} is not a plain file")
                if member.size > _LARGEST:
                    raise DataCorrupted(f"member {member.name!r} has {member.size:,} bytes, "
                                        f"more than {_LARGEST:,}")
                if name in found:
                    raise DataCorrupted(f"member {member.name!r} is there twice")
                if name in (*_TRAIN, _TEST):
                    found[name] = archive.extractfile(member).read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataCorrupted(f"not a complete .tar.gz file ({error})") from error
    missing = [name for name in (*_TRAIN, _TEST) if name not in found]
    if missing:
        raise DataCorrupted(f"no {_FOLDER}/{missing[0]}")
    return found


class _DType:
    """Stands in for numpy.dtype: keeps its code, such as b"u1"."""

    def __init__(self, code, *_):
        self.code = code

    def __setstate__(self, state) -> None:
        """Byte order and the like, which single bytes do not have."""


class _Array:
    """Stands in for numpy.ndarray: keeps shape, type, order and bytes as pickled."""

    def __init__(self, *_):
        """An empty one, like the one that numpy starts from."""

    def __setstate__(self, state) -> None:
        _, self.shape, self.dtype, self.fortran, self.raw = state

    def numpy(self) -> np.ndarray:
        """The array of bytes; ValueError, TypeError or AttributeError where it is none."""
        if self.dtype.code not in (b"u1", "u1"):
            raise ValueError(f"values of type {self.dtype.code!r}, expected bytes")
        if not isinstance(self.raw, bytes) or len(self.raw) != math.prod(self.shape):
            raise ValueError(f"shape {self.shape} does not fit its values")
        return np.frombuffer(self.raw, np.uint8).reshape(
            self.shape, order="F" if self.fortran else "C")


_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
}


class _Unpickler(pickle.Unpickler):
    """Knows no name but those of ``_STAND_INS``: no code of a pickle's choice can run."""

    def find_class(self, module: str, name: str):
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"refers to {module}.{name}")
        return _STAND_INS[module, name]


def _batch(name: str, content: bytes, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(images (n, 3072), labels (n,)), both uint8, of one pickled batch."""
    try:
        batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        images, labels = batch[b"data"].numpy(), batch[b"labels"]
    except Exception as error:  # a damaged pickle can raise anything
        raise DataCorrupted(f"{name} is no CIFAR-10 batch ({error})") from error
    if images.shape != (n, 3 * _PIXELS):
        raise DataCorrupted(f"{name} has images of shape {images.shape}, "
                            f"expected {(n, 3 * _PIXELS)}")
    if not isinstance(labels, list) or len(labels) != n:
        raise DataCorrupted(f"{name} has no list of {n} labels")
    for label in labels:
        if type(label) is not int or not 0 <= label < Dataset.classes:
            raise DataCorrupted(f"{name} has the label {label!r}, outside "
                                f"0…{Dataset.classes - 1}")
    return images, np.array(labels, np.uint8)
