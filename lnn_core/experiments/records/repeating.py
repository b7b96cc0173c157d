"""A record, computed again: does the code still find what was recorded?"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from ... import quantisation
from . import files
from .files import PROVENANCE, save
from .recorded import Recorded, rebuild
from .tolerances import by_epoch, tolerance

#: What a finding is, taken apart: a number, a text, a truth value, or a curve.
Leaf = float | str | bool | np.ndarray
NOTHING = np.empty(0)


def read(path: Path) -> tuple[Recorded, dict]:
    """A record and its run; ValueError names the file that holds none."""
    record = files.read(path)
    try:
        return rebuild(record), record
    except ValueError as error:
        raise ValueError(f"{path} holds no record of this code's runs: {error}") from error


def repeat(run: Recorded, recorded: dict, into: Path | None = None, factor: float = 1.0) -> bool:
    """Compute a record again, print both, and tell whether the results agree.

    Args:
        run: the configuration.
        recorded: its record.
        into: a folder for the new record.
        factor: multiplies the tolerances of :mod:`lnn_core.experiments.records.tolerances`.
    """
    _say(f"{run}\nIt took {recorded['seconds']:.0f} s when it was recorded.")
    torch.set_num_threads(1)  # as in run_all: more threads sum in another order
    repeated = run.record()
    _say("\n".join(side_by_side(recorded, repeated)))
    wrong = list(disagreements(recorded, repeated, factor))
    if recorded["digest"] == repeated["digest"]:
        _say("\nAll that was found is the same, to the last digit.")
    elif wrong:
        _say(f"\nThe results do NOT agree (tolerances times {factor:g}):\n" + "\n".join(wrong))
        if recorded["machine"] != repeated["machine"]:
            _say("The machines differ. Then: " + _machine(recorded) + ". Now: " + _machine(repeated)
                 + ". Other last digits alone can move a single run further than the tolerances, "
                 "which are below the smallest effect on a page; benchmarks/processors.py measures "
                 "how far.")
    else:
        _say(f"\nThe results agree (tolerances times {factor:g}).")
    if into is not None:
        save(repeated, into / f"{run.key}.json")
    return not wrong


def findings(record: dict) -> dict[str, Leaf]:
    """What was found, by names such as "history.test"; what is None is left out."""
    return {name: leaf for part, value in record.items()
            if part not in ("kind", "config", "digest", *PROVENANCE)
            for name, leaf in _leaves(part, value)}


def disagreements(recorded: dict, repeated: dict, factor: float = 1.0) -> Iterator[str]:
    """What two records of a run do not agree on, one line each: see ``tolerances.py``.

    What only the repeated one has is nothing to disagree on: later code measures more.
    """
    kind, before, after = recorded["kind"], findings(recorded), findings(repeated)
    for name in before:
        if name not in after:
            yield f"{name}: only in the recorded one"
        elif not _agree(f"{kind}.{name}", before[name], after[name], factor):
            yield (f"{name}: {_short(before[name])} and {_short(after[name])}, "
                   f"distance {_distance(before[name], after[name])}, "
                   f"{tolerance(f'{kind}.{name}')}")


def side_by_side(recorded: dict, repeated: dict) -> Iterator[str]:
    """A table's lines: values, then provenance, then how far curves are from each other."""
    before, after = findings(recorded), findings(repeated)
    names = list(before | after)
    curves = [name for name in names if isinstance(before.get(name, after.get(name)), np.ndarray)]
    yield _line("", "recorded", "repeated")
    for name in names:
        if name not in curves:
            yield _line(name, _short(before.get(name)), _short(after.get(name)))
    for part in PROVENANCE:
        old, new = (dict(_leaves(part, record.get(part))) for record in (recorded, repeated))
        for name in old | new:
            yield _line(name, _short(old.get(name)), _short(new.get(name)))
    yield "\n" + _line("curve", "mean distance", "values")
    for name in curves:
        old, new = before.get(name, NOTHING), after.get(name, NOTHING)
        yield _line(name, _distance(old, new), f"{_short(old)} and {_short(new)}")


def _agree(name: str, old: Leaf, new: Leaf, factor: float) -> bool:
    allowed = tolerance(name)
    if type(old) is not type(new):
        return False
    if isinstance(old, np.ndarray) and len(old) != len(new):
        if not (by_epoch(name) and len(old) and len(new)):
            return False
    if allowed is None:
        return True
    if not isinstance(old, float | np.ndarray):
        return old == new
    old, new = _paired(old, new)
    return not len(old) or allowed.allows(old, new, factor)


def _paired(old: float | np.ndarray, new: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The entries that both have."""
    old, new = np.atleast_1d(old), np.atleast_1d(new)
    length = min(len(old), len(new))
    both = ~np.isnan(old[:length]) & ~np.isnan(new[:length])
    return old[:length][both], new[:length][both]


def _distance(old: Leaf, new: Leaf) -> str:
    """The mean distance of numbers, as text."""
    if not (isinstance(old, float | np.ndarray) and isinstance(new, float | np.ndarray)):
        return "–"
    old, new = _paired(old, new)
    return _short(float(np.abs(new - old).mean())) if len(old) else "–"


def _leaves(name: str, value: object) -> Iterator[tuple[str, Leaf]]:
    """(dotted name, leaf) of a value as JSON has it; arrays of numbers are flattened to curves, in
    which None is NaN."""
    if isinstance(value, dict) and value.keys() == quantisation.STORED:
        # An eigenvector's sign is for the library to choose: only sizes count.
        yield name, quantisation.from_json(value).double().abs().numpy().ravel()
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _leaves(f"{name}.{key}", part)
    elif isinstance(value, list):
        if all(part is None or isinstance(part, int | float) for part in value):
            yield name, np.array(value, dtype=float)
        else:
            for i, part in enumerate(value):
                yield from _leaves(f"{name}.{i}", part)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield name, float(value)
    elif value is not None:
        yield name, value


def _short(value: Leaf | None) -> str:
    if isinstance(value, np.ndarray):
        return f"{len(value)} values"
    return "–" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _machine(record: dict) -> str:
    return ", ".join(f"{name} {value}" for name, value in record["machine"].items())


def _line(name: str, *values: str) -> str:
    return f"{name:24}" + "".join(f"  {value:>24}" for value in values)


def _say(text: str) -> None:
    """Print. Where that fails, the computation goes on: on a terminal that does not have all
    letters with question marks, and in silence where nobody reads any more."""
    for words in (text, text.encode("ascii", "replace").decode()):
        try:
            print(words, flush=True)
        except UnicodeError:
            continue
        except OSError:
            sys.stdout = None  # where print says nothing
        return
