"""Trained lifted networks with an LRRN's measures: on the bundled digits, seconds in all."""

import copy
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lnn_core import LiftedNetwork, data
from lnn_core.data import Split
from lnn_core.experiments import attacks, robustness, runs, training
from lnn_core.experiments.lrrn_runs import RADII, Classification
from lnn_core.experiments.robustness import Robustness
from lnn_core.experiments.training import accuracy, seeded_generator

#: So large a learning rate that the last epoch is not the best.
SMALL = Robustness("digits", samples=300, epochs=4, batch=50, hidden=(12, 8), learning_rate=0.03,
                   attacked=None)


@pytest.fixture(scope="module")
def trained():
    """A record of SMALL with attacks, and the network after each of its epochs."""
    seen, patch = [], pytest.MonkeyPatch()
    bound = robustness.lipschitz.certified

    def spy(net):
        state = {name: value.clone() for name, value in net.state_dict().items()}
        if len(seen) < SMALL.epochs:
            seen.append(state)
        return bound(net)

    patch.setattr(robustness.lipschitz, "certified", spy)
    patch.setattr(attacks, "ATTACKS", {"deepfool": attacks.ATTACKS["deepfool"]})
    record = replace(SMALL, attacked=6).record()
    patch.undo()
    return json.loads(json.dumps(record, allow_nan=False)), seen


def network(state):
    net = SMALL.run.network(64)
    net.load_state_dict(state)
    return net


def slopes(net, x):
    """‖∂z_L/∂x‖₂ at each sample by autograd, float64."""
    net = network(net.state_dict()).double()
    J = torch.autograd.functional.jacobian(lambda x: net(x).sum(0), x.double()).transpose(0, 1)
    return torch.linalg.matrix_norm(J, 2)


def test_training_is_the_runs():
    """If it fails, there is a second way to train: histories of equal settings would part."""
    found, plain = SMALL.execute(), SMALL.run.execute()
    for name, curve in plain["history"].items():
        assert found["history"][name] == curve
    for name, value in plain["result"].items():
        assert found["result"][name] == value
    assert found["attacks"] is None


def test_history_is_that_of_the_networks(trained):
    """If it fails, radii or bounds belong to another epoch or other images."""
    record, weights = trained
    digits, history = data.load("digits"), record["history"]
    for epoch, state in enumerate(weights):
        net = network(state)
        assert history["test"][epoch] == accuracy(net, digits.test)
        top = net(digits.test.x).detach().topk(2).values
        margins = (top[:, 0] - top[:, 1]).numpy()
        rho = history["lipschitz"][epoch]
        middle = np.sort(margins)[(len(margins) - 1) // 2]  # torch's median
        assert math.isclose(history["radius"][epoch], middle / (2**0.5 * rho), rel_tol=1e-5)
        norms = [np.linalg.norm(W.detach().double().numpy(), 2) for W in net.weights]
        assert slopes(net, digits.test.x[:50]).max() <= rho <= np.prod(norms) * (1 + 1e-9)


def test_the_result_is_the_best_epochs(trained):
    """If it fails, the last network is described instead of the chosen one."""
    record, weights = trained
    result, history = record["result"], record["history"]
    best = int(np.argmax(history["validation"]))  # the first of equals
    assert result["best_epoch"] == best + 1 < SMALL.epochs
    for name in ("validation", "test", "train", "lipschitz", "radius"):
        assert result[name] == history[name][best]
    digits, net = data.load("digits"), network(weights[best])
    assert math.isclose(result["lower"], slopes(net, digits.validation.x[:500]).max(),
                        rel_tol=1e-6)
    right = net(digits.test.x).argmax(1) == digits.test.y
    radius = robustness.radii(net, digits.test.x)
    shares = [float((right & (radius > r)).double().mean()) for r in RADII]
    np.testing.assert_allclose(result["certified"], shares, atol=1e-9)
    assert result["lower"] <= result["lipschitz"] <= result["trivial"] * (1 + 1e-9)


def test_no_attack_beats_its_certificate(trained):
    """If it fails, radii and lengths belong to different images, or either is wrong."""
    found, result = trained[0]["attacks"], trained[0]["result"]
    lengths = [math.inf if d is None else d for d in found["distance"]["deepfool"]]
    assert len(lengths) == len(found["radius"]) == len(found["correct"]) == 6
    assert result["closest"] == min(d / r for d, r in zip(lengths, found["radius"])) >= 1
    middle = sorted(lengths)[2]  # torch's median: the lower of the two
    assert result["attack"] == (middle if math.isfinite(middle) else None)


def test_the_radius_of_two_outputs_in_closed_form():
    """If it fails, √2 or the constant is misplaced. One linear layer with outputs ±wᵀx: the
    margin 2|wᵀx| and ρ = √2‖w‖ give |wᵀx|/‖w‖, the distance to the border, exactly."""
    net = LiftedNetwork([3, 2], bias=False, dtype=torch.float64)
    w = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    with torch.no_grad():
        net.weights[0].copy_(torch.stack([w, -w]))
    x = torch.randn(20, 3, dtype=torch.float64, generator=seeded_generator(0, "x"))
    torch.testing.assert_close(robustness.radii(net, x), (x @ w).abs() / w.norm())


def test_radii_against_brute_force(monkeypatch):
    """If it fails, a change shorter than the recorded radius turns a prediction: 20,000 random
    directions on an image of two pixels, each just within the radius."""
    monkeypatch.setattr(attacks, "ATTACKS", {"deepfool": attacks.ATTACKS["deepfool"]})
    net = LiftedNetwork([2, 3, 2], generator=seeded_generator(1, "weights"))
    x = torch.rand(4, 2, generator=seeded_generator(2, "images"))
    found = robustness.attack(net, Split(x, net(x).argmax(1)), 4)
    angle = torch.linspace(0, 2 * math.pi, 20_000)
    circle, predicted = torch.stack([angle.cos(), angle.sin()], 1), net(x).argmax(1)
    for image, radius, label in zip(x, found["radius"], predicted):
        assert radius > 0
        assert (net(image + 0.9999 * radius * circle).argmax(1) == label).all()


def test_a_run_that_diverges_at_once_has_no_result(monkeypatch):
    """If it fails, a diverged run ends in an exception instead of a record."""
    def fails(*_, **__):
        raise runs.InferenceDiverged("not finite")

    monkeypatch.setattr(runs, "fit", fails)
    record = json.loads(json.dumps(SMALL.execute(), allow_nan=False))
    assert record["result"] is None and record["diverged"] == "not finite"


def test_a_network_that_collapses_is_recorded(monkeypatch):
    """If it fails, a constant network ends its run. No change alters its prediction, so that
    attacks find none; a radius of 0 is a lower bound of ∞, and as much as JSON can hold."""
    train = training.train_epoch

    def collapses(net, *others, **options):
        done = train(net, *others, **options)
        with torch.no_grad():
            net.weights[0].zero_()
        return done

    monkeypatch.setattr(training, "train_epoch", collapses)
    monkeypatch.setattr(attacks, "ATTACKS", {"deepfool": attacks.ATTACKS["deepfool"]})
    record = json.loads(json.dumps(replace(SMALL, epochs=2, attacked=3).record(), allow_nan=False))
    history, result = record["history"], record["result"]
    assert history["lipschitz"] == history["radius"] == [0.0, 0.0]
    assert result["lower"] == result["trivial"] == 0 and not any(result["certified"])
    assert result["attack"] is None and result["closest"] is None
    assert record["attacks"]["radius"] == [0.0] * 3
    assert record["attacks"]["distance"] == {"deepfool": [None] * 3}


@pytest.mark.parametrize("make, complaint", [
    (lambda: Robustness(method="sgd"), "method='sgd' must be one of"),
    (lambda: Robustness(beta=-1.0), "beta=-1"),
    (lambda: Robustness(init="ones"), "init"),
    (lambda: Robustness(epochs=0), "epochs=0 must be at least 1"),
    (lambda: Robustness(samples=0), "samples=0 must be at least 1"),
    (lambda: Robustness(batch=0), "batch=0 must be at least 1"),
    (lambda: Robustness(attacked=0), "attacked=0 must be at least 1"),
    (lambda: Robustness(samples=None), "samples=None must be an integer"),
    (lambda: Robustness("mnits"), "dataset='mnits' must be one of"),
    (lambda: Robustness(learning_rate=0.0), "learning_rate=0"),
    (lambda: robustness.radii(LiftedNetwork([2, 1]), torch.zeros(1, 2)), "at least 2 outputs"),
    (lambda: robustness.radii(LiftedNetwork([2, 2]), torch.zeros(1, 2), rho=0.0), "rho=0"),
    (lambda: robustness.radii(LiftedNetwork([2, 2]), torch.zeros(2)), "x has shape"),
])
def test_bad_settings_are_named(make, complaint):
    """If it fails, a wrong setting shows up only after training."""
    with pytest.raises(ValueError, match=complaint):
        make()


def test_the_settings_of_published_records():
    """If it fails, a default changes: records that are published no longer belong to it."""
    assert Robustness().config == {
        "dataset": "mnist", "seed": 0, "method": "arovr", "beta": 0.25, "samples": 50_000,
        "hidden": [64, 64], "epochs": 15, "batch": 100, "learning_rate": 1e-3, "init": "uniform",
        "attacked": 200}
    assert Robustness(samples=50, epochs=3, attacked=2).cost == 750
    assert Robustness(samples=50, epochs=3, attacked=None).cost == 150
    assert robustness.TRAINED == (("backprop", None), ("rovr", 0.25), ("arovr", 0.25),
                                  ("arovr", 0.5), ("arovr_ab", 0.25))


def test_a_network_of_another_kind_is_named():
    """If it fails, a float in a network's place ends in an AttributeError."""
    with pytest.raises(TypeError, match=r"net is a float \(0.5\); expected a LiftedNetwork"):
        robustness.radii(0.5, torch.zeros(1, 2))


def test_one_network_gives_margins_and_bound():
    """If it fails, the bound is of one network and the margins are of another: each time that its
    weight is computed, a spectral norm moves on. Without it the radius is that of W/‖W‖₂ as
    the power iteration has it, one step after the last."""
    torch.manual_seed(0)
    net, x = LiftedNetwork([4, 3], generator=seeded_generator(0, "weights")), torch.ones(1, 4)
    torch.nn.utils.parametrizations.spectral_norm(net.connections[0], "weight")
    calls = []
    net.connections[0].parametrizations.weight[0].register_forward_hook(lambda *_: calls.append(1))
    robustness.radii(net, x)
    assert len(calls) == 1
    calls.clear()
    robustness._recorded_radii(net, x)
    assert len(calls) == 1


def test_radii_of_networks_in_half_precision():
    """If it fails, margins are rounded to bfloat16. Oracle: the same weights in float64."""
    net = LiftedNetwork([4, 8, 3], generator=seeded_generator(0, "weights"), dtype=torch.bfloat16)
    x = torch.linspace(-1, 1, 20).view(5, 4).bfloat16()
    radii, exact = robustness.radii(net, x), robustness.radii(copy.deepcopy(net).double(), x.double())
    torch.testing.assert_close(radii.double(), exact, rtol=1e-4, atol=1e-6)


def test_the_runs_compared_differ_in_nothing_but_the_network():
    """If it fails, one side gets more images or epochs, another size, or fewer attacks."""
    runs = robustness.by_training_and_construction()
    assert len({run.key for run in runs}) == len(runs)
    for name in ("hidden", "epochs", "batch", "learning_rate", "attacked"):
        assert len({getattr(run, name) for run in runs}) == 1
    ours = [run for run in runs if isinstance(run, Robustness)]
    theirs = [run for run in runs if isinstance(run, Classification)]
    assert {run.samples for run in ours} == {50_000}  # MNIST without validation
    assert {run.samples for run in theirs} == {None}  # all of them
    assert len({run.init for run in ours}) == 1
    assert {(run.dataset, run.seed) for run in ours} == {(run.dataset, run.seed) for run in theirs}
    assert {run.beta for run in ours if run.method == "arovr"} == {0.25, 0.5}
