"""What a record is about, how it comes into being, and how it is found again."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import time
from abc import ABC, abstractmethod
from dataclasses import asdict, fields
from pathlib import Path

import torch

from ... import __version__
from .files import read, seal
from .settings import normalise

#: The classes that records can be about, by their kind; subclasses of Recorded add themselves.
KINDS: dict[str, type[Recorded]] = {}


class Recorded(ABC):
    """A computation that its settings decide.

    Subclasses are frozen dataclasses whose fields are those settings: numbers, strings, None,
    and tuples of numbers or strings.

    Settings are brought to the types that the fields declare, so that 1 and 1.0 are one
    configuration (see :func:`.settings.normalise`); a subclass with a ``__post_init__`` of its
    own calls this one first.
    """

    @property
    @abstractmethod
    def kind(self) -> str:
        """What records call the class: a constant of it, such as ``kind = "Run"``. It stays
        when the class is renamed or moves."""

    def __init_subclass__(cls, **options) -> None:
        super().__init_subclass__(**options)
        kind = vars(cls).get("kind")
        if kind is None:  # its parent's, or for its children to say
            return
        other = KINDS.get(kind, cls)
        if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(f"kind={kind!r} is that of {other.__module__}.{other.__qualname__}")
        KINDS[kind] = cls  # for a second time where a notebook's cell is run again

    def __post_init__(self) -> None:
        normalise(self)

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
    def cost(self) -> float:
        """About how long it takes beside others; for the remaining time only."""
        return 1.0

    def prepare(self) -> None:
        """Load what the computation needs, such as data, and keep it in memory. Called once
        before processes start, so that they need not all download it, and in each
        process before its clock starts."""

    @abstractmethod
    def execute(self) -> dict:
        """Compute, and return what was found, as JSON has it; the disk is not written to."""

    def record(self) -> dict:
        """Compute, and return the record: what was found, and where it comes from, sealed.

        Raises:
            ValueError: findings with a number that JSON cannot hold, such as a NaN.
            TypeError: findings of a type that JSON does not have.
        """
        self.prepare()
        started = time.perf_counter()
        found = self.execute()
        return seal({
            "kind": self.kind,
            "config": self.config,
            **found,
            "seconds": time.perf_counter() - started,
            "versions": {"lnn_core": __version__, "torch": torch.__version__,
                         "python": platform.python_version()},
            "machine": {"processor": processor(), "architecture": platform.machine(),
                        "instructions": torch.backends.cpu.get_cpu_capability(),
                        "system": platform.system(), "threads": torch.get_num_threads()},
        })


def load(run: Recorded, folder: Path) -> dict | None:
    """The record of a run, or None where there is none.

    Raises:
        ValueError: a file that is not a record of this run; the message names it. It is left for a
            person to examine rather than being overwritten.
    """
    path = Path(folder) / f"{run.key}.json"
    if not path.exists():
        return None
    try:
        record = read(path)
    except ValueError as error:
        raise ValueError(f"{error}; delete it to run it again") from error
    if record["config"] != run.config:
        raise ValueError(f"{path} holds the record of another configuration: {record['config']}")
    if record["kind"] != run.kind:
        raise ValueError(f"{path} holds the record of another kind: {record['kind']}, "
                         f"not {run.kind}")
    return record


def processor() -> str:
    """The processor's name: results differ in their last digits between processors."""
    information = Path("/proc/cpuinfo")  # platform.processor() is empty on most Linux systems
    names = (re.findall(r"^model name\s*: *(.*)$", information.read_text(), re.MULTILINE)
             if information.exists() else [])
    return names[0] if names else platform.processor() or platform.machine()


def rebuild(record: dict) -> Recorded:
    """The run that a record is about, of a class in ``KINDS``: a record is data, and what
    it names is looked up, never imported.

    Raises:
        ValueError: this version of the code has no such run.
    """
    kind, config = record["kind"], record["config"]
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} must be one of {', '.join(sorted(KINDS))}")
    found = KINDS[kind]
    run = found(**{field.name: config.get(field.name) for field in fields(found)})
    if run.config != config:
        raise ValueError(f"{kind} has no run with the settings {config}: it would be {run.config}")
    return run
