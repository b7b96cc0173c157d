"""Bounds against the definitions they summarise: Hessians, sums over paths, and attacks."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lnn_core as lnn
from lnn_core import bounds

BASES = [lnn.FenchelYoung(), lnn.LeastSquares()]
RESIDUAL = [(0, 1), (1, 2), (1, 3), (2, 3)]


def network(sizes, activation=None, seed=0, **options):
    """A float64 network with weights from N(0, 1/fan_in) and biases from N(0, ¼)."""
    generator = torch.Generator().manual_seed(seed)
    net = lnn.LiftedNetwork(sizes, activation, init="normal", generator=generator,
                            dtype=torch.float64, **options)
    for bias in net.biases:
        bias.data.normal_(0.0, 0.5, generator=generator)
    return net


def normal(*size, seed=1):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_gamma(net, seed=2):
    """One entry per layer; the first hidden layer has one per unit."""
    entries = np.random.default_rng(seed).uniform(0.5, 2.0, net.depth).tolist()
    return [0.5 + normal(net.sizes[1], seed=seed).abs(), *entries[1:]]


def hessian(energy, net, z):
    """∇²E in (z_1, …, z_L) at the activations z of one sample."""
    sizes = list(net.sizes[1:])

    def value(free):
        return energy(net, [z[0], *free[None].split(sizes, 1)])[0]

    return torch.autograd.functional.hessian(value, torch.cat(z[1:], 1)[0].detach())


# --------------------------------------------------------------------------- κ


def test_kappa_of_a_chain_is_the_bracket_of_equation_19():
    """1 + Σ_k Π_j ‖W_jᵀW_j‖₂, written out for three layers. If it fails, κ is of another network,
    and so is every bound."""
    net = network([4, 5, 6, 3])
    norm_1, norm_2 = (np.linalg.norm(net.weight(k).detach().numpy(), 2) ** 2 for k in (2, 3))
    assert bounds.kappa(net) == pytest.approx(1 + norm_2 + norm_1 * norm_2)
    assert bounds.safe_beta(net) == pytest.approx(1 / (1 + norm_2 + norm_1 * norm_2))
    expected = 1 / 0.5 + norm_2 / 3.0 + norm_1 * norm_2 / 2.0
    assert bounds.kappa(net, [2.0, torch.tensor([4.0] * 5 + [3.0]), 0.5]) == pytest.approx(expected)


def test_kappa_of_a_graph_sums_over_paths():
    """Positive scalar weights reach the bound: κ_γ is the linear network's K itself. If it fails,
    skip connections are forgotten or counted twice."""
    net = network([1, 1, 1, 1], lnn.Identity(), edges=RESIDUAL)
    for weight, value in zip(net.weights, (0.3, 0.7, 0.4, 1.2)):
        weight.data.fill_(value)
    u, v, w = (net.weight(*edge).item() for edge in ((2, 1), (3, 1), (3, 2)))
    expected = 1 / 2.0 + w**2 / 1.5 + (v + u * w) ** 2 / 0.5
    assert bounds.kappa(net, [0.5, 1.5, 2.0]) == pytest.approx(expected)
    assert bounds.output_gram(net, gamma=[0.5, 1.5, 2.0]).item() == pytest.approx(expected)


@given(st.integers(0, 10**6), st.sampled_from([None, RESIDUAL]),
       st.sampled_from([lnn.ReLU(), lnn.Box(-1, 1), lnn.Tanh()]), st.sampled_from(BASES))
def test_no_activations_move_the_output_farther_than_kappa_allows(seed, edges, activation, base):
    """‖z_L − z_L*‖² ≤ 2κ_γU^⊙γ for arbitrary z: all bounds in the module rest on it. If it fails,
    none of them is one."""
    net = network([3, 4, 5, 2], activation, seed, edges=edges)
    gamma, x = random_gamma(net, seed), normal(64, 3, seed=seed)
    scale = torch.logspace(-3, 1, 64, dtype=torch.float64)[:, None]
    z = [x]
    for k in range(1, net.depth + 1):
        G = net.function(k)
        e = scale * normal(64, net.sizes[k], seed=seed + k)
        z.append((G.activation(net.preactivation(k, z)) + e).clamp(G.lower, G.upper).detach())
    U = lnn.Reweighted(gamma, base)(net, z)
    moved = (z[-1] - net(x)).square().sum(1)
    assert (moved <= 2 * bounds.kappa(net, gamma) * U * (1 + 1e-12)).all()


# --------------------------------------------------------------------------- K


@pytest.mark.parametrize("base", BASES, ids=str)
@pytest.mark.parametrize("edges", [None, RESIDUAL], ids=["chain", "graph"])
@pytest.mark.parametrize("activation", [lnn.Identity(), lnn.Tanh(), lnn.ReLU()], ids=str)
def test_output_gram_is_the_outputs_block_of_the_inverse_hessian(activation, edges, base):
    """K = [(∇²U)⁻¹]_LL at the forward pass; a unit that G holds at its bound does not count. If it
    fails, reduced forms and borders are those of another energy."""
    net, x = network([3, 4, 5, 2], activation, edges=edges), normal(3, 3)
    gamma = random_gamma(net)
    K = bounds.output_gram(net, x, gamma, base=base)
    for i in range(len(x)):
        z = net.activations(x[i:i + 1])
        H = hessian(lnn.Reweighted(gamma, base) + lnn.Loss(), net, z)
        free = torch.cat(z[1:], 1)[0] != 0 if isinstance(base, lnn.FenchelYoung) else slice(None)
        H = H[free][:, free]
        torch.testing.assert_close(K[i], torch.linalg.inv(H)[-2:, -2:])


@given(st.integers(0, 10**6))
def test_a_linear_network_loses_convexity_exactly_at_the_threshold(seed):
    """The smallest eigenvalue of ∇²(U − βℓ) changes sign at β = 1/λ_max(K), any γ. If it fails, a
    safe β is refused or an unsafe one allowed."""
    net, x, y = network([5, 4, 6, 3], lnn.Identity(), seed), normal(1, 5), normal(1, 3)
    gamma = random_gamma(net, seed)
    threshold = bounds.stability_threshold(net, gamma=gamma).item()
    for factor, sign in ((0.999, 1), (1.001, -1)):
        energy = lnn.Reweighted(gamma) - factor * threshold * lnn.Euclidean(y)
        smallest = torch.linalg.eigvalsh(hessian(energy, net, net.activations(x)))[0]
        assert sign * smallest > 0
    assert bounds.safe_beta(net, gamma) <= threshold <= gamma[-1]


def test_without_x_the_threshold_is_that_of_any_x():
    """K of a linear network does not depend on the input. If it fails, a threshold that is asked
    for without samples is wrong."""
    net = network([3, 4, 2], lnn.Identity())
    assert bounds.output_gram(net).shape == (1, 2, 2)
    torch.testing.assert_close(bounds.stability_threshold(net).expand(5),
                               bounds.stability_threshold(net, normal(5, 3)))


# ------------------------------------------------------------------- objectives


@pytest.mark.parametrize("gamma", [None, [0.5]], ids=["1", "0.5"])
def test_one_linear_layer_attains_the_two_sided_bounds(gamma):
    """Equation (13): κ_γ = 1/γ_L and both bounds are equalities. If it fails, the bounds are wrong
    by a factor."""
    net, x, y = network([3, 4]), normal(6, 3), normal(6, 4)
    lower, upper = bounds.two_sided(net, x, y, 0.2, gamma)
    potential = lnn.Reweighted([1.0] if gamma is None else gamma)
    for bound, objective in ((lower, lnn.ROVR), (upper, lnn.AROVR)):
        value = objective(0.2, potential=potential)(net, x, y, "none")
        torch.testing.assert_close(bound, value.detach())


def test_two_sided_bounds_are_closed_forms_of_the_forward_loss():
    """ℓ(z*)/(1 ± βκ), for labels too; and ℓ(z*) ± βκ‖g‖²/2 for a linear loss of any β. If it fails,
    other losses than the Euclidean get a wrong bound."""
    net, x, y = network([3, 4, 5, 2]), normal(6, 3), torch.tensor([0, 1, 0, 1, 0, 1])
    t, ell = 0.7, 0.5 * (net(x) - torch.eye(2)[y]).square().sum(1).detach()
    lower, upper = bounds.two_sided(net, x, y, t * bounds.safe_beta(net))
    torch.testing.assert_close(lower, ell / (1 + t))
    torch.testing.assert_close(upper, ell / (1 - t))
    g, beta = normal(6, 2), 30.0
    lower, upper = bounds.two_sided(net, x, g, beta, loss=lnn.Linear)
    half = 0.5 * beta * bounds.kappa(net) * g.square().sum(1)
    torch.testing.assert_close(lower + half, (g * net(x)).sum(1).detach())
    torch.testing.assert_close(upper - half, (g * net(x)).sum(1).detach())


@pytest.mark.parametrize("base", BASES, ids=str)
def test_two_sided_bounds_hold_on_a_real_network(base):
    """Inferred values err towards the forward loss, so a crossed bound is a wrong bound. If it
    fails, that is what has happened."""
    net, x, y = network([20, 16, 12, 5]), normal(50, 20), normal(50, 5)
    gamma = random_gamma(net)
    for fraction in (0.2, 0.9):
        beta = fraction * bounds.safe_beta(net, gamma)
        lower, upper = bounds.two_sided(net, x, y, beta, gamma)
        potential = lnn.Reweighted(gamma, base)
        assert (lnn.ROVR(beta, potential=potential)(net, x, y, "none") >= lower).all()
        assert (lnn.AROVR(beta, potential=potential)(net, x, y, "none") <= upper).all()


@pytest.mark.parametrize("base", BASES, ids=str)
def test_reduced_values_are_exact_for_linear_networks(base):
    """½rᵀ(I ± βK)⁻¹r against the optimum of the quadratic energy, solved directly. If it fails, the
    reduced formula is not (18)."""
    net, x, y = network([4, 5, 6, 3], lnn.Identity()), normal(1, 4), normal(1, 3)
    gamma = random_gamma(net)
    beta = 0.8 * bounds.stability_threshold(net, gamma=gamma).item()
    for sign, value in zip((1, -1), bounds.reduced(net, x, y, beta, gamma, base=base)):
        energy = lnn.Reweighted(gamma, base) + sign * beta * lnn.Euclidean(y)
        z = [x] + [torch.zeros(1, size).double().requires_grad_() for size in net.sizes[1:]]
        slope = torch.cat(torch.autograd.grad(energy(net, z).sum(), z[1:]), 1)[0]
        best = -torch.linalg.solve(hessian(energy, net, z), slope)
        optimum = energy(net, [x, *best[None].split(list(net.sizes[1:]), 1)])
        torch.testing.assert_close(value, sign * optimum.detach() / beta)


@pytest.mark.parametrize("base", BASES, ids=str)
def test_reduced_values_have_the_first_order_of_the_true_ones(base):
    """(AROVR − ℓ)/β and (ℓ − ROVR)/β tend to ½Σ_k‖∂ℓ/∂z_k‖²/γ_k, own units' slopes included. If it
    fails, small β do not lead back to back-propagation's squared errors."""
    net, x, y = network([4, 5, 6, 3], lnn.Tanh()), normal(7, 4), normal(7, 3)
    beta, ell = 1e-4, lnn.Euclidean(y)(net(x)).detach()
    solver = lnn.Shooting(tolerance=1e-10, every=True)
    for sign, objective, value in zip((-1, 1), (lnn.ROVR, lnn.AROVR),
                                      bounds.reduced(net, x, y, beta, base=base)):
        exact = objective(beta, potential=base, solver=solver)(net, x, y, "none").detach()
        torch.testing.assert_close((value - ell) / beta, (exact - ell) / beta, rtol=2e-3, atol=1e-6)
        assert (sign * (value - ell) > 0).all()


def test_reduced_arovr_is_infinite_beyond_the_local_threshold():
    """A sample beyond its own threshold has no finite linearised AROVR; ROVR always exists. If it
    fails, a finite number stands for an infinite value."""
    net, x, y = network([4, 5, 3]), normal(20, 4), normal(20, 3)
    threshold = bounds.stability_threshold(net, x)
    beta = threshold.median().item() * 1.0001
    rovr, arovr = bounds.reduced(net, x, y, beta)
    assert torch.equal(arovr.isinf(), beta * (1 / threshold) >= 1)
    assert arovr.isinf().any() and arovr.isfinite().any() and rovr.isfinite().all()


# ---------------------------------------------------------------- certified budget


def test_energy_budget_of_one_linear_layer_is_the_cheapest_flip():
    """κ = 1: moving two outputs by m/2 each costs ½·2·(m/2)² = m²/4, and no flip is cheaper. If it
    fails, the certificate is too small to be tight, or too large to be one."""
    net = network([3, 4])
    x = normal(10, 3)
    first, second = net(x).detach().sort(1, descending=True).values[:, :2].T
    torch.testing.assert_close(bounds.energy_budget(net, x), (first - second) ** 2 / 4)


def test_the_margin_is_the_largest_difference_to_another_output():
    """Brute force over pairs of outputs, a tie among them. If it fails, every radius and budget that
    rests on a margin is wrong."""
    output = normal(50, 4)
    output[0] = torch.tensor([1.0, 3.0, 3.0, 2.0])
    expected = torch.stack([min(row.max() - other for k, other in enumerate(row) if k != row.argmax())
                            for row in output])
    torch.testing.assert_close(bounds.margin(output), expected, rtol=0, atol=0)


@pytest.mark.parametrize("base", BASES, ids=str)
def test_no_attack_within_the_energy_budget_changes_a_prediction(base):
    """Attacks on the margin of growing strength, through inference on a real network. If it fails,
    a certified prediction can be turned."""
    net, x = network([10, 12, 12, 4]), normal(40, 10)
    gamma = random_gamma(net)
    budget, output = bounds.energy_budget(net, x, gamma), net(x)
    top, runner_up = output.topk(2).indices.T
    margin = lnn.Linear(torch.eye(4).double()[top] - torch.eye(4).double()[runner_up])
    potential, within, flipped = lnn.Reweighted(gamma, base), 0, 0
    for strength in torch.logspace(-3, 1, 20):
        z, _ = lnn.infer(net, x, potential + strength.item() * margin)
        safe = potential(net, z) < budget
        assert torch.equal(z[-1].argmax(1)[safe], top[safe])
        within, flipped = within + int(safe.sum()), flipped + int((z[-1].argmax(1) != top).sum())
    # Of 800 attacks many are on either side of the budget.
    assert within > 100 and flipped > 100


# -------------------------------------------------------------------------- errors


@pytest.mark.parametrize("gamma, message", [
    ([1.0, 1.0], "gamma has 2 entries for 3 layers"),
    ([1.0, 0.0, 1.0], "gamma_2=0.0 must be positive"),
    ([1.0, 1.0, torch.ones(3)], r"gamma_3 has shape \(3,\); layer 3 has 2 units"),
])
def test_a_gamma_that_does_not_fit_is_named(gamma, message):
    """If it fails, κ with a wrong γ certifies nothing, and nobody hears of it."""
    for function in (bounds.kappa, bounds.safe_beta):
        with pytest.raises(ValueError, match=message):
            function(network([3, 4, 5, 2]), gamma)


def test_errors_name_the_value_and_the_bound():
    """β ≥ 1/κ, a single output, a nonlinear network without x, a potential without K. If it fails,
    one of them is computed with."""
    net, x, y = network([3, 4, 2]), normal(5, 3), normal(5, 2)
    limit = bounds.safe_beta(net)
    with pytest.raises(ValueError, match=f"must be below 1/kappa={limit:g}"):
        bounds.two_sided(net, x, y, 1.01 * limit)
    with pytest.raises(ValueError, match="beta=-1 must be positive"):
        bounds.reduced(net, x, y, -1)
    with pytest.raises(ValueError, match="at least 2 outputs"):
        bounds.energy_budget(network([3, 4, 1]), x)
    with pytest.raises(ValueError, match="at least 2 outputs"):
        bounds.margin(x[:, :1])
    with pytest.raises(ValueError, match=r"ReLU\(\) in the network K depends on x"):
        bounds.stability_threshold(net)
    with pytest.raises(TypeError, match="must be FenchelYoung"):
        bounds.output_gram(net, x, base=lnn.Reweighted([1.0, 1.0]))
