"""The Lipschitz bracket against exact constants, LipSDP certificates and autograd."""

from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import FUNCTIONS, random_network, seeds

import lnn_core as lnn
from lnn_core import lipschitz

CURVED = [function for function in FUNCTIONS if not isinstance(function, lnn.Identity)]
ABOVE = 1 + 1e-9


def normal(*size, seed=1, dtype=torch.float64):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def matrices(net):
    return [weight.detach().double().numpy() for weight in net.weights]


def norm(matrix):
    return np.linalg.norm(matrix, 2)


@st.composite
def chains(draw, functions=tuple(FUNCTIONS), least=1):
    depth = draw(st.integers(least, 4))
    sizes = draw(st.lists(st.integers(1, 6), min_size=depth + 1, max_size=depth + 1))
    hidden = draw(st.lists(st.sampled_from(functions), min_size=depth - 1, max_size=depth - 1))
    return random_network(draw(seeds), sizes, hidden, draw(st.sampled_from(FUNCTIONS)),
                          scale=draw(st.floats(0.1, 3.0)))


# ------------------------------------------------------------------ exact constants


@pytest.mark.parametrize("seed", range(5))
def test_all_activation_patterns_of_a_planar_network(seed):
    """Every cell of a line arrangement has a vertex: around the vertices lie all patterns. If it
    fails, a pattern is missed, and with it perhaps the steepest."""
    net = random_network(seed, (2, 6, 3))
    W, V = matrices(net)
    b = net.biases[0].detach().numpy()
    points, exact = [], 0.0
    for i, j in combinations(range(6), 2):
        for signs in product((-1e-7, 1e-7), repeat=2):
            point = np.linalg.solve(W[[i, j]], signs - b[[i, j]])
            points.append(point)
            exact = max(exact, norm(V @ np.diag(W @ point + b > 0) @ W))
    assert lipschitz.lower(net, torch.tensor(np.array(points)), 0) == pytest.approx(exact, rel=1e-9)
    start = normal(20, 2)
    climbed = [lipschitz.lower(net, start, steps) for steps in (0, 1, 4, 30)]
    assert all(np.diff(climbed) >= -1e-12) and climbed[-1] <= exact * ABOVE
    assert exact <= lipschitz.certified(net) * ABOVE


@pytest.mark.parametrize("activation", CURVED)
def test_slopes_on_a_line(activation):
    """A fine grid knows the largest slope of a network of one variable, whatever f is. If it fails,
    the lower bound is above it, or far below."""
    net = random_network(3, (1, 7, 6, 2), activation)
    grid = torch.linspace(-20, 20, 400_001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        slope = (net(grid).diff(dim=0).norm(dim=1) / grid.diff(dim=0)[:, 0]).max().item()
    assert lipschitz.lower(net, grid[::20], 0) == pytest.approx(slope, rel=1e-3)
    assert slope <= lipschitz.certified(net) * ABOVE


def test_climbing_finds_more_than_the_samples_show():
    """If it fails, it moves the wrong way, or not at all. 3·relu(x − 1) + relu(x) has slope 1 at
    0.8 and 4, its constant, from 1 on: a quarter and the whole of the sample's length get there,
    and only uphill."""
    net = lnn.LiftedNetwork((1, 2, 1), dtype=torch.float64)
    net.weights[0].data = torch.tensor([[1.0], [1.0]], dtype=torch.float64)
    net.weights[1].data = torch.tensor([[3.0, 1.0]], dtype=torch.float64)
    net.biases[0].data = torch.tensor([-1.0, 0.0], dtype=torch.float64)
    x = torch.tensor([[0.8]], dtype=torch.float64)
    assert [lipschitz.lower(net, x, steps) for steps in (0, 1)] == pytest.approx([1.0, 4.0])


@pytest.mark.parametrize("length", [1 / 256, 1 / 64, 1 / 16, 1 / 4, 1.0])
def test_climbing_tries_these_lengths(length):
    """w·v·tanh′ is largest at −0.7, which a step of one of the lengths, times 4, reaches exactly.

    From the longest sample, 4, no single step does. If it fails, steps have other lengths.
    """
    net = lnn.LiftedNetwork([1, 1, 1], lnn.Tanh(), dtype=torch.float64)
    with torch.no_grad():
        net.weight(1).fill_(0.5), net.weight(2).fill_(3.0), net.biases[0].fill_(0.35)
    x = torch.tensor([[4.0], [-0.7 + 4 * length]], dtype=torch.float64)
    assert lipschitz.lower(net, x, 1) == pytest.approx(1.5, rel=1e-12)
    assert lipschitz.lower(net, x, 0) < 1.5 * (1 - 1e-6)


def test_climbing_loses_nothing_and_repeats_itself():
    """If it fails, the samples' maximum is left behind, or random numbers are drawn."""
    net = random_network(0, (8, 24, 24, 4))
    x = normal(5, 8)
    assert lipschitz.lower(net, x, 6) >= lipschitz.jacobian_norms(net, x).max()
    assert lipschitz.lower(net, x, 6) == lipschitz.lower(net, x, 6)


@given(chains(), st.integers(0, 10**6))
def test_no_pair_of_points_beats_the_certificate(net, seed):
    """‖z_L(x) − z_L(y)‖ ≤ certified·‖x − y‖ near and far: what the number promises. If it fails, it
    does not hold."""
    x = 3 * normal(50, net.sizes[0], seed=seed)
    y = x + torch.logspace(-4, 1, 50, dtype=x.dtype)[:, None] * normal(*x.shape, seed=seed + 1)
    with torch.no_grad():
        moved = (net(x) - net(y)).norm(dim=1)
    assert (moved <= lipschitz.certified(net) * (x - y).norm(dim=1) + 1e-9).all()


# ------------------------------------------------------------------ the upper bounds


def lipsdp(weights, multipliers, rho):
    """The block matrix of ρ²‖Δz_0‖² − ‖W_LΔz_{L−1}‖² − ρ² Σ λ_kΔz_kᵀ(W_kΔz_{k−1} − Δz_k)."""
    at = np.cumsum([0] + [weight.shape[1] for weight in weights])
    matrix = np.zeros((at[-1], at[-1]))
    matrix[:at[1], :at[1]] = rho**2 * np.eye(at[1])
    for k, (weight, multiplier) in enumerate(zip(weights, multipliers), 1):
        here, before = slice(at[k], at[k + 1]), slice(at[k - 1], at[k])
        matrix[here, here] += rho**2 * multiplier * np.eye(len(weight))
        matrix[here, before] -= rho**2 * multiplier * weight / 2
        matrix[before, here] -= rho**2 * multiplier * weight.T / 2
    matrix[at[-2]:, at[-2]:] -= weights[-1].T @ weights[-1]
    return matrix


@given(chains(CURVED, least=2))
def test_the_multipliers_certify_every_relaxation(net):
    """LipSDP's matrix is positive semidefinite at ρ, and no longer just below it. If it fails, ρ is
    no bound, or not the least."""
    t = torch.tensor([0.5, *lipschitz.RELAXATIONS, 1.9], dtype=torch.float64)
    bounds, multipliers = lipschitz._composed([w.detach() for w in net.weights], t)
    for i, rho in enumerate(bounds.tolist()):
        chosen = [multiplier[i].item() for multiplier in multipliers]
        assert all(multiplier > 0 for multiplier in chosen)
        matrix = lipsdp(matrices(net), chosen, rho)
        # Scaled by its diagonal before the subtraction, so that the tolerance means something.
        scale = np.sqrt(np.concatenate([np.full(size, entry) for size, entry in
                                        zip(net.sizes, [rho**2] + [rho**2 * c for c in chosen])]))
        assert np.linalg.eigvalsh(matrix / np.outer(scale, scale))[0] >= -1e-9
        assert np.linalg.eigvalsh(lipsdp(matrices(net), chosen, 0.99 * rho))[0] < 0
    assert lipschitz.certified(net) == pytest.approx(bounds[1:4].min().item())


def test_the_published_recursion():
    """t = 1 is ECLipsE-Fast as printed, with explicit inverses; the default is no worse. If it
    fails, it is another method."""
    net = random_network(5, (9, 12, 11, 7, 3))
    W, X = matrices(net), np.eye(9)
    for weight in W[:-1]:
        M = weight @ np.linalg.inv(X) @ weight.T
        multiplier = 2 / np.linalg.eigvalsh(M)[-1]
        X = multiplier * np.eye(len(M)) - multiplier**2 * M / 4
    published = np.sqrt(np.linalg.eigvalsh(W[-1] @ np.linalg.inv(X) @ W[-1].T)[-1])
    one = torch.ones(1, dtype=torch.float64)
    assert lipschitz._composed(list(net.weights), one)[0].item() == pytest.approx(published)
    assert lipschitz.certified(net) <= published * ABOVE


def test_relaxations_in_closed_form():
    """If it fails, not the best t is taken. W_1 = diag(1, ½) and W_2 = (0, 1) have σ_1 = 1, λ_1 =
    2t and X_1 = diag(2t − t², 2t − t²/4): ρ² = 1/(2t − t²/4), the smaller the larger t is."""
    net = lnn.LiftedNetwork((2, 2, 1), dtype=torch.float64)
    net.weights[0].data = torch.tensor([[1.0, 0.0], [0.0, 0.5]], dtype=torch.float64)
    net.weights[1].data = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    t = max(lipschitz.RELAXATIONS)
    assert 1 < t < 2
    assert lipschitz.certified(net) == pytest.approx((2 * t - t**2 / 4) ** -0.5)


@given(chains(), st.integers(0, 10**6))
def test_the_bracket_is_ordered(net, seed):
    """lower ≤ certified ≤ trivial, the latter as t = 1 is among the relaxations. If it fails, one
    of the three is wrong."""
    found = lipschitz.bracket(net, normal(6, net.sizes[0], seed=seed))
    assert found.lower <= found.certified * ABOVE + 1e-12
    assert found.certified <= found.trivial * ABOVE
    assert found.trivial == pytest.approx(np.prod([norm(weight) for weight in matrices(net)]))
    assert found.surrogate == pytest.approx(norm(np.linalg.multi_dot(
        [np.eye(net.sizes[-1]), *matrices(net)[::-1]])), abs=1e-7 * found.trivial)


@pytest.mark.parametrize("sizes", [(5, 3), (4, 6, 5, 3)])
def test_linear_networks_are_exact(sizes):
    """All but the product of norms are ‖W_L⋯W_1‖₂, and that too for orthogonal weights. If it
    fails, a factor is missing."""
    net = random_network(0, sizes, lnn.Identity())
    exact = norm(np.linalg.multi_dot([np.eye(3), *matrices(net)[::-1]]))
    found = lipschitz.bracket(net, normal(4, sizes[0]))
    assert found == pytest.approx((exact, exact, found.trivial, exact))
    for weight in net.weights:
        torch.nn.init.orthogonal_(weight, 2.0)
    assert lipschitz.trivial(net) == pytest.approx(2.0 ** net.depth)


def test_the_surrogate_is_no_bound():
    """|x| has constant 1 and surrogate 0; two ramps that never overlap have 1 and 2. If it fails,
    the surrogate is something else than what the chapter warns of."""
    for signs, bias, surrogate in (((1.0, 1.0), 0.0, 0.0), ((1.0, -1.0), -1.0, 2.0)):
        net = lnn.LiftedNetwork((1, 2, 1), dtype=torch.float64)
        net.weights[0].data = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
        net.weights[1].data = torch.tensor([signs], dtype=torch.float64)
        net.biases[0].data.fill_(bias)
        found = lipschitz.bracket(net, torch.tensor([[2.0], [-3.0]], dtype=torch.float64))
        assert (found.lower, found.surrogate) == pytest.approx((1.0, surrogate), abs=1e-7)
        assert found.certified >= 1


@pytest.mark.parametrize("factor", [-3.0, 1e-60, 1e60])
def test_scaling_a_weight_scales_the_bracket(factor):
    """By |c|, without overflow on the way; the last weight, so that patterns stay. If it fails, the
    bracket depends on units."""
    net = random_network(2, (4, 6, 5, 3))
    x = normal(8, 4)
    before = np.array(lipschitz.bracket(net, x))
    net.weights[-1].data.mul_(factor)
    assert np.array(lipschitz.bracket(net, x)) == pytest.approx(abs(factor) * before)
    net.weights[0].data.mul_(factor)
    assert lipschitz.certified(net) == pytest.approx(factor**2 * before[1])


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_vanished_weight_gives_zero(layer):
    """If it fails, pruned or collapsed layers, which happen, give NaN."""
    net = random_network(2, (4, 6, 5, 3))
    net.weights[layer].data.zero_()
    assert lipschitz.bracket(net, normal(3, 4)) == (0.0, 0.0, 0.0, 0.0)


# ------------------------------------------------------------------ Jacobians and input


@given(chains(), st.integers(0, 10**6))
def test_jacobian_norms_are_those_of_autograd(net, seed):
    """Chunks included. If it fails, a slope stands at the wrong layer, or a transpose is wrong."""
    x = normal(7, net.sizes[0], seed=seed)
    J = torch.func.vmap(torch.func.jacrev(lambda sample: net(sample[None])[0]))(x)
    expected = torch.linalg.matrix_norm(J, 2).detach()
    found = lipschitz.jacobian_norms(net, x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-7 * lipschitz.trivial(net))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lipschitz, "CHUNK", 1)
        torch.testing.assert_close(lipschitz.jacobian_norms(net, x), found)


def test_a_float32_network_is_measured_without_side_effects():
    """Type float64, no bias needed. If it fails, gradients are left behind, or x is touched."""
    net = lnn.LiftedNetwork((6, 8, 3), bias=False, generator=torch.Generator().manual_seed(0))
    x = normal(5, 6, dtype=torch.float32)
    kept = x.clone()
    norms, found = lipschitz.jacobian_norms(net, x), lipschitz.bracket(net, x, 0)
    assert norms.dtype == torch.float64 and not norms.requires_grad and not x.requires_grad
    assert found.lower == norms.max().item() and torch.equal(x, kept)
    assert all(type(value) is float for value in found)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_bad_input_is_named(idle):
    """Edges, weights, steps and the shape, type or values of x. If it fails, something is computed
    first, or the error does not name it."""
    skip = random_network(0, (2, 3, 2), edges=[(0, 1), (0, 2), (1, 2)])
    x = normal(3, 2)
    for function in (lipschitz.certified, lipschitz.trivial, lipschitz.surrogate):
        with pytest.raises(ValueError, match=r"chain.*\(0, 2\)"):
            function(skip)
    net = random_network(0, (2, 3, 2))
    for function in (lipschitz.jacobian_norms, lipschitz.lower, lipschitz.bracket):
        with pytest.raises(ValueError, match=r"chain.*\(0, 2\)"):
            function(skip, x)
        for bad, message in ((normal(3, 4), r"\(3, 4\)"), (x.float(), "float32"),
                             (x[:0], "empty"), (x * np.nan, "nan")):
            with pytest.raises(ValueError, match=message):
                function(net, bad)
    for steps, kind in ((-1, ValueError), (1.5, TypeError)):
        with pytest.raises(kind, match="steps"):
            lipschitz.lower(net, x, steps)
    net.weights[1].data[0, 0] = np.inf
    with pytest.raises(ValueError, match="a weight into layer 2 holds inf"):
        lipschitz.bracket(net, x)
