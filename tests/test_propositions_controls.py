"""Negative controls: each part of each statement of sections 2 and 3 is put in the wrong.

An ingredient of a statement is replaced, so that a part of its slack is known: mostly −δ with
δ = 1e-6, ten times what counts as a violation. A statement that is weakened (a sign, a term, a
tolerance) then has another slack than the one expected here.
"""

import numpy as np
import pytest
import torch
from controls import DELTA, ONE_LAYER, close, f64, slack, toy_of

import lnn_core as lnn
from lnn_core import bounds, oracle
from lnn_core import propositions as P
from lnn_core.propositions import adversarial, registry, statements, targeted, toys

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
    monkeypatch.setattr(registry, "CLAIMS", claims)
    first, within, beyond = P.table(instances=4, seed=2)
    assert first == registry.Row("here", "claimed", 4, -2.0, 2)
    assert (within.violations, beyond.violations) == (0, 4)
    assert P.table.__defaults__ == (50, 0)
    with pytest.raises(ValueError, match="instances=0 must be at least 1"):
        P.table(0)


def test_gradients_are_flat_in_the_order_of_parameters():
    """If it fails, gradients are compared entry with entry of another parameter."""
    toy = P.draw(1, activations=(lnn.Identity(),))
    value = sum((i + 1) * p.sum() for i, p in enumerate(toy.net.parameters()))
    flat = [float(i + 1) for i, p in enumerate(toy.net.parameters()) for _ in range(p.numel())]
    close(statements.flat_gradient(toy, value), flat)


# ------------------------------------------------------------------------- sections 2 and 3


def test_sandwich(replace):
    """ROVR above the loss and AROVR below it. If it fails, they go unnoticed; so with all controls
    below."""
    toy = toy_of("sandwich")
    replace(adversarial, rovr=lambda toy: toy.forward_loss + DELTA,
            arovr=lambda toy: toy.forward_loss - 2 * DELTA)
    close(slack("sandwich", toy), [-DELTA, -2 * DELTA])


def test_two_sided_bound(replace):
    """Each bound on the wrong side; each is that of the toy's β and γ. If it fails, they go
    unnoticed."""
    toy, asked = toy_of("two_sided_bound"), []
    low, high = adversarial.rovr(toy), adversarial.arovr(toy)
    replace(bounds, two_sided=lambda *args: asked.append(args) or (low + DELTA, high - 2 * DELTA))
    close(slack("two_sided_bound", toy), [-DELTA, -2 * DELTA])
    assert asked == [(toy.net, toy.x, toy.y, toy.beta, toy.gamma)]


@pytest.mark.parametrize("base", toys.BASES, ids=repr)
@pytest.mark.parametrize("seed", range(4))
def test_first_order_expansion(seed, base, replace):
    """A rate that is off by so much that 1e-4·(1 + rate) is used up, or just not. If it fails, the
    control draws the line elsewhere."""
    toy = toy_of("first_order_expansion", seed, bases=(base,))
    arovr, at_rest = adversarial.arovr, toy.forward_loss
    rate = statements.limit(lambda b: (arovr(toy, b) - at_rest) / b, toy.beta).item()
    assert toy.fraction == 0.01 and rate > 0.01  # so that the second-order term is looked at, too
    for shift in (3e-4, -3e-4):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(adversarial, "arovr",
                          lambda toy, b, s=shift: arovr(toy, b) + s * b * (1 + rate))
            close(slack("first_order_expansion", toy), [-2e-4 * (1 + rate)], 2e-5 * (1 + rate))


def test_interpolating_network_rests(replace):
    """A value, a move and a gradient that are not zero. If it fails, they go unnoticed."""
    toy = toy_of("interpolating_network_rests")
    minimum, flat = adversarial.minimum, adversarial.flat_gradient
    close(slack("interpolating_network_rests", toy), [0.0])

    def moved(toy, potential, h):
        assert h.curvature == -toy.beta  # an adversary's: maximises the loss
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
    """One linear layer grows like (γ − β)/2 with κ = 1/γ. If it fails, the border is not where it
    says."""
    assert 0.99 < P.CLAIMS["coercive_below_safe_beta"].instances["fraction"] < 1
    for fraction in (0.999, 1.001):
        toy = toy_of("coercive_below_safe_beta", shapes=ONE_LAYER, fraction=fraction)
        close(slack("coercive_below_safe_beta", toy), (1 - fraction) / (2 * toy.kappa))


def test_linear_loss_is_bounded(replace):
    """An upper bound that is too small, at a β at which another loss is unbounded. If it fails, it
    goes unnoticed."""
    name = "linear_loss_is_bounded"
    toy, asked = toy_of(name, fraction=0.06), []
    value = statements.exact(toy, lnn.AROVR(20 * toy.beta, lnn.Linear, toy.potential))
    replace(bounds, two_sided=lambda *args: asked.append(args) or (value + 1, value - DELTA))
    close(slack(name, toy), [-DELTA])
    assert asked == [(toy.net, toy.x, toy.y, 20 * toy.beta, toy.gamma, lnn.Linear)]
    assert 20 * toy.beta * toy.kappa > 1


def test_linear_threshold(replace):
    """Thresholds that are 1 % too large and too small, and a safe β beyond them. If it fails, they
    go unnoticed."""
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
    """½(γ − β) is half the curvature γ − β, and the threshold is γ: all parts in closed form. If it
    fails, a part measures something else."""
    toy = toy_of("linear_threshold", seed, shapes=ONE_LAYER)
    close(slack("linear_threshold", toy), [0.001 / toy.kappa, 0.001 / toy.kappa, 0.0])


def test_reduced_form(replace):
    """Each value off, and both are asked for with the toy's settings. If it fails, it goes
    unnoticed."""
    toy, asked = toy_of("reduced_form"), []
    low, high = adversarial.rovr(toy), adversarial.arovr(toy)
    replace(bounds, reduced=lambda *args, **options: asked.append((args, options))
            or (low + DELTA, high + 2 * DELTA))
    close(slack("reduced_form", toy), [-DELTA, -2 * DELTA])
    assert asked == [((toy.net, toy.x, toy.y, toy.beta, toy.gamma), {"base": toy.base})]


def test_generalized_is_harder(replace):
    """Values that grow with γ instead: each link of the chain by itself. If it fails, one of them
    is not looked at."""
    toy = toy_of("generalized_is_harder")
    w = [(1 + room) * toy.beta / (1 - toy.fraction) for room in (0.1, 1.0, 10.0)]
    last = adversarial.arovr(toy).item()
    replace(adversarial, generalized=lambda toy, weight: f64(weight))
    close(slack("generalized_is_harder", toy), [w[0] - w[1], w[1] - w[2], w[2] - last], 1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_quadratic_distance_is_harder(seed, replace):
    """A value below AROVR; and the weight is the least of dᵀQd over the hidden units' d, scaled up
    (by λ ≥ 1) where that is needed for a finite value. The least by solving for them. If it fails,
    a value below passes."""
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
    """A value that is off, at the weight and the scale that belong together. If it fails, it goes
    unnoticed."""
    toy = toy_of("elementwise_distances_rescale")
    w = 1.5 * toy.beta / (1 - toy.fraction)
    s = w / (w - toy.beta)
    replace(adversarial, arovr=lambda toy, beta: f64(beta),
            generalized=lambda toy, weight: f64(s * s * toy.beta + weight - w + DELTA))
    close(slack("elementwise_distances_rescale", toy), [-DELTA], 1e-8)


def test_one_layer(replace):
    """γ/(γ − β)·ℓ off; no growth at β = γ, and −γ/20 at 1.1γ. If it fails, it goes unnoticed."""
    toy = toy_of("one_layer")
    gamma, value = float(toy.gamma[0]), adversarial.arovr
    close(slack("one_layer", toy), [0, 0, 0.05 * gamma])
    replace(adversarial, arovr=lambda toy, beta: value(toy, beta) + DELTA)
    close(slack("one_layer", toy)[0], -DELTA)


def test_smaller_gamma_is_harder(replace):
    """Values that grow with γ, both at the first toy's β. If it fails, they go unnoticed."""
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
    """A curvature K and error signals that are off. If it fails, they go unnoticed."""
    name = "gamma_leaves_the_error_signal"
    toy = toy_of(name)
    gram, signals = bounds.output_gram, adversarial.error_signals
    close(slack(name, toy), 0.0)
    replace(bounds, output_gram=lambda net, gamma: gram(net, gamma=gamma) + 0.01)
    found, expected = slack(name, toy), -0.5 * 5 * toy.beta * 0.01 * toy.y.sum() ** 2
    assert len(found) == 1 + sum(toy.net.sizes[1:])
    close(found[0], expected)
    close(found[1:], 0.0)
    replace(adversarial, error_signals=lambda toy, loss: [s + 0.01 for s in signals(toy, loss)])
    close(slack(name, toy)[1:], -0.05 * toy.beta)


@pytest.mark.parametrize("seed", range(4))
def test_certified_budget_is_tight_for_one_linear_layer(seed):
    """Two outputs, γ equal: at U = m²/(4κ) a margin can just be 0. With more of budget both parts
    see it turn, with less neither does. If it fails, the budget counts as tight where it is not."""
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
    for strength in (0.9, 1.0, 1.1, 1.5):  # an attack that strong takes strength² of the budget
        share = 1.01 * strength**2
        attacked = adversarial._attacked_margins(toy, margin, share * budget).min()
        assert (1 - share**0.5) * m - 1e-9 <= attacked <= (1 - strength) * m + 1e-7
        if strength != 1:
            dual = adversarial._dual_margin(toy, margin, strength**2 * budget)
            close(dual, (1 - strength**2) * m / 2)
