"""Network potentials, against explicit sums, eq. (4)'s block matrices, brute force and autograd."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import Model, block_form, kind_of, unit
from strategies import FUNCTIONS, POTENTIALS, gammas, networks, random_inputs, random_network, tilts

import lnn_core as lnn

each_function = pytest.mark.parametrize("G", FUNCTIONS, ids=repr)
each_base = pytest.mark.parametrize("base", POTENTIALS, ids=repr)
any_output = networks(outputs=FUNCTIONS)


def inside(net, seed=0, samples=3):
    """Activations anywhere inside the domains of the layers' functions."""
    generator = torch.Generator().manual_seed(seed)
    z = [torch.randn(samples, net.sizes[0], generator=generator, dtype=torch.float64)]
    for k, size in enumerate(net.sizes[1:], 1):
        G = net.function(k)
        low, high = max(G.lower, -2.0), min(G.upper, 2.0)
        z.append(low + (high - low) * (0.05 + 0.9 * torch.rand(
            samples, size, generator=generator, dtype=torch.float64)))
    return z


# --- values --------------------------------------------------------------------------------------


@each_base
@given(net=any_output)
def test_zero_on_the_forward_pass(base, net):
    """U(z*) = 0: if it fails, ROVR ≤ ℓ ≤ AROVR does not hold."""
    x, _ = random_inputs(0, net)
    assert base(net, net.activations(x)).abs().max() < 1e-12


@each_base
@given(net=any_output, seed=st.integers(0, 99))
def test_value_is_the_papers_sum(base, net, seed):
    """Eqs. (1) and (3): if it fails, a ½, a conjugate or a skip connection is missing."""
    z = inside(net, seed)
    torch.testing.assert_close(base(net, z), Model(kind_of(base)).potential(net, z))
    layers = base.layer_values(net, z)
    assert layers.shape == (net.depth, 3)
    torch.testing.assert_close(layers.sum(0), base(net, z))


@given(net=networks(outputs=[lnn.ReLU()]).filter(lambda net: net.depth > 1))
def test_fenchel_young_is_equation_4(net):
    """G(z) − zᵀ(Wz + W_0x) + G*(Wz + W_0x) with W strictly lower triangular, all layers at once. If
    it fails, U is another potential."""
    W, W0, b = block_form(net)
    z = inside(net)
    stacked = torch.cat(z[1:], 1)
    a = stacked @ W.T + z[0] @ W0.T + b
    a_of = a.split(list(net.sizes[1:]), 1)
    G = sum(unit(net, k).G(z[k]).sum(1) for k in range(1, net.depth + 1))
    conjugate = sum(unit(net, k).conjugate(a_of[k - 1]).sum(1) for k in range(1, net.depth + 1))
    expected = G - torch.einsum("bi,bi->b", stacked, a) + conjugate
    torch.testing.assert_close(lnn.FenchelYoung()(net, z), expected)


@given(net=any_output)
def test_fenchel_young_outweighs_least_squares(net):
    """D ≥ ½‖z − f(a)‖² ≥ 0, layer by layer: if it fails, the bounds on AROVR do not hold."""
    z = inside(net)
    least_squares = lnn.LeastSquares().layer_values(net, z)
    assert (least_squares >= 0).all()
    assert (lnn.FenchelYoung().layer_values(net, z) >= least_squares - 1e-12).all()


# --- what inference asks of a potential ----------------------------------------------------------


def variants(base, net):
    """The base, and everything that wraps it."""
    return [base, lnn.Reweighted(gammas(net), base), lnn.Reweighted(gammas(net, units=True), base),
            lnn.Tilted(tilts(net), base), lnn.Tilted(tilts(net), lnn.Reweighted(gammas(net), base))]


@each_base
@given(net=any_output)
def test_error_is_minus_the_slope_in_the_preactivation(base, net):
    """e_k = −∂terms/∂a_k by autograd: if it fails, layers hear wrong error signals."""
    z = inside(net)
    for potential in variants(base, net):
        for k in range(1, net.depth + 1):
            a = net.preactivation(k, z).detach().requires_grad_()
            terms = potential.terms(k, net.function(k), z[k], a)
            slope, = torch.autograd.grad(terms.sum(), a)
            error = potential.error(k, net.function(k), z[k], a.detach())
            torch.testing.assert_close(error, -slope)


@each_base
@each_function
@pytest.mark.parametrize("q", [-0.2, 0.0, 1.5])
def test_prox_is_an_argmin(base, G, q):
    """Brute force over a grid: if it fails, a layer's answer does not minimise its energy."""
    net = random_network(0, [2, 3], output=G)
    reach = 25.0
    low, high = ((-reach, reach) if isinstance(base, lnn.LeastSquares)
                 else (max(G.lower, -reach), min(G.upper, reach)))
    z = torch.linspace(low, high, 20_001, dtype=torch.float64)[:, None]
    generator = torch.Generator().manual_seed(0)
    for potential in variants(base, net):
        a, p = 2 * torch.randn(2, 3, generator=generator, dtype=torch.float64)
        energy = potential.terms(1, G, z, a) + 0.5 * q * z.square() - p * z
        best = z[energy.argmin(0), 0]
        torch.testing.assert_close(potential.prox(1, G, a, p, q), best, rtol=0,
                                   atol=1.01 * (z[1] - z[0]).item())


# --- reweighted, tilted --------------------------------------------------------------------------


@each_base
@given(net=any_output)
def test_weights_of_one_change_nothing(base, net):
    """γ = 1: if it fails, reweighting changes more than the weights of the layers."""
    z = inside(net)
    ones = lnn.Reweighted([1.0] * net.depth, base)
    assert torch.equal(ones(net, z), base(net, z))
    per_unit = lnn.Reweighted([torch.ones(size).double() for size in net.sizes[1:]], base)
    assert torch.equal(per_unit(net, z), base(net, z))


@each_base
@pytest.mark.parametrize("units", [False, True], ids=["by layer", "by unit"])
@given(net=any_output)
def test_reweighted_is_the_weighted_sum(base, units, net):
    """Eq. (14), explicitly: if it fails, γ weighs the wrong layer or unit, or is inverted."""
    z, gamma = inside(net), gammas(net, units=units)
    expected = torch.zeros(3, dtype=torch.float64)
    for k in range(1, net.depth + 1):
        terms = base.terms(k, net.function(k), z[k], net.preactivation(k, z))
        for i in range(net.sizes[k]):
            expected += (gamma[k - 1][i] if units else gamma[k - 1]) * terms[:, i]
    potential = lnn.Reweighted(gamma, base)
    torch.testing.assert_close(potential(net, z), expected)
    assert potential.curvature(net.depth) == pytest.approx(float(torch.as_tensor(gamma[-1]).min()))


@each_base
@given(net=any_output)
def test_tilted_adds_a_linear_push(base, net):
    """U + gᵀz: if it fails, AROVR^g trains on something else."""
    z, g, gamma = inside(net), tilts(net), gammas(net)
    push = sum((z[k] * g[k - 1]).sum(1) for k in range(1, net.depth + 1, 2))
    torch.testing.assert_close(lnn.Tilted(g, base)(net, z), base(net, z) + push)
    both = lnn.Tilted(g, lnn.Reweighted(gamma, base))
    torch.testing.assert_close(both(net, z), Model(kind_of(base), gamma, g).potential(net, z))
    assert both.curvature(net.depth) == gamma[-1]
    assert base.minimum_is_zero and not both.minimum_is_zero


# --- energies ------------------------------------------------------------------------------------


def test_energy_adds_or_subtracts_the_loss():
    """If it fails, inference minimises another function than the objective's."""
    net = random_network(3, [3, 4, 2])
    z, y = inside(net), torch.randn(3, 2, dtype=torch.float64)
    U, loss = lnn.FenchelYoung(), lnn.Euclidean(y)
    half = (z[-1] - y).square().sum(1) / 2
    torch.testing.assert_close((U + 0.3 * loss)(net, z), U(net, z) + 0.3 * half)
    torch.testing.assert_close((U - 0.3 * loss)(net, z), U(net, z) - 0.3 * half)


@pytest.mark.parametrize("beta", [1.0, 1.5])
def test_energy_without_minimum_is_refused(beta):
    """If it fails, z_L runs to infinity, or to the wrong side of a maximum."""
    net = lnn.LiftedNetwork([3, 4, 2])
    loss = lnn.Euclidean(torch.zeros(1, 2))
    with pytest.raises(ValueError, match=f"curvature -{beta:g}, which gamma_L=1 "):
        (lnn.FenchelYoung() - beta * loss).check(net)
    (lnn.Reweighted([1, 2]) - beta * loss).check(net)


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("entry", [
    0.0, -1.0, math.nan, math.inf, torch.tensor([1.0, 0.0]), torch.tensor([1.0, -2.0]),
    torch.tensor([1.0, math.inf]), torch.tensor([math.nan, 1.0])], ids=str)
def test_bad_gamma(entry):
    """If it fails, a layer counts for nothing, or the potential has no minimum."""
    with pytest.raises(ValueError, match="gamma_2=.* must be positive and finite"):
        lnn.Reweighted([1.0, entry])


@pytest.mark.parametrize(("potential", "message"), [
    (lnn.Reweighted([1.0]), "gamma has 1 entries for 2 layers"),
    (lnn.Reweighted([1.0, 1.0, 1.0]), "gamma has 3 entries for 2 layers"),
    (lnn.Reweighted([1.0, torch.ones(3)]), r"gamma_2 has shape \(3,\); layer 2 has 2 units"),
    (lnn.Tilted([None]), "g has 1 entries for 2 layers"),
    (lnn.Tilted([torch.ones(3), None]), r"g_1 has shape \(3,\); layer 1 has 4 units"),
    (lnn.Tilted([None, None], lnn.Reweighted([1.0])), "gamma has 1 entries for 2 layers"),
], ids=repr)
def test_parameters_that_do_not_fit_the_network(potential, message):
    """If it fails, they broadcast to something that nobody asked for."""
    net = lnn.LiftedNetwork([3, 4, 2])
    for check in (potential.check, (potential + lnn.Euclidean(torch.zeros(1, 2))).check):
        with pytest.raises(ValueError, match=message):
            check(net)


def test_tilts_are_not_reweighted():
    """If it fails, γ scales g too and U^g is another potential than the paper's."""
    with pytest.raises(ValueError, match="tilt after reweighting"):
        lnn.Reweighted([1.0, 1.0], lnn.Tilted([None, None]))
