"""How much the end of a run differs on another processor: `python -m benchmarks.processors`.

Another processor adds up in another order, and training multiplies the difference. PyTorch and
MKL can be told to compute as an older processor would, so that one machine shows the spread:
published runs are computed again under each of ``SETTINGS`` and compared with their records.
The result is ``book/records/portability/runs.json``; runs that are in it are not repeated.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from lnn_core.experiments import Run, studies
from lnn_core.experiments.records import load, save

RECORDS = Path(__file__).parents[1] / "book" / "records"
RESULT = RECORDS / "portability" / "runs.json"
#: What makes PyTorch and MKL compute as on another processor.
SETTINGS: dict[str, dict[str, str]] = {
    "no vector instructions": {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2"},
    "this machine": {},
}


def chosen() -> list[Run]:
    """Cells of Table 1 and of Figure 1, one seed each."""
    table = [run for run in studies.table1(range(1)) if not run.pretraining
             and run.method in ("backprop", "arovr_abg")]
    figure = [run for run in studies.figure1("fashion-mnist", 5000, seeds=range(1))
              if run.beta in (None, 0.5)]
    return table + figure


def compute(run: Run, setting: str) -> dict:
    """The run's findings, from a process of its own under the setting."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **SETTINGS[setting]}
    done = subprocess.run([sys.executable, "-m", "benchmarks.processors", run.key],
                          env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def difference(recorded: dict, repeated: dict) -> dict:
    """By how much a repetition differs from the record, in what the book reports."""
    old, new = recorded["history"], repeated["history"]
    epochs = min(len(old["test"]), len(new["test"]))
    found = {
        "test": repeated["result"]["test"] - recorded["result"]["test"],
        "validation": repeated["result"]["validation"] - recorded["result"]["validation"],
        "best_epoch": repeated["result"]["best_epoch"] - recorded["result"]["best_epoch"],
        "curves": {name: max(abs(a - b) for a, b in zip(old[name][:epochs], new[name][:epochs])
                             if a is not None and b is not None)  # where both were measured
                   for name in ("train", "validation", "test")},
        "objective": [abs(b / a - 1) for a, b in zip(old["objective"], new["objective"])],
        "instructions": repeated["machine"]["instructions"],
    }
    if recorded["lipschitz"] is not None:
        found["lipschitz"] = {
            name: [abs(b / a - 1) for a, b in zip(values, repeated["lipschitz"][name])]
            for name, values in recorded["lipschitz"].items()}
    return found


def main() -> None:
    """Compute what is missing; the file is written after every run."""
    found = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for setting in SETTINGS:
        for run in chosen():
            name = f"{run.key} {setting}"
            if name not in found:
                recorded = load(run, RECORDS / "runs")
                found[name] = {"key": run.key, "setting": setting, "dataset": run.dataset,
                               "method": run.method, "seed": run.seed,
                               **difference(recorded, compute(run, setting))}
                save(found, RESULT)
                print(f"{len(found)}: {name}, test {100 * found[name]['test']:+.2f} points",
                      flush=True)


if __name__ == "__main__":
    if keys := sys.argv[1:]:  # called by compute
        print(json.dumps(next(run for run in chosen() if run.key == keys[0]).record()))
    else:
        main()
