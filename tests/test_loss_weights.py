"""Losses with a weight for each sample, (batch, 1), or each output, (d_L,), wherever a loss goes.

The oracle is one linear layer with W = I, whose problems separate over the outputs: an output
of residual r and weight w adds ½w·r²/(1 − βw) to AROVR.
"""

import math

import pytest
import torch
from strategies import random_inputs, random_network

import lnn_core as lnn

EXACT = lnn.Shooting(1e-20, 600, every=True)
WEIGHTS = {"samples": torch.tensor([[0.5], [1.0], [2.0]]), "outputs": torch.tensor([0.5, 2.0]),
           "both": torch.tensor([[0.5, 1.0], [2.0, 0.1], [1.0, 1.0]])}
each_weight = pytest.mark.parametrize("w", [w.double() for w in WEIGHTS.values()], ids=WEIGHTS)


def identity():
    """z_L* = x and residuals r = x for a target of zero."""
    net = lnn.LiftedNetwork([2, 2], bias=False, dtype=torch.float64)
    with torch.no_grad():
        net.weight(1).copy_(torch.eye(2))
    x = torch.tensor([[1.0, -2.0], [0.5, 0.3], [0.0, 1.0]], dtype=torch.float64)
    return net, x, torch.zeros_like(x)


def weighted(w):
    return lambda y: w * lnn.Euclidean(y)


@pytest.mark.parametrize("w", [torch.tensor(0.5), torch.tensor([0.5, 1.0, 0.2]),
                               torch.tensor([[0.5], [1.0], [0.2], [0.7]])],
                         ids=["one number", "outputs", "samples"])
@pytest.mark.parametrize("make", [lnn.ROVR, lnn.AROVR, lnn.ConstrainedAROVR])
def test_shapes_of_weights_say_the_same(make, w):
    """If it fails, a weight is another one in fewer numbers, or an error deep inside."""
    net = random_network(3, (5, 4, 6, 3))
    x, y = random_inputs(3, net, samples=4)
    short, long = (make(0.1, loss=weighted(w.double()), solver=EXACT)(net, x, y, "none")
                   for w in (w, w.expand(4, 3)))
    torch.testing.assert_close(short, long, rtol=1e-6, atol=0)


@each_weight
def test_objectives_separate(w):
    """If it fails, a weight counts for another output, another sample, or all of them."""
    net, x, y = identity()
    beta, options = 0.3, {"loss": weighted(w), "solver": EXACT}

    def arovr(weight, beta):
        return (0.5 * weight * x.square() / (1 - beta * weight)).sum(1)

    gamma = 1.5
    c = 2 * gamma / (2 * gamma - beta * w)  # eq. (13)
    cases = [(lnn.ROVR(beta, **options), arovr(w, -beta)), (lnn.AROVR(beta, **options), arovr(w, beta)),
             (lnn.GeneralizedAROVR(beta, lnn.ElementWise([gamma]), **options), arovr(c * w, beta)),
             (lnn.GeneralizedAROVR(beta, lambda z, o: gamma * (z[1] - o[1]).square().sum(1),
                                   **options), arovr(c * w, beta)),
             (lnn.GeneralizedAROVR(beta, lnn.PotentialDistance([gamma]), **options),
              arovr(w, beta / gamma)),
             (lnn.TargetedAROVR(1.0, beta, **options), arovr(w, beta))]
    for objective, expected in cases:
        torch.testing.assert_close(objective(net, x, y, "none"), expected, rtol=1e-7, atol=1e-12)


@each_weight
def test_two_sided_bounds_are_attained(w):
    """One linear layer attains them: ½w·r²/(1 ± βw). If it fails, bounds forget the weights."""
    net, x, y = identity()
    lower, upper = lnn.bounds.two_sided(net, x, y, 0.3, loss=weighted(w))
    for bound, sign in ((lower, 1), (upper, -1)):
        expected = (0.5 * w * x.square() / (1 + sign * 0.3 * w)).sum(1)
        torch.testing.assert_close(bound, expected)
    with pytest.raises(ValueError, match="must be below 1/kappa=0.5 .for a loss of this curvature"):
        lnn.bounds.two_sided(net, x, y, 0.51, loss=weighted(w))


@each_weight
def test_constrained_is_the_maximum_over_a_ball(w):
    """Brute force over the circle ½‖u‖² = δ. If it fails, the adversary forgets the weights."""
    net, x, y = identity()
    delta, angle = 0.05, torch.linspace(0, 2 * math.pi, 100_001, dtype=torch.float64)
    u = math.sqrt(2 * delta) * torch.stack([angle.cos(), angle.sin()], 1)
    expected = (0.5 * w.expand(3, 2)[:, None] * (x[:, None] + u).square()).sum(2).amax(1)
    objective = lnn.ConstrainedAROVR(delta, loss=weighted(w))
    torch.testing.assert_close(objective(net, x, y, "none"), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(objective.certificate.upper, expected, rtol=1e-6, atol=0)


def test_constrained_takes_a_batch_apart_with_its_weights():
    """Where a sample runs away the batch is halved, and the sample weights with it. If it fails,
    samples get each other's weights."""
    class Fragile:
        def __call__(self, net, energy, start):
            if len(start.energy) > 1:
                raise lnn.InferenceDiverged("too many")
            return EXACT(net, energy, start)

    net, x, y = identity()
    loss = weighted(WEIGHTS["samples"].double())
    whole = lnn.ConstrainedAROVR(0.05, loss=loss, solver=EXACT)(net, x, y, "none")
    parts = lnn.ConstrainedAROVR(0.05, loss=loss, solver=Fragile())(net, x, y, "none")
    torch.testing.assert_close(parts, whole)


@pytest.mark.filterwarnings("ignore:.*border of stability")
@pytest.mark.parametrize("w", [torch.tensor([1.0, 0.8, 1.2]), torch.linspace(0.5, 1.2, 8)[:, None],
                               torch.rand(8, 3, generator=torch.Generator().manual_seed(0))],
                         ids=["outputs", "samples", "both"])
def test_long_inference(w):
    """If it fails, the border of stability, asked for after more than 10 passes, does not take
    weights."""
    generator = torch.Generator().manual_seed(0)
    net = lnn.LiftedNetwork([6, 12, 12, 3], generator=generator)
    x, y = torch.randn(8, 6, generator=generator), torch.arange(8) % 3
    plain = lnn.BackPropagation(weighted(w))(net, x, y, "none")
    assert (lnn.AROVR(0.45, loss=weighted(w), solver=lnn.PaperSweeps(12))(net, x, y, "none")
            >= plain).all()


@pytest.mark.parametrize("q", [2.0, torch.tensor([0.5, 1.0, 2.0]), torch.tensor([[0.5], [2.0]]),
                               torch.tensor([-1.0, 1.0, 0.3]), torch.tensor([-1.0, -2.0, -0.1])],
                         ids=lambda q: str(q))
def test_border_for_other_curvatures(q):
    """K⁻¹ − βQ first becomes singular at 1/λ_max(KQ); never where Q ≤ 0. By numpy's eigenvalues. If
    it fails, weights and one-sided losses get the border of the plain loss."""
    net = random_network(3, (5, 4, 6, 3), lnn.Identity())
    x = torch.zeros(2, 5, dtype=torch.float64)
    q = q.double() if isinstance(q, torch.Tensor) else q
    K = lnn.bounds.output_gram(net, x)
    found = lnn.bounds.stability_threshold(net, x, curvature=q)
    for K_i, q_i, border in zip(K, torch.as_tensor(q).expand(2, 3).double(), found.tolist()):
        largest = torch.linalg.eigvals(K_i * q_i).real.max().item()
        assert border == pytest.approx(1 / largest if largest > 1e-12 else math.inf, rel=1e-9)


def test_weights_decide_who_is_warned_about():
    """Linear network, inference cut short: beyond the border is who has βw above it. If it fails,
    the warning counts other samples."""
    net = random_network(3, (5, 4, 6, 3), lnn.Identity())
    x = torch.ones(4, 5, dtype=torch.float64)
    border = lnn.bounds.stability_threshold(net).item()
    w = torch.tensor([[0.5], [0.9], [1.1], [2.0]], dtype=torch.float64) * border / 0.1
    objective = lnn.AROVR(0.1, loss=weighted(w), solver=lnn.PaperSweeps(11))
    with pytest.warns(lnn.StabilityWarning, match="for up to 50 % of a batch"):
        objective(net, x, torch.zeros(4, 3).double())
