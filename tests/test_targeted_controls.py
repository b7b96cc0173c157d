"""Negative controls of the statements of section 4, as in test_propositions_controls; instances."""

from pathlib import Path

import numpy as np
import pytest
import torch
from controls import DELTA, ONE_LAYER, close, f64, slack, toy_of

import lnn_core as lnn
from lnn_core import oracle
from lnn_core import propositions as P
from lnn_core.propositions import adversarial, targeted, toys


def test_targeted_sandwich(replace):
    """ROVR_{α,β} above αℓ(z̃), AROVR_{α,β} below; z̃ minimises ᾱβℓ⁻ + U^g. If it fails, they go
    unnoticed; so with all controls below."""
    toy = toy_of("targeted_sandwich")
    _, z = oracle.minimum(toy.net, toy.x,
                          toy.tilted + (1 - toy.alpha) * toy.beta * lnn.Euclidean(toy.wrong))
    middle = toy.alpha * 0.5 * (z[-1].detach() - toy.y).square().sum(1)
    replace(targeted, exact=lambda toy, objective: middle + (
        DELTA if isinstance(objective, lnn.TargetedROVR) else -2 * DELTA))
    close(slack("targeted_sandwich", toy), [-DELTA, -2 * DELTA])


@pytest.mark.parametrize("name, value, side", [
    ("no_attack", lambda toy, a: a * adversarial.arovr(toy, a * toy.beta), 1),
    ("untargeted_attack", lambda toy, a: adversarial.arovr(toy)
     - (1 - a) * adversarial.arovr(toy, (1 - a) * toy.beta), 1),
    ("helpful_attack", lambda toy, a: a * adversarial.rovr(toy, a * toy.beta), -1),
])
def test_special_attacks(name, value, side, replace):
    """The equality off by δ; the bound of αℓ(z*) crossed by δ. If it fails, they go unnoticed."""
    toy = toy_of(name)
    true, bound = value(toy, toy.alpha), toy.alpha * toy.forward_loss
    for wrong, part in ((true + side * DELTA, 0), (bound - side * DELTA, 1)):
        replace(targeted, targeted_arovr=lambda *_, wrong=wrong: wrong)
        close(slack(name, toy)[part], -DELTA)


def test_targeted_is_bounded():
    """One linear layer: the energy grows like ½(γ + 100(ᾱ − w)) with w = 0 or α, which is negative
    only for an α above ½. If it fails, a bound is claimed there."""
    for alpha in (0.8, 1.3):
        toy = toy_of("targeted_is_bounded", shapes=ONE_LAYER).with_(alpha=alpha)
        expected = [0.5 * (1 / toy.kappa + 100 * (1 - a - w))
                    for a in (alpha / 2, 0.5) for w in (0, a)]
        close(slack("targeted_is_bounded", toy), expected, 1e-5)
    assert (slack("targeted_is_bounded", toy) < 0).any()


def test_larger_alpha_is_harder(replace):
    """β·AROVR falls, stays and leaps: each of the three parts by itself. If it fails, one of them
    is not looked at."""
    name = "larger_alpha_is_harder"
    toy, seen = toy_of(name), []
    assert (slack(name, toy) >= 0).all()
    for step, wrong in ((-1.0, [True, True, False]), (0.0, [False, True, False]),
                        (1e6, [False, False, True])):
        def value(toy, alpha, beta, potential, step=step):
            seen.append((alpha, beta, potential))
            return f64(step * (len(seen) % 2 == 0) / beta)

        replace(targeted, targeted_arovr=value)
        assert [bool(part < -P.TOLERANCE) for part in slack(name, toy)] == wrong
    for (alpha, beta, potential), (larger, larger_beta, _) in zip(seen[::2], seen[1::2]):
        assert (1 - alpha) * beta == pytest.approx((1 - larger) * larger_beta) == toy.beta
        assert 0 <= alpha <= larger < 1 and beta <= larger_beta
        assert repr(potential) == repr(toy.tilted)


def test_stronger_untargeted_part_is_harder(replace):
    """Minima that grow with the ratio α/ᾱ instead. If it fails, they go unnoticed."""
    name = "stronger_untargeted_part_is_harder"
    toy, ratios = toy_of(name), []

    def minimum(toy, potential, h):
        ratios.append(1 - h.curvature / toy.beta)  # of ℓ⁻ − ratio·ℓ
        return f64(ratios[-1]), None

    replace(targeted, minimum=minimum)
    found = slack(name, toy)
    low, high = ratios
    close(found, [(low - high) / toy.beta])
    assert 0 < low < high < 1 + 1 / toy.fraction


@pytest.mark.parametrize("name, limits", [
    ("gradients_tend_to_back_propagation", 2), ("tilted_gradients_tend_to_the_tilted_network", 1),
    ("tilts_average_out_in_linear_networks", 1)])
@pytest.mark.parametrize("seed", range(2))
def test_limits_of_gradients(name, limits, seed, replace):
    """Limits that are off by 0.3 %, each of them, either way. If it fails, they go unnoticed."""
    toy, true = toy_of(name, seed), targeted._limit_of_gradient
    assert P.CLAIMS[name].instances["fraction"] == 0.01
    found = slack(name, toy)
    assert found.shape == (limits,) and (found > 0).all()
    for wrong in (0.003, -0.003):
        replace(targeted, _limit_of_gradient=lambda *args, w=wrong, **options: (
            lambda g: g + w * (1 + g.norm()) * torch.eye(len(g))[0])(true(*args, **options)))
        found = slack(name, toy)
        assert (found < -1e-3).all()


def test_differences_leave_the_network_as_it_was():
    """If it fails, each entry of dℓ(z^g)/dθ is taken at weights that the entries before it have moved."""
    toy = toy_of("tilted_gradients_tend_to_the_tilted_network", 0)
    before = [parameter.clone() for parameter in toy.net.parameters()]
    entries = targeted._tilted_loss_gradient(toy)
    assert len(entries) == sum(map(torch.numel, before))
    assert all(map(torch.equal, before, toy.net.parameters()))


def test_errors_of_gradients(monkeypatch):
    """If it fails, the order in β that a page shows is of something else than the error."""
    toy = P.draw(0, activations=(lnn.Identity(),))
    back = targeted.flat_gradient(toy, toy.loss(toy.net(toy.x)).sum())
    shift = torch.zeros_like(back)
    shift[:2] = torch.tensor([3.0, 4.0])
    monkeypatch.setattr(targeted, "gradient",
                        lambda toy, objective: toy.alpha * back + objective.beta * shift)
    assert targeted.gradient_errors(toy, [0.1, 0.2]) == pytest.approx([0.5, 1.0])


# ------------------------------------------------------------------------- instances


def test_every_statement_has_a_negative_control():
    """If it fails, a statement of these modules could hold whatever it says."""
    files = ("test_propositions_controls.py", "test_targeted_controls.py")
    text = "".join(Path(__file__).with_name(name).read_text(encoding="utf-8") for name in files)
    modules = {adversarial.__name__, targeted.__name__}
    names = [name for name, statement in P.claims_of(P.ZACH).items()
             if statement.slack.__module__ in modules]
    assert len(names) >= 25 and [name for name in names if f'"{name}"' not in text] == []


@pytest.mark.parametrize("activation, kinks", [
    (lnn.Identity(), ()), (lnn.Tanh(), ()), (lnn.ReLU(), (0.0,)), (lnn.Box(-1, 1), (-1.0, 1.0))],
    ids=repr)
def test_the_distance_to_kinks_by_hand(activation, kinks):
    """Two units and a linear output; if it fails, limits are taken across a kink."""
    net = lnn.LiftedNetwork([1, 2, 1], activation, dtype=torch.float64)
    with torch.no_grad():
        net.weights[0].copy_(torch.tensor([[2.0], [-0.3]]))
        net.biases[0].copy_(torch.tensor([0.1, 0.0]))
    a = [2.0 * 0.8 + 0.1, -0.3 * 0.8]
    expected = min([abs(unit - kink) for unit in a for kink in kinks], default=np.inf)
    assert toys._distance_to_kinks(net, torch.tensor([[0.8]]).double()) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(30))
def test_drawn_toys_keep_their_clearance(seed):
    """If it fails, an instance sits on a kink, where no limit exists."""
    toy = P.draw(seed, activations=(lnn.ReLU(), lnn.Box(-1, 1)), clearance=0.2)
    assert toys._distance_to_kinks(toy.net, toy.x) >= 0.2


def test_the_spread_of_what_is_drawn():
    """If it fails, instances are all alike: weights N(0, 1), biases N(0, ¼), x N(0, 2¼), tilts
    N(0, ¼), γ in ½ … 2, α and β·κ in 0.05 … 0.95, y and y⁻ N(0, 1)."""
    drawn = [P.draw(seed) for seed in range(400)]
    spread = {"weights": 1.0, "biases": 0.5, "x": 1.5, "tilt": 0.5, "y": 1.0, "wrong": 1.0}
    for name, sd in spread.items():
        parts = [getattr(toy.net if name in ("weights", "biases") else toy, name) for toy in drawn]
        flat = torch.cat([p.detach().flatten() for part in parts
                          for p in ([part] if torch.is_tensor(part) else part)])
        assert flat.std().item() == pytest.approx(sd, rel=0.08) and abs(flat.mean()) < 0.15 * sd
    gamma = torch.cat([torch.as_tensor(g).flatten() for toy in drawn for g in toy.gamma])
    ranges = {(0.5, 2.0): gamma, (0.05, 0.95): torch.tensor([toy.alpha for toy in drawn])}
    ranges[0.05, 0.95 + 1e-12] = torch.tensor([toy.fraction for toy in drawn])
    for (low, high), values in ranges.items():
        margin = 0.02 * (high - low)
        assert low <= values.min() < low + margin and high - margin < values.max() <= high
    assert 0.2 < np.mean([torch.is_tensor(g) for toy in drawn for g in toy.gamma]) < 0.4
    assert P.draw(0, fraction=0.3).fraction == 0.3
