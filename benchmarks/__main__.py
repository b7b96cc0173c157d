"""Measure what training costs, print tables, and keep them as records.

    python -m benchmarks                       all sections that have no record yet
    python -m benchmarks --section gaps --again
    python -m benchmarks --quick               small sizes, to see that it works (seconds)

Ratios of times within one process, medians over interleaved turns: see timing.py. For times
worth keeping, leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from lnn_core.experiments.records import save
from lnn_core.experiments.tables import markdown

from . import breakdown, epochs, gaps, lrrn, steps
from .learners import FULL, QUICK, Settings
from .timing import provenance

ROOT = Path(__file__).resolve().parents[1]

#: Every section is a function from settings to rows, and has a record of its own.
SECTIONS: dict[str, Callable[[Settings], list[dict]]] = {
    "operations": breakdown.operations,
    "memory": breakdown.memory,
    "gaps": gaps.by_passes,
    "default": gaps.at_default,
    "border": gaps.near_the_border,
    "depth": gaps.by_depth,
    "steps": steps.by_way,
    "epochs": epochs.by_batch,
    "training": epochs.along_training,
    "size": epochs.by_size,
    "breakdown": breakdown.breakdown,
    "lrrn_inference": lrrn.inference,
    "lrrn_epochs": lrrn.epochs,
}


def record(section: str, settings: Settings) -> dict:
    """Measure a section."""
    rows = SECTIONS[section](settings)
    return {"section": section, "settings": json.loads(json.dumps(asdict(settings))),
            **provenance(), "rows": rows}


def recorded(section: str, settings: Settings, folder: Path) -> dict:
    """The section's record in the folder; measured where there is none.

    Raises:
        ValueError: a record that was made with other settings; the message names the file.
    """
    path = folder / f"{section}.json"
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["settings"] != json.loads(json.dumps(asdict(settings))):
            raise ValueError(f"{path} was made with other settings; --again replaces it")
        return found
    save(record(section, settings), path)
    return json.loads(path.read_text(encoding="utf-8"))


def table(rows: list[dict]) -> str:
    """The rows as they are in the record, numbers shortened."""
    header = list(rows[0])
    return markdown(header, [[_short(row[name]) for name in header] for row in rows])


def _short(value: object) -> str:
    if isinstance(value, dict):
        return "{median} ({low} … {high})".format(**{k: _short(v) for k, v in value.items()})
    if isinstance(value, list):
        return " ".join(map(_short, value[:5])) + " …" * (len(value) > 5)
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return "–" if value is None else str(value)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--section", action="append", choices=SECTIONS,
                        help="measure this section only; may be repeated")
    parser.add_argument("--again", action="store_true", help="remove the records first")
    parser.add_argument("--quick", action="store_true", help="small sizes, on bundled digits")
    parser.add_argument("--folder", type=Path, help="where records are kept (default: "
                        "book/records/cost; with --quick: _build/quick_cost)")
    options = parser.parse_args(arguments)
    settings = QUICK if options.quick else FULL
    default = "_build/quick_cost" if options.quick else "book/records/cost"
    folder = options.folder or ROOT / default
    sections = options.section or list(SECTIONS)
    if options.again:  # all at once: after an interruption, a run without it does the rest
        for section in sections:
            (folder / f"{section}.json").unlink(missing_ok=True)
    for section in sections:
        started = time.perf_counter()
        rows = recorded(section, settings, folder)["rows"]
        print(f"\n== {section} ({time.perf_counter() - started:.0f} s): "
              f"{SECTIONS[section].__doc__.splitlines()[0]}\n\n{table(rows)}", flush=True)


if __name__ == "__main__":
    main()
