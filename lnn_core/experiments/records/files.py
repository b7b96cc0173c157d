"""How a record gets to the disk and back, and how damage is noticed."""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import tempfile
from pathlib import Path

#: What a record holds beside what was asked and what was found: when, with what and where from.
PROVENANCE = ("seconds", "versions", "machine", "data")
#: What every record has, and the type that JSON gives it.
_PARTS = {"kind": str, "config": dict, "seconds": (int, float), "versions": dict,
          "machine": dict, "digest": str}


def digest(record: dict) -> str:
    """SHA-256 of a record's kind, configuration and findings, as hexadecimal digits.

    Provenance is left out, so that two records have the same digest if and only if the same was
    found, to the last digit, whenever and wherever it was. It is not a signature: it tells an edit
    or damage from what was computed, not one author from another.
    """
    asked_and_found = {name: value for name, value in record.items()
                       if name not in (*PROVENANCE, "digest")}
    text = json.dumps(asked_and_found, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def seal(record: dict) -> dict:
    """The record as JSON will give it back, with its digest.

    Raises:
        ValueError: a number that JSON cannot hold, such as a NaN.
        TypeError: a value of a type that JSON does not have.
    """
    plain = json.loads(json.dumps(record, allow_nan=False))
    return {**plain, "digest": digest(plain)}


def save(record: dict, path: Path) -> None:
    """Write a record atomically: readers see all of it or nothing. Who may read it is for the
    process's umask to say, as for any other file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".record-{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            json.dump(record, file, indent=None, separators=(",", ":"), allow_nan=False)
            file.write("\n")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def claim(folder: Path) -> None:
    """Make the folder, and see that it can be written to; OSError names one that cannot."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(error.errno, f"cannot write records ({error.strerror})",
                      str(folder)) from error


def read(path: Path) -> dict:
    """The record in a file.

    Raises:
        ValueError: names the file and the first thing wrong: not JSON, a name twice, a part missing
            or of another type, a number that is not finite, or findings that the digest does not
            fit.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_each_once,
                            parse_float=_finite, parse_constant=_finite)
        _check(record)
    except RecursionError:
        raise ValueError(f"{path} holds no record: it is nested too deeply") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} holds no record: {error}") from error
    return record


def _each_once(pairs: list[tuple[str, object]]) -> dict:
    """A JSON object; ValueError where a name is there twice, of which Python keeps the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there twice")
    return found


def _finite(text: str) -> float:
    """A number of JSON, or of what Python writes in its stead, such as NaN; ValueError for those."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


def _check(record: object) -> None:
    """ValueError for the first thing that keeps JSON from being a record."""
    if not isinstance(record, dict):
        raise ValueError("it is not a JSON object")
    for name, kind in _PARTS.items():
        if name not in record:
            raise ValueError(f"it has no {name!r}")
        if not isinstance(record[name], kind) or isinstance(record[name], bool):
            raise ValueError(f"its {name!r} is {record[name]!r}")
    if digest(record) != record["digest"]:
        raise ValueError("it was changed: its findings do not fit its digest")
