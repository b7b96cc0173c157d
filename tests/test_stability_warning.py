"""StabilityWarning: β beyond the border is announced, and only then, and costs nothing below it.

The border of the oracle is that of linear networks, 1/λ_max of I + Σ_k J_k J_kᵀ with the J_k
multiplied out here, or, for a ReLU network with one unit per layer, arithmetic in the test's comment.
"""

import re
import warnings

import pytest
import torch
from strategies import random_inputs, random_network

import lnn_core as lnn
from lnn_core import alerts, data
from lnn_core.alerts import StabilityWarning
from lnn_core.experiments.training import fit, seeded_generator, train_epoch
from lnn_core.inference import InferenceDiverged, Report
from lnn_core.inference.iterate import Iterate, without_minimum

SIZES = (5, 4, 6, 3)


@pytest.fixture
def linear():
    """A linear network, samples, and its exact border for γ = 1."""
    net = random_network(3, SIZES, lnn.Identity())
    W1, W2 = (net.weight(k).detach() for k in (2, 3))
    K = torch.eye(3, dtype=torch.float64) + W2 @ W2.T + W2 @ W1 @ W1.T @ W2.T
    return net, *random_inputs(3, net, samples=6), float(1 / torch.linalg.eigvalsh(K)[-1])


def switches(dtype):
    """1-1-1, W = 1 and 3: the hidden unit is on for x > 0, border 1/(1 + 9), off for x < 0, border 1.

    At β = 0.2 a pass multiplies z_1 by 9·β/(1 − β) = 2.25 where the unit is on.
    """
    net = lnn.LiftedNetwork([1, 1, 1], dtype=dtype)
    with torch.no_grad():
        net.weight(1).fill_(1.0)
        net.weight(2).fill_(3.0)
    x = torch.tensor([[1.0]] * 3 + [[-1.0]] * 7, dtype=dtype)
    return net, x, torch.ones_like(x)


@pytest.mark.parametrize("objective", [
    lambda beta: lnn.AROVR(beta), lambda beta: lnn.AROVR(beta, solver=lnn.PaperSweeps(20)),
    lambda beta: lnn.AROVR(beta, potential=lnn.LeastSquares())], ids=["sweeps", "paper", "least squares"])
def test_warns_beyond_the_exact_border_and_not_before(linear, objective):
    """If it fails, a user cannot tell a finite maximum from one that inference never reaches."""
    net, x, y, border = linear
    with pytest.warns(StabilityWarning, match="beyond the border of stability for up to 100 %"):
        objective(1.2 * border)(net, x, y)
    objective(0.7 * border)(net, x, y)  # warnings are errors


def test_one_sample_proves_it_for_all():
    """The direction that one runaway shows is open to all samples: far out x does not matter. If it
    fails, the others keep a finite number.

    A check by hand at x = −1, where the unit is off and inference settles: for z = (t, 3t) the
    energy is ½t² + t + 0 − 0.1(3t − 1)², which falls like −0.4t².
    """
    net, x, y = switches(torch.float64)
    objective = lnn.AROVR(0.2)
    with pytest.warns(StabilityWarning) as caught:
        objective(net, x, y)
    assert objective.report.unbounded.tolist() == 3 * [True] + 7 * [False]
    assert objective.report.infinite.all() and objective.report.converged.tolist() == (
        3 * [False] + 7 * [True])
    assert re.match("beta=0.2 is .* for up to 100 % of a batch: the objective is infinite there",
                    str(caught[0].message))
    t = torch.tensor([[1e2], [1e4]], dtype=torch.float64)
    energy = lnn.FenchelYoung()(net, [-torch.ones_like(t), t, 3 * t]) - 0.1 * (3 * t - 1)[:, 0]**2
    torch.testing.assert_close(energy, (0.5 * t**2 + t - 0.1 * (3 * t - 1)**2)[:, 0])
    assert (energy < -0.3 * t[:, 0] ** 2).all()  # it is −0.4t² + 1.6t − 0.1


def test_the_proof_is_for_losses_as_curved():
    """Sample weights: what runs away at weight 1 proves nothing for a smaller one, all for a
    larger.

    Border 1/(1 + 9) for weight 1: at β = 0.2 weight 0.4 keeps βw = 0.08 below it. If it fails, a
    proof is taken too far.
    """
    net, _, _ = switches(torch.float64)
    x, y = torch.tensor([[1.0], [-1.0], [-1.0], [1.0]]).double(), torch.ones(4, 1).double()
    weights = torch.tensor([[1.0], [2.0], [0.4], [0.4]]).double()
    objective = lnn.AROVR(0.2, loss=lambda y: weights * lnn.Euclidean(y))
    with pytest.warns(StabilityWarning) as caught:
        objective(net, x, y)
    assert "for up to 50 % of a batch" in str(caught[0].message)
    assert objective.report.unbounded.tolist() == [True, False, False, False]
    assert objective.report.infinite.tolist() == [True, True, False, False]


def test_the_proof_is_for_the_functions_known():
    """A convex function of the user's own may grow faster than a square: nothing is proved then. If
    it fails, a finite value is called infinite."""
    class Unknown(lnn.ConvexFunction):
        value = conjugate = activation = derivative = prox = divergence = None

    proved, energy = torch.tensor([True, False]), lnn.FenchelYoung() + lnn.Loss()
    for function, expected in ((lnn.ReLU(), True), (lnn.Tanh(), True), (Unknown(), False)):
        net = lnn.LiftedNetwork([1, 1, 1], function)
        assert without_minimum(net, energy, proved).tolist() == [True, expected]


def test_points_at_the_caller():
    """If it fails, the warning names a line of the library, and does not say which call to mend."""
    with pytest.warns(StabilityWarning) as caught:
        lnn.AROVR(0.2)(*switches(torch.float64))
    assert caught[0].filename == __file__


def test_is_about_the_reweighted_and_tilted_potential(linear):
    """γ moves the border (by its factor, when uniform), a linear tilt does not. If it fails, the
    warning is about another energy."""
    net, x, y, border = linear
    tilt = [torch.full((size,), 0.1, dtype=torch.float64) for size in SIZES[1:]]

    def objective(gamma):
        return lnn.AROVR(1.2 * border, potential=lnn.Tilted(tilt, lnn.Reweighted([gamma] * 3)))

    objective(2.0)(net, x, y)
    with pytest.warns(StabilityWarning):
        objective(1.0)(net, x, y)


def test_targeted_objectives_are_concave_above_one_half(linear):
    """AROVR_{α,β} adds curvature β(2α − 1): beyond the border for α near 1, never for α < ½. If it
    fails, the warning forgets α."""
    net, x, _, border = linear
    labels = torch.arange(len(x)) % SIZES[-1]
    with pytest.warns(StabilityWarning):
        lnn.TargetedAROVR(0.9, 1.2 * border / 0.8)(net, x, labels)
    lnn.TargetedAROVR(0.6, 1.2 * border)(net, x, labels)
    lnn.TargetedAROVR(0.49, 50 * border)(net, x, labels)
    lnn.ROVR(50 * border)(net, x, labels)


@pytest.mark.parametrize("wrap", [
    lambda U: lnn.Reweighted([2.0] * 3, lnn.Reweighted([0.5] * 3, U)),
    lambda U: lnn.Reweighted([4.0, 4.0, torch.full((SIZES[-1],), 4.0)], lnn.Reweighted([0.25] * 3, U)),
    lambda U: lnn.Tilted([None] * 3, lnn.Reweighted([0.5] * 3, lnn.Reweighted([2.0] * 3, U)))],
    ids=["numbers", "tensors", "tilted"])
def test_weights_of_weights_multiply(linear, wrap):
    """If it fails, the border of a potential that is reweighted twice is not known, or another:
    here the factors cancel, so that it is that of the plain one."""
    net, x, y, border = linear
    for factor, beyond in ((0.97, False), (1.03, True)):
        energy = wrap(lnn.FenchelYoung()) - factor * border * lnn.Euclidean(y)
        assert alerts._beyond_border(net, x, energy).tolist() == [beyond] * len(x)


def test_an_unknown_potential_is_left_alone(linear):
    """If it fails, a potential of the user's own, which has no known border, ends in an error."""
    class Own(lnn.Potential):
        terms, error, prox = (getattr(lnn.LeastSquares, name) for name in ("terms", "error", "prox"))

    net, x, y, border = linear
    lnn.AROVR(0.9 * border, potential=Own(), solver=lnn.PaperSweeps(12))(net, x, y)


def test_runaway_activations_leave_a_finite_lower_bound():
    """If it fails, 9·β/(1 − β) = 81 per sweep leaves float32: NaN or 1e30 poisons the weights."""
    net, x, y = switches(torch.float32)
    objective = lnn.AROVR(0.9)
    with pytest.warns(StabilityWarning, match="for up to 100 % of a batch: .*: their values are lower"):
        values = objective(net, x, y, "none")
    assert objective.report.unbounded.tolist() == 3 * [True] + 7 * [False]
    assert values.isfinite().all()
    values.mean().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_an_energy_that_overflows_raises():
    """If it fails, the loss is −∞ or NaN: activations may still be finite where their squares are
    not."""
    def solver(net, energy, start):
        z = [start.z[0], *(torch.full_like(z_k, 1e30) for z_k in start.z[1:])]
        done = torch.ones(len(z[0]), dtype=torch.bool)
        return Iterate.of(net, energy, z), Report(1, torch.zeros(len(z[0])), done, ~done)

    with pytest.raises(InferenceDiverged, match="energy is no longer finite"):
        lnn.AROVR(0.2, solver=solver)(*switches(torch.float32))


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def test_ordinary_training_hardly_asks_for_the_border(digits, monkeypatch):
    """If it fails, training at β = ¼ pays for the border of a batch, which costs as much as some
    passes.

    Not "never": rounding differs between runs, and now and then a batch takes long.
    """
    asked, threshold = [], alerts.stability_threshold
    monkeypatch.setattr(alerts, "stability_threshold",
                        lambda net, x, *rest, **options: asked.append(len(x))
                        or threshold(net, x, *rest, **options))
    net = lnn.LiftedNetwork([digits.dim, 32, 32, 10], generator=seeded_generator(0, "weights"))
    train = digits.subset(500, 0)
    history = fit(net, lnn.AROVR(0.25), train, digits.validation, digits.test, epochs=20,
                  learning_rate=3e-3)
    assert history.train[-1] > 0.95 and min(history.converged) < 1
    assert len(asked) <= 4  # of 200 batches


def test_training_beyond_the_border_does_not_flood(digits):
    """Python shows a text once. If it fails, the text changes with every batch."""
    net = lnn.LiftedNetwork([digits.dim, 32, 32, 10], generator=seeded_generator(0, "weights"))
    train = digits.subset(500, 0)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(10):
        train_epoch(net, lnn.BackPropagation(), train, optimizer, 50, seeded_generator(0, "batches"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        train_epoch(net, lnn.AROVR(0.6), train, optimizer, 5, seeded_generator(0, "batches"))
    # Shares are told in steps of 10 %: ten texts for 100 batches.
    assert 1 <= len([one for one in caught if one.category is StabilityWarning]) <= 10
