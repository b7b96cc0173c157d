"""Recorded runs of the second paper: on the bundled digits, seconds each."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lnn_core import data, lrrn
from lnn_core.convex import Identity
from lnn_core.experiments import attacks, lrrn_paper, lrrn_runs, lrrn_studies
from lnn_core.experiments.lrrn_runs import Classification, Reconstruction
from lnn_core.experiments.training import accuracy, seeded_generator

SMALL = Classification("digits", samples=300, epochs=4, batch=50, hidden=(12, 8), attacked=None)
UNSUPERVISED = Reconstruction("digits", samples=300, epochs=4, batch=50, hidden=(8, 4))


@pytest.fixture(scope="module")
def trained():
    """A record of SMALL with attacks, and the networks after each of its epochs."""
    seen, patch = [], pytest.MonkeyPatch()
    measured = lrrn_runs.lipschitz

    def spy(net, refined=False):
        if not refined:
            seen.append({name: value.clone() for name, value in net.state_dict().items()})
        return measured(net, refined=refined)

    patch.setattr(lrrn_runs, "lipschitz", spy)
    patch.setattr(attacks, "ATTACKS", {"deepfool": attacks.ATTACKS["deepfool"]})
    record = replace(SMALL, attacked=6).record()
    patch.undo()
    return json.loads(json.dumps(record, allow_nan=False)), seen


def network(weights):
    net = SMALL.network(64)
    net.load_state_dict(weights)
    return net


def test_history_is_that_of_the_networks(trained):
    """If it fails, a quantity is measured on another split, or belongs to another epoch."""
    record, weights = trained
    digits = data.load("digits")
    for epoch, state in enumerate(weights):
        net = network(state)
        for name, split in (("train", digits.subset(300, 0)), ("validation", digits.validation),
                            ("test", digits.test)):
            assert record["history"][name][epoch] == accuracy(net, split)
        # Corollary 2 by another library: the last weight's largest singular value
        norm = np.linalg.norm(net.weights[-1].detach().double().numpy(), 2)
        assert math.isclose(record["history"]["lipschitz"][epoch], norm, rel_tol=1e-9)
        top = net(digits.test.x).detach().topk(2).values
        radii = (top[:, 0] - top[:, 1]) / (2**0.5 * norm)
        assert math.isclose(record["history"]["radius"][epoch], radii.median(), abs_tol=1e-3)
    assert {len(values) for values in record["history"].values()} == {SMALL.epochs}


def test_the_result_is_the_best_epochs(trained):
    """If it fails, the last network is described instead of the chosen one."""
    record, weights = trained
    result, history = record["result"], record["history"]
    best = int(np.argmax(history["validation"]))  # the first of equals
    assert result["best_epoch"] == best + 1
    for name in ("validation", "test", "train", "lipschitz", "refined", "radius"):
        assert result[name] == history[name][best]
    digits, net = data.load("digits"), network(weights[best])
    radius = lrrn.certified_radius(net, digits.test.x)
    right = net(digits.test.x).argmax(1) == digits.test.y
    shares = [float((right & (radius > r)).double().mean()) for r in lrrn_runs.RADII]
    np.testing.assert_allclose(result["certified"], shares, atol=0.01)
    assert 0 < result["lower"] <= result["refined"] <= result["lipschitz"] * (1 + 1e-9)


def test_no_attack_beats_its_certificate(trained):
    """If it fails, radii and lengths belong to different images, or either is wrong."""
    record, _ = trained
    found, result = record["attacks"], record["result"]
    lengths = found["distance"]["deepfool"]
    assert len(lengths) == len(found["radius"]) == len(found["correct"]) == 6
    assert all(length >= radius for length, radius in zip(lengths, found["radius"]))
    assert result["closest"] == min(d / r for d, r in zip(lengths, found["radius"])) >= 1
    assert result["attack"] == sorted(lengths)[2]  # torch's median: the lower of the two


def test_radii_against_brute_force(monkeypatch):
    """If it fails, a change shorter than the recorded radius turns a prediction: 20,000 random
    directions on an image of two pixels, each just within the radius."""
    monkeypatch.setattr(attacks, "ATTACKS", {"deepfool": attacks.ATTACKS["deepfool"]})
    net = lrrn.LRRN([2, 3, 2], generator=torch.Generator().manual_seed(1))
    x = torch.rand(4, 2, generator=torch.Generator().manual_seed(2))
    split = data.Split(x, net(x).argmax(1))
    judge, found = lrrn_runs.exact(net), lrrn_runs.attack(net, split, 4)
    angle = torch.linspace(0, 2 * math.pi, 20_000, dtype=torch.float64)
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    for image, radius, label in zip(x.double(), found["radius"], split.y):
        assert radius > 0
        assert (judge(image + 0.999999 * radius * circle).argmax(1) == label).all()
    assert found["correct"] == [True] * 4


def test_equal_settings_equal_findings():
    """If it fails, anything but the configuration decides what is found."""
    one, two = (replace(SMALL, epochs=2).execute() for _ in range(2))
    assert one == two
    assert replace(SMALL, epochs=2, seed=1).execute()["history"] != one["history"]


def test_pretraining_trains_the_features_alone():
    """If it fails, pretraining is skipped, does not lower the energy, or changes the output layer,
    which is free and without reconstruction and so has nothing to learn from it."""
    run = replace(SMALL, epochs=1, pretraining=3)
    record, plain = run.execute(), replace(run, pretraining=None).execute()
    losses = record["pretraining"]["objective"]
    assert len(losses) == 3 and losses[2] < losses[0] and plain["pretraining"] is None
    net = run.network(64)
    last = net.weights[-1].detach().clone()
    lrrn_runs._train(net, lrrn.Unsupervised(), run._train_split(), [{"params": net.parameters()}],
                     run, 2, dict)
    torch.testing.assert_close(net.weights[-1].detach(), last, rtol=0, atol=1e-3)
    assert (net.weights[0] - run.network(64).weights[0]).abs().max() > 0.01


# --- energies ----------------------------------------------------------------------------------------


def test_the_energy_of_one_linear_layer_in_closed_form():
    """If it fails, ½ is lost or a term is missing. One free layer, β = 1, no biases: each mode of W
    with singular value s leaves (1 − s²)²/(1 + s²)/2 of its share of ‖x‖², the rest ½."""
    g = torch.Generator().manual_seed(0)
    net = lrrn.LRRN([5, 3], Identity(), beta=1.0, generator=g)
    x = torch.randn(20, 5, generator=g)
    _, s, V = torch.linalg.svd(net.weights[0].detach().double())
    share = (x.double() @ V.T).square()
    modes = torch.cat([(1 - s**2) ** 2 / (1 + s**2), torch.ones(2, dtype=s.dtype)])
    torch.testing.assert_close(lrrn_runs.energies(net, x), share @ modes / 2, rtol=1e-4, atol=1e-6)


def test_a_reconstruction_record():
    """If it fails, an energy is of other images than its name says."""
    record = json.loads(json.dumps(UNSUPERVISED.record(), allow_nan=False))
    digits, history = data.load("digits"), record["history"]
    assert history["objective"][-1] < history["objective"][0]
    assert set(record["result"]) == {"digits", "mirrored", "gaussian"}
    seen = {}
    measured = lrrn_runs.energies
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lrrn_runs, "energies",
                      lambda net, x: seen.setdefault(x.shape[0] * 1000 + len(seen), (net, x))
                      and measured(net, x))
        UNSUPERVISED.execute()
    net, _ = list(seen.values())[-1]
    e = measured(net, digits.test.x).numpy()
    flipped = measured(net, torch.tensor(np.fliplr(digits.test.x.numpy().reshape(-1, 8, 8)
                       .transpose(1, 2, 0)).transpose(2, 0, 1).reshape(-1, 64).copy())).numpy()
    for name, values in (("digits", e), ("mirrored", flipped)):
        assert math.isclose(record["result"][name]["mean"], values.mean(), rel_tol=1e-4)
        assert math.isclose(record["result"][name]["sd"], values.std(ddof=1), rel_tol=1e-3)
    W, read = net.weights[0].detach(), lrrn_runs.filters(record)
    bound = W.abs().amax(1, keepdim=True) / 254
    assert ((read - W).abs() <= bound * 1.001).all()


def test_without_biases():
    """If it fails, the setting is ignored, or renames the records of runs that do not use it."""
    run = replace(UNSUPERVISED, bias=False)
    assert "bias" not in UNSUPERVISED.config and run.key != UNSUPERVISED.key
    W = run.network(64).weights[0]
    assert torch.equal(W, UNSUPERVISED.network(64).weights[0])
    trained = [p.numel() for p in run.network(64).parameters() if p.requires_grad]
    assert trained == [64 * 8, 8 * 4]
    assert replace(run, epochs=1).execute()["filters"] != replace(
        UNSUPERVISED, epochs=1).execute()["filters"]


def test_the_gaussian_has_the_moments_of_the_pixels():
    """If it fails, one variance serves all pixels, or pixels are correlated."""
    g = torch.Generator().manual_seed(0)
    common = torch.randn(400, 1, generator=g)
    x = torch.cat([common, 3 * common + 1, torch.full((400, 1), 0.25)], 1)
    drawn = lrrn_runs.gaussian(x, 40_000, g)
    torch.testing.assert_close(drawn.mean(0), x.mean(0), rtol=0, atol=0.06)
    torch.testing.assert_close(drawn.std(0), x.std(0), rtol=0.02, atol=1e-6)
    assert abs(np.corrcoef(drawn[:, :2].T.numpy())[0, 1]) < 0.02
    again = [lrrn_runs.gaussian(x, 5, g.manual_seed(3)) for _ in range(2)]
    assert torch.equal(*again), "not the run's own generator"


def test_equal_validation_keeps_the_first_network(monkeypatch):
    """If it fails, the network that is described is not the one whose epoch is named."""
    monkeypatch.setattr(lrrn_runs, "accuracy", lambda net, split: 0.5)
    kept, load = [], lrrn.LRRN.load_state_dict
    monkeypatch.setattr(lrrn.LRRN, "load_state_dict",
                        lambda net, state: kept.append(state) or load(net, state))
    run = replace(SMALL, epochs=2)
    found, first = run.execute(), replace(run, epochs=1)
    first.execute()
    assert found["result"]["best_epoch"] == 1
    assert all(torch.equal(a, b) for a, b in zip(kept[0].values(), kept[1].values()))


# --- configurations ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make, complaint", [
    (lambda: Classification("svhn"), "dataset='svhn' must be one of mnist, kmnist"),
    (lambda: Classification(epochs=0), "epochs=0 must be at least 1"),
    (lambda: Classification(batch=0), "batch=0 must be at least 1"),
    (lambda: Classification(samples=0), "samples=0 must be at least 1"),
    (lambda: Classification(decay=-1.0), "decay=-1.0 must be finite and not negative"),
    (lambda: Classification(attacked=0), "attacked=0 must be at least 1"),
    (lambda: Classification(pretraining=0), "pretraining=0 must be at least 1"),
    (lambda: Classification(learning_rate=0.0), "learning_rate=0.0 must be positive and finite"),
    (lambda: Classification(init="ones"), "init"),
    (lambda: Classification(hidden=(0,)), "0"),
    (lambda: Reconstruction(activation="tanh"), "activation='tanh' must be one of identity, relu"),
])
def test_bad_settings_are_named(make, complaint):
    """If it fails, a wrong setting shows up only after hours of training."""
    with pytest.raises(ValueError, match=complaint):
        make()


def test_the_settings_of_published_records():
    """If it fails, a default changes: records that are published no longer belong to it."""
    shared = {"dataset": "mnist", "seed": 0, "batch": 100, "epochs": 15, "learning_rate": 1e-3,
              "init": "normal"}
    assert Classification().config == shared | {"hidden": [64, 64], "decay": 5e-3, "attacked": 200}
    assert Reconstruction().config == shared | {"activation": "relu", "hidden": [32, 32]}
    assert lrrn_runs.LOOKED_AT == 500 and lrrn_runs.RADII[::10] == (0, 1, 2)
    assert (lrrn_runs._CLOSE.tolerance, lrrn_runs._CLOSE.max_passes) == (1e-5, 100)
    assert lrrn_runs._EXACT.tolerance == 1e-8 and lrrn.LRRN.solver.tolerance == 1e-4


def test_costs_are_in_images():
    """If it fails, the time that is said to be left does not count what a run looks at."""
    run = Classification("digits", samples=50, epochs=3, attacked=None)
    assert run.cost == 150
    assert replace(run, pretraining=6).cost == 250 and replace(run, attacked=2).cost == 750
    assert [replace(run, dataset=name, samples=None, epochs=1).cost
            for name in ("mnist", "kmnist", "digits")] == [5e4, 6e3, 1e3]


def test_preparing_loads_what_runs_read(monkeypatch):
    """If it fails, a worker without a network has to download in the middle of a run."""
    asked = []
    monkeypatch.setattr(lrrn_runs, "dataset_of",
                        lambda name, partial: asked.append(name if partial else None))
    Classification("kmnist").prepare()
    Reconstruction("mnist").prepare()
    Reconstruction("digits").prepare()
    assert asked == ["kmnist", *lrrn_runs.DATASETS, "digits"]


@pytest.mark.parametrize("run", [SMALL, UNSUPERVISED], ids=lambda run: run.kind)
def test_runs_read_what_was_prepared(monkeypatch, run):
    """If it fails, where only a part of a training set is to be had, a run refuses it or takes another."""
    asked, load = [], lrrn_runs.dataset_of
    monkeypatch.setattr(lrrn_runs, "dataset_of",
                        lambda name, partial=False: asked.append((name, partial)) or load(name))
    replace(run, epochs=1).record()
    assert set(asked) == {("digits", True)}


@pytest.mark.parametrize("run", [SMALL, UNSUPERVISED], ids=lambda run: run.kind)
def test_initial_weights_are_the_seeds(run):
    """The stream "weights" of the seed, as for the networks of the other paper. If it fails, the published
    records cannot be computed again."""
    for seed in (0, 3):
        first = replace(run, seed=seed).network(64).weights[0]
        drawn = torch.empty(first.shape).normal_(0, 1 / 8, generator=seeded_generator(seed, "weights"))
        assert torch.equal(first, drawn)


def test_the_lists_hold_distinct_runs_of_the_papers_sizes():
    """If it fails, two runs of a page share a record, or a list leaves the paper's sizes."""
    lists = [lrrn_studies.figure1(), lrrn_studies.table1(), lrrn_studies.figure2(),
             lrrn_studies.pretrained(), lrrn_studies.decays(), lrrn_studies.figure3()]
    for runs in lists:
        assert len({run.key for run in runs}) == len(runs)
    assert all(run.hidden == (32, 32) for runs in lists[:2] for run in runs)
    assert all(run.hidden == (64, 64) for runs in lists[2:5] for run in runs)
    assert [run.epochs for run in lrrn_studies.figure3()] == [100, 100]
    assert [run.hidden for run in lrrn_studies.figure3()] == [(256, 256)] * 2
    epochs = {"mnist": 15, "kmnist": 120, "fashion-mnist": 15}
    for runs in lists[1:5]:
        assert all(run.epochs == epochs[run.dataset] for run in runs)
    assert [run.pretraining for run in lrrn_studies.pretrained()] == [5] * 6
    assert [run.decay for run in lrrn_studies.decays()] == [1e-3, 2e-3, 1e-2, 2e-2]
    assert all(run.attacked is None for runs in lists[3:5] for run in runs)
    assert [len(runs) for runs in lists] == [9, 9, 9, 6, 4, 2]


def test_the_papers_figures_add_up():
    """If it fails, a number was changed in typing: sums added by hand."""
    for row, mean, spread in (("mnist", 145.5, 30.0), ("kmnist", 270.8, 73.1),
                              ("fashion-mnist", 177.2, 63.9)):
        cells = [value for (name, _), value in lrrn_paper.TABLE_1.items() if name == row]
        assert np.sum(cells, 0) == pytest.approx([mean, spread])
    assert np.sum(list(lrrn_paper.FIGURE_2.values()), 0) == pytest.approx([268.5, 2.96, 1.67])
    assert np.sum(list(lrrn_paper.FIGURE_3.values()), 0) == pytest.approx([98.77, 2.0081, 0.19])
