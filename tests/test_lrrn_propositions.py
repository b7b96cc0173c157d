"""Negative controls of the LRRN's statements, and the random instances they are tried on.

Each ingredient of a statement is put in the wrong by a known amount: the statement has to
measure that amount. One that is weakened measures something else.
"""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

import lnn_core as lnn
from lnn_core import lrrn, propositions
from lnn_core.propositions import lrrn_toys

SEEDS = range(4)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return lrrn_toys.normal(generator(seed), *shape)


def scaled(function, factor):
    return lambda *args, **options: factor * function(*args, **options)


def fails(name, seeds=SEEDS):
    """Whether the claim is found false on each of the instances."""
    claim = propositions.CLAIMS[name]
    return all(claim(seed) > claim.limit for seed in seeds)


# ------------------------------------------------------------------------- the statements


def test_limits_leave_room_for_rounding_alone():
    """If it fails, a claim holds within a tolerance that no rounding needs."""
    claims = {name: claim for name, claim in propositions.claims_of(propositions.HOIER_ZACH).items()
              if claim.measure.__module__ == propositions.lrrn.__name__}
    assert {claim.limit for claim in claims.values()} == {1e-8, 1 + 1e-7, 1e-4}
    loose = {name for name, claim in claims.items() if claim.limit == 1e-4}
    assert loose == {"feed_forward_limit", "reconstruction_limit"}  # limits γ → 0


def test_closed_form(replace):
    """A layer whose output is off by 1e-6. If it fails, the claim holds of anything; so with all
    tests below."""
    class Off(lrrn.RRLayer):
        def forward(self, x):
            return super().forward(x) * (1 + 1e-6)

    replace(propositions.lrrn, RRLayer=Off)
    assert fails("closed_form")


def test_largest_value(replace):
    """A maximum that is too large, too small, and at another place. If it fails, it goes
    unnoticed."""
    gain, largest = propositions.lrrn.gain, propositions.lrrn.largest_gain
    for factor in (1 + 1e-6, 1 - 1e-6):
        replace(propositions.lrrn, largest_gain=scaled(largest, factor))
        assert fails("largest_value")
    replace(propositions.lrrn, largest_gain=largest, gain=lambda sigma, beta: gain(sigma, beta) * (
        1.001 if torch.is_tensor(sigma) else 1))
    assert fails("largest_value")


def test_operator_norm(replace, monkeypatch):
    """A norm that is off, and a singular value that is. If it fails, it goes unnoticed."""
    with monkeypatch.context() as patch:
        patch.setattr(lrrn.RRLayer, "lipschitz", scaled(lrrn.RRLayer.lipschitz, 1 + 1e-6))
        assert fails("operator_norm")
    replace(propositions.lrrn, gain=scaled(propositions.lrrn.gain, 1 + 1e-6))
    assert fails("operator_norm")


@pytest.mark.parametrize("name, bound", [
    ("theorem_1", lrrn.lipschitz),
    ("refined_theorem", lambda net: lrrn.lipschitz(net, refined=True)),
    ("corollary_2", lambda net: np.linalg.norm(net.weights[-1].detach().numpy(), 2))])
def test_lipschitz_claims_compare_with_their_bound(name, bound, replace):
    """A network that is 1 % steeper than its bound. If it fails, it goes unnoticed."""
    seen = []
    replace(propositions.lrrn, slope=lambda net, draw: seen.append(net) or 1.01 * bound(net))
    for seed in range(12):
        assert propositions.CLAIMS[name](seed) == pytest.approx(1.01)
    if name == "corollary_2":
        assert all(net.beta == (1,) * (net.depth - 1) + (0,) for net in seen)
    else:
        assert any(0 in net.beta for net in seen) and any(max(net.beta) > 1 for net in seen)
        assert len({net.gamma for net in seen}) == len(seen)


def test_refined_is_smaller(replace):
    """One layer's constant 1 % above ρ_k, whichever it is. If it fails, it goes unnoticed."""
    layers = propositions.lrrn.layer_constants
    for wrong in (0, -1):
        def refined(net, wrong=wrong):
            constants = layers(net)
            constants[wrong] *= 1.01
            return constants

        replace(propositions.lrrn, refined_constants=refined)
        for seed in SEEDS:
            assert propositions.CLAIMS["refined_is_smaller"](seed) == pytest.approx(1.01)


@pytest.mark.parametrize("name", ["operator_norm", "lemma_1", "corollary_1", "lemma_2"])
def test_matrices_of_all_shapes_are_tried(name, replace):
    """If it fails, wide, tall or single-row matrices are left out; stubs save the search."""
    shapes = []
    replace(propositions.lrrn, steepest=lambda P, W, draw: shapes.append(tuple(W.shape)) or 0.0,
            proximal=None)
    if name == "operator_norm":
        class Seen(lrrn.RRLayer):
            def __init__(self, d_in, d_out, *args, **options):
                shapes.append((d_out, d_in))
                super().__init__(d_in, d_out, *args, **options)

        replace(propositions.lrrn, RRLayer=Seen)
    for seed in range(300):
        propositions.CLAIMS[name](seed)
    assert set(shapes) == {(m, n) for m in range(1, 6) for n in range(1, 6)}


def test_certificate(replace):
    """Outputs ±wᵀx have a border at the radius itself: rays, a quarter apart in length, come close
    to it. If it fails, a radius a third too large is not found out."""
    def linear(draw, beta):
        net = lrrn.LRRN([3, 2], beta=0.0, dtype=torch.float64)
        w = lrrn_toys.normal(draw, 1, 3)
        net.weights[0].data.copy_(torch.cat([w, -w]))
        return net

    replace(propositions.lrrn, network=linear)
    for seed in SEEDS:
        assert 0.78 < propositions.CLAIMS["certificate"](seed) <= 1 + 1e-9
    replace(propositions.lrrn, certified_radius=scaled(propositions.lrrn.certified_radius, 1.3))
    assert fails("certificate")


def test_vanishing_discount_is_of_third_order(replace):
    """If it fails, the limit γ → 0 keeps an error that hides a difference."""
    net = lrrn.LRRN([1, 1])
    replace(propositions.lrrn, contrasted=lambda net, x, y: [f(net.gamma) for f in (
        lambda c: 2 + 3 * c + 5 * c**2, lambda c: c**3)])
    second, third = propositions.lrrn.vanishing_discount(net, None, None)
    assert second == pytest.approx(2, abs=1e-12) and 0 < third < 1e-9


@pytest.mark.parametrize("name", ["feed_forward_limit", "reconstruction_limit"])
def test_limits_of_gradients(name, replace):
    """The output, then each gradient, off by a thousandth; others as they are. If it fails, it goes
    unnoticed."""
    contrasted = propositions.lrrn.contrasted
    for wrong in range(3):
        def off(net, x, y, wrong=wrong):
            parts = contrasted(net, x, y)
            largest = max(float(part.abs().max()) for part in parts)
            parts[wrong] = parts[wrong] + 1e-3 * largest
            return parts

        replace(propositions.lrrn, contrasted=off)
        assert fails(name, range(2))


def test_absorbed_discount(replace):
    """A network of the same weights without a discount has another energy. If it fails, that goes
    unnoticed."""
    def unscaled(net):
        plain = lrrn.LRRN(net.sizes, net.functions[:-1], beta=0.0, dtype=torch.float64)
        plain.load_state_dict(net.state_dict())
        return plain

    deep = [seed for seed in range(10) if lrrn_toys.network(generator(seed), "zero").depth > 1]
    replace(propositions.lrrn, undiscounted=unscaled)
    assert len(deep) > 3  # one layer has nothing to discount
    assert fails("absorbed_discount", deep)


def test_convex_in_x(replace):
    """−½‖x‖² is above its chords by ½t(1 − t)‖a − b‖². If it fails, it passes for convex."""
    def concave(solver):
        def value(net, x, reduction):
            points.append(x)
            return -0.5 * x.square().sum(1)
        return value

    for seed in SEEDS:
        points = []
        replace(propositions.lrrn, Unsupervised=concave)
        found = propositions.CLAIMS["convex_in_x"](seed)
        a, b, between = points
        t = ((between - b) * (a - b)).sum(1) / (a - b).square().sum(1)
        torch.testing.assert_close(t, t[:1].expand_as(t))
        assert found == pytest.approx(0.5 * t[0] * (1 - t[0]) * (a - b).square().sum(1).max())


def test_principal_components(replace):
    """A random matrix with less energy than the modes; modes with more and with less than half the
    variance that is left. If it fails, they pass for optimal."""
    for factors, expected in (((1, 1.001), 1.001), ((1, 0.999), 1.001), ((0, 1), math.inf)):
        todo = []

        class Scaled(lrrn.Unsupervised):
            def __call__(self, net, x):
                return todo.pop(0) * super().__call__(net, x) + 1e-300

        replace(propositions.lrrn, Unsupervised=Scaled)
        for seed in SEEDS:
            todo[:] = factors
            found = propositions.CLAIMS["principal_components"](seed)
            assert (found > 1e200) if math.isinf(expected) else found == pytest.approx(expected)


def test_contrast_bounds_the_error(replace):
    """One free layer attains the bound: the ratio is 1, and 2 with half the contrast. If it fails,
    a violated bound goes unnoticed."""
    replace(propositions.lrrn, network=lambda draw: lrrn_toys.network(draw, depth=1))
    for factor in (1.0, 0.5):
        class Scaled(lrrn.Contrastive):
            def __call__(self, *args, **options):
                return factor * super().__call__(*args, **options)

        replace(propositions.lrrn, Contrastive=Scaled)
        for seed in SEEDS:
            assert propositions.CLAIMS["contrast_bounds_the_error"](seed) == pytest.approx(1 / factor)


def test_hidden_layers_leave_room_in_the_bound():
    """If it fails, constraints would not matter: with them the bound is not attained."""
    found = [propositions.CLAIMS["contrast_bounds_the_error"](seed) for seed in range(12)]
    assert min(found) < 0.999 and max(found) > 0.9


# ------------------------------------------------------------------------- instances


def test_distance_by_hand():
    """The largest difference over all tensors ÷ the largest entry of the second ones. If it fails,
    distances mean something else."""
    a, b = [torch.tensor([1.0, -4.0]), torch.tensor([0.5])], [torch.tensor([1.5, -3.0]),
                                                             torch.tensor([-5.0])]
    assert lrrn_toys.distance(a[0], b[0]) == pytest.approx(1 / 3)
    assert lrrn_toys.distance(a, b) == pytest.approx(5.5 / 5)
    assert lrrn_toys.distance(torch.zeros(2), torch.zeros(2)) == 0
    assert lrrn_toys.distance(torch.ones(2), torch.zeros(2)) > 1e200


def test_what_is_drawn():
    """If it fails, instances leave out large or small numbers, or a kind of network."""
    draw = generator()
    flat = torch.tensor([lrrn_toys.uniform(draw, -2.0, 3.0) for _ in range(500)])
    assert -2 <= flat.min() < -1.9 and 2.9 < flat.max() < 3
    logs = torch.tensor([lrrn_toys.strength(draw) for _ in range(500)]).log() / math.log(20)
    assert -1 <= logs.min() < -0.97 and 0.97 < logs.max() <= 1 and abs(logs.mean()) < 0.1
    assert {lrrn_toys.choice(draw, iter("abc")) for _ in range(50)} == set("abc")
    nets = [lrrn_toys.network(draw) for _ in range(300)]
    assert {net.depth for net in nets} == {1, 2, 3, 4}
    assert {size for net in nets for size in net.sizes} == {2, 3, 4, 5}
    assert {repr(f) for net in nets for f in net.functions[:-1]} == {repr(s) for s in lrrn_toys.SETS}
    assert all(0.3 <= net.gamma <= 1.5 for net in nets)
    assert min(net.gamma for net in nets) < 0.35 and max(net.gamma for net in nets) > 1.45
    betas = [beta for net in nets for beta in net.beta]
    for value in (0.0, 1.0):
        assert 0.25 < betas.count(value) / len(betas) < 0.42
    sd = [float(W.detach().square().mean()) ** 0.5 for net in nets for W in net.weights]
    assert min(sd) < 0.4 and 1.4 < max(sd) and 0.7 < np.mean(sd) < 1.1
    biases = torch.cat([b.detach() for net in nets
                        for b in (*net.biases, *net.reconstruction_biases)])
    assert 0.47 < biases.std() < 0.53 and abs(biases.mean()) < 0.03
    assert lrrn_toys.network(draw, "zero").beta[0] == 0 and lrrn_toys.network(draw, gamma=0.7).gamma == 0.7


@pytest.mark.parametrize("name", lrrn_toys.PROXES)
def test_proximal_points_are_minima(name):
    """½‖z − v‖² + t·G(z) by simplex search; if it fails, a lemma is tried on something else."""
    def G(z):
        if name in ("none", "1-norm", "2-norm", "square"):
            return {"none": 0.0, "1-norm": np.abs(z).sum(), "2-norm": np.linalg.norm(z),
                    "square": z @ z / 2}[name]
        inside = {"z >= 0": (z >= 0).all(), "box": (np.abs(z) <= 0.5).all(),
                  "ball": z @ z <= 1}[name]
        return 0.0 if inside else 1e9

    for v, t in (([0.4, -0.3], 0.2), ([1.5, 0.9], 0.7), ([-0.1, 0.2], 1.0)):
        found = lrrn_toys.PROXES[name](torch.tensor([v]).double(), t)[0].numpy()
        best = min((minimize(lambda z: 0.5 * ((z - v) ** 2).sum() + t * G(z), start,
                             method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
                    for start in (found + 0.01, found - 0.003)), key=lambda r: r.fun)
        value = 0.5 * ((found - v) ** 2).sum() + t * G(found * (1 - 1e-12))
        assert value <= best.fun + 1e-9


def test_proximal_solves_equation_4():
    """Without G a linear system; with z ≥ 0 an LRRN of one layer, output and all. If it fails, the
    oracle of equation (4) solves another one."""
    W, x = normal(3, 4), normal(5, 4, seed=1)
    H = torch.eye(3).double() + 0.7 * W @ W.T
    free = lrrn_toys.proximal(0.7, W, x, lrrn_toys.PROXES["none"])
    torch.testing.assert_close(free, torch.linalg.solve(H, 1.7 * W @ x.T).T)
    net = lrrn.LRRN([4, 3], output=lnn.ReLU(), beta=0.7, dtype=torch.float64)
    net.weights[0].data.copy_(W)
    net.solver = lrrn_toys.EXACT
    torch.testing.assert_close(lrrn_toys.proximal(0.7, W, x, lrrn_toys.PROXES["z >= 0"]), net(x).detach())


def test_the_search_for_slopes_finds_those_of_a_matrix():
    """If it fails, a Lipschitz claim is tried in harmless directions: here the largest singular
    value is twice the next, and power iteration gets there."""
    U, V = (torch.linalg.qr(normal(4, 4, seed=seed)).Q for seed in (1, 2))
    W = U @ torch.diag(torch.tensor([2.0, 1.0, 0.5, 0.1]).double()) @ V.T
    found = lrrn_toys.steepest(lambda x: x @ W.T, W, generator())
    assert 1.999 < found <= 2 + 1e-9
    assert lrrn_toys.steepest(lambda x: 0.5 * x[:, :1], W[:1], generator()) <= 0.5 + 1e-9
    net = lrrn.LRRN([4, 4], beta=0.0, dtype=torch.float64)
    net.weights[0].data.copy_(W)
    assert lrrn_toys.slope(net, generator()) == pytest.approx(2)
