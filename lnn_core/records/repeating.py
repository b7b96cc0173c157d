"""A record, computed again: does the code still find what was recorded?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch

from .recorded import Recorded, rebuild, save

#: What a record holds beside findings.
PROVENANCE = ("seconds", "versions", "machine", "data")
#: What a finding is, taken apart: a number, a text, a truth value, or a curve.
Leaf = float | str | bool | list[float]


def read(path: Path) -> tuple[Recorded, dict]:
    """A record and its run; ValueError names the file that holds none."""
    try:
        record = json.loads(path.read_text())
        return rebuild(record), record
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} holds no record of this code's runs: {error!r}") from error


def repeat(run: Recorded, recorded: dict, into: Path | None = None,
           tolerance: float = 5e-3) -> bool:
    """Compute a record again, print both, and tell whether the results agree.

    into : a folder for the new record.
    tolerance : see :func:`agree`.
    """
    print(f"{run}\nIt took {recorded['seconds']:.0f} s when it was recorded.", flush=True)
    torch.set_num_threads(1)  # as in a sweep: more threads sum in another order
    repeated = run.record()
    if into is not None:
        save(repeated, into / f"{run.key}.json")
    before, after = findings(recorded), findings(repeated)
    print("\n".join(side_by_side(before, after, recorded, repeated)))
    good = agree(before, after, tolerance)
    print("\nAll that was found is the same, to the last digit." if before == after else
          f"\nThe results {'agree' if good else 'do NOT agree'} (tolerance {tolerance:g}).")
    return good


def findings(record: dict) -> dict[str, Leaf]:
    """What was found, by names such as "history.test"; what is None is left out."""
    return {name: leaf for part, value in record.items()
            if part not in ("kind", "config", *PROVENANCE) for name, leaf in _leaves(part, value)}


def agree(before: dict[str, Leaf], after: dict[str, Leaf], tolerance: float) -> bool:
    """Whether findings under "result" are the same up to |new − old| ≤ tolerance·max(1, |old|).

    Of whole numbers, such as the best epoch, only the presence counts: where two epochs are
    nearly as good, a rounding error decides between them.
    """
    def close(old: Leaf, new: Leaf) -> bool:
        if isinstance(old, list) and isinstance(new, list):
            return len(old) == len(new) and all(map(close, old, new))
        if _is_number(old) and _is_number(new):
            whole = isinstance(old, int) and isinstance(new, int)
            return whole or abs(new - old) <= tolerance * max(1.0, abs(old))
        return old == new

    old, new = ({name: leaf for name, leaf in all_of_it.items()
                 if name.split(".")[0] == "result"} for all_of_it in (before, after))
    return old.keys() == new.keys() and all(close(old[name], new[name]) for name in old)


def side_by_side(before: dict[str, Leaf], after: dict[str, Leaf], recorded: dict,
                 repeated: dict) -> Iterator[str]:
    """A table's lines: values, then provenance, then every curve's largest difference."""
    names = list(before | after)
    curves = [name for name in names if isinstance(before.get(name, after.get(name)), list)]
    yield _line("", "recorded", "repeated")
    for name in names:
        if name not in curves:
            yield _line(name, _short(before.get(name)), _short(after.get(name)))
    for part in PROVENANCE:
        old, new = (dict(_leaves(part, record.get(part))) for record in (recorded, repeated))
        for name in old | new:
            yield _line(name, _short(old.get(name)), _short(new.get(name)))
    yield "\n" + _line("curve", "largest difference", "values")
    for name in curves:
        old, new = before.get(name, []), after.get(name, [])
        largest = max((abs(b - a) for a, b in zip(old, new)), default=0.0)
        yield _line(name, _short(largest),
                    f"{len(old)}" if len(old) == len(new) else f"{len(old)} and {len(new)}")


def _leaves(name: str, value: object) -> Iterator[tuple[str, Leaf]]:
    """(dotted name, leaf) of a value as JSON has it; arrays of numbers are flattened to curves."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _leaves(f"{name}.{key}", part)
    elif isinstance(value, list | tuple):
        parts = [leaf for i, part in enumerate(value) for leaf in _leaves(f"{name}.{i}", part)]
        numbers = [number for _, leaf in parts
                   for number in (leaf if isinstance(leaf, list) else [leaf])]
        if all(map(_is_number, numbers)):
            yield name, numbers
        else:
            yield from parts
    elif value is not None:
        yield name, value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: object) -> str:
    return "–" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _line(name: str, *values: str) -> str:
    return f"{name:24}" + "".join(f"  {value:>24}" for value in values)
