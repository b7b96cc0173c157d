"""The oracle against closed forms, and against a brute-force search with its own energy."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, minimize_scalar

import lnn_core as lnn
from lnn_core import oracle
from lnn_core.inference.iterate import Iterate
from lnn_core.oracle.units import flatten
from lnn_core.propositions import toys

ONE = torch.ones(1, 1, dtype=torch.float64)


def chain(*weights, activation=None, output=None):
    """A chain of one unit per layer with the given weights and no biases."""
    net = lnn.LiftedNetwork([1] * (len(weights) + 1), activation, output, bias=False,
                            dtype=torch.float64)
    for parameter, weight in zip(net.weights, weights):
        parameter.data.fill_(weight)
    return net


def normal(*size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ------------------------------------------------------------------ brute force


def scalar_energy(toy, z):
    """U^⊙γ + gᵀz − βℓ for z of shape (…, n), unit by unit from eqs. (1), (2) and (31)."""
    net, layers, start = toy.net, [toy.x.numpy()[0] + np.zeros((*z.shape[:-1], 1))], 0
    total = 0.0
    for k in range(1, net.depth + 1):
        layers.append(z[..., start:start + net.sizes[k]])
        start += net.sizes[k]
        a = net.biases[k - 1].detach().numpy() + sum(
            layers[j] @ net.weight(k, j).detach().numpy().T for j, child in net.edges if child == k)
        G, D = net.function(k), None
        f = np.tanh(a) if isinstance(G, lnn.Tanh) else np.minimum(np.maximum(a, G.lower), G.upper)
        if isinstance(toy.base, lnn.LeastSquares):
            D = (layers[k] - f) ** 2 / 2
        elif isinstance(G, lnn.Tanh):
            p, q = (1 + layers[k]) / 2, (1 - layers[k]) / 2
            negentropy = p * np.log(p) + q * np.log(q) + np.log(2)
            D = negentropy - layers[k] * a + np.log(np.cosh(a))
        else:
            D = layers[k] ** 2 / 2 - layers[k] * a + f * a - f**2 / 2
        gamma, g = np.asarray(toy.gamma[k - 1]), toy.tilt[k - 1].numpy()
        total = total + (gamma * D + g * layers[k]).sum(-1)
    return total - toy.beta / 2 * ((layers[-1] - toy.y.numpy()[0]) ** 2).sum(-1)


def brute_force(toy):
    """The least energy on a dense grid, polished by Nelder and Mead's simplex."""
    centre = torch.cat(toy.net.activations(toy.x)[1:], 1)[0].detach().numpy()
    low, high = np.full(len(centre), -np.inf), np.full(len(centre), np.inf)
    if isinstance(toy.base, lnn.FenchelYoung):
        each = [G for G, size in zip(toy.net.functions, toy.net.sizes[1:]) for _ in range(size)]
        inside = np.array([1e-12 * isinstance(G, lnn.Tanh) for G in each])   # away from log(0)
        low = np.array([G.lower for G in each]) + inside
        high = np.array([G.upper for G in each]) - inside
    axes = [np.linspace(max(a, c - 5), min(b, c + 5), 51) for a, b, c in zip(low, high, centre)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(centre))
    order = scalar_energy(toy, points).argsort()
    bounds = list(zip(low, high))
    options = {"xatol": 1e-9, "fatol": 1e-13, "maxiter": 4000, "maxfev": 4000, "adaptive": True}
    return min(minimize(lambda z: float(scalar_energy(toy, z)), points[i], method="Nelder-Mead",
                        bounds=bounds, options=options).fun for i in order[[0, 1, 20]])


@pytest.mark.parametrize("activation, base", list(product(toys.ACTIVATIONS, toys.BASES)), ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_finds_what_a_grid_and_a_simplex_find(activation, base, seed):
    """If it fails, a global optimum is missed, and every check of the theory is worthless."""
    toy = toys.draw(seed, activations=(activation,), bases=(base,), fraction=0.4)
    value, z = oracle.minimum(toy.net, toy.x, toy.tilted - toy.beta * toy.loss)
    found = brute_force(toy)
    assert value.item() <= found + 1e-9
    assert value.item() == pytest.approx(found, abs=1e-6)
    best = torch.cat(z[1:], 1)[0].numpy()
    assert scalar_energy(toy, best) == pytest.approx(value.item(), abs=1e-9)


@pytest.mark.parametrize("base", toys.BASES, ids=str)
@pytest.mark.parametrize("hidden", [(lnn.ReLU(), lnn.Tanh()), (lnn.Tanh(), lnn.Box(0, 1))], ids=str)
def test_layers_may_have_different_activations(hidden, base):
    """A Tanh beside piecewise linear layers: a grid over a domain that is partly unlimited. If it
    fails, a mixture is searched in part."""
    toy = toys.draw(1, shapes=(((1, 1, 1, 1), None),), bases=(base,), fraction=0.4)
    net = lnn.LiftedNetwork([1, 1, 1, 1], hidden, dtype=torch.float64)
    net.load_state_dict(toy.net.state_dict())
    toy = toy.with_(net=net)
    value, _ = oracle.minimum(net, toy.x, toy.tilted - toy.beta * toy.loss)
    assert value.item() == pytest.approx(brute_force(toy), abs=1e-6)


@pytest.mark.parametrize("activation", [lnn.Tanh(), lnn.ReLU()], ids=str)
def test_an_output_that_the_loss_drives_into_its_corners_is_found(activation):
    """With β > γ_L a confined output has a concave energy: its minimum is at an end of the box. If
    it fails, the ends are not looked at."""
    toy = toys.draw(2, shapes=(((1, 1, 1), None),), bases=(lnn.FenchelYoung(),), fraction=8.0)
    net = lnn.LiftedNetwork([1, 1, 1], activation, lnn.Box(0, 1), dtype=torch.float64)
    net.load_state_dict(toy.net.state_dict())
    toy = toy.with_(net=net)
    assert toy.beta > max(map(float, toy.gamma))
    value, z = oracle.minimum(net, toy.x, toy.tilted - toy.beta * toy.loss)
    assert z[2].item() in (0.0, 1.0)
    assert value.item() == pytest.approx(brute_force(toy), abs=1e-6)


def test_a_better_basin_far_from_the_forward_pass_is_found():
    """½z₁² − 100·tanh(5z₁ − 50) − 5000.5 after elimination of z₂, z₃: its best z₁ is near 10.

    For x = 0 and least squares; the basin at the forward pass, z₁ = 0, is 150 higher. If it fails,
    the search stays near the forward pass.
    """
    net = lnn.LiftedNetwork([1, 1, 1, 1], lnn.Tanh(), dtype=torch.float64)
    for k, (weight, bias) in enumerate(((1.0, 0.0), (5.0, -50.0), (100.0, 0.0)), 1):
        net.weight(k).data.fill_(weight)
        net.biases[k - 1].data.fill_(bias)
    best = minimize_scalar(lambda z: z**2 / 2 - 100 * np.tanh(5 * z - 50) - 5000.5,
                           bounds=(9, 12), method="bounded", options={"xatol": 1e-10})
    value, z = oracle.minimum(net, 0 * ONE, lnn.LeastSquares() - lnn.Linear(ONE))
    assert value.item() == pytest.approx(best.fun, rel=1e-10)
    assert z[1].item() == pytest.approx(best.x, abs=1e-5)


def test_the_grid_reaches_all_that_is_as_good_as_the_forward_pass():
    """½z² − 3z, a tanh unit at x = 0, is negative up to z = 6; then random networks. If it fails,
    the grid ends too early."""
    net = chain(1.0, output=lnn.Tanh())
    assert oracle._reach(flatten(net, lnn.LeastSquares() - lnn.Linear(3 * ONE), 0 * ONE), 0) >= 6
    net = chain(1.0, output=lnn.ReLU())  # its own recession: the bound is ½z² − 3z itself
    assert oracle._reach(flatten(net, lnn.LeastSquares() - lnn.Linear(3 * ONE), 0 * ONE),
                         0) == pytest.approx(6)
    for seed in range(20):
        toy = toys.draw(seed, activations=(lnn.Tanh(),), bases=(lnn.LeastSquares(),))
        units = flatten(toy.net, toy.tilted - toy.beta * toy.loss, toy.x)
        d = np.random.default_rng(seed).standard_normal((500, units.n))
        z = oracle._reach(units, 0) * d / np.linalg.norm(d, axis=1, keepdims=True)
        assert (units.energy(0, z) > units.energy(0, units.forward(0))).all()


def test_starts_are_polished_quickly():
    """From 0 to the minimum of a quadratic of condition 10⁶, along a valley askew to the axes. If
    it fails, the pattern starts at another width, or goes all the way without Newton's steps."""
    far, looked = np.array([3.0, 4.0]), []

    def energy(z):
        looked.append(z)
        assert len(looked) < 50
        along, across = (z - far) @ [0.6, 0.8], (z - far) @ [0.8, -0.6]
        return 1e-3 * along**2 + 1e3 * across**2

    z = oracle._polish(energy, np.zeros((1, 2)), np.array([0.25]),
                       np.full(2, -9.0), np.full(2, 9.0))
    np.testing.assert_allclose(z, [far], atol=1e-6)
    assert np.abs(looked[0]).max() == 0.25


def test_recession_is_the_energy_far_out():
    """E(t·z)/t² at t = 10⁸, for all kinds of toys. If it fails, infima of −∞ are taken for finite
    ones, or the grid ends too soon."""
    for seed in range(30):
        toy = toys.draw(seed)
        units = flatten(toy.net, toy.tilted - toy.beta * toy.loss, toy.x)
        z = units.recession().confine(np.random.default_rng(seed).standard_normal((20, units.n)))
        np.testing.assert_allclose(units.recession().energy(0, z), units.energy(0, 1e8 * z) / 1e16,
                                   rtol=0, atol=1e-5, err_msg=str(toy))


@pytest.mark.parametrize("base", toys.BASES, ids=str)
@pytest.mark.parametrize("activation", [lnn.Tanh(), lnn.Box(-1, 1)], ids=str)
def test_two_searches_agree_on_a_network_that_both_can_take(activation, base, monkeypatch):
    """If it fails, the grid (for Tanh) does not find what the enumeration of faces finds, or the
    solver finds less than both."""
    for seed in range(10):
        toy = toys.draw(seed, activations=(activation,), bases=(base,), fraction=0.8)
        energy = toy.tilted - toy.beta * toy.loss
        value, _ = oracle.minimum(toy.net, toy.x, energy)
        z, _ = lnn.infer(toy.net, toy.x, energy)
        assert energy(toy.net, z).item() >= value.item() - 1e-9
        if not isinstance(activation, lnn.Tanh):
            with monkeypatch.context() as patch:
                patch.setattr(oracle, "_stationary", oracle._grid)
                again, _ = oracle.minimum(toy.net, toy.x, energy)
            assert again.item() == pytest.approx(value.item(), abs=1e-9)


# ------------------------------------------------------------------- closed forms


def test_one_linear_layer_has_the_closed_form_of_equation_13():
    """AROVR = γ/(γ − β)·ℓ(z*) for four outputs and a γ for each unit's own loss. If it fails, units
    or outputs are mixed."""
    net = lnn.LiftedNetwork([3, 4], dtype=torch.float64)
    x, y = normal(5, 3), normal(5, 4)
    gamma = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    value = oracle.objective(lnn.AROVR(0.3, potential=lnn.Reweighted([gamma])), net, x, y)
    expected = (gamma / (gamma - 0.3) * 0.5 * (net(x) - y) ** 2).sum(1)
    torch.testing.assert_close(value, expected)


def test_a_minimiser_at_a_kink_of_the_activation_is_found():
    """E = ½(z₁ − 1)² + ½(z₂ − relu(z₁))² + 2z₂ has its minimum −3/2 where relu has its kink. If it
    fails, only the inside of pieces is searched."""
    net = chain(1.0, 1.0, activation=lnn.Identity(), output=lnn.ReLU())
    value, z = oracle.minimum(net, ONE, lnn.LeastSquares() + lnn.Linear(2 * ONE))
    assert value.item() == pytest.approx(-1.5)
    assert [z_k.item() for z_k in z[1:]] == pytest.approx([0.0, -2.0], abs=1e-12)


def test_a_minimiser_at_the_end_of_the_domain_is_found():
    """E = ½z₁² − z₁ + ½ + ½(z₂ − z₁)² + 4z₂ on z₁ ≥ 0: z₁ is pushed to 0, where z₂ = −4. If it
    fails, only the inside of the domain is searched."""
    value, z = oracle.minimum(chain(1.0, 1.0), ONE, lnn.FenchelYoung() + lnn.Linear(4 * ONE))
    assert value.item() == pytest.approx(0.5 + 8 - 16)
    assert [z_k.item() for z_k in z[1:]] == pytest.approx([0.0, -4.0], abs=1e-12)


def test_flat_directions_of_one_piece_do_not_hide_the_minimum():
    """Two equal saturated units make singular systems; the optimum is still the forward pass. If it
    fails, it is lost."""
    net = lnn.LiftedNetwork([1, 2, 1], dtype=torch.float64)
    for parameter in net.parameters():
        parameter.data.fill_(-1.0)
    value, z = oracle.minimum(net, ONE, lnn.LeastSquares() + lnn.Loss())
    assert value.item() == pytest.approx(0.0, abs=1e-15)
    assert z[-1].item() == pytest.approx(net(ONE).item())


def test_every_sample_of_a_batch_is_minimised_with_its_own_target_and_tilt():
    """If it fails, one row's optimum depends on the other rows."""
    net = chain(1.3, -0.7, 0.9)
    x, y, g = (normal(3, 1, seed=seed) for seed in range(3))
    together, _ = oracle.minimum(net, x, lnn.Tilted([g, None, g]) - 0.1 * lnn.Euclidean(y))
    for i in range(3):
        rows = slice(i, i + 1)
        alone, _ = oracle.minimum(net, x[rows], lnn.Tilted([g[rows], None, g[rows]])
                                  - 0.1 * lnn.Euclidean(y[rows]))
        torch.testing.assert_close(together[rows], alone)


def test_what_the_oracle_reports_as_a_solver():
    """If it fails, a search without passes counts some, or its optimum passes for unfinished."""
    net, x = chain(1.3, -0.7), normal(3, 1)
    energy = lnn.FenchelYoung() - 0.1 * lnn.Euclidean(normal(3, 1, seed=1))
    found, report = oracle.Exhaustive()(net, energy, Iterate.of(net, energy, net.activations(x)))
    value, z = oracle.minimum(net, x, energy)
    torch.testing.assert_close(found.energy, value)
    assert torch.equal(found.z[-1], z[-1])
    assert report.passes == 0 and report.gap.tolist() == [0.0] * 3
    assert report.converged.tolist() == [True] * 3 and report.unbounded.tolist() == [False] * 3


# -------------------------------------------------------------------- boundedness


@pytest.mark.parametrize("base", toys.BASES, ids=str)
def test_a_linear_chain_is_unbounded_from_the_exact_threshold_on(base):
    """Unit weights, two layers: K = 2, so β = ½ is the border. If it fails, an infinite value gets
    a number."""
    net = chain(1.0, 1.0, activation=lnn.Identity())
    oracle.minimum(net, ONE, base - 0.499 * lnn.Euclidean(ONE))
    for beta in (0.5, 0.501, 0.9, 3.0):
        with pytest.raises(oracle.Unbounded, match="unbounded below"):
            oracle.minimum(net, ONE, base - beta * lnn.Euclidean(ONE))


@pytest.mark.parametrize("x", [1.0, -1.0])
def test_an_escape_through_another_activation_pattern_is_seen(x):
    """At x = −1 the unit is off and β = 0.9 looks safe, but far out it switches on. If it fails, an
    infinite value gets a number."""
    net = chain(1.0, 1.0)
    with pytest.raises(oracle.Unbounded):
        oracle.minimum(net, x * ONE, lnn.FenchelYoung() - 0.9 * lnn.Euclidean(ONE))


def test_confined_hidden_activations_cannot_run_away():
    """With a box in the hidden layer only γ_L > β is needed; least squares does not confine. If it
    fails, finite values are called infinite."""
    net = chain(1.0, 1.0, activation=lnn.Box(-1, 1))
    assert oracle.growth(net, lnn.FenchelYoung() - 0.9 * lnn.Euclidean(ONE)) == pytest.approx(0.05)
    with pytest.raises(oracle.Unbounded):
        oracle.minimum(net, ONE, lnn.LeastSquares() - 0.9 * lnn.Euclidean(ONE))


def test_growth_of_a_linear_network_is_half_the_smallest_eigenvalue():
    """∇²(U − βℓ) for unit weights: [[2, −1], [−1, 1 − β]]. If it fails, growth is of another
    energy."""
    net = chain(1.0, 1.0, activation=lnn.Identity())
    expected = np.linalg.eigvalsh(np.array([[2.0, -1.0], [-1.0, 0.7]]))[0] / 2
    energy = lnn.FenchelYoung() - 0.3 * lnn.Euclidean(ONE)
    assert oracle.growth(net, energy) == pytest.approx(expected)


def test_growth_is_infinite_where_all_activations_are_confined():
    """If it fails, something escapes from a box, whatever β."""
    net = chain(1.0, 1.0, activation=lnn.Box(0, 1), output=lnn.Box(0, 1))
    assert oracle.growth(net, lnn.FenchelYoung() - 9.0 * lnn.Euclidean(ONE)) == np.inf


# ------------------------------------------------------------------ as a solver


@pytest.mark.parametrize("objective", [lnn.ROVR(0.3), lnn.AROVR(0.15),
                                       lnn.TargetedROVR(0.4, 0.5, lnn.untargeted),
                                       lnn.TargetedAROVR(0.4, 0.15, lnn.untargeted)], ids=repr)
def test_gradients_at_the_optimum_are_those_of_the_optimal_value(objective):
    """Envelope theorem: autograd through Exhaustive() equals differences of exact values. If it
    fails, exact values come with inexact slopes."""
    net, y = chain(0.8, 1.1, 0.9), 0.3 * ONE
    value = oracle.objective(objective, net, ONE, y).sum()
    gradient = torch.autograd.grad(value, list(net.weights))
    for weight, slope in zip(net.weights, gradient):
        sides = []
        for step in (1e-5, -1e-5):
            weight.data += step
            sides.append(oracle.objective(objective, net, ONE, y).item())
            weight.data -= step
        assert slope.item() == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-6)


def test_objective_leaves_the_given_objective_as_it_was():
    """If it fails, evaluating an objective exactly makes later training steps exhaustive."""
    objective = lnn.AROVR(0.1)
    exact = oracle.objective(objective, chain(1.0, 1.0), ONE, 0 * ONE)
    assert objective.solver is None
    direct = lnn.AROVR(0.1, solver=oracle.Exhaustive())(chain(1.0, 1.0), ONE, 0 * ONE)
    assert exact.item() == direct.item() == pytest.approx(0.5 / (1 - 0.1 * 2))


# --------------------------------------------------------------------- refusals


def test_refuses_what_it_cannot_search():
    """Too many activations, another precision, an unknown function. If it fails, there is a guess
    instead of an error."""
    big = lnn.LiftedNetwork([1, 4, 1], dtype=torch.float64)
    with pytest.raises(ValueError, match="5 activations in all; the exhaustive search takes 4"):
        oracle.minimum(big, ONE, lnn.FenchelYoung() + lnn.Loss())
    single = lnn.LiftedNetwork([1, 1], dtype=torch.float32)
    with pytest.raises(ValueError, match="float64 network; got torch.float32"):
        oracle.minimum(single, ONE.float(), lnn.FenchelYoung() + lnn.Loss())

    class Softplus(lnn.ConvexFunction):
        value = conjugate = activation = derivative = prox = None

    with pytest.raises(TypeError, match="Identity, ReLU, Box and Tanh"):
        oracle.minimum(chain(1.0, 1.0, activation=Softplus()), ONE, lnn.FenchelYoung() + lnn.Loss())
    with pytest.raises(TypeError, match=r"objective is a BackPropagation \(.*; expected one that infers"):
        oracle.objective(lnn.BackPropagation(), chain(1.0), ONE, ONE)


@pytest.mark.parametrize("factor", [2, 1 + 1e-6])
def test_an_energy_that_differs_from_its_formula_is_reported(factor):
    """If it fails, a bug in a potential passes as an optimum of something else."""
    class Doubled(lnn.FenchelYoung):
        def terms(self, k, G, z, a):
            return factor * super().terms(k, G, z, a)

    with pytest.raises(RuntimeError, match="two ways to compute E disagree"):
        oracle.minimum(chain(1.0, 1.0), ONE, Doubled() - 0.2 * lnn.Euclidean(0 * ONE))


@pytest.mark.parametrize("activation", [lnn.Tanh(), lnn.Box(2, 3), lnn.Box(-3, -2), lnn.ReLU()], ids=str)
@pytest.mark.parametrize("x", [-0.5, 0.0, 0.5])
def test_the_reach_covers_the_forward_pass(activation, x):
    """z* is as good as itself. If it fails, a smaller reach leaves minima outside the grid."""
    net = lnn.LiftedNetwork([1, 1, 1], activation, bias=False, dtype=torch.float64)
    with torch.no_grad():
        net.weight(1).fill_(1.0), net.weight(2).fill_(2.0)
    x = torch.tensor([[x]], dtype=torch.float64)
    units = flatten(net, lnn.LeastSquares() + lnn.Loss(), x)
    assert oracle._reach(units, 0) >= torch.cat(net.activations(x)[1:], 1).norm().item()


def test_the_border_itself_is_no_minimum():
    """1-1-1 ReLU with W_2 = 1: at β = ½ = 1/(1 + W²) E is flat along (1, 2), and the growth zero.
    If it fails, the border counts as safe."""
    net = lnn.LiftedNetwork([1, 1, 1], bias=False, dtype=torch.float64)
    with torch.no_grad():
        net.weight(1).fill_(1.0), net.weight(2).fill_(1.0)
    energy = lnn.FenchelYoung() - 0.5 * lnn.Euclidean(torch.zeros(1, 1).double())
    assert oracle.growth(net, energy) == pytest.approx(0, abs=1e-15)
    with pytest.raises(oracle.Unbounded, match="on the border"):
        oracle.minimum(net, torch.ones(1, 1).double(), energy)
