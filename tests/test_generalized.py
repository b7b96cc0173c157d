"""GeneralizedAROVR, eq. (10): closed forms, brute force over (z⁻, z*), Proposition 3.1, differences."""


import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import POTENTIALS, networks, random_inputs, random_network, seeds

import lnn_core as lnn
from lnn_core.generalized import ElementWise, GeneralizedAROVR, PotentialDistance, _Joint
from lnn_core.oracle import Exhaustive

EXACT = lnn.Shooting(tolerance=1e-20, max_passes=400, every=True)
each_base = pytest.mark.parametrize("base", POTENTIALS, ids=repr)


def element_wise(gamma):
    """Eq. (12) as a user would write it."""
    def d(z, other):
        return sum(g * (a - b).square().sum(1) for g, a, b in zip(gamma, z[1:], other[1:]))
    return d


def coupled(z, other):
    """A distance in which the layers pull at each other: no closed form known."""
    u = [a - b for a, b in zip(z[1:], other[1:])]
    cross = sum((v.sum(1) - w.sum(1)).square() for v, w in zip(u, u[1:]))
    return sum(v.square().sum(1) for v in u) + 0.5 * cross + 0.2 * u[-1].pow(4).sum(1)


def one_layer(seed=0):
    """z* = a = Wx + b, and r = a − y: whatever is computed is a number times ½‖r‖²."""
    net = random_network(seed, [3, 2])
    x, y = random_inputs(seed, net)
    return net, x, y, 0.5 * (net(x) - y).square().sum(1)


def slope_error(objective, net, x, y, tensors, step=1e-5):
    """Largest difference between backward() and central differences, along a direction each."""
    gradients = torch.autograd.grad(objective(net, x, y), tensors)
    generator, worst = torch.Generator().manual_seed(5), 0.0
    for tensor, gradient in zip(tensors, gradients):
        direction = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                tensor += sign * step * direction
                values.append(objective(net, x, y).item())
                tensor -= sign * step * direction
        numeric = (values[0] - values[1]) / (2 * step)
        worst = max(worst, abs(numeric - (gradient * direction).sum().item()))
    return worst


# --- closed forms on one layer ---------------------------------------------------------------

@pytest.mark.parametrize(("beta", "weight", "gamma"), [(0.3, 1.0, 1.0), (0.3, 0.7, 1.3), (0.6, 2.0, 2.0)])
def test_element_wise_is_equation_13_then_arovr(beta, weight, gamma):
    """c·½‖r‖²/(1 − cβ) with c = 2λγ/(2λγ − β). If it fails, (12) has a ½, or λ is dropped."""
    net, x, y, loss = one_layer()
    c = 2 * weight * gamma / (2 * weight * gamma - beta)
    values = GeneralizedAROVR(beta, ElementWise([gamma]), weight)(net, x, y, reduction="none")
    torch.testing.assert_close(values, c / (1 - c * beta) * loss)


def test_element_wise_adversary_maximises_over_the_output():
    """z_L⁻ is where (13) is attained, by search over a line through z_L*; below, z⁻ = z*. If it
    fails, the activations are not those of the value."""
    net = random_network(1, [2, 3, 1])
    x, y = random_inputs(1, net)
    objective = GeneralizedAROVR(0.2, ElementWise([1.0, 0.8]), 0.9, solver=EXACT)
    objective(net, x, y)
    adversary, nominal = objective.activations
    torch.testing.assert_close(adversary[1], nominal[1])
    candidates = nominal[2] + torch.linspace(-20, 20, 400_001, dtype=torch.float64)
    values = 0.5 * (candidates - y).square() - 0.9 * 0.8 / 0.2 * (candidates - nominal[2]).square()
    best = candidates.gather(1, values.argmax(1, keepdim=True))
    torch.testing.assert_close(adversary[2], best, rtol=0, atol=2e-4)


def test_element_wise_with_one_gamma_a_unit():
    """Each output unit has its own c: the sum of the one-unit closed forms. If it fails, one unit's
    c is used for all."""
    net, x, y, _ = one_layer()
    gamma = torch.tensor([0.7, 2.0], dtype=torch.float64)
    c = 2 * gamma / (2 * gamma - 0.3)
    expected = (c / (1 - c * 0.3) * 0.5 * (net(x) - y).square()).sum(1)
    values = GeneralizedAROVR(0.3, ElementWise([gamma]))(net, x, y, reduction="none")
    torch.testing.assert_close(values, expected)


def test_element_wise_with_a_linear_loss():
    """gᵀz: the distance adds β‖g‖²/(4λγ) and AROVR adds β‖g‖²/2, both free of θ. If it fails, the
    distance is only right for squares."""
    net, x, y, _ = one_layer()
    values = GeneralizedAROVR(0.3, ElementWise([1.2]), 0.5, loss=lnn.Linear)(net, x, y, "none")
    square = y.square().sum(1)
    torch.testing.assert_close(values, (net(x) * y).sum(1) + 0.3 * square * (1 / (4 * 0.5 * 1.2) + 0.5))


def test_potential_distance_is_equation_16_on_one_layer():
    """½‖r‖²·λγ/(λγ − β), eq. (13) with λγ for γ: below AROVR for λγ > 1, so (15) escapes Prop. 3.1.
    If it fails, λ is dropped or counted twice."""
    net, x, y, loss = one_layer()
    for weight, gamma in ((1.0, 0.6), (0.5, 3.0)):
        values = GeneralizedAROVR(0.3, PotentialDistance([gamma]), weight)(net, x, y, "none")
        scaled = weight * gamma
        torch.testing.assert_close(values, scaled / (scaled - 0.3) * loss)
        arovr = lnn.AROVR(0.3)(net, x, y, "none")
        assert ((values > arovr) if scaled < 1 else (values < arovr)).all()


def test_users_distance_reaches_the_closed_form():
    """A user's own formula for (12), found by L-BFGS-B over (z⁻, z*), equals ElementWise. If it
    fails, the search is weaker than the formula."""
    net = random_network(2, [3, 3, 2])
    x, y = random_inputs(2, net)
    gamma = [0.9, 1.4]
    closed = GeneralizedAROVR(0.1, ElementWise(gamma), 0.8, solver=EXACT)
    joint = GeneralizedAROVR(0.1, element_wise(gamma), 0.8, solver=EXACT)
    torch.testing.assert_close(joint(net, x, y, "none"), closed(net, x, y, "none"))
    for ours, theirs in zip(joint.activations, closed.activations):
        for z, other in zip(ours, theirs):
            torch.testing.assert_close(z, other, rtol=1e-5, atol=1e-6)
    assert joint.report.converged.all()


# --- other potentials and outputs ------------------------------------------------------------

@each_base
def test_potential_distance_equals_arovr_with_the_reweighted_potential(base):
    """Eqs. (15) and (16) with λ folded into γ, gradient included. If it fails, the shortcut
    computes something else."""
    net = random_network(3, [3, 4, 2])
    x, y = random_inputs(3, net)
    gamma, weight = [0.5, 1.5], 1.2
    ours = GeneralizedAROVR(0.2, PotentialDistance(gamma, base), weight)(net, x, y)
    theirs = lnn.AROVR(0.2, potential=lnn.Reweighted([weight * g for g in gamma], base))(net, x, y)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(torch.autograd.grad(ours, net.weights), torch.autograd.grad(theirs, net.weights)):
        torch.testing.assert_close(a, b)


def test_tilted_potential_is_contrastive():
    """Eq. (6): with U^g the value is measured from min U^g, closed form a = z*, one layer.

    min over z* shifts a by −g/γ; the distance of (13) acts on the shifted residual. If it fails,
    the tilt is lost in one of both.
    """
    net, x, y, _ = one_layer()
    g = torch.tensor([0.4, -0.3], dtype=torch.float64)
    potential = lnn.Tilted([g])
    shifted = 0.5 * (net(x) - g - y).square().sum(1)
    c = 2 / (2 - 0.3)
    for distance in (ElementWise([1.0]), element_wise([1.0])):
        values = GeneralizedAROVR(0.3, distance, potential=potential)(net, x, y, "none")
        torch.testing.assert_close(values, c / (1 - c * 0.3) * shifted)
    plain = GeneralizedAROVR(0.3, PotentialDistance([1.0]))(net, x, y, "none")
    tilted = GeneralizedAROVR(0.3, PotentialDistance([1.0]), potential=potential)(net, x, y, "none")
    torch.testing.assert_close(tilted, plain)


def test_bounded_output_stops_the_adversary():
    """With an output in [0, 1] both z⁻ and z* stay in it: a grid over both, ElementWise included.
    If it fails, the adversary leaves the range of the outputs."""
    net = random_network(4, [1, 1], output=lnn.Box(0, 1))
    x, y = random_inputs(4, net)
    a = (x * net.weight(1) + net.biases[0]).detach()
    z = torch.linspace(0, 1, 1001, dtype=torch.float64)
    f = a.clamp(0, 1)
    U = 0.5 * z**2 - z * a + f * a - 0.5 * f**2                       # (batch, z*)
    loss = 0.5 * (z - y).square()                                     # (batch, z⁻)
    grid = loss[:, :, None] - 0.7 / 0.4 * (z[:, None] - z).square() - U[:, None, :] / 0.4
    values = GeneralizedAROVR(0.4, ElementWise([0.7]))(net, x, y, "none")
    torch.testing.assert_close(values, grid.flatten(1).amax(1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("distance", [ElementWise([1.1]), element_wise([1.1])], ids=["closed", "user's"])
def test_least_squares_lets_activations_leave_the_range(distance):
    """Under eq. (1) z need not be in [0, 1] even if f is: (13) then holds with r = f(a) − y. If it
    fails, they are held in it."""
    net = random_network(4, [2, 2], output=lnn.Box(0, 1))
    x, y = random_inputs(4, net)
    c = 2.2 / (2.2 - 0.3)
    expected = c / (1 - c * 0.3) * 0.5 * (net(x) - y).square().sum(1)
    values = GeneralizedAROVR(0.3, distance, potential=lnn.LeastSquares())(net, x, y, "none")
    torch.testing.assert_close(values, expected)


# --- brute force -----------------------------------------------------------------------------

def brute_force(net, x, y, distance, beta, weight):
    """max of (10) over a grid of (z_1⁻, z_2⁻, z_1*, z_2*) that shrinks around its best point."""
    (w1, w2), (b1, b2) = ([p.item() for p in group] for group in (net.weights, net.biases))
    a1 = w1 * x + b1
    centre, radius = np.array([max(a1, 0), w2 * max(a1, 0) + b2] * 2), 5.0
    while radius > 1e-5:
        axes = [np.linspace(c - radius, c + radius, 23) for c in centre]
        axes[0], axes[2] = axes[0].clip(0), axes[2].clip(0)           # the hidden layer is ReLU
        p1, p2, z1, z2 = np.meshgrid(*axes, indexing="ij", sparse=True)
        a2 = w2 * z1 + b2
        U = 0.5 * z1**2 - z1 * a1 + 0.5 * max(a1, 0) ** 2 + 0.5 * (z2 - a2) ** 2
        values = 0.5 * (p2 - y) ** 2 - (weight * distance(p1 - z1, p2 - z2) + U) / beta
        best = np.unravel_index(values.argmax(), values.shape)
        centre, radius = np.array([axis[i] for axis, i in zip(axes, best)]), 0.4 * radius
    return values.max()


BRUTE = {
    "element-wise": (ElementWise([0.6, 0.9]), lambda u, v: 0.6 * u**2 + 0.9 * v**2),
    "coupled": (coupled, lambda u, v: u**2 + v**2 + 0.5 * (u - v) ** 2 + 0.2 * v**4),
}


@pytest.mark.parametrize("name", BRUTE)
@pytest.mark.parametrize("seed", [1, 2])
def test_generalized_against_brute_force(name, seed):
    """The joint maximum on 1-1-1 ReLU networks, with and without a closed form. If it fails, the
    value is not the maximum."""
    ours, theirs = BRUTE[name]
    net = random_network(seed, [1, 1, 1], scale=0.8)
    x, y = random_inputs(seed, net, samples=2)
    values = GeneralizedAROVR(0.25, ours, 0.9, solver=EXACT)(net, x, y, "none")
    expected = [brute_force(net, *pair, theirs, 0.25, 0.9)
                for pair in zip(x[:, 0].tolist(), y[:, 0].tolist())]
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64), rtol=1e-7, atol=1e-7)


# --- Proposition 3.1 -------------------------------------------------------------------------

@settings(max_examples=20)
@given(net=networks(max_depth=3, scales=(0.3, 0.8)), seed=seeds, base=st.sampled_from(POTENTIALS))
def test_proposition_3_1_for_a_users_distance(net, seed, base):
    """AROVR ≤ generalized AROVR for every sample. If it fails, a start is dropped or left for
    worse."""
    x, y = random_inputs(seed % 2**31, net, samples=2)
    smaller = lnn.AROVR(0.05, potential=base)(net, x, y, "none")
    larger = GeneralizedAROVR(0.05, coupled, potential=base)(net, x, y, "none")
    assert (larger >= smaller - 1e-9 * (1 + smaller.abs())).all()


@each_base
def test_proposition_3_1_against_the_global_optimum(base):
    """The same with AROVR's global optimum, on toy networks and all activations. If it fails, the
    search ends below what it must find."""
    for seed, activation in enumerate((lnn.ReLU(), lnn.Box(0, 1), lnn.Tanh())):
        net = random_network(seed, [1, 1, 1], activation)
        x, y = random_inputs(seed, net, samples=2)
        smaller = lnn.AROVR(0.15, potential=base, solver=Exhaustive())(net, x, y, "none")
        for distance in (coupled, ElementWise([1.0, 1.0])):
            larger = GeneralizedAROVR(0.15, distance, potential=base, solver=Exhaustive())
            assert (larger(net, x, y, "none") > smaller).all()


# --- γ cannot be learned jointly with θ (after Proposition 3.1) ----------------------------------

def learned(gamma):
    return lambda z, other: gamma * element_wise([1.0] * len(z[1:]))(z, other)


def test_minimising_over_gamma_ends_in_arovr():
    """The value falls with γ at any γ, and as γ → ∞ tends to AROVR like 1/γ while z⁻ → z*. If it
    fails, γ does not act as the chapter says."""
    net = random_network(6, [2, 2, 2])
    x, y = random_inputs(6, net)
    arovr = lnn.AROVR(0.1, solver=EXACT)(net, x, y)
    excess, apart = [], []
    for size in (1.0, 1e2, 1e4):
        gamma = torch.tensor(size, dtype=torch.float64, requires_grad=True)
        objective = GeneralizedAROVR(0.1, learned(gamma), solver=EXACT)
        value = objective(net, x, y)
        value.backward()
        assert gamma.grad < 0
        excess.append((value - arovr).item())
        apart.append((objective.activations[0][-1] - objective.activations[1][-1]).norm().item())
    assert excess[1] / excess[2] == pytest.approx(100, rel=0.05) and excess[0] > 30 * excess[1] > 0
    assert apart[1] / apart[2] == pytest.approx(100, rel=0.05)


def test_maximising_over_gamma_makes_adversary_and_network_independent():
    """As γ → 0: z* → the forward pass, z⁻ → the farthest corner from y whatever x is. If it fails,
    γ does not act as the chapter says."""
    net = random_network(7, [2, 3, 2], output=lnn.Box(0, 1))
    x, _ = random_inputs(7, net)
    labels = torch.tensor([0, 1, 1])
    target = torch.nn.functional.one_hot(labels, 2).double()
    values = []
    for size in (1.0, 1e-2, 1e-6):
        objective = GeneralizedAROVR(0.3, learned(size))
        values.append(objective(net, x, labels, "none"))
    adversary, nominal = objective.activations
    torch.testing.assert_close(adversary[-1], 1 - target, rtol=0, atol=1e-5)
    for z, forward in zip(nominal, net.activations(x)):
        torch.testing.assert_close(z, forward, rtol=0, atol=1e-4)
    assert (values[0] <= values[1]).all() and (values[1] <= values[2]).all()
    torch.testing.assert_close(values[2], torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-5)


# --- gradients, types, reports -----------------------------------------------------------------

GRADIENTS = {"element-wise": ElementWise([0.8, 1.1]), "potential": PotentialDistance([0.6, 1.5]),
             "user's": coupled}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_against_finite_differences(name):
    """In weights, biases and x. If it fails, the envelope is taken at other activations than those
    found."""
    net = random_network(8, [2, 3, 2], lnn.Tanh())
    x, y = random_inputs(8, net, samples=2)
    x.requires_grad_()
    objective = GeneralizedAROVR(0.15, GRADIENTS[name], 0.9, solver=EXACT)
    assert slope_error(objective, net, x, y, [*net.weights, *net.biases, x]) < 2e-6


def test_gradient_in_the_distances_own_parameters():
    """Meta-learning γ: d value/dγ by backward() against finite differences. If it fails, it learns
    by a wrong slope."""
    net = random_network(9, [2, 2, 2])
    x, y = random_inputs(9, net)
    gamma = torch.tensor([0.9, 1.3], dtype=torch.float64, requires_grad=True)
    objective = GeneralizedAROVR(0.1, element_wise(gamma), solver=EXACT)
    assert slope_error(objective, net, x, y, [gamma]) < 1e-8


@pytest.mark.parametrize("distance", [ElementWise([1.0, 1.0]), PotentialDistance([1.0, 1.0]), coupled],
                         ids=["element-wise", "potential", "user's"])
def test_float32_and_report(distance):
    """A float32 network gets float32 results, near float64's, with a report for every sample. If it
    fails, the search changes the network's type, or does not say how it ended."""
    net = random_network(10, [3, 4, 2])
    x, y = random_inputs(10, net)
    objective = GeneralizedAROVR(0.1, distance)
    exact = objective(net, x, y, "none")
    values = objective(net.float(), x.float(), y.float(), "none")
    assert values.dtype == torch.float32
    torch.testing.assert_close(values.double(), exact, rtol=1e-4, atol=1e-5)
    assert objective.report.gap.shape == objective.report.converged.shape == (3,)
    assert objective.report.gap.dtype == torch.float32 and objective.report.passes > 0


# --- errors ------------------------------------------------------------------------------------

def zero_forward_only(net, x):
    """Eq. (15) as a user's function: zero at the forward pass, not at every d(z, z)."""
    return lambda z, other: lnn.FenchelYoung()(net.double(), [x.double(), *z[1:]])


@pytest.mark.parametrize(("distance", "message"), [
    (lambda z, other: 0.5 + (z[1] - other[1]).square().sum(1), r"d\(z, z\)=0\.5 at the forward pass"),
    (lambda z, other: (z[1] - other[1]).square().sum(), r"shape \(\); expected \(3,\)"),
    (lambda z, other: (z[1] - other[1]).square().sum(1).sqrt(), "no finite gradient"),
], ids=["offset", "shape", "root"])
def test_unfit_distances_are_refused(distance, message):
    """If it fails, a distance that means nothing for the network is searched with."""
    net, x, y, _ = one_layer()
    with pytest.raises(ValueError, match=message):
        GeneralizedAROVR(0.1, distance)(net, x, y)


def test_the_distance_farthest_from_zero_is_named():
    """If it fails, the number in the message is of a sample whose distance is right."""
    net, x, y, _ = one_layer()
    offsets = torch.tensor([0.0, -0.5, 0.25], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"d\(z, z\)=-0\.5 at the forward pass"):
        GeneralizedAROVR(0.1, lambda z, other: offsets + (z[1] - other[1]).square().sum(1))(net, x, y)


def test_distance_that_is_zero_only_at_the_forward_pass_is_refused():
    """If it fails, d_γ(z, z) = U(z; x) breaks Proposition 3.1 silently."""
    net, x, y, _ = one_layer()
    with pytest.raises(ValueError, match="at random activations must be 0"):
        GeneralizedAROVR(0.1, zero_forward_only(net, x))(net, x, y)


@pytest.mark.parametrize(("build", "message"), [
    (lambda: GeneralizedAROVR(0.0, coupled), "beta=0.0 must be positive"),
    (lambda: GeneralizedAROVR(0.1, coupled, weight=-1.0), "weight=-1.0 must be positive"),
    (lambda: ElementWise([-0.5]), "gamma_1=-0.5 must be positive"),
    (lambda: PotentialDistance([0.0]), "gamma_1=0.0 must be positive"),
])
def test_bad_parameters_are_refused_at_once(build, message):
    """If it fails, a bad λ or γ is found out in the middle of a training, or never."""
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(("objective", "message"), [
    (GeneralizedAROVR(0.5, ElementWise([0.2])), r"beta=0\.5 must be below 2\*weight\*gamma_L=0\.4"),
    (GeneralizedAROVR(0.5, ElementWise([0.5])), r"beta=0\.5 must be below gamma_L/2=0\.5"),
    (GeneralizedAROVR(0.5, ElementWise([1.0, 1.0])), "gamma has 2 entries for 1 layers"),
    (GeneralizedAROVR(0.5, PotentialDistance([2.0]), 0.2), r"beta=0\.5 must be below gamma_L=0\.4"),
    (GeneralizedAROVR(1.5, coupled), r"beta=1\.5 must be below gamma_L=1"),
], ids=repr)
def test_beta_that_cannot_be_bounded_is_refused_before_computing(objective, message, monkeypatch):
    """If it fails, a search without a maximum runs to its end."""
    net, x, y, _ = one_layer()
    monkeypatch.setattr("lnn_core.generalized.infer", lambda *args, **kwargs: pytest.fail("computed"))
    with pytest.raises(ValueError, match=message):
        objective(net, x, y)


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.149])
def test_unbounded_maximum_raises(gamma):
    """2λγ < β with a user's distance: only the search can notice. If it fails, it returns a
    number."""
    net, x, y, _ = one_layer()
    with pytest.raises(lnn.InferenceDiverged, match="of 3 samples ran away"):
        GeneralizedAROVR(0.3, element_wise([gamma]))(net, x, y)


def test_reprs_name_the_distance():
    """If it fails, a report does not say which objective it is of."""
    assert repr(GeneralizedAROVR(0.1, coupled)) == "GeneralizedAROVR(beta=0.1, coupled, weight=1)"
    assert "ElementWise([1.0])" in repr(GeneralizedAROVR(0.1, ElementWise([1.0])))
    assert "PotentialDistance([1.0], FenchelYoung())" in repr(GeneralizedAROVR(0.1, PotentialDistance([1.0])))


def test_gap_is_half_the_squared_slope_over_the_energy():
    """At any activations, not only optimal ones; where the energy is zero the gap is, too. If it
    fails, the search stops too early or never."""
    net = random_network(3, [2, 3, 2], lnn.Identity())
    x, y = random_inputs(3, net)
    objective = GeneralizedAROVR(0.1, coupled)
    joint = _Joint(objective, net, x, lnn.Euclidean(y))
    v = joint.pack(net.activations(x)).detach()
    v = (v + torch.linspace(-0.3, 0.4, v.numel(), dtype=torch.float64).view_as(v)).requires_grad_()
    z = [[x, *part.split([3, 2], 1)] for part in v.split(5, 1)]
    energy = lnn.FenchelYoung()(net, z[1]) + coupled(*z) - 0.1 * lnn.Euclidean(y)(z[0][-1])
    slope, = torch.autograd.grad(energy.sum(), v)
    report = joint.report(v.detach(), 7, like=x)
    torch.testing.assert_close(report.gap, 0.5 * slope.square().sum(1) / energy.detach().abs())
    assert report.passes == 7 and not report.converged.any()
    fitted = _Joint(objective, net, x, lnn.Euclidean(net(x).detach()))
    report = fitted.report(fitted.pack(net.activations(x)).detach(), 1, like=x)
    assert (report.gap < 1e-8).all() and report.converged.all()
