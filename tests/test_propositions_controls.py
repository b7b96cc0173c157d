"""Negative controls: each part of each statement is put in the wrong, and has to say so.

An ingredient of a statement is replaced, so that a part of its slack is known: mostly −δ with
δ = 1e-6, ten times what counts as a violation. A statement that is weakened (a sign, a term, a
tolerance) then has another slack than the one expected here.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

import lnn_core as lnn
from lnn_core import bounds, oracle
from lnn_core import propositions as P
from lnn_core.propositions import adversarial, statements, targeted, toys

DELTA = 1e-6
ONE_LAYER = (((1, 1), None),)


def slack(name, toy):
    return P.STATEMENTS[name].slack(toy).detach()


def toy_of(name, seed=3, **changes):
    return P.draw(seed, **P.STATEMENTS[name].instances | changes)


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def close(found, expected, tolerance=1e-8):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.double(), expected.expand_as(found), rtol=0, atol=tolerance)


@pytest.fixture
def replace(monkeypatch):
    """replace(module, name=value, …) for the test's time."""
    def put(module, **values):
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    return put


# ------------------------------------------------------------------------- building blocks


def test_an_equality_is_minus_the_difference():
    """If it fails, equalities hold whatever they say."""
    close(statements.equal(f64(1, 2, 3, 4).view(2, 2), f64(1.5, 2, 2, 4.1).view(2, 2)),
          [-0.5, 0, -1, -0.1])


def test_a_limit_takes_off_the_first_two_orders():
    """If it fails, limits β → 0⁺ keep an error of first or second order."""
    assert statements.limit(lambda b: 3 + 5 * b + 7 * b**2, 0.4) == pytest.approx(3)
    assert statements.limit(lambda b: b**3, 0.4) == pytest.approx(0.4**3 / 8)


def test_vectors_are_close_within_a_thousandth():
    """If it fails, gradients count as equal that are not."""
    expected = torch.tensor([3.0, 4.0])
    for error in (0.0, 5e-3, 7e-3):
        moved = expected + torch.tensor([0.6, -0.8]) * error
        assert targeted._close(moved, expected).item() == pytest.approx(6e-3 - error, abs=1e-6)


def test_a_row_is_the_worst_part_of_the_worst_instance(monkeypatch):
    """If it fails, a violation hides behind another part or another instance."""
    def slacks(toy):
        return torch.tensor([1.0, 3.0 - toy.seed, 2.0])

    claims = {"a": statements.Statement("a", "here", "claimed", slacks, {}),
              "b": statements.Statement("b", "", "", lambda toy: torch.tensor([-0.9e-7]), {}),
              "c": statements.Statement("c", "", "", lambda toy: torch.tensor([-1.1e-7]), {})}
    monkeypatch.setattr(statements, "STATEMENTS", claims)
    first, within, beyond = P.table(instances=4, seed=2)
    assert first == statements.Row("here", "claimed", 4, -2.0, 2)
    assert (within.violations, beyond.violations) == (0, 4)
    assert P.table.__defaults__ == (50, 0)


def test_gradients_are_flat_in_the_order_of_parameters():
    """If it fails, gradients are compared entry with entry of another parameter."""
    toy = P.draw(1, activations=(lnn.Identity(),))
    value = sum((i + 1) * p.sum() for i, p in enumerate(toy.net.parameters()))
    flat = [float(i + 1) for i, p in enumerate(toy.net.parameters()) for _ in range(p.numel())]
    close(statements.flat_gradient(toy, value), flat)


# ------------------------------------------------------------------------- sections 2 and 3


def test_sandwich(replace):
    """ROVR above the loss and AROVR below it."""
    toy = toy_of("sandwich")
    replace(adversarial, rovr=lambda toy: toy.forward_loss + DELTA,
            arovr=lambda toy: toy.forward_loss - 2 * DELTA)
    close(slack("sandwich", toy), [-DELTA, -2 * DELTA])


def test_two_sided_bound(replace):
    """Each bound on the wrong side; each is that of the toy's β and γ."""
    toy, asked = toy_of("two_sided_bound"), []
    low, high = adversarial.rovr(toy), adversarial.arovr(toy)
    replace(bounds, two_sided=lambda *args: asked.append(args) or (low + DELTA, high - 2 * DELTA))
    close(slack("two_sided_bound", toy), [-DELTA, -2 * DELTA])
    assert asked == [(toy.net, toy.x, toy.y, toy.beta, toy.gamma)]


@pytest.mark.parametrize("base", toys.BASES, ids=repr)
@pytest.mark.parametrize("seed", range(4))
def test_first_order_expansion(seed, base, replace):
    """A rate that is off by so much that 1e-4·(1 + rate) is used up, or just not."""
    toy = toy_of("first_order_expansion", seed, bases=(base,))
    arovr, at_rest = adversarial.arovr, toy.forward_loss
    rate = statements.limit(lambda b: (arovr(toy, b) - at_rest) / b, toy.beta).item()
    assert rate > 0.01  # so that the second-order term is looked at, too
    for shift in (3e-4, -3e-4):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(adversarial, "arovr", lambda toy, b, s=shift: arovr(toy, b) + s * b * (1 + rate))
            close(slack("first_order_expansion", toy), [-2e-4 * (1 + rate)], 2e-5 * (1 + rate))


def test_interpolating_network_rests(replace):
    """A value, a move and a gradient that are not zero."""
    toy = toy_of("interpolating_network_rests")
    minimum, flat = adversarial.minimum, adversarial.flat_gradient
    close(slack("interpolating_network_rests", toy), [0.0])

    def moved(toy, potential, h):
        value, z = minimum(toy, potential, h)
        return value, [z[0], *(z_k + 2e-3 for z_k in z[1:])]

    inputs, units = toy.net.sizes[0], sum(toy.net.sizes[1:])
    replace(adversarial, minimum=moved, flat_gradient=lambda toy, value: flat(toy, value) + 3e-3)
    replace(oracle, objective=lambda *args: toy.net(toy.x).sum()[None] * 0 - DELTA)
    found, last = slack("interpolating_network_rests", toy), 1 + inputs + units
    close(found[:last], [-DELTA] + inputs * [0.0] + units * [-4e-6])
    close(found[last:], -9e-6)
    assert len(found) == last + sum(p.numel() for p in toy.net.parameters())


def test_coercive_below_safe_beta():
    """One linear layer grows like (γ − β)/2 with κ = 1/γ: the border is where it says."""
    assert 0.99 < P.STATEMENTS["coercive_below_safe_beta"].instances["fraction"] < 1
    for fraction in (0.999, 1.001):
        toy = toy_of("coercive_below_safe_beta", shapes=ONE_LAYER, fraction=fraction)
        close(slack("coercive_below_safe_beta", toy), (1 - fraction) / (2 * toy.kappa))


def test_linear_loss_is_bounded(replace):
    """An upper bound that is too small, at a β at which another loss is unbounded."""
    name = "linear_loss_is_bounded"
    toy, asked = toy_of(name, fraction=0.06), []
    value = statements.exact(toy, lnn.AROVR(20 * toy.beta, lnn.Linear, toy.potential))
    replace(bounds, two_sided=lambda *args: asked.append(args) or (value + 1, value - DELTA))
    close(slack(name, toy), [-DELTA])
    assert asked == [(toy.net, toy.x, toy.y, 20 * toy.beta, toy.gamma, lnn.Linear)]
    assert 20 * toy.beta * toy.kappa > 1


def test_linear_threshold(replace):
    """Thresholds that are 1 % too large and too small, and a safe β beyond them."""
    toy = toy_of("linear_threshold")
    true, safe = float(bounds.stability_threshold(toy.net, gamma=toy.gamma)), bounds.safe_beta
    for scale, wrong in ((1.01, 0), (0.99, 1)):
        replace(bounds, stability_threshold=lambda net, gamma, t=scale * true: f64(t))
        found = slack("linear_threshold", toy)
        assert [bool(part < -P.TOLERANCE) for part in found[:2]] == [wrong == 0, wrong == 1]
    replace(bounds, stability_threshold=lambda net, gamma: f64(true),
            safe_beta=lambda net, gamma: true + DELTA)
    close(slack("linear_threshold", toy)[2:], [-DELTA], 1e-7)
    assert safe(toy.net, toy.gamma) <= true * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_linear_threshold_of_one_layer(seed):
    """½(γ − β) is half the curvature γ − β, and the threshold is γ: all parts in closed form."""
    toy = toy_of("linear_threshold", seed, shapes=ONE_LAYER)
    close(slack("linear_threshold", toy), [0.001 / toy.kappa, 0.001 / toy.kappa, 0.0])


def test_reduced_form(replace):
    """Each value off, and both are asked for with the toy's settings."""
    toy, asked = toy_of("reduced_form"), []
    low, high = adversarial.rovr(toy), adversarial.arovr(toy)
    replace(bounds, reduced=lambda *args, **options: asked.append((args, options))
            or (low + DELTA, high + 2 * DELTA))
    close(slack("reduced_form", toy), [-DELTA, -2 * DELTA])
    assert asked == [((toy.net, toy.x, toy.y, toy.beta, toy.gamma), {"base": toy.base})]


def test_generalized_is_harder(replace):
    """Values that grow with γ instead: each link of the chain by itself."""
    toy = toy_of("generalized_is_harder")
    w = [(1 + room) * toy.beta / (1 - toy.fraction) for room in (0.1, 1.0, 10.0)]
    last = adversarial.arovr(toy).item()
    replace(adversarial, generalized=lambda toy, weight: f64(weight))
    close(slack("generalized_is_harder", toy), [w[0] - w[1], w[1] - w[2], w[2] - last], 1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_quadratic_distance_is_harder(seed, replace):
    """A value below AROVR; and the weight is the least of dᵀQd over the hidden units' d, scaled
    up (by λ ≥ 1) where that is needed for a finite value. The least by solving for them."""
    toy, asked = toy_of("quadratic_distance_is_harder", seed), []
    value = adversarial.arovr(toy)
    replace(adversarial, generalized=lambda toy, weight: asked.append(weight) or value - DELTA)
    close(slack("quadratic_distance_is_harder", toy), [-DELTA])
    n = sum(toy.net.sizes[1:])
    A = toy.random().standard_normal((n, n))
    Q = A @ A.T + 0.1 * np.eye(n)
    d = np.append(-np.linalg.solve(Q[:-1, :-1], Q[:-1, -1]), 1.0)
    assert asked[0] == pytest.approx(max(d @ Q @ d, 1.5 * toy.beta / (1 - toy.fraction)))


def test_elementwise_distances_rescale(replace):
    """A value that is off, at the weight and the scale that belong together."""
    toy = toy_of("elementwise_distances_rescale")
    w = 1.5 * toy.beta / (1 - toy.fraction)
    s = w / (w - toy.beta)
    replace(adversarial, arovr=lambda toy, beta: f64(beta),
            generalized=lambda toy, weight: f64(s * s * toy.beta + weight - w + DELTA))
    close(slack("elementwise_distances_rescale", toy), [-DELTA], 1e-8)


def test_one_layer(replace):
    """γ/(γ − β)·ℓ off; no growth at β = γ, and −γ/20 at 1.1γ."""
    toy = toy_of("one_layer")
    gamma, value = float(toy.gamma[0]), adversarial.arovr
    close(slack("one_layer", toy), [0, 0, 0.05 * gamma])
    replace(adversarial, arovr=lambda toy, beta: value(toy, beta) + DELTA)
    close(slack("one_layer", toy)[0], -DELTA)


def test_smaller_gamma_is_harder(replace):
    """Values that grow with γ, both at the first toy's β."""
    toy, seen = toy_of("smaller_gamma_is_harder"), []

    def grows(toy, beta=None):
        seen.append((toy, toy.beta if beta is None else beta))
        return torch.cat([torch.as_tensor(g).reshape(-1) for g in toy.gamma]).sum()[None]

    replace(adversarial, arovr=grows)
    found = slack("smaller_gamma_is_harder", toy)
    (small, beta), (large, same) = seen
    assert found.item() < -0.01 and beta == same == toy.beta and small is toy
    factors = [torch.as_tensor(b / a) for a, b in zip(small.gamma, large.gamma)]
    assert all((1 <= f).all() and (f <= 3).all() and f.max() - f.min() < 1e-9 for f in factors)


def test_gamma_leaves_the_error_signal(replace):
    """A curvature K and error signals that are off."""
    name = "gamma_leaves_the_error_signal"
    toy = toy_of(name)
    gram, signals = bounds.output_gram, adversarial.error_signals
    close(slack(name, toy), 0.0)
    replace(bounds, output_gram=lambda net, gamma: gram(net, gamma=gamma) + 0.01)
    found, expected = slack(name, toy), -0.5 * 5 * toy.beta * 0.01 * toy.y.sum() ** 2
    close(found[0], expected)
    close(found[1:], 0.0)
    replace(adversarial, error_signals=lambda toy, loss: [s + 0.01 for s in signals(toy, loss)])
    close(slack(name, toy)[1:], -0.05 * toy.beta)


@pytest.mark.parametrize("seed", range(4))
def test_certified_budget_is_tight_for_one_linear_layer(seed):
    """Two outputs, γ equal: at U = m²/(4κ) a margin can just be 0. With more of budget
    both parts see it turn, with less neither does."""
    toy = P.draw(seed, shapes=(((2, 2), None),), activations=(lnn.Identity(),))
    toy = toy.with_(gamma=(1.3,))
    predicted = int(toy.net(toy.x).argmax())
    margin = lnn.Linear(torch.eye(2).double()[predicted][None] * 2 - 1)
    m = margin(toy.net(toy.x)).item()
    budget = f64(m**2 / (4 * toy.kappa))
    torch.testing.assert_close(bounds.energy_budget(toy.net, toy.x, toy.gamma), budget)
    close(adversarial._dual_margin(toy, margin, budget), [0.0])
    found = slack("certified_budget", toy)
    close(found[:1], [0.0])
    assert len(found) > 100 and found[1:].min() > -1e-9
    for share, turned in ((1.3, True), (0.9, False)):
        assert (adversarial._dual_margin(toy, margin, share * budget) < -1e-3 * m) == turned
        attacked = adversarial._attacked_margins(toy, margin, share * budget)
        assert (attacked.min() < 0) == turned and attacked.min() < 0.11 * m


# ------------------------------------------------------------------------- section 4


def test_targeted_sandwich(replace):
    """ROVR_{α,β} above αℓ(z̃), AROVR_{α,β} below; z̃ minimises ᾱβℓ⁻ + U^g."""
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
    """The equality off by δ; the bound of αℓ(z*) crossed by δ."""
    toy = toy_of(name)
    true, bound = value(toy, toy.alpha), toy.alpha * toy.forward_loss
    for wrong, part in ((true + side * DELTA, 0), (bound - side * DELTA, 1)):
        replace(targeted, targeted_arovr=lambda *_, wrong=wrong: wrong)
        close(slack(name, toy)[part], -DELTA)


def test_targeted_is_bounded():
    """One linear layer: the energy grows like ½(γ + 100(ᾱ − w)) with w = 0 or α, which is
    negative only for an α above ½."""
    for alpha in (0.8, 1.3):
        toy = toy_of("targeted_is_bounded", shapes=ONE_LAYER).with_(alpha=alpha)
        expected = [0.5 * (1 / toy.kappa + 100 * (1 - a - w))
                    for a in (alpha / 2, 0.5) for w in (0, a)]
        close(slack("targeted_is_bounded", toy), expected, 1e-5)
    assert (slack("targeted_is_bounded", toy) < 0).any()


def test_larger_alpha_is_harder(replace):
    """β·AROVR falls, stays and leaps: each of the three parts by itself."""
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
        assert 0 <= alpha <= larger < 1 and beta <= larger_beta and repr(potential) == repr(toy.tilted)


def test_stronger_untargeted_part_is_harder(replace):
    """Minima that grow with the ratio α/ᾱ instead."""
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
    """Limits that are off by 0.3 %, each of them, either way."""
    toy, true = toy_of(name, seed), targeted._limit_of_gradient
    assert P.STATEMENTS[name].instances["fraction"] == 0.01
    found = slack(name, toy)
    assert found.shape == (limits,) and (found > 0).all()
    for wrong in (0.003, -0.003):
        replace(targeted, _limit_of_gradient=lambda *args, w=wrong, **options: (
            lambda g: g + w * (1 + g.norm()) * torch.eye(len(g))[0])(true(*args, **options)))
        found = slack(name, toy)
        assert (found < -1e-3).all()


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
    """If it fails, a statement of the table could hold whatever it says."""
    text = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in P.STATEMENTS if f'"{name}"' not in text] == []


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
