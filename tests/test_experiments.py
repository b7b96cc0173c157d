"""Experiments: what names a record, what survives a kill, what is run again; on tiny runs."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import lnn_core as lnn
from lnn_core import data
from lnn_core.experiments import METHODS, Run, runs, training
from lnn_core.experiments.records import load, run_all, save
from lnn_core.experiments.records.files import seal
from lnn_core.experiments.training import seeded_generator

BY_METHOD = {method: Run(method=method, dataset="digits", samples=100, epochs=2, hidden=(8,))
             for method in METHODS}
RUNS = list(BY_METHOD.values())
TINY = BY_METHOD["arovr"]
each_method = pytest.mark.parametrize("method", METHODS)


def timeless(record):
    """A record without what differs from run to run."""
    return {name: value for name, value in record.items() if name != "seconds"}


def sealed(run, **other):
    """A record without findings."""
    return seal({"kind": run.kind, "config": run.config, "seconds": 1.0, "versions": {},
                 "machine": {}} | other)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """A folder with the records of one run of each method, computed one after the other."""
    folder = tmp_path_factory.mktemp("records")
    return folder, run_all(RUNS, folder, jobs=1)


@pytest.fixture
def counted(monkeypatch):
    """The runs that are executed during the test."""
    runs = []

    def count(run):
        runs.append(run)
        return {"result": {}}

    monkeypatch.setattr(Run, "execute", count)
    return runs


# --- what a run is -------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "unused"), [
    ("backprop", {"beta": 0.1, "alpha": 0.2, "tilt_sd": 0.3, "gamma": (1.0,), "solver": "paper",
                  "tilt_output": False}),
    ("rovr", {"alpha": 0.2, "tilt_sd": 0.3}), ("arovr", {"alpha": 0.2, "tilt_sd": 0.3}),
    ("arovr_ab", {"tilt_sd": 0.3})])
def test_unused_settings_do_not_matter(method, unused):
    """If it fails, equal runs have different records and are computed twice."""
    plain = Run(method=method)
    assert Run(method=method, **unused) == plain and Run(method=method, **unused).key == plain.key
    assert not set(unused) & set(plain.config)


@pytest.mark.parametrize("change", [
    {"dataset": "digits"}, {"samples": 1}, {"seed": 1}, {"method": "rovr"}, {"beta": 0.1},
    {"alpha": 0.1}, {"tilt_sd": 0.25}, {"gamma": (1.0, 1.0, 2.0)}, {"solver": "paper"},
    {"hidden": (8,)}, {"init": "normal"}, {"batch": 20}, {"epochs": 1}, {"pretraining": 1},
    {"learning_rate": 1e-3}, {"patience": 5}, {"tilt_output": False},
    {"standardise": True}, {"lipschitz": 10}, {"omit_unbounded": True}, {"clip": 1.0},
    {"loss": "cross-entropy"}, {"layers": "convolutions"}, {"layers": "residual"}, {"validation": 5},
    {"method": "backprop", "control": "dropout", "strength": 0.2}],
    ids=lambda change: next(iter(change)))
def test_used_settings_name_the_record(change):
    """If it fails, different runs share a record and a table shows the wrong one."""
    run = Run(method="arovr_abg")
    assert dataclasses.replace(run, **change).key != run.key
    assert len(dataclasses.fields(Run)) == 26, "a new setting: does it name the record?"


def test_settings_of_none_leave_the_key_alone():
    """If it fails, a setting added later renames all records of today."""
    @dataclasses.dataclass(frozen=True)
    class Later(Run):
        added: float | None = None

    assert Later().key == Run().key and Later(added=1.0).key != Run().key
    assert "gamma" not in Run().config


def test_key_survives_json():
    """If it fails, a record read back does not belong to its own run."""
    run = Run(gamma=(1.0, 0.5, 2.0))
    assert json.loads(json.dumps(run.config)) == run.config
    assert run.key == Run(gamma=(1.0, 0.5, 2.0)).key and len(run.key) == 16


def test_objectives_are_the_configured_ones():
    """If it fails, a record is about another objective than its name says."""
    run = Run(method="arovr_abg", beta=0.2, alpha=0.4, tilt_sd=0.1, gamma=(1.0, 2.0, 3.0),
              solver="paper")
    built = run.objective()
    assert isinstance(built, lnn.TargetedAROVR) and (built.alpha, built.beta) == (0.4, 0.2)
    assert built.tilt.sd == 0.1 and built.solver == lnn.PaperSweeps(20)
    assert built.potential.gamma == (1.0, 2.0, 3.0)
    kinds = {"backprop": lnn.BackPropagation, "rovr": lnn.ROVR, "arovr": lnn.AROVR,
             "arovr_ab": lnn.TargetedAROVR, "arovr_abg": lnn.TargetedAROVR}
    assert {method: type(Run(method=method).objective()) for method in METHODS} == kinds
    assert Run(method="arovr_ab").objective().tilt is None
    assert isinstance(Run().objective().solver, lnn.Shooting)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_the_configured_loss(method):
    """If it fails, a run with cross-entropy trains with the Euclidean loss."""
    assert Run(method=method, loss="cross-entropy").objective().loss is lnn.CrossEntropy
    assert Run(method=method).objective().loss is lnn.Euclidean


def test_convolutions_of_a_run():
    """Layers, their shapes for images of 28×28 in one row, and weights within ±1/√fan-in. If it fails, the
    page's network is another one."""
    run = Run(layers="convolutions", hidden=(16, 32))
    net, same, other = run.network(784), run.network(784), dataclasses.replace(run, seed=1).network(784)
    assert net.shapes == ((784,), (16, 14, 14), (32, 7, 7), (10,))
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, same.get_parameter(name))
        if name.endswith("bias"):
            assert not parameter.any()
        else:
            fan_in = parameter[0].numel()
            assert not torch.equal(parameter, other.get_parameter(name))
            assert 0.9 < parameter.abs().max().item() * fan_in**0.5 <= 1


@pytest.mark.parametrize(("inputs", "colours", "side"), [(784, 1, 28), (1024, 1, 32), (3072, 3, 32)])
def test_convolutions_see_colours(inputs, colours, side):
    """If it fails, an image's colour planes are read as one image."""
    net = Run(layers="convolutions", hidden=(4,)).network(inputs)
    weight = net.connections[0](torch.zeros(1, inputs)).shape, next(net.parameters()).shape
    assert weight == ((1, 4, side // 2, side // 2), (4, colours, 5, 5))


@pytest.mark.parametrize("hidden", [(6,), (6, 5), (6, 5, 4, 3)])
def test_residual_layers(hidden):
    """If it fails, "residual" is a chain, or the input jumps over the first layer."""
    net, chain = (Run(layers=layers, hidden=hidden).network(7) for layers in ("residual", None))
    depth = len(hidden) + 1
    assert set(net.edges) == {*chain.edges, *((j, j + 2) for j in range(1, depth - 1))}
    assert chain.is_chain and net.is_chain == (depth == 2)


@pytest.mark.parametrize("settings", [{"method": "sgd"}, {"solver": "newton"},
                                      {"dataset": "mnits"}, {"dataset": "cifar-10"},
                                      {"loss": "hinge"}, {"layers": "recurrent"}], ids=str)
def test_unknown_names_are_refused(settings):
    """If it fails, a typo is found out after hours, or never."""
    name, = settings
    with pytest.raises(ValueError, match=f"{name}='{settings[name]}' must be one of"):
        Run(**settings)


@pytest.mark.parametrize(("settings", "message"), [
    ({"method": "arovr_ab", "alpha": None}, "method='arovr_ab' needs a value for alpha"),
    ({"beta": None, "solver": None}, "needs a value for beta, solver"),
    ({"beta": -1.0}, "beta=-1.0 must be positive"), ({"gamma": (1.0, 0.0, 1.0)}, "gamma_2=0.0"),
    ({"method": "arovr_abg", "alpha": 1.5}, "alpha=1.5"),
    ({"method": "arovr_abg", "tilt_sd": 0.0}, "sd=0.0"),
    *(({name: 0}, f"{name}=0 must be at least 1")
      for name in ("samples", "batch", "epochs", "patience", "lipschitz")),
    ({"epochs": 1.5}, "epochs=1.5 must be an integer"),
    ({"pretraining": -1}, "pretraining=-1 must be at least 0"),
    ({"samples": None}, "samples=None must be an integer"),
    ({"hidden": (4.7,)}, r"hidden=\(4.7,\) must be several, each an integer"),
    ({"learning_rate": 0.0}, "learning_rate=0.0 must be positive"),
    ({"learning_rate": float("nan")}, "learning_rate=nan must be a finite number"),
    ({"hidden": (8, 0)}, r"sizes=\[1, 8, 0, 10\] must hold .* positive integers"),
    ({"init": "ones"}, "init='ones' must be"),
    ({"gamma": (1.0, 1.0)}, "gamma has 2 entries for 3 layers"),
    ({"gamma": (1.0, 1.0, 1.0), "hidden": (8,)}, "gamma has 3 entries for 2 layers"),
], ids=str)
def test_settings_out_of_bounds_are_refused(settings, message):
    """If it fails, a bad setting is found out after the pretraining."""
    with pytest.raises(ValueError, match=message):
        Run(**settings)


@pytest.mark.parametrize("settings", [
    dict.fromkeys(("samples", "batch", "epochs", "patience", "lipschitz"), 1),
    {"pretraining": 0}, {"patience": None, "lipschitz": None}, {"hidden": ()}, {"hidden": (1,)},
    {"gamma": (2.0, 1.0), "hidden": (8,)}, *({"dataset": name} for name in data.NAMES)], ids=str)
def test_settings_at_their_bounds_are_accepted(settings):
    """If it fails, a run that makes sense cannot be asked for."""
    run = Run(**settings)
    assert {name: getattr(run, name) for name in settings} == settings


# --- what a run does -----------------------------------------------------------------------------


def test_methods_are_paired(monkeypatch):
    """Same samples, same initial weights, same attacks: if it fails, paired tests compare
    nothing."""
    seen = []

    def spy(net, objective, train, *_, generator, **__):
        seen.append((train.x, train.y, *(p.detach().clone() for p in net.parameters()),
                     torch.randperm(100, generator=generator)))

    monkeypatch.setattr(runs, "fit", spy)
    for run in RUNS:
        run.execute()
    for other in seen[1:]:
        assert all(map(torch.equal, seen[0], other))
    dataclasses.replace(TINY, seed=1).execute()
    assert not torch.equal(seen[0][1], seen[-1][1]) and not torch.equal(seen[0][2], seen[-1][2])
    assert not torch.equal(seen[0][-1], seen[-1][-1])


@each_method
def test_same_configuration_same_record(records, tmp_path, method):
    """If it fails, the published numbers cannot be computed again."""
    run = BY_METHOD[method]
    assert timeless(run_all([run], tmp_path, jobs=1)[0]) == timeless(load(run, records[0]))


@each_method
def test_record_holds_the_best_epoch(records, method):
    """If it fails, tables show another epoch than the best validated one."""
    record = load(BY_METHOD[method], records[0])
    history, result = record["history"], record["result"]
    best = history["validation"].index(max(history["validation"]))
    assert result == {"best_epoch": best + 1, "validation": history["validation"][best],
                      "test": history["test"][best]}
    assert {len(values) for values in history.values()} == {2}
    assert record["seconds"] > 0 and record["versions"]["torch"] == torch.__version__
    assert "digits" in record["data"]["source"]


def test_a_record_by_hand(records):
    """Back-propagation with torch alone: if it fails, a run does something else."""
    digits = data.load("digits")
    train = digits.subset(100, 0)
    net = torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.ReLU(), torch.nn.Linear(8, 10))
    start = lnn.LiftedNetwork([64, 8, 10], generator=seeded_generator(0, "weights"))
    with torch.no_grad():
        for layer, weight in zip((net[0], net[2]), start.weights):
            layer.weight.copy_(weight)
            layer.bias.zero_()
    optimizer, order = torch.optim.Adam(net.parameters(), lr=2e-4), seeded_generator(0, "batches")
    losses = []
    for _ in range(2):
        total = 0.0
        for rows in torch.randperm(100, generator=order).split(50):
            loss = (net(train.x[rows]) - torch.eye(10)[train.y[rows]]).square().sum(1).mean() / 2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        losses.append(total / 100)
    history = records[1][0]["history"]
    assert history["objective"] == pytest.approx(losses, rel=1e-5)
    correct = (net(digits.test.x).argmax(1) == digits.test.y).float().mean().item()
    assert history["test"][-1] == pytest.approx(correct, abs=1e-6)


def test_pretraining_comes_first(records):
    """If it fails, "with pretraining" starts from random weights."""
    run = dataclasses.replace(TINY, pretraining=2, epochs=1)
    record = run.execute()
    assert record["pretraining"]["objective"] == records[1][0]["history"]["objective"]
    assert record["history"]["objective"][0] < load(TINY, records[0])["history"]["objective"][0]


def test_divergence_is_a_result(monkeypatch):
    """If it fails, one run whose inference diverges stops the others, or what it learnt is lost."""
    run, calls = dataclasses.replace(TINY, epochs=5, lipschitz=3), []
    whole = run.execute()
    train = training.train_epoch

    def diverge(*args, **options):
        calls.append(args)
        if len(calls) == 3:
            raise lnn.InferenceDiverged("ran away")
        return train(*args, **options)

    monkeypatch.setattr(training, "train_epoch", diverge)
    record = run.execute()
    assert whole["diverged"] is None and record["diverged"] == "ran away"
    for part in ("history", "lipschitz"):
        assert record[part] == {name: values[:2] for name, values in whole[part].items()}
    calls[:] = [None, None]
    assert run.execute()["result"] is None


def test_brackets_are_those_of_the_trained_network(monkeypatch):
    """If it fails, Figure 1 shows the Lipschitz constants of something else."""
    nets, fit = [], runs.fit
    monkeypatch.setattr(runs, "fit", lambda net, *args, **options: (
        nets.append(net), fit(net, *args, **options)))
    record = dataclasses.replace(TINY, lipschitz=7).execute()
    expected = lnn.lipschitz.bracket(nets[0], data.load("digits").validation.x[:7])
    assert {name: values[-1] for name, values in record["lipschitz"].items()} == expected._asdict()
    assert {len(values) for values in record["lipschitz"].values()} == {2}
    assert TINY.execute()["lipschitz"] is None


def test_standardised_samples(monkeypatch):
    """If it fails, "standardised" images are scaled by what training must not know, or not at
    all."""
    seen = []
    monkeypatch.setattr(runs, "fit", lambda *args, **_: seen.append(args[2:]))
    dataclasses.replace(TINY, standardise=True).execute()
    (train, validation, test), digits = seen[0], data.load("digits")
    raw = digits.subset(100, 0).x
    assert abs(float(train.x.mean())) < 1e-6 and float(train.x.std()) == pytest.approx(1, abs=1e-6)
    for split, original in ((train, raw), (validation, digits.validation.x), (test, digits.test.x)):
        assert torch.allclose(split.x, (original - raw.mean()) / raw.std())


# --- records on disk -----------------------------------------------------------------------------


def test_killed_between_write_and_replace(tmp_path):
    """SIGKILL at the worst moment: if it fails, half a record passes for a whole one."""
    script = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from lnn_core.experiments import Run
        from lnn_core.experiments.records import save
        os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        save({}, Path(sys.argv[1]) / f"{Run().key}.json")
    """)
    path = os.pathsep.join([str(Path(lnn.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)],
                            env={**os.environ, "PYTHONPATH": path})
    assert killed.returncode == -signal.SIGKILL
    assert load(Run(), tmp_path) is None and not list(tmp_path.glob("*.json"))
    record = sealed(Run())
    save(record, tmp_path / f"{Run().key}.json")
    assert load(Run(), tmp_path) == record


@pytest.mark.parametrize("record", [{"accuracy": float("nan")}, {"net": object()}],
                         ids=["nan", "object"])
def test_what_is_no_json_leaves_nothing(tmp_path, record):
    """If it fails, a failed write leaves a file behind or destroys the record that was there."""
    path = tmp_path / "record.json"
    with pytest.raises((ValueError, TypeError)):
        save(record, path)
    assert list(tmp_path.iterdir()) == []
    save({"good": 1}, path)
    with pytest.raises((ValueError, TypeError)):
        save(record, path)
    assert list(tmp_path.iterdir()) == [path] and json.loads(path.read_text()) == {"good": 1}


def test_readers_see_all_or_nothing(tmp_path, monkeypatch):
    """The record is complete before it has its name: if it fails, a reader can meet half of it."""
    path, seen, replace = tmp_path / "record.json", [], os.replace

    def watch(source, target):
        seen.append((path.exists(), json.loads(Path(source).read_text())))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watch)
    save({"value": 1}, path)
    assert seen == [(False, {"value": 1})] and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"{", b'{"config": {"seed": 0', b"[1, 2]", b"null", b"{}",
                                     b"\xff\xfe\x00"], ids=str)
def test_damaged_record_is_named(tmp_path, counted, content):
    """If it fails, a damaged file is taken for a result, or silently overwritten."""
    path = tmp_path / f"{TINY.key}.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="holds no record: .* delete it") as error:
        run_all([TINY], tmp_path)
    assert str(path) in str(error.value)
    assert path.read_bytes() == content and not counted


def test_record_of_another_configuration_is_named(tmp_path, counted):
    """If it fails, a copied or renamed record stands for a run that it is not."""
    path = tmp_path / f"{TINY.key}.json"
    save(sealed(Run()), path)
    with pytest.raises(ValueError, match="another configuration") as error:
        run_all([TINY], tmp_path)
    assert str(path) in str(error.value) and not counted


def test_record_of_another_kind_is_named(tmp_path, counted):
    """Equal settings of another class: if it fails, a page shows what another computation found."""
    path = tmp_path / f"{TINY.key}.json"
    save(sealed(TINY, kind="Robustness"), path)
    with pytest.raises(ValueError, match="another kind: Robustness, not Run") as error:
        run_all([TINY], tmp_path)
    assert str(path) in str(error.value) and not counted


# --- many runs -----------------------------------------------------------------------------------


def test_only_what_is_missing_is_run(tmp_path, counted):
    """If it fails, a batch that was stopped starts again from the beginning, or skips runs."""
    run_all(RUNS[:2], tmp_path, jobs=1)
    (tmp_path / f"{RUNS[0].key}.json").unlink()
    counted.clear()
    found = run_all([*RUNS, RUNS[3]], tmp_path, jobs=1)
    assert {run.method for run in counted} == set(METHODS) - {RUNS[1].method} and len(counted) == 4
    assert [record["config"] for record in found] == [run.config for run in [*RUNS, RUNS[3]]]
    counted.clear()
    assert run_all(RUNS, tmp_path, jobs=1) == found[:-1] and not counted


def test_a_stopped_batch_keeps_what_is_done(tmp_path, monkeypatch, counted):
    """Ctrl-C in the third run: if it fails, finished runs are lost."""
    count = Run.execute

    def stop_at_third(run):
        if len(counted) == 2:
            raise KeyboardInterrupt
        return count(run)

    monkeypatch.setattr(Run, "execute", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        run_all(RUNS, tmp_path, jobs=1)
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(run.key for run in RUNS[:2])


def test_processes_compute_the_same_records(tmp_path, records):
    """Two at a time: if it fails, results depend on how runs are spread over cores."""
    parallel = run_all(RUNS[:2], tmp_path, jobs=2)
    assert list(map(timeless, parallel)) == list(map(timeless, records[1][:2]))
