"""Attacks: against networks whose smallest change is known in closed form."""

import pytest
import torch
from torch import nn

from lnn_core.data import Split
from lnn_core.experiments import attacks

FAST = ["deepfool", "fast_minimum_norm"]


def linear(seed=0, d=6, classes=3):
    """Random linear logits, and images from the middle of the box."""
    g = torch.Generator().manual_seed(seed)
    net = nn.Linear(d, classes)
    with torch.no_grad():
        net.weight.copy_(torch.randn(classes, d, generator=g))
        net.bias.copy_(0.1 * torch.randn(classes, generator=g))
    return net, 0.5 + 0.05 * torch.randn(12, d, generator=g)


def distances(net, x):
    """The distance of x to the nearest other class of a linear classifier: min over j of
    (margin to j)/‖w_i − w_j‖, as every textbook has it."""
    out, W = net(x).double(), net.weight.double()
    best = out.argmax(1)
    gaps = out.gather(1, best[:, None]) - out
    norms = (W[best][:, None] - W[None]).norm(dim=2)
    return torch.where(gaps > 0, gaps / norms, torch.inf).min(1).values.detach()


@pytest.mark.parametrize("name", FAST)
def test_linear_classifiers_in_closed_form(name):
    """If it fails, lengths are not those of successful changes, or are far from the smallest."""
    net, x = linear()
    found = attacks.minimal_perturbations(net, x, [name], bounds=(-9.0, 9.0), bisections=20)[0]
    smallest = distances(net, x)
    assert (found >= smallest * (1 - 1e-5)).all()
    assert (found <= smallest * 1.05).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_no_change(monkeypatch, value):
    """Here any finite change of the first pixel turns the prediction. If it fails, an attack that
    ran away is counted with a length that it never found."""
    net = nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.0, 0.0], [1e3, 0.0], [-1e3, 0.0]]))

    def lost(model, x, labels, epsilons):
        return None, torch.tensor([[value, 0.0]]), None

    monkeypatch.setattr(attacks, "ATTACKS", {"lost": lost})
    assert attacks.minimal_perturbations(net, torch.zeros(1, 2), bounds=(-9.0, 9.0)).isinf().all()


def test_bisection_takes_off_what_an_attack_overshoots(monkeypatch):
    """If it fails, x′ is not moved back: this attack goes twice as far as it must."""
    net, x = linear(classes=2)
    smallest = distances(net, x).float()
    W = net.weight.detach()
    towards = nn.functional.normalize(W[1] - W[0], dim=0) * (1 - 2 * net(x).argmax(1)[:, None])

    def far(model, x, labels, epsilons):
        return None, x + 2 * smallest[:, None] * towards, None

    monkeypatch.setattr(attacks, "ATTACKS", {"far": far})
    box = {"bounds": (-9.0, 9.0)}
    torch.testing.assert_close(attacks.minimal_perturbations(net, x, bisections=0, **box)[0], 2 * smallest)
    for steps in (1, 4, 18):
        found = attacks.minimal_perturbations(net, x, bisections=steps, **box)[0]
        assert (found >= smallest * (1 - 1e-4)).all()
        assert (found <= smallest * (1 + 2.0 ** (1 - steps) + 1e-4)).all()


def test_failures_are_infinite(monkeypatch):
    """If it fails, an attack that stays, fails or breaks down counts as a small change."""
    net, x = linear(classes=2)
    results = {"stays": x, "nan": x * torch.nan}
    monkeypatch.setattr(attacks, "ATTACKS", {name: lambda *_, out=out, **__: (None, out, None)
                                             for name, out in results.items()})
    assert attacks.minimal_perturbations(net, x).isinf().all()


def test_the_judge_decides(monkeypatch):
    """If it fails, an inexact network's mistake passes for success."""
    net, x = linear(classes=2)
    stubborn = nn.Linear(6, 2).double()
    nn.init.zeros_(stubborn.weight)
    assert attacks.minimal_perturbations(net, x, ["deepfool"], judge=stubborn).isinf().all()
    exact = nn.Linear(6, 2).double()
    exact.load_state_dict(net.state_dict())
    found = attacks.minimal_perturbations(net, x, ["deepfool"], judge=exact, bounds=(-9.0, 9.0))
    assert found.dtype == torch.float64 and found.isfinite().all()


def test_the_network_is_left_alone():
    """If it fails, an attack fills gradients or leaves the network in another mode."""
    net, x = linear()
    net.train()
    attacks.minimal_perturbations(net, x, FAST)
    assert net.training and all(p.grad is None and p.requires_grad for p in net.parameters())


def test_the_settings_of_published_records():
    """If it fails, an attack's settings change: published lengths were found with these."""
    found = {name: {key: value for key, value in vars(attack).items() if key in (
        "steps", "gamma", "stepsize", "binary_search_steps", "initial_const", "overshoot")}
        for name, attack in attacks.ATTACKS.items()}
    assert found == {
        "deepfool": {"steps": 50, "overshoot": 0.02},
        "fast_minimum_norm": {"steps": 100, "gamma": 0.2, "binary_search_steps": 10},
        "carlini_wagner": {"binary_search_steps": 4, "steps": 300, "stepsize": 0.01,
                           "initial_const": 1.0}}


def test_all_attacks_have_a_row():
    """If it fails, one of the attacks does not run with the libraries installed."""
    net, x = linear()
    found = attacks.minimal_perturbations(net, x[:2], bounds=(-9.0, 9.0))
    assert found.shape == (len(attacks.ATTACKS), 2)
    torch.testing.assert_close(found.min(0).values.double(), distances(net, x[:2]), rtol=0.01, atol=0)


@pytest.mark.parametrize("settings, complaint", [
    ({"attacks": ["deepfool", "magic"]}, "unknown attack 'magic'"),
    ({"bounds": (0.5, 1.0)}, r"x lies in \[.*\], not within \(0.5, 1.0\)"),
])
def test_bad_settings_before_any_computing(settings, complaint, monkeypatch):
    """If it fails, a wrong name shows up only after the first attack has run."""
    net, x = linear()
    monkeypatch.setattr(net, "forward", lambda _: pytest.fail("computed before checking"))
    with pytest.raises(ValueError, match=complaint):
        attacks.minimal_perturbations(net, x, **settings)


@pytest.mark.parametrize("change, complaint", [
    ({"net": 0.5}, r"net is a float \(0.5\); expected a torch.nn.Module"),
    ({"judge": "exact"}, r"judge is a str \('exact'\); expected a torch.nn.Module"),
    ({"x": [[0.5]]}, "x is a list .*; expected a tensor"),
    ({"attacks": "deepfool"}, r"attacks is a str \('deepfool'\); expected names"),
])
def test_arguments_of_another_kind(change, complaint):
    """If it fails, a float in a network's place ends in an error deep inside foolbox."""
    net, x = linear()
    with pytest.raises(TypeError, match=complaint):
        attacks.minimal_perturbations(**{"net": net, "x": x} | change)
    with pytest.raises(ValueError, match="bisections=-1 must be at least 0"):
        attacks.minimal_perturbations(net, x, bisections=-1)


def test_what_no_attack_turns_is_none_in_a_record(monkeypatch):
    """If it fails, infinity, which JSON lacks, gets into a record, or a failure counts as a
    success: this attack moves only the first image, to the other side of its border."""
    net, x = linear(classes=2)
    smallest = distances(net, x).float()
    W = net.weight.detach()
    towards = nn.functional.normalize(W[1] - W[0], dim=0) * (1 - 2 * net(x).argmax(1)[:, None])

    def first_only(model, x, labels, epsilons):
        reach = torch.zeros(len(x), 1)
        reach[0] = 1.5
        return None, x + reach * smallest[:, None] * towards, None

    monkeypatch.setattr(attacks, "ATTACKS", {"first": first_only})
    split = Split(x, net(x).argmax(1))
    found = attacks.evaluate_attacks(net, net, split, smallest / 2)
    length, *rest = found["distance"]["first"]
    assert length == pytest.approx(float(smallest[0]), rel=2e-3) and set(rest) == {None}
    assert found["correct"] == [True] * len(x)
    assert found["summary"] == {"attack": None, "closest": pytest.approx(2, rel=2e-3)}
