"""ConstrainedAROVR, eq. (7): balls, trust regions and brute force; feasibility; what the certificate says."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from strategies import POTENTIALS, networks, random_inputs, random_network, seeds

import lnn_core as lnn
from lnn_core.constrained import ConstrainedAROVR
from lnn_core.inference.iterate import Iterate, Report
from lnn_core.oracle import Exhaustive

EXACT = lnn.Shooting(tolerance=1e-20, max_passes=600, every=True)
each_base = pytest.mark.parametrize("base", POTENTIALS, ids=repr)


def one_layer(seed=0):
    net = random_network(seed, [3, 2])
    x, y = random_inputs(seed, net)
    return net, x, y, (net(x) - y).norm(dim=1)


# --- closed forms and brute force ------------------------------------------------------------

@pytest.mark.parametrize("delta", [1e-8, 0.1, 10.0])
@pytest.mark.parametrize("gamma", [1.0, 0.25])
def test_one_layer_is_the_maximum_over_a_ball(delta, gamma):
    """½(‖r‖ + √(2δ/γ))², and the dual bound meets it: no gap for a convex U. If it fails, the value
    or the bound is wrong by a factor."""
    net, x, y, r = one_layer()
    objective = ConstrainedAROVR(delta, potential=lnn.Reweighted([gamma]))
    values = objective(net, x, y, reduction="none")
    expected = 0.5 * (r + math.sqrt(2 * delta / gamma)) ** 2
    torch.testing.assert_close(values, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(objective.certificate.upper, expected.detach(), rtol=1e-6, atol=0)
    assert (objective.certificate.gap >= 0).all()


def test_multiplier_of_the_ball():
    """z_L − a = βr/(1 − β) has length √(2δ): β = √(2δ)/(‖r‖ + √(2δ)), another one for each sample.
    If it fails, the β that is reported belongs to another budget."""
    net, x, y, r = one_layer()
    objective = ConstrainedAROVR(0.3)
    objective(net, x, y)
    radius = math.sqrt(0.6)
    torch.testing.assert_close(objective.certificate.beta, (radius / (r + radius)).detach(),
                               rtol=1e-6, atol=0)


def test_linear_loss_has_no_largest_beta():
    """gᵀz over the ball: gᵀa + ‖g‖√(2δ), however large β = √(2δ)/‖g‖ has to be. If it fails, the
    search stops at a limit that this loss does not have."""
    net, x, y, _ = one_layer()
    for delta in (0.1, 1e4):
        values = ConstrainedAROVR(delta, loss=lnn.Linear)(net, x, y, "none")
        expected = (net(x) * y).sum(1) + y.norm(dim=1) * math.sqrt(2 * delta)
        torch.testing.assert_close(values, expected, rtol=1e-6, atol=0)


def trust_region(net, x, y, delta):
    """max ½‖r + Je‖² s.t. ½‖e‖² ≤ δ for a linear chain: the secular equation, in the eigenbasis of JJᵀ."""
    W = [weight.detach().numpy() for weight in net.weights]
    J, columns = np.eye(len(W[-1])), []
    for weight in reversed(W):
        columns.append(J)
        J = J @ weight
    K = sum(c @ c.T for c in columns)
    rates, basis = np.linalg.eigh(K)
    values = []
    for r in (net(x) - y).detach().numpy() @ basis:
        def excess(beta):
            return 0.5 * (beta**2 * rates * (r / (1 - beta * rates)) ** 2).sum() - delta
        beta = brentq(excess, 0.0, (1 - 1e-12) / rates.max(), xtol=1e-15)
        values.append(0.5 * ((r / (1 - beta * rates)) ** 2).sum())
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("delta", [0.01, 1.0])
def test_linear_network_is_a_trust_region_problem(delta):
    """Three linear layers: U is jointly convex, so the value is exact and the gap closes. If it
    fails, the search misses the optimum of a convex problem."""
    net = random_network(1, [3, 4, 3, 2], lnn.Identity(), scale=0.7)
    x, y = random_inputs(1, net)
    objective = ConstrainedAROVR(delta)
    expected = trust_region(net, x, y, delta)
    torch.testing.assert_close(objective(net, x, y, "none"), expected, rtol=1e-6, atol=0)
    assert (objective.certificate.gap < 1e-6 * expected).all()


def brute_force(net, x, y, delta):
    """(7) on a 1-1-1 ReLU network: a fine grid over z_1, the best z_2 in closed form."""
    (w1, w2), (b1, b2) = ([p.item() for p in group] for group in (net.weights, net.biases))
    a1 = w1 * x + b1
    z1 = np.linspace(0, max(a1, 0) + 2 * math.sqrt(2 * delta), 400_001)
    D1 = 0.5 * z1**2 - z1 * a1 + 0.5 * max(a1, 0) ** 2
    left = delta - D1
    residual = np.abs(w2 * z1 + b2 - y)[left >= 0]
    return 0.5 * ((residual + np.sqrt(2 * left[left >= 0])) ** 2).max()


@pytest.mark.parametrize("delta", [0.02, 0.3, 2.0])
def test_value_and_certificate_bracket_brute_force(delta):
    """lower ≤ (7) on 16 random 1-1-1 networks; with the exhaustive solver (7) ≤ upper, and most
    gaps close. If it fails, a value exceeds the maximum, or a certificate is none."""
    closed = []
    for seed in range(16):
        net = random_network(seed, [1, 1, 1], scale=0.8)
        x, y = random_inputs(seed, net, samples=1)
        exact = brute_force(net, x.item(), y.item(), delta)
        assert ConstrainedAROVR(delta)(net, x, y).item() <= exact * (1 + 1e-8)
        if seed < 5:
            objective = ConstrainedAROVR(delta, solver=Exhaustive(), steps=24)
            assert objective(net, x, y).item() <= exact * (1 + 1e-8)
            assert objective.certificate.upper.item() >= exact * (1 - 1e-8)
            closed.append(objective.certificate.gap.item() < 1e-4 * exact)
    assert np.mean(closed) > 0.5


# --- properties on random networks -------------------------------------------------------------

@settings(max_examples=25)
@given(net=networks(max_depth=3), seed=seeds, base=st.sampled_from(POTENTIALS),
       delta=st.sampled_from([1e-4, 0.05, 1.0]))
def test_value_is_feasible_and_between_its_bounds(net, seed, base, delta):
    """z within δ, ℓ(z*) ≤ value = ℓ(z) ≤ upper, for every network and both potentials. If it fails,
    an adversary spends more than its budget, or its loss is misreported."""
    x, y = random_inputs(seed % 2**31, net, samples=2)
    objective = ConstrainedAROVR(delta, potential=base, steps=20)
    values = objective(net, x, y, "none").detach()
    certificate, z = objective.certificate, objective.activations
    assert (base(net, z) <= delta * (1 + 1e-9)).all()
    torch.testing.assert_close(values, 0.5 * (z[-1] - y).square().sum(1))
    torch.testing.assert_close(certificate.lower, values)
    torch.testing.assert_close(certificate.energy, base(net, z).detach())
    assert (values >= 0.5 * (net(x) - y).square().sum(1) - 1e-12).all()
    assert (certificate.upper >= values - 1e-9 * (1 + values)).all()


@each_base
def test_value_never_exceeds_arovr_and_a_budget(base):
    """Weak duality at any β: ℓ(z) ≤ AROVR_β + δ/β, with AROVR's global optimum. If it fails, the
    value is too large, or β and δ do not belong together."""
    for seed in range(6):
        net = random_network(seed, [1, 2, 1], scale=0.6)
        x, y = random_inputs(seed, net)
        values = ConstrainedAROVR(0.2, potential=base)(net, x, y, "none")
        for beta in (0.05, 0.2, 0.4):
            arovr = lnn.AROVR(beta, potential=base, solver=Exhaustive())(net, x, y, "none")
            assert (values <= arovr + 0.2 / beta).all()


def test_value_grows_with_the_budget_from_the_plain_loss():
    """If it fails, an adversary with more of budget does less harm."""
    net = random_network(3, [3, 4, 2], scale=0.7)
    x, y = random_inputs(3, net)
    plain = lnn.BackPropagation()(net, x, y, "none")
    values = [ConstrainedAROVR(delta)(net, x, y, "none") for delta in (1e-10, 1e-2, 1e-1)]
    torch.testing.assert_close(values[0], plain, rtol=1e-4, atol=1e-4)
    assert (values[0] < values[1]).all() and (values[1] < values[2]).all()


def test_samples_do_not_influence_each_other():
    """One β per sample: a batch gives what each sample gives alone. If it fails, one sample's
    budget is spent on another."""
    net = random_network(4, [3, 4, 2], scale=0.8)
    x, y = random_inputs(4, net, samples=4)
    y[0] *= 100
    objective = ConstrainedAROVR(0.1, solver=lnn.Shooting(tolerance=1e-10, max_passes=400, every=True))
    together = objective(net, x, y, "none")
    alone = torch.stack([objective(net, x[i:i + 1], y[i:i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=0)


def test_samples_that_run_away_do_not_stop_the_others():
    """InferenceDiverged ends a whole batch; the search has to find out who did it and go on. If it
    fails, one sample ends the training."""
    net, x, y, r = one_layer()
    radius = math.sqrt(0.6)
    beta = (radius / (r + radius)).detach()
    border = beta.sort().values[:2].mean()

    class Fragile(lnn.Shooting):
        def __call__(self, net, energy, z):
            if (energy.output.curvature < -border).any():
                raise lnn.InferenceDiverged("beyond the border")
            return super().__call__(net, energy, z)

    objective = ConstrainedAROVR(0.3, solver=Fragile())
    values = objective(net, x, y, "none")
    inside = beta < border
    torch.testing.assert_close(objective.certificate.beta, beta.minimum(border), rtol=1e-6, atol=0)
    torch.testing.assert_close(values[inside], 0.5 * (r + radius)[inside] ** 2, rtol=1e-6, atol=0)
    assert (objective.certificate.energy[~inside] < 0.29).all()


def test_passes_of_a_batch_that_was_halved_are_the_longest():
    """If it fails, a report leaves passes out where one sample ran away."""
    def fragile(net, energy, start):
        if len(start.energy) > 1:
            raise lnn.InferenceDiverged("all but one")
        passes = 9 if torch.equal(start.z[0], x[1:2]) else 4
        zero = torch.zeros_like(start.energy)
        return start, Report(passes, zero, zero == 0, zero > 0)

    net, x, y, _ = one_layer()
    for rows in ([1, 0, 2], [0, 1, 2], [0, 2, 1]):
        objective = ConstrainedAROVR(0.3, solver=fragile, steps=1)
        objective(net, x[rows], y[rows])
        assert objective.report.passes == 9


def test_larger_beta_in_a_poorer_optimum():
    """If it fails, it replaces the activations found before, or certifies a bound that they
    refute."""
    def poorer_beyond(net, energy, start):
        beta, forward = -energy.output.curvature, start.z[1]
        step = torch.where(beta < 0.2, beta, torch.where(beta < 0.5, 0.01, 10.0))
        end = Iterate.of(net, energy, [start.z[0], forward + step * (forward - y)])
        return end, lnn.Report(1, beta[:, 0], beta[:, 0] > 0, beta[:, 0] < 0)

    net, x, y, r = one_layer()
    x, y, r = x[:1], y[:1], r[:1]
    objective = ConstrainedAROVR(0.003 * r.item() ** 2, solver=poorer_beyond)
    value = objective(net, x, y)
    assert objective.certificate.beta < 0.2 and value > 0.5 * (1.05 * r) ** 2
    assert objective.certificate.upper >= value and objective.certificate.upper.isfinite()


# --- the limits of the multiplier ---------------------------------------------------------------

@pytest.mark.parametrize("kind", ["unbounded", "given up"])
def test_beta_at_which_inference_fails_is_too_large(kind):
    """Above β = 0.2 the solver finds nothing, though what it returns costs less than δ.

    On one layer z_β = a + βr/(1 − β): the search has to end at 0.2, and its passes add up. If it
    fails, a failed inference passes for one that is within the budget.
    """
    net, x, y, r = one_layer()
    passes = []

    def solver(net, energy, start):
        passes.append(3)
        beta = -energy.output.curvature[:, 0]
        lost = beta > 0.2
        move = beta / (1 - beta) if kind == "unbounded" else torch.where(lost, 0, beta / (1 - beta))
        z = [start.z[0], start.z[1] + move[:, None] * (start.z[1] - y)]
        flagged = lost if kind == "unbounded" else torch.zeros_like(lost)
        return Iterate.of(net, energy, z), Report(3, torch.zeros_like(beta), ~lost, flagged)

    objective = ConstrainedAROVR(1e6, solver=solver)
    values = objective(net, x, y, "none")
    found = objective.certificate.beta
    torch.testing.assert_close(found, torch.full_like(found, 0.2), rtol=1e-7, atol=0)
    torch.testing.assert_close(values, 0.5 * (r / 0.8) ** 2, rtol=1e-6, atol=0)
    assert objective.report.passes == sum(passes) == 3 * 32


def test_what_is_infinite_for_one_sample_bounds_none():
    """1-1-1, W = 1 and 3: AROVR_β is infinite from β = 0.1 on, whatever x is.

    At x = −1 inference settles at β = ⅔ all the same, a local optimum whose "bound" would be ½(1 +
    √(2·2))² = 4.5. No β below 0.1 bounds (7) by less than δ/0.1 = 20. If it fails, the certificate
    is one of those.
    """
    net = lnn.LiftedNetwork([1, 1, 1], dtype=torch.float64)
    with torch.no_grad():
        net.weight(1).fill_(1.0), net.weight(2).fill_(3.0)
    x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    objective = ConstrainedAROVR(2.0)
    objective(net, x, torch.ones_like(x))
    assert objective.certificate.beta[1].item() == pytest.approx(2 / 3, rel=1e-6)
    assert objective.certificate.upper[1] >= 20
    objective(net, x[1:], torch.ones_like(x[1:]))  # alone nothing is found out
    assert objective.certificate.upper.item() == pytest.approx(4.5, rel=1e-6)


def test_the_bisection_ends_where_numbers_do():
    """If it fails, a million steps go on long after β has all the digits that there are."""
    net, x, y, _ = one_layer()
    calls = []

    def solver(*problem):
        calls.append(problem)
        assert len(calls) < 100, "a double has 53 bits"
        return EXACT(*problem)

    ConstrainedAROVR(0.3, steps=10**6, solver=solver)(net, x, y)
    assert len(calls) > 50


def test_budget_beyond_the_largest_beta_is_said():
    """δ = 1e9: β stops at 0.999·γ_L, z stays feasible, part of δ is unused and nothing is
    certified. If it fails, a budget that was not spent counts as spent."""
    net, x, y, _ = one_layer()
    objective = ConstrainedAROVR(1e9)
    values = objective(net, x, y, "none")
    certificate = objective.certificate
    torch.testing.assert_close(certificate.beta, torch.full((3,), 0.999, dtype=torch.float64))
    assert (certificate.energy < 1e9).all() and certificate.upper.isinf().all()
    assert values.isfinite().all()
    assert str(certificate) == "largest gap unknown; no upper bound for 3 of 3 samples"


def test_interpolated_sample_is_not_certified():
    """r = 0 keeps z at z* for every β (Proposition 3.3): loss 0, gradient 0, but no bound of 0. If
    it fails, a network counts as robust where it has only learnt by heart."""
    net = random_network(5, [3, 4, 2])
    x, _ = random_inputs(5, net)
    objective = ConstrainedAROVR(0.1)
    value = objective(net, x, net(x).detach())
    assert value.item() < 1e-20 and objective.certificate.upper.isinf().all()
    assert all(g.abs().max() < 1e-9 for g in torch.autograd.grad(value, net.weights))


# --- gradients and errors ------------------------------------------------------------------------

def gradient(value, net, x):
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, [*net.parameters(), x])])


def test_gradient_of_the_ball():
    """Autograd through ½(‖r‖ + √(2δ))² against the envelope −(1/β)·∂U/∂θ. If it fails, training
    follows another slope."""
    net, x, y, _ = one_layer()
    x.requires_grad_()
    expected = 0.5 * ((net(x) - y).norm(dim=1) + math.sqrt(0.6)).square().mean()
    ours = gradient(ConstrainedAROVR(0.3)(net, x, y), net, x)
    torch.testing.assert_close(ours, gradient(expected, net, x), rtol=1e-6, atol=1e-8)


@each_base
def test_gradient_against_finite_differences(base):
    """Two Tanh layers, all parameters along random directions. If it fails, training follows
    another slope."""
    net = random_network(6, [2, 3, 2], lnn.Tanh(), scale=0.7)
    x, y = random_inputs(6, net)
    objective = ConstrainedAROVR(0.1, potential=base, solver=EXACT, steps=44)
    gradients = torch.autograd.grad(objective(net, x, y), list(net.parameters()))
    generator = torch.Generator().manual_seed(0)
    for parameter, ours in zip(net.parameters(), gradients):
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * 1e-4 * direction
                values.append(objective(net, x, y).item())
                parameter -= sign * 1e-4 * direction
        expected = (values[0] - values[1]) / 2e-4
        assert (ours * direction).sum().item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_gradient_without_a_multiplier_is_back_propagations():
    """If it fails, a budget too small for any β leaves a sample without gradient."""
    net, x, y, _ = one_layer()
    x.requires_grad_()
    objective = ConstrainedAROVR(1e-30)
    ours = gradient(objective(net, x, y), net, x)
    assert (objective.certificate.beta == 0).all()
    torch.testing.assert_close(ours, gradient(lnn.BackPropagation()(net, x, y), net, x))


@pytest.mark.parametrize("delta", [0.0, -1.0, math.inf, math.nan])
def test_bad_budgets_are_refused(delta):
    """If it fails, a budget that is no positive number gives a value that means nothing."""
    with pytest.raises(ValueError, match=f"delta={delta} must be positive"):
        ConstrainedAROVR(delta)


def test_tilted_potential_is_refused():
    """(7) measures U from zero; a tilted U starts elsewhere. If it fails, the budget is counted
    from the wrong place."""
    with pytest.raises(ValueError, match="not zero at the forward pass"):
        ConstrainedAROVR(0.1, potential=lnn.Tilted([None]))


def test_potential_that_does_not_fit_is_refused():
    """If it fails, a potential for another network is searched with."""
    net, x, y, _ = one_layer()
    with pytest.raises(ValueError, match="gamma has 2 entries for 1 layers"):
        ConstrainedAROVR(0.1, potential=lnn.Reweighted([1.0, 1.0]))(net, x, y)


def test_loss_with_a_weight_for_every_sample():
    """What the search rests on: (batch, 1) weights act sample by sample; the worst one is checked.
    If it fails, every sample has the same β."""
    net, x, y, _ = one_layer()
    beta = torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64)
    energy = lnn.FenchelYoung() + -beta[:, None] * lnn.Euclidean(y)
    z, _ = lnn.infer(net, x, energy, solver=EXACT)
    for i in range(3):
        row = slice(i, i + 1)
        alone = lnn.FenchelYoung() - beta[i].item() * lnn.Euclidean(y[row])
        z_alone, _ = lnn.infer(net, x[row], alone, solver=EXACT)
        torch.testing.assert_close(z[1][row], z_alone[1])
        torch.testing.assert_close(energy(net, z)[row], alone(net, z_alone))
    with pytest.raises(ValueError, match="curvature -1.5"):
        lnn.infer(net, x, lnn.FenchelYoung() + -torch.tensor([[0.1], [1.5], [0.2]]) * lnn.Euclidean(y))
