"""The published records come from this code; what repeats one, and what a sweep shows meanwhile."""

import json
import math
import os
import re
import runpy
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import nbformat
import pytest

from lnn_core.experiments import Run
from lnn_core.records import Recorded, load, save, sweep
from lnn_core.records.recorded import rebuild

RECORDS = Path(__file__).parents[1] / "book" / "records"


def test_published_records_can_be_repeated():
    """If it fails, the command that a page prints beside a record has nothing to run."""
    records = list((RECORDS / "runs").iterdir())
    assert records
    for path in records:
        assert rebuild(json.loads(path.read_text())).key == path.stem, path


def test_provenance_lists_every_record_and_no_other():
    """If it fails, a number has no origin on the page that promises one, or a record no use."""
    page = nbformat.read(RECORDS.parent / "reproduction" / "provenance.ipynb", as_version=4)
    listed = "".join(output.get("data", {}).get("text/markdown", "")
                     for cell in page.cells for output in cell.get("outputs", []))
    assert set(re.findall(r"`([0-9a-f]{16})`", listed)) == {
        path.stem for path in (RECORDS / "runs").iterdir()}


@dataclass(frozen=True)
class Toy(Recorded):
    """A run whose findings are what its settings say."""

    test: float = 0.5
    best_epoch: int = 2
    curve: tuple[float, ...] = (0.25, 0.5, 0.5)
    later: str | None = None

    def execute(self):
        return {"result": {"best_epoch": self.best_epoch, "test": self.test, "none": None},
                "history": {"test": list(self.curve)}}


# --- from a record back to its run ---------------------------------------------------------------


@pytest.mark.parametrize("run", [
    Toy(), Toy(curve=(1.0,), later="yes"), Run(method="backprop"), Run(gamma=(1.0, 2.0), hidden=(8,)),
    Run(method="arovr_abg", tilt_output=False, hidden=(8,))], ids=lambda run: run.kind + run.key)
def test_rebuilt_run_is_the_same(run):
    """If it fails, a record is repeated with other settings."""
    record = json.loads(json.dumps({"kind": run.kind, "config": run.config}))
    assert rebuild(record) == run and type(rebuild(record)) is type(run)


def test_records_without_a_kind_are_training_runs():
    """If it fails, the records of the first version cannot be repeated."""
    assert rebuild({"config": Run(seed=3).config}) == Run(seed=3)


@pytest.mark.parametrize(("kind", "config", "message"), [
    ("no_such_module:Run", {}, "cannot be imported"),
    ("lnn_core.experiments:Gone", {}, "cannot be imported"),
    ("lnn_core.data:load", {}, "must be a subclass of Recorded"),
    (Toy().kind, {**Toy().config, "gone": 1}, "has no run with the settings"),
    ("lnn_core.experiments:Run", {**Run().config, "alpha": 0.3}, "has no run with the settings"),
], ids=["module", "class", "function", "setting", "unused"])
def test_what_this_code_cannot_run_is_refused(kind, config, message):
    """If it fails, something else than what was recorded is computed and compared."""
    with pytest.raises(ValueError, match=message):
        rebuild({"kind": kind, "config": config})


# --- python -m lnn_core.records repeat -----------------------------------------------------------


def command(monkeypatch, *arguments):
    """The exit status of ``python -m lnn_core.records …``."""
    monkeypatch.setattr(sys, "argv", ["records", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("lnn_core.records", run_name="__main__")
    return ended.value.code


@pytest.fixture
def recorded(tmp_path):
    """A function that makes a record of Toy() with other findings, and returns its file."""
    def make(**found):
        path = tmp_path / f"{Toy().key}.json"
        save(Toy().record() | replace(Toy(), **found).execute(), path)
        return path

    return make


def test_repeating_a_record(monkeypatch, capsys, recorded, tmp_path):
    """If it fails, a record that is right looks wrong, or the new one is not kept."""
    path, folder = recorded(), tmp_path / "again"
    assert command(monkeypatch, "repeat", path, "--into", folder) == 0
    shown = capsys.readouterr().out
    assert "the same, to the last digit" in shown and str(Toy()) in shown
    assert load(Toy(), folder)["result"] == Toy().execute()["result"]
    assert command(monkeypatch, "repeat", path) == 0 and len(list(tmp_path.glob("*.json"))) == 1


@pytest.mark.parametrize(("found", "status"), [
    ({"test": 0.503}, 0), ({"test": 0.507}, 1), ({"test": 0.493}, 1), ({"best_epoch": 3}, 0),
    ({"test": None}, 1), ({"test": "0.5"}, 1), ({"best_epoch": None}, 1),
    ({"curve": (0.25, 0.5)}, 0)], ids=str)
def test_status_says_whether_results_agree(monkeypatch, capsys, recorded, found, status):
    """If it fails, a result that cannot be repeated passes for one that can."""
    assert command(monkeypatch, "repeat", recorded(**found)) == status
    shown = capsys.readouterr().out
    assert ("do NOT agree" in shown) == bool(status) and "last digit" not in shown


def test_tolerance_is_the_readers(monkeypatch, recorded):
    """If it fails, --tolerance changes nothing."""
    assert command(monkeypatch, "repeat", recorded(test=0.6), "--tolerance", "0.2") == 0
    assert command(monkeypatch, "repeat", recorded(test=0.503), "--tolerance", "0") == 1


def test_largest_difference_of_a_curve_is_shown(monkeypatch, capsys, recorded):
    """If it fails, a curve that drifted looks as if it had not."""
    command(monkeypatch, "repeat", recorded(curve=(0.25, 0.375, 0.5, 9.0)))
    line, = (line.split() for line in capsys.readouterr().out.splitlines()
             if line.startswith("history.test"))
    assert line == ["history.test", "0.125", "4", "and", "3"]


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"config": {"seed": "x"}}',
                                     '{"kind": "os:getcwd", "config": {}}'], ids=str)
def test_files_that_cannot_be_repeated_are_named(monkeypatch, capsys, tmp_path, content):
    """If it fails, the command computes something, or ends in a traceback."""
    path = tmp_path / "record.json"
    if content is not None:
        path.write_text(content)
    assert command(monkeypatch, "repeat", path) == 2
    assert f"{path} holds no record" in capsys.readouterr().err


# --- what a sweep shows, and what it cleans up ---------------------------------------------------


def test_remaining_time_is_by_cost(monkeypatch, tmp_path, capsys):
    """One run in eleven minutes done, ten times shorter than the other: ten minutes are left.

    If it fails, a sweep of short and long runs promises to end long before it does.
    """
    clock = [0.0]

    @dataclass(frozen=True)
    class Wait(Recorded):
        minutes: int
        cost = property(lambda self: self.minutes)

        def execute(self):
            clock[0] += 60 * self.minutes
            return {}

    monkeypatch.setattr("tqdm.std.time", lambda: clock[0])
    sweep([Wait(1), Wait(10)], tmp_path, jobs=1)
    shown = capsys.readouterr()
    first, middle, last, *_ = [line.strip() for line in shown.err.split("\r")[1:]]
    for line, share, left in ((first, "0 of 2 runs:   0%", "00:00, ? left"),
                              (middle, "1 of 2 runs:   9%", "01:00, 10:00 left"),
                              (last, "2 of 2 runs: 100%", "11:00, 00:00 left")):
        assert line.startswith(share) and line.endswith(left)
    assert shown.out == "", "progress would end up on pages"


def test_cost_of_training_runs_is_what_they_look_at():
    """If it fails, the remaining time of sweeps is far off."""
    assert Run(samples=500, epochs=3, pretraining=1).cost == 2000 and Toy().cost == 1


class Unsendable(Exception):
    """What the process that receives it cannot build again."""

    def __init__(self, what, number):
        super().__init__(f"{what} {number}")


@dataclass(frozen=True)
class Picky(Recorded):
    """A run that raises, one whose findings JSON cannot hold, and others."""

    number: int

    def execute(self):
        if self.number == 1:
            raise Unsendable("never liked", self.number)
        return {"result": math.nan if self.number == 2 else self.number}


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_fails_stops_no_other(tmp_path, jobs):
    """If it fails, one bad run ends a sweep of hours, at every new start again."""
    runs = [Picky(number) for number in range(5)]
    with pytest.raises(RuntimeError, match="2 of 5 runs failed") as error:
        sweep(runs, tmp_path, jobs=jobs)
    assert {path.stem for path in tmp_path.iterdir()} == {runs[i].key for i in (0, 3, 4)}
    for run, reason in ((runs[1], "Unsendable: never liked 1"), (runs[2], "ValueError: ")):
        assert re.search(re.escape(f"{run}: ") + f".*{reason}", str(error.value))
    assert not any(str(runs[i]) in str(error.value) for i in (0, 3, 4))
    with pytest.raises(RuntimeError, match="2 of 2 runs failed"):
        sweep(runs, tmp_path, jobs=1)
    assert [record["result"] for record in sweep(runs[3:], tmp_path)] == [3, 4]


def test_only_abandoned_files_are_removed(tmp_path):
    """If it fails, killed processes' files pile up, or a file is taken from under its writer."""
    old, new, foreign = (tmp_path / name for name in (".record-old.tmp", ".record-new.tmp", "x.tmp"))
    for path in (old, new, foreign):
        path.write_text("{")
    yesterday = time.time() - 86_400
    os.utime(old, (yesterday, yesterday))
    os.utime(foreign, (yesterday, yesterday))
    sweep([Toy()], tmp_path, jobs=1)
    assert sorted(tmp_path.iterdir()) == sorted([new, foreign, tmp_path / f"{Toy().key}.json"])


def test_data_are_prepared_before_anything_is_computed(tmp_path, monkeypatch):
    """If it fails, data that cannot be had are found out in the middle of a sweep."""
    done = []
    monkeypatch.setattr(Toy, "prepare", lambda run: done.append(("prepare", run.test)))
    monkeypatch.setattr(Toy, "execute", lambda run: done.append(("execute", run.test)) or {})
    sweep([Toy(0.1), Toy(0.2)], tmp_path, jobs=1)
    assert done[:2] == [("prepare", 0.1), ("prepare", 0.2)]
    assert [run for what, run in done if what == "execute"] == [0.1, 0.2]


def test_sweep_leaves_the_number_of_threads_alone(tmp_path, monkeypatch):
    """If it fails, a notebook that sweeps goes on with one core."""
    threads = []
    monkeypatch.setattr("torch.get_num_threads", lambda: threads[-1] if threads else 7)
    monkeypatch.setattr("torch.set_num_threads", threads.append)
    record, = sweep([Toy()], tmp_path, jobs=1)
    assert threads == [1, 7] and record["machine"]["threads"] == 1


def test_record_says_where_it_comes_from():
    """If it fails, a reader of a record cannot tell what computed it."""
    record = Toy().record()
    assert record["kind"] == f"{__name__}:Toy" and record["config"] == Toy().config
    assert set(record["versions"]) == {"lnn_core", "torch", "python"}
    assert record["seconds"] >= 0 and record["history"] == Toy().execute()["history"]
