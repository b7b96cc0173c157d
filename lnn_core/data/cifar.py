"""CIFAR-10 from the published binary version (Krizhevsky 2009), verified at every load.

Six files of 10,000 images; an image is 3,073 bytes: its label, then the planes of red, green and
blue, row by row. They come from the first of these that has them all, searched like the files of
:mod:`lnn_core.data`:

1. the folder: ``$LNN_DATA/cifar-10/cifar-10-batches-bin/*.bin``;
2. the archive, ``cifar-10-binary.tar.gz``, beside that folder, in the cache or at the publisher.

The archive's SHA-256 is checked before it is opened, that of each file before its bytes are
used. The archive is read in memory: nothing of it is unpacked to disk.
"""

from __future__ import annotations

import io
import tarfile
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import Dataset, Split
from .files import DataUnavailable, obtain
from .idx import check_sha256, check_size

_PIXELS = 32 * 32
_MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)

#: Luma of ITU-R BT.601, the usual grey of an RGB image. (The paper does not name its own.)
_GREY = (0.299, 0.587, 0.114)


class _File(NamedTuple):
    """A published file: its name (a batch has the same one in the archive), SHA-256 and bytes."""

    name: str
    sha256: str
    largest: int


_ARCHIVE = _File("cifar-10-binary.tar.gz",
                 "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd", 170_052_171)
#: The five training batches and the test batch.
_BATCHES = tuple(_File(f"cifar-10-batches-bin/{name}.bin", sha256, 30_730_000) for name, sha256 in (
    ("data_batch_1", "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"),
    ("data_batch_2", "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed"),
    ("data_batch_3", "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67"),
    ("data_batch_4", "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48"),
    ("data_batch_5", "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add"),
    ("test_batch", "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"),
))


def load(*, colour: bool = True, quiet: bool | None = None) -> Dataset:
    """CIFAR-10: 40,000 training images, the last 10,000 of the official 50,000 validate.

    Values are in [0, 1]. In colour an image has 3,072 of them, the red plane first, then
    green and blue, each row by row; in grey it has 1,024, 0.299 R + 0.587 G + 0.114 B.

    Args:
        colour: False converts to grey.
        quiet: True hides a download's progress bar, False shows it, None shows it on a terminal.

    Raises:
        DataUnavailable: no source has the six files or the archive.
        DataCorrupted: a file of the folder, or an archive, is not the official one.
    """
    batches, origin = _batches(quiet)
    return Dataset(
        f"cifar-10-{'colour' if colour else 'grey'}",
        train=_to_split(np.concatenate(batches[:-2]), colour),
        validation=_to_split(batches[-2], colour),
        test=_to_split(batches[-1], colour),
        source=f"CIFAR-10, files verified by SHA-256 ({origin})")


def _to_split(records: np.ndarray, colour: bool) -> Split:
    x = torch.from_numpy(records[:, 1:].astype(np.float32)).div_(255)
    return Split(x if colour else grey(x), torch.from_numpy(records[:, 0].astype(np.int64)))


def grey(x: Tensor) -> Tensor:
    """Colour images (n, 3072) as grey ones (n, 1024)."""
    weights = torch.tensor(_GREY, dtype=x.dtype, device=x.device)
    return torch.einsum("c,ncp->np", weights, x.view(len(x), 3, _PIXELS))


def _batches(quiet: bool | None) -> tuple[list[np.ndarray], str]:
    """The records of the six batches, and their origin."""
    try:
        found = [obtain("cifar-10", file, (), quiet, decode=_records) for file in _BATCHES]
    except DataUnavailable as error:
        folder = error
    else:
        return [records for records, _ in found], " and ".join(sorted({o for _, o in found}))
    try:
        return obtain("cifar-10", _ARCHIVE, _MIRRORS, quiet, decode=_unpacked)
    except DataUnavailable as archive:
        raise DataUnavailable(
            f"CIFAR-10 is not available: {folder}; {archive}.\nWhat helps: internet access; "
            f"LNN_DATA=folder with the published files, unpacked in "
            f"folder/cifar-10/cifar-10-batches-bin/ or as folder/cifar-10/{_ARCHIVE.name}."
        ) from None


def _unpacked(payload: bytes, file: _File) -> list[np.ndarray]:
    """The records of the six batches in the archive; DataCorrupted unless it is the official one."""
    _check(payload, file)
    wanted, found = {batch.name: batch for batch in _BATCHES}, {}
    with tarfile.open(fileobj=io.BytesIO(payload), mode="r:gz") as archive:
        for member in archive:  # in the archive's order: going back would unpack it anew
            if batch := wanted.get(member.name):
                found[batch] = _records(archive.extractfile(member).read(), batch)
    return [found[batch] for batch in _BATCHES]


def _records(payload: bytes, file: _File) -> np.ndarray:
    """A batch as (n, 3073) bytes, one image per row; DataCorrupted unless it is the official one."""
    _check(payload, file)
    return np.frombuffer(payload, np.uint8).reshape(-1, 1 + 3 * _PIXELS)


def _check(payload: bytes, file: _File) -> None:
    check_size(payload, file.largest)
    check_sha256(payload, file.sha256)
