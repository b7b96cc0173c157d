"""The published records come from this code; what repeats one, and what is shown while runs are computed."""

import hashlib
import io
import json
import math
import os
import platform
import re
import runpy
import shutil
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch

from lnn_core import quantisation
from lnn_core.experiments import Run, pca, robustness, studies  # noqa: F401  two declare kinds
from lnn_core.experiments.records import Recorded, files, load, parallel, run_all, save
from lnn_core.experiments.records.files import PROVENANCE, digest, seal
from lnn_core.experiments.records.recorded import KINDS, processor, rebuild
from lnn_core.experiments.records.repeating import disagreements, findings, read
from lnn_core.experiments.records.tolerances import ACCURACY
from lnn_core.experiments.tables import compare

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "book" / "records"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_published_records_can_be_repeated():
    """If it fails, the command that a page prints beside a record has nothing to run: a record is
    damaged, its kind unknown, or its settings have another name today."""
    paths = list((RECORDS / "runs").iterdir())
    assert len(paths) > 300  # else this looks at a folder that has moved
    kinds = set()
    for path in paths:
        run, record = read(path)
        kinds.add(record["kind"])
        assert run.key == path.stem, path
    known = "from lnn_core.experiments.records import __main__, recorded; print(*recorded.KINDS)"
    assert kinds <= set(subprocess.run([sys.executable, "-c", known], check=True, text=True,
                                       capture_output=True, env=ENVIRONMENT).stdout.split())


def test_provenance_lists_every_record_and_no_other():
    """If it fails, a number has no origin on the page that promises one, or a record no use."""
    page = nbformat.read(RECORDS.parent / "reproduction" / "provenance.ipynb", as_version=4)
    listed = "".join(output.get("data", {}).get("text/markdown", "")
                     for cell in page.cells for output in cell.get("outputs", []))
    assert set(re.findall(r"`([0-9a-f]{16})`", listed)) == {
        path.stem for path in (RECORDS / "runs").iterdir()}


def found(test=0.5, best_epoch=2, curve=(0.25, 0.5, 0.5), **others):
    """What a Toy finds, and with other numbers what it does not."""
    return {"result": {"best_epoch": best_epoch, "test": test, "none": None, **others},
            "history": {"test": list(curve)}}


@dataclass(frozen=True)
class Toy(Recorded):
    """A run of no effort, with a setting of each type."""

    kind = "Toy"

    number: float = 0.5
    count: int = 2
    sizes: tuple[int, ...] = (1, 2)
    rates: tuple[float, ...] | None = None
    name: str = "toy"
    flag: bool | None = None

    def execute(self):
        return found()


# --- from a record back to its run ---------------------------------------------------------------


@pytest.mark.parametrize("run", [
    Toy(), Toy(rates=(1.0,), flag=True), Run(method="backprop"), Run(gamma=(1.0, 2.0), hidden=(8,)),
    Run(method="arovr_abg", tilt_output=False, hidden=(8,))], ids=lambda run: run.kind + run.key)
def test_rebuilt_run_is_the_same(run):
    """If it fails, a record is repeated with other settings."""
    record = json.loads(json.dumps({"kind": run.kind, "config": run.config}))
    assert rebuild(record) == run and type(rebuild(record)) is type(run)


@pytest.mark.parametrize(("kind", "config", "message"), [
    ("lnn_core.experiments:Run", Run().config, "kind='lnn_core.experiments:Run' must be one of"),
    ("Gone", {}, "kind='Gone' must be one of .*Run"),
    ("Toy", {**Toy().config, "gone": 1}, "has no run with the settings"),
    ("Toy", {**Toy().config, "count": 1.5}, "count=1.5 must be an integer"),
    ("Run", {**Run().config, "alpha": 0.3}, "has no run with the settings"),
], ids=["path", "class", "setting", "type", "unused"])
def test_what_this_code_cannot_run_is_refused(kind, config, message):
    """If it fails, something else than what was recorded is computed and compared."""
    with pytest.raises(ValueError, match=message):
        rebuild({"kind": kind, "config": config})


def test_a_kind_is_one_class():
    """If it fails, a record is repeated by another class than the one that made it."""
    with pytest.raises(TypeError, match="kind='Toy' is that of test_records.Toy"):
        type("Other", (Recorded,), {"kind": "Toy", "execute": Toy.execute})
    again = type("Toy", (Toy,), {"kind": "Toy", "__module__": Toy.__module__})  # a cell, run again
    try:
        assert type(rebuild({"kind": "Toy", "config": Toy().config})) is again
    finally:
        KINDS["Toy"] = Toy


def test_a_class_must_say_its_kind():
    """If it fails, records are made that nobody can repeat."""
    with pytest.raises(TypeError, match="kind"):
        type("Nameless", (Recorded,), {"execute": Toy.execute})()


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("plain", "same"), [
    ({"number": 1.0}, {"number": 1}), ({"number": 0.25}, {"number": np.float32(0.25)}),
    ({"number": 2.0}, {"number": np.int64(2)}), ({"number": 0.5}, {"number": Fraction(1, 2)}),
    ({"count": 3}, {"count": np.arange(4)[3]}), ({"count": 3}, {"count": np.uint8(3)}),
    ({"sizes": (0, 1)}, {"sizes": np.arange(2)}), ({"sizes": (3, 4)}, {"sizes": [3, 4]}),
    ({"rates": (1.0, 2.0)}, {"rates": range(1, 3)}), ({"rates": None}, {}),
    ({"name": "a"}, {"name": np.str_("a")}), ({"flag": True}, {"flag": np.True_})], ids=str)
def test_equal_settings_have_one_name(plain, same):
    """If it fails, a configuration is computed twice, or refused when NumPy counted it."""
    assert Toy(**plain) == Toy(**same) and hash(Toy(**plain)) == hash(Toy(**same))
    assert Toy(**plain).key == Toy(**same).key and Toy(**plain).config == Toy(**same).config
    for name in same:
        assert type(getattr(Toy(**same), name)) is type(getattr(Toy(**plain), name))


@pytest.mark.parametrize(("settings", "message"), [
    ({"count": 4.7}, "count=4.7 must be an integer"), ({"count": 4.0}, "count=4.0 must be an int"),
    ({"count": True}, "count=True must be an integer"), ({"count": "4"}, "count='4' must be"),
    ({"count": None}, "count=None must be an integer"),
    ({"sizes": (4.7,)}, r"sizes=\(4.7,\) must be several, each an integer"),
    ({"sizes": 4}, "sizes=4 must be several"), ({"sizes": "34"}, "sizes='34' must be several"),
    ({"sizes": {1, 2}}, "sizes={1, 2} must be several"),
    ({"number": "x"}, "number='x' must be a finite number"),
    ({"number": math.nan}, "number=nan must be a finite number"),
    ({"number": math.inf}, "number=inf must be a finite number"),
    ({"number": 2**53 + 1}, "number=9007199254740993 must be a finite number"),
    ({"number": Fraction(1, 3)}, r"number=Fraction\(1, 3\) must be a finite number"),
    ({"number": 10**400}, "must be a finite number"), ({"number": True}, "number=True must be"),
    ({"rates": (1.0, None)}, "must be several, each a finite number or None"),
    ({"name": 3}, "name=3 must be a string"), ({"flag": 1}, "flag=1 must be True or False or None"),
], ids=str)
def test_settings_of_another_type_are_refused(settings, message):
    """If it fails, what is recorded is not what was computed, such as 4.7 units."""
    with pytest.raises(ValueError, match=message):
        Toy(**settings)


@pytest.mark.parametrize("kind", ["Run", "Robustness", "InternalRobustness", "Classification",
                                  "Reconstruction", "PrincipalModes"])
def test_every_kind_knows_its_settings_types(kind):
    """If it fails, a class checks its settings before they are what its fields declare."""
    name, value = ("count", 3) if kind == "PrincipalModes" else ("epochs", 3)
    made = KINDS[kind](**{name: np.int64(value)})
    assert made == KINDS[kind](**{name: value}) and type(getattr(made, name)) is int
    with pytest.raises(ValueError, match=f"{name}=2.5 must be an integer"):
        KINDS[kind](**{name: 2.5})


# --- damage --------------------------------------------------------------------------------------


def without(part):
    """The text of a record that lacks a part."""
    def change(text):
        record = json.loads(text)
        del record[part]
        return json.dumps(record)

    return change


DAMAGE = {
    "edited": (lambda text: text.replace('"test":0.5', '"test":0.999'), "it was changed"),
    "edited setting": (lambda text: text.replace('"toy"', '"boy"'), "it was changed"),
    "cut": (lambda text: text.replace("[0.25,0.5,0.5]", "[0.25,0.5]"), "it was changed"),
    "NaN": (lambda text: text.replace('"test":0.5', '"test":NaN'), "NaN is not a finite"),
    "infinite": (lambda text: text.replace("[0.25,", "[1e999,"), "1e999 is not a finite"),
    "infinite seconds": (lambda text: re.sub('"seconds":[^,]*', '"seconds":Infinity', text),
                         "Infinity is not a finite"),
    "twice": (lambda text: text.replace('"test":0.5', '"test":0.9,"test":0.5'),
              "'test' is there twice"),
    "deep": (lambda text: "[" * 100_000, "nested too deeply"),
    "deep inside": (lambda text: text.replace("0.25", "[" * 100_000 + "]" * 100_000), "too deeply"),
    "seconds as text": (lambda text: re.sub('"seconds":[^,]*', '"seconds":"3"', text),
                        "its 'seconds' is '3'"),
    "a list": (lambda text: f"[{text}]", "not a JSON object"),
    "half": (lambda text: text[:len(text) // 2], "holds no record"),
    "empty": (lambda text: "", "holds no record"),
    **{f"no {part}": (without(part), f"it has no '{part}'")
       for part in ("kind", "config", "seconds", "versions", "machine", "digest")},
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(monkeypatch, capsys, recorded, damage):
    """If it fails, a result that was not computed stands in a table, or a bad file ends in a
    traceback that reads as "the results do not agree"."""
    change, reason = DAMAGE[damage]
    path = recorded()
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=reason) as error:
        load(Toy(), path.parent)
    assert str(path) in str(error.value) and "delete it to run it again" in str(error.value)
    monkeypatch.setattr(Toy, "execute", lambda _: pytest.fail("computed"))
    assert command(monkeypatch, "repeat", path) == 2
    assert f"{path} holds no record" in capsys.readouterr().err


def test_digest_is_of_what_was_asked_and_found():
    """If it fails, an edit goes unnoticed, or equal results look different on another machine."""
    record = Toy().record()
    assert seal(record) == record
    for part in PROVENANCE:
        assert digest(record | {part: "other"}) == record["digest"]
    for change in ({"kind": "Run"}, {"config": {}}, found(test=0.5 + 1e-16 * 2), {"more": 1}):
        assert digest(record | change) != record["digest"]
    assert digest(dict(reversed(record.items()))) == record["digest"], "order means nothing"
    asked = {"config": {"a": 1}, "kind": "Toy", "result": [0.1, None]}
    text = '{"config":{"a":1},"kind":"Toy","result":[0.1,null]}'
    assert digest(asked) == hashlib.sha256(text.encode()).hexdigest()
    with pytest.raises(ValueError, match="JSON"):
        digest(asked | {"result": [math.nan]})  # which no file can hold


def test_records_are_for_whom_the_umask_lets(tmp_path):
    """If it fails, colleagues cannot read each other's records."""
    before = os.umask(0o027)
    try:
        save(Toy().record(), tmp_path / "record.json")
    finally:
        os.umask(before)
    assert (tmp_path / "record.json").stat().st_mode & 0o777 == 0o640


# --- python -m lnn_core.experiments.records repeat ----------------------------------------------------------


def command(monkeypatch, *arguments):
    """The exit status of ``python -m lnn_core.experiments.records …``."""
    monkeypatch.setattr(sys, "argv", ["records", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("lnn_core.experiments.records", run_name="__main__")
    return ended.value.code


@pytest.fixture
def recorded(tmp_path):
    """A function that makes a record of Toy() with other findings, and returns its file."""
    def make(**other):
        path = tmp_path / f"{Toy().key}.json"
        save(seal(Toy().record() | found(**other)), path)
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


CURVE = [0.25, 0.5, 0.5]


@pytest.mark.parametrize(("other", "status"), [
    ({"test": 0.5014}, 0), ({"test": 0.5017}, 1), ({"test": 0.4983}, 1), ({"best_epoch": 3}, 0),
    ({"test": None}, 0), ({"test": "0.5"}, 1), ({"test": True}, 1), ({"best_epoch": None}, 0),
    ({"extra": 1.0}, 1), ({"curve": (0.25, 0.5)}, 0), ({"curve": ()}, 1),
    ({"curve": [v + 0.001 for v in CURVE]}, 0), ({"curve": [v + 0.0017 for v in CURVE]}, 1),
    ({"curve": [v - 0.0017 for v in CURVE]}, 1), ({"curve": (0.25, 0.503, 0.5)}, 0),
    ({"curve": (0.25, 0.506, 0.5)}, 1)], ids=str)
def test_status_says_whether_results_agree(monkeypatch, capsys, recorded, other, status):
    """If it fails, a result that cannot be repeated passes for one that can: 0.17 percentage
    points, of one result or of a whole curve, are an effect that a page reports. What the record
    lacks (None) was not measured then, which is nothing to disagree on."""
    assert command(monkeypatch, "repeat", recorded(**other)) == status
    shown = capsys.readouterr().out
    assert ("do NOT agree" in shown) == bool(status) and "last digit" not in shown


def accuracies(runs) -> dict[int, float]:
    """Published test accuracies by seed."""
    return {run.seed: load(run, RECORDS / "runs")["result"]["test"] for run in runs}


def gains_over_back_propagation():
    """Paired comparisons of ten seeds: Table 1, what it says of infinite AROVR, and batch sizes."""
    cells, batches = {}, {}
    for run in studies.table1():
        cells.setdefault((run.dataset, run.pretraining > 0, run.method), []).append(run)
    for (dataset, pretrained, method), runs in cells.items():
        if method != "backprop":
            for reference in {pretrained, False}:
                yield compare(accuracies(runs), accuracies(cells[dataset, reference, "backprop"]))
    for one in studies.handover():
        yield compare(accuracies(run for run, _ in one.runs()),
                      accuracies(cells["fashion-mnist", True, "backprop"]))
    for one in studies.sensitivity():
        if one.choice == "batch":
            batches[one.value, one.run.method] = accuracies(run for run, _ in one.runs())
    for (batch, method), cell in batches.items():
        if method != "backprop":
            yield compare(cell, batches[batch, "backprop"])


def test_tolerance_of_accuracies_is_below_the_smallest_gain():
    """If it fails, a gain that a page reports could vanish within what counts as a repetition."""
    gains = [one.difference.mean for one in gains_over_back_propagation() if one.verdict == "above"]
    assert len(gains) > 10  # else the smallest of them means little
    assert ACCURACY.size < min(gains)


@pytest.mark.parametrize("path", sorted((RECORDS / "runs").glob("*.json"))[::9], ids=lambda p: p.stem)
def test_no_published_finding_may_drift(path):
    """A tenth added to one kind of number at a time, and to accuracies a bit more than their
    tolerance. If it fails, a repeated record may differ there by as much as it likes."""
    record = files.read(path)
    assert not list(disagreements(record, record, 0.0))
    names = [name for name, leaf in findings(record).items() if not isinstance(leaf, str | bool)]
    assert len(names) >= 2  # else there is next to nothing to disturb
    for name in names:
        changed = json.loads(json.dumps(record))
        *path, last = name.split(".")
        part = changed
        for one in path:
            part = part[one]
        accuracy = (last in ("train", "validation", "test", "certified")
                    and record["kind"] != "Reconstruction"
                    and not name.endswith(("lipschitz.certified", *(
                        f"{part}.certified" for part in ("layers", "energy", "joint")))))

        def shifted(value):
            return value if value is None else value + 1.01 * ACCURACY.size if accuracy else value * 1.1

        if name == "attacks.correct":
            part[last] = [not value for value in part[last]]
        elif name == "filters":
            part[last]["scale"] = list(map(shifted, part[last]["scale"]))
        else:
            part[last] = (list(map(shifted, part[last])) if isinstance(part[last], list)
                          else shifted(part[last]))
        judged = name != "best.loss" and last not in (
            "best_epoch", "epoch", "passes", "gap", "converged", "unbounded", "largest_gradient")
        assert [line.split(":")[0] for line in disagreements(record, changed)] == [name] * judged


def test_filters_are_compared_as_numbers():
    """If it fails, what is compared is the bytes that filters are packed in, or their signs count."""
    W = torch.tensor([[1.0], [1e-3], [20.0]]) * torch.randn(
        3, 5, generator=torch.Generator().manual_seed(0))
    found = findings({"kind": "Reconstruction", "filters": quantisation.to_json(W)})["filters"]
    off = np.abs(found.reshape(3, 5) - W.abs().numpy())
    assert (off <= W.abs().amax(1, keepdim=True).numpy() / 254 * (1 + 1e-5)).all()


@pytest.mark.parametrize("elsewhere", [True, False])
def test_another_machine_is_named(monkeypatch, capsys, recorded, elsewhere):
    """If it fails, a reader takes the scatter between processors for a fault, or a fault for it."""
    path, record = recorded(), Toy().record() | found(test=0.6)
    record["machine"] |= {"instructions": "ANOTHER"} if elsewhere else {}
    save(seal(record), path)
    assert command(monkeypatch, "repeat", path) == 1
    assert ("instructions ANOTHER" in capsys.readouterr().out) == elsewhere


def test_attacks_that_found_nothing_keep_their_place():
    """If it fails, an image's attack is compared with another image's."""
    old = {"kind": "Robustness", "attacks": {"distance": {"a": [None, 1.0, 2.0]}}}
    for new, good in (([None, 1.0, 2.0], True), ([5.0, 1.0, 2.0], True), ([1.0, 2.0, None], False),
                      ([1.0, 2.0], False)):
        new = {"kind": "Robustness", "attacks": {"distance": {"a": new}}}
        assert (not list(disagreements(old, new))) == good


def test_tolerance_is_the_readers(monkeypatch, recorded):
    """If it fails, --tolerance changes nothing."""
    assert command(monkeypatch, "repeat", recorded(test=0.6), "--tolerance", "72") == 0
    assert command(monkeypatch, "repeat", recorded(test=0.5001), "--tolerance", "0") == 1


@pytest.mark.parametrize("tolerance", ["-1", "nan", "inf", "x"])
def test_bad_tolerances_are_refused(monkeypatch, capsys, recorded, tolerance):
    """If it fails, the bad option is found out after the computation, or never."""
    path = recorded()
    monkeypatch.setattr(Toy, "execute", lambda _: pytest.fail("computed"))
    assert command(monkeypatch, "repeat", path, f"--tolerance={tolerance}") == 2
    assert "--tolerance" in capsys.readouterr().err


def test_what_differs_is_named(monkeypatch, capsys, recorded):
    """If it fails, a reader has to find the difference in a table of a hundred lines."""
    command(monkeypatch, "repeat", recorded(test=0.6, curve=(0.25, 0.375, 0.625, 9.0)))
    shown = capsys.readouterr().out
    line, = (line.split() for line in shown.splitlines() if line.startswith("history.test "))
    assert line == ["history.test", f"{0.25 / 3:.6g}", "4", "values", "and", "3", "values"]
    wrong = shown[shown.index("do NOT agree"):].splitlines()[1:]
    assert [line.split(":")[0] for line in wrong] == ["result.test", "history.test"]
    assert wrong[0] == "result.test: 0.6 and 0.5, distance 0.1, allowed 0.0014"


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"config": {"seed": "x"}}',
                                     '{"kind": "os:getcwd", "config": {}}'], ids=str)
def test_files_that_cannot_be_repeated_are_named(monkeypatch, capsys, tmp_path, content):
    """If it fails, the command computes something, or ends in a traceback."""
    path = tmp_path / "record.json"
    if content is not None:
        path.write_text(content)
    assert command(monkeypatch, "repeat", path) == 2
    assert f"{path} holds no record" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["trap:Toy", "trap", "test_records:Toy"])
def test_a_record_runs_nothing_that_it_names(monkeypatch, capsys, recorded, tmp_path, kind):
    """If it fails, whoever sends a record has his code run by who repeats it."""
    (tmp_path / "trap.py").write_text("open('sprung', 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    path = recorded()
    save(seal(files.read(path) | {"kind": kind}), path)
    assert command(monkeypatch, "repeat", path) == 2
    assert f"kind='{kind}' must be one of" in capsys.readouterr().err
    assert not (tmp_path / "sprung").exists() and "trap" not in sys.modules


class Deaf(io.TextIOBase):
    """A pipe whose reader is gone."""

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("screen", [lambda: io.TextIOWrapper(io.BytesIO(), "ascii"), Deaf],
                         ids=["ascii", "broken pipe"])
@pytest.mark.parametrize("status", [0, 1])
def test_a_screen_that_fails_costs_nothing(monkeypatch, recorded, tmp_path, screen, status):
    """If it fails, the computation is lost at its end, or looks as if results did not agree."""
    path, screen = recorded(**{"test": 0.6} if status else {}), screen()
    monkeypatch.setattr("sys.stdout", screen)
    assert command(monkeypatch, "repeat", path, "--into", tmp_path / "again") == status
    assert load(Toy(), tmp_path / "again")["result"] == found()["result"]
    if not isinstance(screen, Deaf):
        shown = screen.buffer.getvalue().decode("ascii")
        assert ("do NOT agree" in shown) == bool(status) and "mean distance" in shown


def test_what_cannot_be_computed_again_has_a_status_of_its_own(monkeypatch, capsys, recorded):
    """If it fails, missing data read as "the results do not agree"."""
    path = recorded()
    monkeypatch.setattr(Toy, "execute", lambda _: 1 / 0)
    assert command(monkeypatch, "repeat", path) == 3
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_folder_for_the_new_record_is_tried_first(monkeypatch, capsys, recorded):
    """If it fails, the new record is lost after hours."""
    path = recorded()
    monkeypatch.setattr(Toy, "execute", lambda _: pytest.fail("computed"))
    assert command(monkeypatch, "repeat", path, "--into", path) == 2
    assert f"'{path}'" in capsys.readouterr().err


def test_help_says_what_to_give(monkeypatch, capsys):
    """If it fails, the help does not say which of the arguments is a file, a folder or a factor."""
    assert command(monkeypatch, "repeat", "--help") == 0
    usage = " ".join(capsys.readouterr().out.partition("\n\n")[0].split())
    assert usage.endswith("repeat [-h] [--into FOLDER] [--tolerance F] RECORD.json")


# --- what run_all shows, and what it cleans up ---------------------------------------------------


def test_remaining_time_is_by_cost(monkeypatch, tmp_path, capsys):
    """After the first of 21 minutes twenty are left; the second run takes twice its ten minutes, and by the
    mean speed the last one 10·21/11. If it fails, a batch of short and long runs promises to end long before
    it does, or its promise jumps with every run."""
    clock = [0.0]

    @dataclass(frozen=True)
    class Wait(Recorded):
        kind = "Wait"
        minutes: int
        slowness: int = 1
        cost = property(lambda self: self.minutes)

        def execute(self):
            clock[0] += 60 * self.minutes * self.slowness
            return {}

    monkeypatch.setattr("tqdm.std.time", lambda: clock[0])
    run_all([Wait(1), Wait(10, 2), Wait(10, 3)], tmp_path, jobs=1)
    shown = capsys.readouterr()
    lines = [line.strip() for line in shown.err.split("\r")[1:]]
    for line, share, left in zip(lines, ("0 of 3 runs:   0%", "1 of 3 runs:   5%", "2 of 3 runs:  52%",
                                         "3 of 3 runs: 100%"),
                                 ("00:00, ? left", "01:00, 20:00 left", "21:00, 19:05 left",
                                  "51:00, 00:00 left"), strict=False):
        assert line.startswith(share) and line.endswith(left)
    assert shown.out == "", "progress would end up on pages"


def test_cost_of_training_runs_is_what_they_look_at():
    """If it fails, the remaining time is far off."""
    assert Run(samples=500, epochs=3, pretraining=1).cost == 2000 and Toy().cost == 1


class Unsendable(Exception):
    """What the process that receives it cannot build again."""

    def __init__(self, what, number):
        super().__init__(f"{what} {number}")


@dataclass(frozen=True)
class Picky(Recorded):
    """A run that raises, one whose findings JSON cannot hold, and others."""

    kind = "Picky"
    number: int

    def execute(self):
        if self.number == 1:
            raise Unsendable("never liked", self.number)
        return {"result": math.nan if self.number == 2 else self.number}


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_fails_stops_no_other(tmp_path, jobs):
    """If it fails, one bad run ends a batch of hours, at every new start again."""
    runs = [Picky(number) for number in range(5)]
    with pytest.raises(RuntimeError, match="2 of 5 runs failed") as error:
        run_all(runs, tmp_path, jobs=jobs)
    assert {path.stem for path in tmp_path.iterdir()} == {runs[i].key for i in (0, 3, 4)}
    for run, reason in ((runs[1], "Unsendable: never liked 1"), (runs[2], "ValueError: ")):
        assert re.search(re.escape(f"{run}: ") + f".*{reason}", str(error.value))
    assert not any(str(runs[i]) in str(error.value) for i in (0, 3, 4))
    with pytest.raises(RuntimeError, match="2 of 2 runs failed"):
        run_all(runs, tmp_path, jobs=1)
    assert [record["result"] for record in run_all(runs[3:], tmp_path)] == [3, 4]


def test_folder_that_cannot_be_written_is_found_out_first(tmp_path, monkeypatch):
    """If it fails, the first run's hours are lost."""
    monkeypatch.setattr(Toy, "execute", lambda _: pytest.fail("computed"))
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "records"):
        with pytest.raises(OSError, match=re.escape("cannot write records (")) as error:
            run_all([Toy()], folder)
        assert error.value.filename == str(folder)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(PermissionError, match="cannot write records .Permission denied.: '"):
        run_all([Toy()], tmp_path)


def test_complete_folder_needs_no_right_to_write(tmp_path, monkeypatch):
    """If it fails, published records can be shown only to who may change them."""
    found = run_all([Toy()], tmp_path, jobs=1)
    monkeypatch.setattr("lnn_core.experiments.records.parallel.claim",
                        lambda _: pytest.fail("tried to write"))
    assert run_all([Toy()], tmp_path) == found


def test_full_disk_is_named_and_stops_no_other(tmp_path, monkeypatch):
    """If it fails, a disk that was full for a moment ends the batch, or loses a run silently."""
    runs = [Toy(count=count) for count in range(3)]

    def full(record, path):
        if path.stem == runs[1].key:
            raise OSError(28, "No space left on device", str(path))
        save(record, path)

    monkeypatch.setattr("lnn_core.experiments.records.parallel.save", full)
    with pytest.raises(RuntimeError, match="1 of 3 runs failed") as error:
        run_all(runs, tmp_path, jobs=1)
    assert f"{runs[1]}: OSError: [Errno 28] No space left on device" in str(error.value)
    assert {path.stem for path in tmp_path.iterdir()} == {runs[0].key, runs[2].key}


def test_records_that_vanish_are_missed(tmp_path, monkeypatch):
    """If it fails, a page is rendered from None."""
    folder, runs = tmp_path / "records", [Toy(count=count) for count in range(3)]

    def execute(run):
        if run.count == 2:
            shutil.rmtree(folder)
        return found()

    monkeypatch.setattr(Toy, "execute", execute)
    with pytest.raises(RuntimeError, match="has lost 2 of 3 records") as error:
        run_all(runs, folder, jobs=1)
    assert str(folder) in str(error.value)
    assert [str(run) in str(error.value) for run in runs] == [True, True, False]


def test_only_abandoned_files_are_removed(tmp_path):
    """If it fails, killed processes' files pile up, or a file is taken from under its writer."""
    old, new, foreign = (tmp_path / name for name in (".record-old.tmp", ".record-new.tmp", "x.tmp"))
    for path in (old, new, foreign):
        path.write_text("{")
    yesterday = time.time() - 86_400
    os.utime(old, (yesterday, yesterday))
    os.utime(foreign, (yesterday, yesterday))
    run_all([Toy()], tmp_path, jobs=1)
    assert sorted(tmp_path.iterdir()) == sorted([new, foreign, tmp_path / f"{Toy().key}.json"])


def test_workers_end_with_the_process_that_started_them(monkeypatch):
    """If it fails, the workers of a killed batch compute on, for nobody."""
    parents, slept, ended = iter([7, 7, 1]), [], []

    class Thread:
        def __init__(self, target, daemon):
            assert daemon  # else it would keep a worker that has ended
            self.start = target

    monkeypatch.setattr(parallel.threading, "Thread", Thread)
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(os, "_exit", ended.append)
    parallel._end_with(7)
    assert len(slept) == 2 and ended == [1]


def test_workers_get_one_run_at_a_time(monkeypatch, tmp_path):
    """If it fails, workers do not know whose end is theirs, records are written many at a time, all after the
    last run, or workers that join a cluster late find nothing to do."""
    asked = {}

    def in_order(**options):
        asked.update(options)
        return lambda calls: (function(*arguments) for function, arguments, _ in calls)

    monkeypatch.setattr(parallel.joblib, "Parallel", in_order)
    run_all([Toy(0.1), Toy(0.2)], tmp_path, jobs=1)
    assert asked["initializer"] is parallel._end_with and asked["initargs"] == (os.getpid(),)
    assert (asked["n_jobs"], asked["batch_size"], asked["pre_dispatch"]) == (1, 1, "all")
    assert asked["return_as"] == "generator_unordered"  # a run that takes long holds no other back
    monkeypatch.setattr(parallel, "_processes", lambda jobs, scheduler: nullcontext())
    run_all([Toy(0.3)], tmp_path, scheduler="tcp://there:8786")
    assert asked["n_jobs"] == -1


def test_a_cluster_computes_within_the_batch_only(monkeypatch):
    """If it fails, what a reader computes after it goes to the cluster, too, or the cluster gets no runs."""
    came = []

    class Client(nullcontext):
        def __init__(self, address, set_as_default=True):
            super().__init__(address)
            came.append((address, set_as_default))

    def config(backend, client):
        came.append((backend, client))
        return nullcontext()

    monkeypatch.setitem(sys.modules, "distributed", SimpleNamespace(Client=Client))
    monkeypatch.setattr(parallel.joblib, "parallel_config", config)
    with parallel._processes(4, "tcp://there:8786"):
        assert came == [("tcp://there:8786", False), ("dask", "tcp://there:8786")]


@pytest.mark.parametrize("stopped", [False, True])
def test_workers_of_a_batch_do_not_outlive_it(monkeypatch, stopped):
    """If it fails, a batch that was stopped waits for runs that take hours, or leaves them running."""
    ends = []

    class Executor:
        def shutdown(self, kill_workers):
            ends.append(kill_workers)

    monkeypatch.setattr(parallel, "get_reusable_executor", lambda reuse: Executor() if reuse else None)
    for jobs in (1, 2):
        try:
            with parallel._processes(jobs, None):
                if stopped:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            assert stopped
    assert ends == [stopped]  # with one job there is no other process


def test_data_are_prepared_before_anything_is_computed(tmp_path, monkeypatch):
    """If it fails, data that cannot be had are found out in the middle of a batch."""
    done = []
    monkeypatch.setattr(Toy, "prepare", lambda run: done.append(("prepare", run.number)))
    monkeypatch.setattr(Toy, "execute", lambda run: done.append(("execute", run.number)) or {})
    run_all([Toy(0.1), Toy(0.2)], tmp_path, jobs=1)
    assert done[:2] == [("prepare", 0.1), ("prepare", 0.2)]
    assert [run for what, run in done if what == "execute"] == [0.1, 0.2]


def test_run_all_leaves_the_number_of_threads_alone(tmp_path, monkeypatch):
    """If it fails, a notebook that computes runs goes on with one core."""
    threads = []
    monkeypatch.setattr("torch.get_num_threads", lambda: threads[-1] if threads else 7)
    monkeypatch.setattr("torch.set_num_threads", threads.append)
    record, = run_all([Toy()], tmp_path, jobs=1)
    assert threads == [1, 7] and record["machine"]["threads"] == 1


def test_the_processor_has_a_name_on_every_system(monkeypatch, tmp_path):
    """If it fails, a record from Linux, Windows or a Mac does not say what computed it."""
    information = tmp_path / "cpuinfo"
    monkeypatch.setattr("lnn_core.experiments.records.recorded.Path", lambda name: information)
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    for known, name in (("", "arm64"), ("Intel64 Family 6", "Intel64 Family 6")):
        monkeypatch.setattr(platform, "processor", lambda known=known: known)
        assert processor() == name
        information.write_text("processor : 0\n")  # as on ARM
        assert processor() == name
        information.write_text("processor\t: 0\nmodel name\t: A 1\nprocessor\t: 1\nmodel name\t: A 1\n")
        assert processor() == "A 1"
        information.unlink()


def test_record_says_where_it_comes_from():
    """If it fails, a reader of a record cannot tell what computed it."""
    record = Toy().record()
    assert record["kind"] == "Toy" and record["config"] == Toy().config
    assert set(record["versions"]) == {"lnn_core", "torch", "python"}
    assert record["seconds"] >= 0 and record["history"] == Toy().execute()["history"]
