"""Lipschitz constants, radii, RR layers and the paper's statements for LRRNs."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lrrn_reference import EXACT, instance, network
from scipy.optimize import least_squares

import lnn_core as lnn
from lnn_core import lrrn, propositions
from lnn_core.lrrn import bounds
from lnn_core.propositions import lrrn_toys

seeds = st.integers(0, 10**6)


def normal(*shape, seed=0):
    return lrrn_toys.normal(torch.Generator().manual_seed(seed), *shape)


def orthogonal(n, seed=0):
    return torch.linalg.qr(normal(n, n, seed=seed)).Q


def with_weights(*weights, **options):
    """A float64 network without constraints and with these weights."""
    sizes = [weights[0].shape[1], *(len(W) for W in weights)]
    net = lrrn.LRRN(sizes, lnn.Identity(), dtype=torch.float64, **options)
    with torch.no_grad():
        for parameter, W in zip(net.weights, weights):
            parameter.copy_(W)
    return net


def largest_slope(net, samples=100, seed=0):
    J = lrrn.jacobian(net, normal(samples, net.sizes[0], seed=seed), solver=EXACT)
    return float(torch.linalg.matrix_norm(J, 2).max())


# --------------------------------------------------------------------------- the paper's statements


@pytest.mark.parametrize("name", propositions.claims_of(propositions.HOIER_ZACH))
def test_statement_holds(name):
    """If it fails, a statement of the paper (or its correction) is wrong, or the code is."""
    claim = propositions.CLAIMS[name]
    for seed in range(100, 108):
        assert claim(seed) <= claim.limit, f"seed {seed}"


@pytest.mark.parametrize("name", ["lemma_1", "corollary_1", "lemma_2", "lemmas_joined"])
def test_search_for_the_worst_case_comes_close(name):
    """If it fails, the check would also pass with a constant 1 % too large or too small."""
    assert max(propositions.CLAIMS[name](seed) for seed in range(30)) > 0.99


def test_a_row_is_the_worst_of_its_instances():
    """If it fails, a page hides a violation of the second paper's claims."""
    claim = propositions.CLAIMS["largest_value"]
    row = claim.row(2, seed=5)
    assert (row.source, row.claim, row.instances) == ("LRRN, section 3.1", claim.claim, 2)
    assert row.worst == claim.limit - max(claim(5), claim(6)) and row.violations == 0


# --------------------------------------------------------------------------- constants


def test_constants_by_hand():
    """Eq. (13), with the weight that feeds the layer where β = 0. If it fails, a layer's constant
    is another layer's."""
    net = with_weights(normal(3, 4), normal(5, 3), normal(2, 5), beta=[1.0, 0.25, 0.0])
    norm = np.linalg.norm(net.weights[2].detach().numpy(), 2)
    assert bounds.layer_constants(net) == pytest.approx([1, 1.25, norm])
    assert lrrn.lipschitz(net) == pytest.approx(1.25 * norm)
    assert lrrn.lipschitz(net, refined=True) <= lrrn.lipschitz(net)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_theorem_1_is_tight_for_orthogonal_weights(depth):
    """β = 1: the network is an isometry, and its energy zero. If it fails, a bound is too small."""
    net = with_weights(*(orthogonal(4, seed) for seed in range(depth)), beta=1.0)
    assert lrrn.lipschitz(net) == 1 == pytest.approx(lrrn.lipschitz(net, refined=True))
    assert largest_slope(net) == pytest.approx(1)


def test_corollary_2_is_tight():
    """Orthogonal features under any regression layer: the constant is its norm. If it fails, the
    constant is too large to be tight, or no bound."""
    net = with_weights(orthogonal(4), normal(3, 4))
    norm = torch.linalg.matrix_norm(net.weights[1].detach(), 2).item()
    assert lrrn.lipschitz(net) == pytest.approx(norm) == pytest.approx(largest_slope(net))


def test_lemma_1_is_tight_at_one_over_root_beta():
    """If it fails, (β^½ + β^−½)/2 is not the best constant that depends on β alone."""
    net = with_weights(orthogonal(4) / 3**0.5, beta=3.0)
    assert lrrn.lipschitz(net) == pytest.approx(bounds.largest_gain(3.0))
    assert largest_slope(net) == pytest.approx(bounds.largest_gain(3.0))


def test_refined_constant_is_exact_for_small_weights():
    """One linear layer with ‖W‖ < 1/√β: f_β(‖W‖), where Theorem 1 gives more. If it fails, nothing
    is refined."""
    W = 0.3 * orthogonal(4)
    net = with_weights(W, beta=1.0)
    assert lrrn.lipschitz(net, refined=True) == pytest.approx(largest_slope(net))
    assert largest_slope(net) == pytest.approx(0.6 / 1.09) and lrrn.lipschitz(net) == 1


def test_curvature_from_above_is_used():
    """Two scalar layers: the Schur complement by hand, β(1 − σ²)²/(1 + βσ²) for one layer above. If
    it fails, layers above are not counted."""
    w, beta, gamma = 0.4, 0.5, 0.8
    net = with_weights(torch.tensor([[1.7]]), torch.tensor([[w]]), beta=beta, gamma=gamma)
    m = gamma * beta * (1 - w**2) ** 2 / (1 + beta * w**2)
    expected = [bounds.gain(math.sqrt((1 + m) / beta), beta, m), bounds.gain(w, beta)]
    expected[0] = max(bounds.gain(s, beta, m) for s in np.linspace(0, 1.7, 100_001))
    assert bounds.refined_constants(net) == pytest.approx(expected)


def test_curvature_comes_from_all_layers_above():
    """Three scalar layers: what two layers leave of z_1² is a Schur complement of their energy's
    Hessian, by NumPy. If it fails, only the next layer's curvature is counted."""
    w, beta, gamma = [1.2, 0.6, 0.9], [0.8, 0.5, 1.7], 0.7
    net = with_weights(*(torch.tensor([[value]]) for value in w), beta=beta, gamma=gamma)
    P = [0.0]
    for layers in (1, 2):  # above z_{3 − layers}: rows of the residuals' matrix, γ^k ahead
        above = range(3 - layers, 3)
        rows = [row for i, k in enumerate(above) for row in (
            gamma ** ((i + 1) / 2) * np.eye(layers + 1)[i + 1] - gamma ** ((i + 1) / 2) * w[k]
            * np.eye(layers + 1)[i],
            (beta[k] * gamma ** (i + 1)) ** 0.5 * (w[k] * np.eye(layers + 1)[i + 1]
                                                   - np.eye(layers + 1)[i]))]
        P.append(1 / np.linalg.inv(np.array(rows).T @ np.array(rows))[0, 0])
    sigma = np.linspace(0, 1, 100_001)
    expected = [bounds.gain(sigma * w[k], beta[k], P[2 - k]).max() for k in range(3)]
    assert bounds.refined_constants(net) == pytest.approx(expected)


@given(seed=seeds)
def test_jacobian_is_the_slope_of_the_output(seed):
    """Central differences; if it fails, the lower bound for Lipschitz is none."""
    net, x, _ = instance(seed, samples=2)
    net.solver, step, u = EXACT, 1e-6, normal(2, net.sizes[0], seed=seed)
    J = lrrn.jacobian(net, x, solver=EXACT)
    problems = [net.quadratic(x + t * u).detach() for t in (-step, step)]
    patterns = [qp.inside(EXACT(qp)[0]) for qp in problems]
    if torch.equal(*patterns):
        numeric = (net(x + step * u) - net(x - step * u)) / (2 * step)
        found = (J @ u[:, :, None])[:, :, 0]
        torch.testing.assert_close(found, numeric.detach(), atol=1e-5, rtol=1e-5)


# --------------------------------------------------------------------------- radii


def test_radius_of_a_linear_classifier():
    """β = 0, two outputs w and −w: margin over slope is the distance to the boundary. If it fails,
    the radius is wrong by a factor."""
    w = torch.tensor([[3.0, 4.0]])
    net = with_weights(torch.cat([w, -w]), beta=0.0)
    x = torch.tensor([[1.0, 0.5], [-0.2, 0.1]])
    distance = (x.double() @ w.double().T).abs()[:, 0] / 5
    torch.testing.assert_close(lrrn.certified_radius(net, x.double()), distance)
    doubled = lrrn.certified_radius(net, x.double(), rho=2 * lrrn.lipschitz(net))
    torch.testing.assert_close(doubled, distance / 2)


@given(seed=seeds, passes=st.integers(1, 5))
def test_rough_inference_certifies_less(seed, passes):
    """If it fails, a radius counts on outputs that inference has not found yet."""
    net, x, _ = instance(seed, beta="corollary")
    exact = lrrn.certified_radius(net, x, solver=EXACT)
    rough = lrrn.certified_radius(net, x, solver=lrrn.CoordinateDescent(1e-9, max_passes=passes))
    assert (rough <= exact + 1e-9).all()


def test_radius_needs_a_margin_and_a_constant():
    """If it fails, the certificate of a regression network means nothing."""
    with pytest.raises(ValueError, match="needs at least 2 outputs; the network has 1"):
        lrrn.certified_radius(lrrn.LRRN([3, 1]), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="rho=0.0 must be positive"):
        lrrn.certified_radius(lrrn.LRRN([3, 2]), torch.zeros(1, 3), rho=0.0)


# --------------------------------------------------------------------------- RR layers


def test_initial_weights_of_a_layer():
    """Uniform over ±1/√d_in, the biases zero. If it fails, all units of a layer start alike, or too large."""
    layer = lrrn.RRLayer(400, 50, generator=torch.Generator().manual_seed(0))
    W = layer.weight.detach()
    assert W.abs().max() <= 0.05 and W.min() < -0.0499 and W.max() > 0.0499
    assert W.std().item() == pytest.approx(0.05 / 3**0.5, rel=0.02) and abs(W.mean()) < 0.001
    assert not layer.bias.any() and not layer.reconstruction_bias.any()
    twin = lrrn.RRLayer(400, 50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(W, twin.weight)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0, 4.0])
def test_rr_layer_is_equation_3(beta):
    """By NumPy's solver; if it fails, the layer is another one."""
    layer = lrrn.RRLayer(5, 3, beta, dtype=torch.float64)
    torch.nn.init.normal_(layer.bias), torch.nn.init.normal_(layer.reconstruction_bias)
    x = normal(7, 5)
    W, b, c = (p.detach().numpy() for p in (layer.weight, layer.bias, layer.reconstruction_bias))
    right = (1 + beta) * W @ x.numpy().T + (b + beta * W @ c)[:, None]
    expected = np.linalg.solve(np.eye(3) + beta * W @ W.T, right).T
    np.testing.assert_allclose(layer(x).detach().numpy(), expected)
    A = np.linalg.solve(np.eye(3) + beta * W @ W.T, (1 + beta) * W)
    assert layer.lipschitz() == pytest.approx(np.linalg.norm(A, 2))


def test_rr_layer_trains():
    """Float64 gradcheck: if it fails, back-propagation through the solve is wrong."""
    layer = lrrn.RRLayer(4, 3, 0.7, dtype=torch.float64)

    def run(x, weight, bias, c):
        return torch.func.functional_call(
            layer, {"weight": weight, "bias": bias, "reconstruction_bias": c}, (x,))

    inputs = [normal(2, 4), normal(3, 4, seed=1), normal(3, seed=2), normal(4, seed=3)]
    assert torch.autograd.gradcheck(run, [t.requires_grad_() for t in inputs])


@given(seed=seeds)
def test_feed_forward_network_of_rr_layers_is_non_expansive(seed):
    """β = 1 and ReLU; if it fails, the construction of section 3.3 does not work."""
    draw = torch.Generator().manual_seed(seed)
    net = lrrn.feed_forward([5, 7, 6, 3], generator=draw, dtype=torch.float64)
    with torch.no_grad():
        for layer in net[::2]:
            layer.weight.mul_(lrrn_toys.uniform(draw, 0.5, 5))
    x, u = lrrn_toys.normal(draw, 100, 5), lrrn_toys.normal(draw, 100, 5)
    assert isinstance(net[-1], lrrn.RRLayer) and isinstance(net[1], torch.nn.ReLU)
    assert ((net(x + u) - net(x)).norm(dim=1) <= u.norm(dim=1) * (1 + 1e-12)).all()
    assert all(layer.lipschitz() <= 1 + 1e-12 for layer in net[::2])


def test_bad_layers():
    """If it fails, a negative β makes a layer that no energy defines."""
    with pytest.raises(ValueError, match="beta=-0.5 must be finite and not negative"):
        lrrn.RRLayer(3, 2, -0.5)
    with pytest.raises(ValueError, match=r"sizes=\[3, 0\] must hold"):
        lrrn.RRLayer(3, 0)
    with pytest.raises(ValueError, match="beta=0 must be positive"):
        bounds.largest_gain(0)


# --------------------------------------------------------------------------- Remark 2


def test_discount_cannot_be_absorbed_where_weights_reconstruct():
    """Scalar layers, L = 2, β = 1: no weights and scales match the five coefficients of (17).

    So ``undiscounted`` is right to refuse: it returns a network of the same *energy*. (The
    minimisers can agree all the same, see test_lrrn_equivalence.) For β = 0 the same search finds
    weights and scales. If it fails, what is refused is possible.
    """
    def coefficients(w0, w1, gamma, beta, s1=1.0, s2=1.0):
        """Of x², x·z1, z1², z1·z2, z2² in 2E, for activations s1·z1 and s2·z2."""
        return np.array([
            w0**2 + beta, -2 * (1 + beta) * w0 * s1,
            s1**2 * (1 + beta * w0**2 + gamma * (w1**2 + beta)),
            -2 * gamma * (1 + beta) * w1 * s1 * s2, gamma * s2**2 * (1 + beta * w1**2)])

    w0, w1, gamma = 0.8, 0.6, 0.3
    for beta, least in ((1.0, 1e-2), (0.0, None)):
        wanted = coefficients(w0, w1, gamma, beta)
        fits = [least_squares(lambda p: coefficients(p[0], p[1], 1.0, beta, p[2], p[3]) - wanted,
                              start, xtol=1e-15, ftol=1e-15, gtol=1e-15).cost
                for start in np.random.default_rng(0).normal(size=(40, 4))]
        assert min(fits) > least if least else min(fits) < 1e-20


@pytest.mark.parametrize("options, message", [
    ({"beta": [0, 1]}, "must be 0 after the first layer"),
    ({"beta": 0.0, "output": lnn.Box(0, 1)}, "do not stay the same when activations scale"),
])
def test_discounts_that_stay(options, message):
    """If it fails, ``undiscounted`` returns a network with another energy."""
    with pytest.raises(ValueError, match=message):
        propositions.lrrn.undiscounted(lrrn.LRRN([3, 2, 2], gamma=0.5, **options))


def test_first_layer_may_reconstruct_without_discount():
    """β_1 > 0 is no obstacle: its term has the factor γ⁰. If it fails, more is refused than must
    be."""
    net = network([3, 2, 2], lnn.ReLU(), beta=[2.0, 0.0], gamma=0.5)
    z = [normal(4, size, seed=size) for size in net.sizes]
    scaled = [z[0], z[1], 0.5**0.5 * z[2]]
    torch.testing.assert_close(propositions.lrrn.undiscounted(net).energy(scaled), net.energy(z))
