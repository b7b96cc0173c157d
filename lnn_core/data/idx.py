"""Gzipped IDX files, the format of MNIST and its relatives: unpacked, and checked."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import zlib
from typing import NamedTuple

import numpy as np

#: How many labels there are in every data set of the book.
CLASSES = 10


class DataCorrupted(RuntimeError):
    """A file is not what it should be; the message names it and the first thing wrong."""


def check_size(payload: bytes, largest: int) -> None:
    """DataCorrupted for a file that is too large to be the right one."""
    if len(payload) > largest:
        raise DataCorrupted(f"more than {largest:,} bytes")


def check_sha256(content: bytes, expected: str, of: str = "") -> None:
    """DataCorrupted for bytes with another SHA-256; ``of`` says which bytes they are."""
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected:
        raise DataCorrupted(f"SHA-256 {of}{digest[:12]}…, expected {expected[:12]}…")


class File(NamedTuple):
    """An IDX file of bytes; ``sha256`` is of its content, or (``hashes_gzip``) of the .gz file."""

    name: str
    shape: tuple[int, ...]
    sha256: str
    hashes_gzip: bool = False

    @property
    def size(self) -> int:
        """Bytes of the content: header and values."""
        return 4 + 4 * len(self.shape) + math.prod(self.shape)

    @property
    def largest(self) -> int:
        """The most bytes that the .gz file can have: what deflate cannot shrink it stores, five
        bytes per block of many thousand; a kilobyte is enough for gzip's header and trailer."""
        return self.size + self.size // 1000 + 1024


def decode(payload: bytes, file: File) -> np.ndarray:
    """Unpack and check a gzipped IDX file of bytes; DataCorrupted says what is wrong.

    IDX: two zero bytes, 0x08 for unsigned bytes, the number of dimensions; each dimension as a
    big-endian 32-bit integer; the values. No more is unpacked than the file should hold.
    """
    check_size(payload, file.largest)
    try:
        with gzip.open(io.BytesIO(payload)) as stream:
            raw = stream.read(file.size + 1)  # a byte too many, or else gzip's checksum
    except (EOFError, OSError, zlib.error) as error:
        raise DataCorrupted(f"not a complete gzip file ({error})") from error
    magic, start = bytes((0, 0, 0x08, len(file.shape))), 4 + 4 * len(file.shape)
    if raw[:4] != magic:
        raise DataCorrupted(f"magic number 0x{raw[:4].hex()}, expected 0x{magic.hex()}")
    shape = tuple(int.from_bytes(raw[i : i + 4], "big") for i in range(4, start, 4))
    if shape != file.shape:
        raise DataCorrupted(f"shape {shape}, expected {file.shape}")
    if len(raw) != file.size:
        found = "more" if len(raw) > file.size else len(raw) - start
        raise DataCorrupted(f"{found} values, expected {math.prod(shape)}")
    hashed, of = (payload, "of the .gz ") if file.hashes_gzip else (raw, "")
    check_sha256(hashed, file.sha256, of)
    array = np.frombuffer(raw, np.uint8, offset=start).reshape(shape)
    if array.ndim == 1 and array.max() >= CLASSES:
        raise DataCorrupted(f"label {array.max()} is outside 0…{CLASSES - 1}")
    return array
