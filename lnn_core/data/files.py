"""Where the files of data sets come from, and the cache of what was downloaded."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ..extras import extra
from . import idx
from .idx import DataCorrupted, check_size

_TIMEOUT = (4.0, 15.0)  # seconds: to connect; without a byte
_PATIENCE = 3600.0  # seconds for all of a file: the largest one in an hour is 50 kB per second


class DataUnavailable(RuntimeError):
    """No source has the data set; the message says what was tried and what helps."""


class PublishedFile(Protocol):
    """A file's name, and the most bytes that it can have."""

    @property
    def name(self) -> str:
        """The name at the publisher's."""

    @property
    def largest(self) -> int:
        """More bytes than these are not read."""


def obtain(folder: str, file: PublishedFile, mirrors: tuple[str, ...], quiet: bool | None,
           decode=idx.decode):
    """The checked content of one file, and its origin; :mod:`lnn_core.data` has the order.

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


def _file(variable: str, default: Callable[[], str | None], folder: str, file: PublishedFile,
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


def _read(path: Path, file: PublishedFile, decode):
    """The checked content of a file on this machine; DataCorrupted names the file."""
    try:
        with path.open("rb") as stream:
            return decode(stream.read(file.largest + 1), file)
    except (OSError, DataCorrupted) as error:
        raise DataCorrupted(f"{path}: {error}") from error
