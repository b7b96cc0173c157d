"""Cross-entropy: values against torch, the output layer's answer against SciPy, AROVR and its bounds
against the exhaustive oracle."""

from functools import partial

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import gammas, networks, random_inputs, random_network, seeds
from torch import nn

import lnn_core as lnn
from lnn_core.newton import logit_prox, solve

CE = lnn.CrossEntropy
EXACT = lnn.Shooting(1e-13, 3000, every=True)


def problem(seed=0, sizes=(4, 6, 3), samples=5, **options):
    net = random_network(seed, list(sizes), **options)
    x, _ = random_inputs(seed, net, samples)
    return net, x, torch.randint(0, sizes[-1], (samples,), generator=torch.Generator().manual_seed(seed))


def distributions(seed, samples, classes):
    draw = torch.randn(samples, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (2 * draw).softmax(1)


# --- the loss -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weight", [None, torch.tensor([0.3, 2.0, 0.0, 1.0]).double()],
                         ids=["plain", "weighted"])
@pytest.mark.parametrize("target", ["labels", "probabilities"])
def test_value_and_gradient_are_torchs(target, weight, smoothing):
    """If it fails, training with β → 0 is not training with torch's cross-entropy."""
    draw = torch.Generator().manual_seed(0)
    z = (3 * torch.randn(6, 4, generator=draw, dtype=torch.float64)).requires_grad_()
    labels = torch.tensor([0, 1, 2, 3, 3, 2])
    y = labels if target == "labels" else distributions(1, 6, 4)
    rows = nn.functional.one_hot(labels, 4).double() if target == "labels" else y
    expected = nn.functional.cross_entropy(z, y, weight, label_smoothing=smoothing, reduction="none")
    loss = CE(rows, label_smoothing=smoothing, weight=weight)
    torch.testing.assert_close(loss(z), expected)
    slope, = torch.autograd.grad(expected.sum(), z)
    torch.testing.assert_close(loss.gradient(z.detach()), slope)
    torch.testing.assert_close(torch.autograd.grad(loss(z).sum(), z)[0], slope)


def test_confident_samples_keep_their_digits():
    """Outputs of size 1e4 in float32. If it fails, the loss of a confident sample is a rounding error."""
    z = torch.tensor([[1e4, 1e4 - 12.0, -1e4]])
    expected = nn.functional.cross_entropy(z.double(), torch.tensor([0])).item()
    assert CE(torch.tensor([[1.0, 0.0, 0.0]]))(z).item() == pytest.approx(expected, rel=1e-6)


def test_arithmetic():
    """β·ℓ, −ℓ, ℓ + ℓ⁻, weights per sample. If it fails, a subproblem of an objective is another one."""
    z, y, other = torch.randn(5, 3).double(), distributions(0, 5, 3), distributions(1, 5, 3)
    weight = torch.rand(5, 1).double()
    found = 0.3 * CE(y) - CE(other) + weight * CE(other) + 2.0 * lnn.Euclidean(y) + lnn.Linear(other)
    expected = (0.3 * CE(y)(z) - CE(other)(z) + weight[:, 0] * CE(other)(z) + (z - y).square().sum(1)
                + (other * z).sum(1))
    torch.testing.assert_close(found(z), expected)
    rows = torch.tensor([3, 0, 3])
    torch.testing.assert_close(found.take(rows)(z[rows]), expected[rows])


@given(seed=seeds, scale=st.floats(0.01, 30))
def test_curvature_and_slope_stay_within_their_bounds(seed, scale):
    """0 ≤ ∇²ℓ ≤ ½ and ‖∇ℓ‖ ≤ √2. If it fails, the bound of AROVR is none."""
    draw = torch.Generator().manual_seed(seed)
    z = scale * torch.randn(1, 4, generator=draw, dtype=torch.float64)
    y = nn.functional.one_hot(torch.randint(0, 4, (1,), generator=draw), 4).double()
    loss = CE(y)
    H = torch.autograd.functional.hessian(lambda v: loss(v[None])[0], z[0])
    least, *_, greatest = torch.linalg.eigvalsh(H)
    assert loss.curvature_bounds == (0.0, 0.5) and least > -1e-12 and greatest <= 0.5 + 1e-12
    assert (-0.4 * loss).curvature_bounds == pytest.approx((-0.2, 0.0))
    assert loss.gradient(z).norm() <= 2**0.5 + 1e-12 and loss.lipschitz.item() == pytest.approx(2**0.5)
    d = torch.randn(1, 4, generator=draw, dtype=torch.float64)
    expected = ((d @ H @ d.T) / d.square().sum()).item()
    assert loss.curvature_along(z, d).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("quadratic", [False, True])
def test_every_sample_has_its_own_terms(quadratic):
    """Values, slopes, curvatures and Lipschitz constants of a batch are those of its samples, one by one. If
    it fails, a sample is measured by another one's outputs or targets."""
    z, d, y, other = (distributions(seed, 4, 3) for seed in range(4))
    loss = (torch.arange(1.0, 5.0, dtype=torch.float64)[:, None] * CE(y)
            + lnn.Linear(other) + (2.0 * lnn.Euclidean(y) if quadratic else 0.0 * CE(y)))
    for i in range(4):
        one, rows = loss.take(torch.tensor([i])), slice(i, i + 1)
        H = torch.autograd.functional.hessian(lambda v: one(v[None])[0], z[i])
        torch.testing.assert_close(loss.gradient(z)[i], torch.autograd.functional.jacobian(
            lambda v: one(v[None])[0], z[i]))
        torch.testing.assert_close(loss(z)[rows], one(z[rows]))
        along = loss.curvature_along(z, d)
        assert along.shape == (4, 1)
        assert along[i].item() == pytest.approx((d[i] @ H @ d[i] / d[i].square().sum()).item(), abs=1e-12)
        assert all(type(bound) is float for bound in loss.curvature_bounds)  # of all samples
        if not quadratic:
            assert loss.lipschitz.shape == (4,) and loss.lipschitz[i] == one.lipschitz[0]


@given(seed=seeds, s=st.sampled_from([1.0, -0.7, 2.0]))
def test_lipschitz_constant(seed, s):
    """max_z ‖∇ℓ(z)‖ against the corners of the simplex. If it fails, the bound of AROVR is wrong."""
    loss = s * CE(distributions(seed, 3, 4))
    corners = 60.0 * torch.eye(4, dtype=torch.float64)
    expected = torch.stack([loss.gradient(corner.expand(3, 4)).norm(dim=1) for corner in corners]).amax(0)
    torch.testing.assert_close(loss.lipschitz, expected)
    assert (loss + lnn.Euclidean(torch.zeros(1, 4).double())).lipschitz == float("inf")


@pytest.mark.parametrize(("call", "message"), [
    (lambda: CE(torch.tensor([0, 1])), "dtype torch.int64 and shape"),
    (lambda: CE(torch.tensor([[0.5, -0.1]])), "target holds -0.1"),
    (lambda: CE(torch.eye(2), weight=torch.tensor([1.0, -2.0])), "weight holds -2"),
    (lambda: CE(torch.eye(2), label_smoothing=1.5), "label_smoothing=1.5"),
    (lambda: lnn.AROVR(0.1, CE)(lnn.LiftedNetwork([2, 2], output=lnn.Tanh()), torch.zeros(1, 2),
                                torch.tensor([0])), "takes logits; the network's output is Tanh"),
    (lambda: torch.ones(2) * CE(torch.eye(2)), r"multiplied by a tensor of shape \(2,\); expected a number"),
    (lambda: CE(torch.eye(2), weight=[1.0, 2.0]), "weight is a list"),
    (lambda: CE(torch.eye(2), weight=torch.ones(3)), r"weight has shape \(3,\); expected \(2,\)"),
    (lambda: CE(torch.eye(2), weight=torch.tensor([1.0, float("inf")])), "weight holds inf"),
    (lambda: lnn.BackPropagation(CE)(lnn.LiftedNetwork([2, 2], output=lnn.Tanh()), torch.zeros(1, 2),
                                     torch.tensor([0])), "takes logits"),
    (lambda: lnn.oracle.minimum(lnn.LiftedNetwork([2, 2], dtype=torch.float64), torch.zeros(1, 2).double(),
                                lnn.FenchelYoung() + CE(torch.eye(2)[:1].double())), "no cross-entropy"),
    (lambda: lnn.AROVR(0.1, CE)(lnn.LiftedNetwork([2, 2]), torch.zeros(2, 2),
                                torch.eye(2, requires_grad=True)),
     "gradients in the targets are not supported"),
])
def test_bad_input(call, message):
    """If it fails, a wrong target trains without a word."""
    with pytest.raises(ValueError, match=message):
        call()


# --- the output layer's answer ----------------------------------------------------------------------------


@pytest.mark.parametrize("s", [0.05, 1.0, 300.0, -0.3, -1.2, -1.9])
@given(seed=seeds, scale=st.sampled_from([0.1, 3.0, 40.0]))
def test_answer_against_scipy(s, seed, scale):
    """min ½Σ_i C_i(z_i − a_i)² + s·lse(z) − s·yᵀz. If it fails, inference with cross-entropy is off."""
    draw = np.random.default_rng(seed)
    C, a, y = draw.uniform(1.0, 2.0, 4), scale * draw.standard_normal(4), draw.dirichlet(np.ones(4))
    assume(-s < 2 * C.min())

    def value(z):
        top = z.max()
        return 0.5 * (C * (z - a)**2).sum() + s * (top + np.log(np.exp(z - top).sum()) - y @ z)

    def slope(z):
        p = np.exp(z - z.max())
        return C * (z - a) + s * (p / p.sum() - y)

    expected = scipy.optimize.minimize(value, a, jac=slope, method="BFGS", options={"gtol": 1e-11}).x
    C_, a_, y_ = (torch.from_numpy(v)[None] for v in (C, a, y))
    energy = lnn.Reweighted([C_[0]]) + s * CE(y_)
    net = lnn.LiftedNetwork([4, 4], dtype=torch.float64)
    found = energy.output_prox(net, a_)
    assert abs(slope(found[0].numpy())).max() < 1e-12 * (1 + scale + abs(s))
    np.testing.assert_allclose(found[0].numpy(), expected, atol=2e-6 * (1 + abs(s)))


@given(seed=seeds, s=st.floats(-1.9, 50), peak=st.floats(0, 60))
def test_newton_step_against_a_dense_solver(seed, s, peak):
    """If it fails, one unit that takes all probability, where C + s·p may vanish, spoils the step."""
    draw = torch.Generator().manual_seed(seed)
    C = 1 + torch.rand(3, 5, generator=draw, dtype=torch.float64)
    v = torch.randn(3, 5, generator=draw, dtype=torch.float64)
    z = torch.randn(3, 5, generator=draw, dtype=torch.float64)
    z[:, 2] += peak
    p = z.softmax(1)
    matrix = torch.diag_embed(C) + s * (torch.diag_embed(p) - p[:, :, None] * p[:, None])
    torch.testing.assert_close(solve(C, s, p, v), torch.linalg.solve(matrix, v), rtol=1e-9, atol=1e-9)


def test_step_where_the_diagonal_vanishes():
    """C + s·p = 0 for the most probable unit. If it fails, the answer is NaN there."""
    p = torch.tensor([[2 / 3, 1 / 6, 1 / 6]], dtype=torch.float64)
    C, v = torch.ones(1, 3, dtype=torch.float64), torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    matrix = torch.diag_embed(C) - 1.5 * (torch.diag_embed(p) - p[:, :, None] * p[:, None])
    torch.testing.assert_close(solve(C, -1.5, p, v), torch.linalg.solve(matrix, v))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_answer_of_very_different_samples(dtype):
    """Logits of 1e6 beside zeros, many classes. If it fails, one sample keeps all others from converging."""
    a = torch.zeros(3, 1000, dtype=dtype)
    a[1, 7], a[2] = 1e6, 1e3 * torch.randn(1000, generator=torch.Generator().manual_seed(0)).to(dtype)
    z = logit_prox(lambda p: a + p, torch.zeros_like(a), -1.5, a)
    residual = z - (a + 1.5 * z.softmax(1))
    assert residual.abs().amax() <= 64 * torch.finfo(dtype).eps * 1e6
    assert residual[0].abs().amax() <= 64 * torch.finfo(dtype).eps


# --- objectives -------------------------------------------------------------------------------------------


def oracle_arovr(net, x, y, beta):
    """max_p H(p) + max_z (p − y)ᵀz − U(z; x)/β for two classes.

    lse(z) = max_p pᵀz + H(p) turns AROVR with cross-entropy into one with a linear loss, which the
    exhaustive oracle solves, for every p. p is searched for on a grid that is refined five times.
    """
    def at(share):
        p = torch.stack([share, 1 - share], 1)
        loss = lnn.Linear(p - y)
        exact, _ = lnn.oracle.minimum(net, x.expand(len(p), -1), lnn.FenchelYoung() - beta * loss)
        return torch.special.entr(p).sum(1) - exact / beta

    low, high = 0.0, 1.0
    for _ in range(6):
        grid = torch.linspace(low, high, 81, dtype=torch.float64)
        values = at(grid)
        best, width = grid[values.argmax()].item(), (high - low) / 80
        low, high = max(0.0, best - width), min(1.0, best + width)
    return values.max().item()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("beta", [0.2, 0.9, 1.8])
def test_sandwich_against_the_oracle(seed, beta):
    """ROVR ≤ ℓ ≤ AROVR ≤ ℓ + ½βκΛ², whatever β. If it fails, the theorem of the chapter is wrong.

    Inference gives lower bounds of AROVR; close to the global one, which the oracle knows.
    """
    net = random_network(seed, [2, 2, 2], scale=1.5)
    x, _ = random_inputs(seed, net, 1)
    y = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    exact = oracle_arovr(net, x, y, beta)
    plain = CE(y)(net(x)).item()
    objective = lnn.AROVR(beta, CE, solver=EXACT)
    found = objective(net, x, y).item()
    lower, upper = (bound.item() for bound in lnn.bounds.two_sided(net, x, y, beta, loss=CE))
    rovr = lnn.ROVR(beta, CE, solver=EXACT)(net, x, y).item()
    slack = 1e-9
    assert lower <= rovr + slack and rovr <= plain + slack
    assert plain <= found + slack and found <= exact + slack and exact <= upper + 1e-6
    assert upper <= plain + 0.5 * beta * lnn.bounds.kappa(net) * 2 + slack
    assert not objective.report.infinite.any() and objective.report.converged.all()


def test_no_border_of_stability():
    """A network in which the Euclidean AROVR is infinite for this β. If it fails, cross-entropy has a
    border, too."""
    net = random_network(3, [3, 8, 8, 4], scale=3.0)
    x, _ = random_inputs(3, net, 6)
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    beta = 0.9
    euclidean = lnn.AROVR(beta)
    with pytest.warns(lnn.StabilityWarning, match="infinite there"):
        euclidean(net, x, y)
    objective = lnn.AROVR(beta, CE, solver=lnn.Shooting(1e-6, 3000, every=True))
    values = objective(net, x, y, reduction="none")
    _, upper = lnn.bounds.two_sided(net, x, y, beta, loss=CE)
    assert not objective.report.infinite.any() and (values <= upper).all()


def test_beta_has_a_bound():
    """β < 2γ_L keeps the output layer's problem strictly convex. If it fails, inference may pick one of
    several solutions without a word."""
    net, x, y = problem()
    for beta, potential in ((1.99, None), (0.99, lnn.Reweighted([1.0, 0.5]))):
        assert lnn.AROVR(beta, CE, potential)(net, x, y).isfinite()
    with pytest.raises(ValueError, match="beta=2 must be below gamma_L/0.5=2, or the output layer's problem"):
        lnn.AROVR(2.0, CE)(net, x, y)
    with pytest.raises(ValueError, match="several minima in z_L alone"):
        lnn.infer(net, x, lnn.FenchelYoung() - 2.0 * CE(distributions(0, 5, 3)))


OBJECTIVES = {
    "ROVR": lambda loss: lnn.ROVR(0.7, loss, solver=EXACT),
    "AROVR": lambda loss: lnn.AROVR(0.3, loss, solver=EXACT),
    "reweighted by unit": lambda loss: lnn.AROVR(0.3, loss, lnn.Reweighted(
        [torch.linspace(0.5, 2, 6).double(), torch.tensor([0.6, 1.0, 3.0]).double()]), solver=EXACT),
    "targeted ROVR": lambda loss: lnn.TargetedROVR(0.3, 0.5, lnn.untargeted, loss=loss, solver=EXACT),
    "targeted AROVR": lambda loss: lnn.TargetedAROVR(0.3, 0.5, lnn.Targeted(torch.Generator().manual_seed(0)),
                                                     loss=loss, solver=EXACT),
    "constrained": lambda loss: lnn.ConstrainedAROVR(0.02, loss),
    "element-wise": lambda loss: lnn.GeneralizedAROVR(0.2, lnn.ElementWise([1.0, 1.0]), loss=loss),
    "potential distance": lambda loss: lnn.GeneralizedAROVR(0.2, lnn.PotentialDistance([1.0, 2.0]), loss=loss,
                                                            solver=EXACT),
}


@pytest.mark.parametrize("loss", [CE, partial(CE, label_smoothing=0.1), partial(CE, weight=torch.tensor(
    [0.4, 1.0, 1.3]).double()), lambda y: torch.linspace(0.2, 1.5, 5).double()[:, None] * CE(y)],
    ids=["plain", "smoothed", "class weights", "sample weights"])
@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_gradients_against_finite_differences(objective, loss):
    """If it fails, an objective with cross-entropy trains along another slope than its value's."""
    net, x, y = problem(activation=lnn.Sigmoid())

    def value():
        made = objective(loss)  # afresh, so that random targets are the same
        if getattr(made, "attack", None) is not None and isinstance(made.attack, lnn.Targeted):
            made.attack.generator.manual_seed(1)
        return made(net, x, y)

    found = torch.autograd.grad(value(), list(net.parameters()))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter, gradient in zip(net.parameters(), found):
            direction, h, ends = torch.randn(parameter.shape, generator=draw, dtype=torch.float64), 1e-4, []
            for sign in (1, -1):
                parameter.add_(sign * h * direction)
                ends.append(value().item())
                parameter.sub_(sign * h * direction)
            assert (gradient * direction).sum().item() == pytest.approx((ends[0] - ends[1]) / (2 * h),
                                                                        rel=2e-4, abs=2e-6)


def test_tilted_objectives():
    """AROVR^g with cross-entropy. If it fails, m(0) is not subtracted, or the answer ignores the tilt."""
    net, x, y = problem()
    g = [torch.randn(size, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
         for k, size in enumerate(net.sizes[1:])]
    U, beta = lnn.Tilted(g), 0.3
    rows = nn.functional.one_hot(y, 3).double()
    objective = lnn.AROVR(beta, CE, U, solver=EXACT)
    minima = []
    for h in (lnn.Loss(), -beta * CE(rows)):
        z, _ = lnn.infer(net, x, U + h, solver=EXACT)
        minima.append((U + h)(net, z))
    torch.testing.assert_close(objective(net, x, y, reduction="none"), (minima[0] - minima[1]) / beta)


@pytest.mark.parametrize("base", [lnn.FenchelYoung(), lnn.LeastSquares()], ids=repr)
@given(net=networks(), beta=st.floats(0.01, 1.5), seed=seeds)
def test_rovr_loss_arovr(base, net, beta, seed):
    """ROVR ≤ ℓ(z*) ≤ AROVR with the default solver. If it fails, one of them is not a bound."""
    x, _ = random_inputs(seed, net)
    y = distributions(seed, len(x), net.sizes[-1])
    middle = CE(y)(net(x))
    lower, upper = (kind(beta, CE, base)(net, x, y, reduction="none") for kind in (lnn.ROVR, lnn.AROVR))
    slack = 1e-9 * (1 + middle.abs()) / beta
    assert (lower <= middle + slack).all() and (middle <= upper + slack).all()


@pytest.mark.parametrize("kind", [lnn.ROVR, lnn.AROVR])
def test_small_beta_is_back_propagation(kind):
    """(O − ℓ)/β → ∓½ΣK‖∇ℓ‖²: first-order expansion. If it fails, β does not interpolate from ℓ."""
    net, x, y = problem()
    rows = nn.functional.one_hot(y, 3).double()
    r = CE(rows).gradient(net(x))
    first = 0.5 * (r[:, None] @ lnn.bounds.output_gram(net, x) @ r[:, :, None])[:, 0, 0]
    beta = 1e-5
    value = kind(beta, CE, solver=EXACT)(net, x, y, reduction="none")
    sign = 1 if kind is lnn.AROVR else -1
    torch.testing.assert_close((value - CE(rows)(net(x))) / beta, sign * first, rtol=1e-3, atol=1e-5)


def test_paper_sweeps_agree():
    """If it fails, the two solvers answer cross-entropy differently."""
    net, x, y = problem(scale=0.5)
    one, two = (lnn.AROVR(0.3, CE, solver=solver)(net, x, y) for solver in (EXACT, lnn.PaperSweeps(200)))
    torch.testing.assert_close(one, two)


def test_saturated_samples_converge():
    """float32, logits of ±60: all but one-hot. If it fails, their first pass is taken back by rounding and
    gaps stay infinite."""
    net = lnn.LiftedNetwork([4, 16, 3], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        net.weight(2).mul_(60)
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))
    y = net(x).argmax(1)
    objective = lnn.AROVR(0.25, CE)
    objective(net, x, y)
    assert objective.report.gap.isfinite().all() and objective.report.converged.all()


def test_gammas_weigh_the_layers():
    """If it fails, γ is ignored with cross-entropy: a large γ brings AROVR back to ℓ."""
    net, x, y = problem()
    plain = lnn.BackPropagation(CE)(net, x, y).item()
    values = [lnn.AROVR(0.3, CE, lnn.Reweighted([f * entry for entry in gammas(net)]))(net, x, y).item()
              for f in (1, 10, 1000)]
    assert values[0] > values[1] > values[2] > plain and values[2] == pytest.approx(plain, rel=1e-3)
