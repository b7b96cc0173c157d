"""What a record is, and how it gets to the disk and back."""

from __future__ import annotations

import hashlib
import json
import os
import pkgutil
import platform
import re
import tempfile
import time
from abc import ABC, abstractmethod
from dataclasses import asdict, fields
from pathlib import Path

import torch

from .. import __version__

#: What records were about before they said it themselves.
FIRST_KIND = "lnn_core.experiments:Run"


class Recorded(ABC):
    """A computation that its settings decide. Subclasses are frozen dataclasses whose fields are
    those settings: numbers, strings, None, and tuples of them.
    """

    @property
    def config(self) -> dict:
        """The settings that matter, as JSON has them: what is None is left out, so that a
        setting added later (None by default) does not rename the records of today."""
        used = {name: value for name, value in asdict(self).items() if value is not None}
        return json.loads(json.dumps(used, sort_keys=True))

    @property
    def key(self) -> str:
        """The name of the record: 16 hexadecimal digits of the configuration's SHA-256."""
        return hashlib.sha256(json.dumps(self.config).encode()).hexdigest()[:16]

    @property
    def kind(self) -> str:
        """Where the class is found: "module:class"."""
        return f"{type(self).__module__}:{type(self).__qualname__}"

    @property
    def cost(self) -> float:
        """About how long it takes beside others of its sweep; for the remaining time only."""
        return 1.0

    def prepare(self) -> None:
        """Load what the computation needs, such as data, and keep it in memory. Called once
        before a sweep's processes start, so that they need not all download it, and in each
        process before its clock starts."""

    @abstractmethod
    def execute(self) -> dict:
        """Compute, and return what was found, as JSON has it; the disk is not written to."""

    def record(self) -> dict:
        """Compute, and return the record: what was found, and where it comes from."""
        self.prepare()
        started = time.perf_counter()
        found = self.execute()
        return {
            "kind": self.kind,
            "config": self.config,
            **found,
            "seconds": time.perf_counter() - started,
            "versions": {"lnn_core": __version__, "torch": torch.__version__,
                         "python": platform.python_version()},
            "machine": {"processor": processor(), "architecture": platform.machine(),
                        "instructions": torch.backends.cpu.get_cpu_capability(),
                        "system": platform.system(), "threads": torch.get_num_threads()},
        }


def processor() -> str:
    """The processor's name: results differ in their last digits between processors."""
    information = Path("/proc/cpuinfo")  # platform.processor() is empty on most Linux systems
    names = (re.findall(r"^model name\s*: *(.*)$", information.read_text(), re.MULTILINE)
             if information.exists() else [])
    return names[0] if names else platform.processor() or platform.machine()


def save(record: dict, path: Path) -> None:
    """Write a record atomically: readers see all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".record-", suffix=".tmp")
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(record, file, indent=None, separators=(",", ":"), allow_nan=False)
            file.write("\n")
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load(run: Recorded, folder: Path) -> dict | None:
    """The record of a run, or None where there is none.

    Raises ValueError for a file that is no record of this run: it names the file, and is
    left for a person to look at rather than being overwritten.
    """
    path = Path(folder) / f"{run.key}.json"
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text())
        found = record["config"]
    except (ValueError, KeyError, TypeError) as error:  # not JSON, not text, not a record
        raise ValueError(f"{path} is damaged ({error}); delete it to run it again") from error
    if found != run.config:
        raise ValueError(f"{path} holds the record of another configuration: {found}")
    kind = record.get("kind", FIRST_KIND)
    if kind != run.kind:
        raise ValueError(f"{path} holds the record of another kind: {kind}, not {run.kind}")
    return record


def rebuild(record: dict) -> Recorded:
    """The run that a record is about.

    Raises ValueError where this version of the code has no such run.
    """
    kind, config = record.get("kind", FIRST_KIND), record["config"]
    try:
        found = pkgutil.resolve_name(kind)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"kind={kind!r} cannot be imported ({error})") from error
    if not (isinstance(found, type) and issubclass(found, Recorded)):
        raise ValueError(f"kind={kind!r} must be a subclass of Recorded")
    names = [field.name for field in fields(found)]
    run = found(**{name: _hashable(config.get(name)) for name in names})
    if run.config != config:
        raise ValueError(f"{kind} has no run with the settings {config}: it would be {run.config}")
    return run


def _hashable(value: object) -> object:
    """JSON's lists as tuples."""
    return tuple(map(_hashable, value)) if isinstance(value, list) else value
