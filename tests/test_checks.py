"""Bad input to inference and objectives: an error that names the value, before any computing."""

import math
from functools import partial

import pytest
import torch

import lnn_core as lnn

MAKERS = {"ROVR": lnn.ROVR, "AROVR": lnn.AROVR, "TargetedROVR": partial(lnn.TargetedROVR, 0.4),
          "TargetedAROVR": partial(lnn.TargetedAROVR, 0.4)}
each_maker = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
GOOD_X, GOOD_Y = torch.zeros(2, 4), torch.tensor([0, 1])

# --- objectives -----------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, -0.25, math.nan, math.inf])
@each_maker
def test_bad_beta(make, beta):
    """If it fails, a min turns into a max or a division gives NaN."""
    with pytest.raises(ValueError, match=f"beta={beta} must be positive and finite"):
        make(beta)


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.1, math.nan])
def test_bad_alpha(alpha):
    """If it fails, the attack has a negative weight, or 1/α is infinite."""
    for targeted in (lnn.TargetedROVR, lnn.TargetedAROVR):
        with pytest.raises(ValueError, match=rf"alpha={alpha} must be in \(0, 1\]"):
            targeted(alpha, 0.25)


@pytest.mark.parametrize(("objective", "message"), [
    (lnn.AROVR(1.0), "beta=1 must be below gamma_L=1"),
    (lnn.AROVR(0.9, potential=lnn.Reweighted([1.0, 0.5])), "beta=0.9 must be below gamma_L=0.5"),
    (lnn.AROVR(0.9, potential=lnn.Reweighted([1.0, torch.tensor([2.0, 0.25, 2.0])])),
     "beta=0.9 must be below gamma_L=0.25"),
    (lnn.AROVR(0.6, loss=lambda y: 2 * lnn.Euclidean(y)), "beta=0.6 must be below gamma_L/2=0.5"),
    (lnn.TargetedAROVR(0.75, 2.5), "beta=2.5 must be below gamma_L/0.5=2"),
    (lnn.TargetedROVR(0.25, 2.0, lnn.untargeted), "unbounded below"),
], ids=str)
def test_beta_too_large_for_the_network(idle, objective, message):
    """If it fails, the adversary drives z_L to infinity; the message names both numbers."""
    net = lnn.LiftedNetwork([4, 6, 3])
    with pytest.raises(ValueError, match=message):
        objective(net, GOOD_X, GOOD_Y)


@pytest.mark.parametrize("objective", [
    lnn.BackPropagation(), *(make(0.25) for make in MAKERS.values())], ids=["plain", *MAKERS])
@pytest.mark.parametrize(("x", "y", "message"), [
    (torch.zeros(2, 5), GOOD_Y, r"x has shape \(2, 5\)"),
    (GOOD_X[0], GOOD_Y, r"x has shape \(4,\)"),
    (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), "x is an empty batch"),
    (GOOD_X.double(), GOOD_Y, "x has dtype torch.float64"),
    (GOOD_X / 0, GOOD_Y, r"x holds nan at \[0, 0\]; all values"),
    (GOOD_X, torch.tensor(0), r"y has shape \(\); x has 2 samples"),
    (GOOD_X, torch.tensor([0]), r"y has shape \(1,\); x has 2 samples"),
    (GOOD_X, torch.tensor([0, 3]), "label 3 is outside 0…2"),
    (GOOD_X, torch.tensor([-1, 0]), "label -1 is outside 0…2"),
    (GOOD_X, torch.zeros(2, 1, dtype=torch.int64), r"labels have shape \(2, 1\)"),
    (GOOD_X, torch.zeros(2, 4), r"y has shape \(2, 4\); expected \(2, 3\)"),
    (GOOD_X, torch.tensor([[0, 0, 0], [0, math.inf, 0]]), r"y holds inf at \[1, 1\]"),
], ids=["width", "one axis", "empty", "dtype", "nan", "0-d y", "batches", "label above", "label below",
        "label shape", "target width", "infinite target"])
def test_bad_input(idle, objective, x, y, message):
    """If it fails, it broadcasts, or gives NaN or an error from deep inside."""
    with pytest.raises(ValueError, match=message):
        objective(lnn.LiftedNetwork([4, 6, 3]), x, y)


@pytest.mark.parametrize(("potential", "message"), [
    (lnn.Reweighted([1.0]), "gamma has 1 entries for 2 layers"),
    (lnn.Reweighted([1.0, torch.ones(4)]), "layer 2 has 3 units"),
    (lnn.Reweighted([1.0, torch.ones(3).double()]), "gamma_2 has dtype torch.float64"),
    (lnn.Tilted([None]), "g has 1 entries for 2 layers"),
    (lnn.Tilted([torch.ones(6).double(), None]), "g_1 has dtype torch.float64"),
], ids=str)
@each_maker
def test_potential_of_another_network(idle, make, potential, message):
    """If it fails, γ or g of the wrong length broadcasts silently, or changes the dtype."""
    with pytest.raises(ValueError, match=message):
        make(0.25, potential=potential)(lnn.LiftedNetwork([4, 6, 3]), GOOD_X, GOOD_Y)


def test_bad_reduction(idle):
    """If it fails, a misspelt reduction is taken for another one."""
    with pytest.raises(ValueError, match="reduction='sum'"):
        lnn.AROVR(0.25)(lnn.LiftedNetwork([4, 6, 3]), GOOD_X, GOOD_Y, reduction="sum")


# --- inference ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("x", "message"), [
    (torch.zeros(3, 4), r"x has shape \(3, 4\); the network takes \(batch, 5\)"),
    (torch.zeros(5), r"x has shape \(5,\)"),
    (torch.zeros(0, 5), "x is an empty batch"),
    (torch.zeros(3, 5).double(), "x has dtype torch.float64; the network has torch.float32"),
    (torch.zeros(3, 5, dtype=torch.int64), "x has dtype torch.int64"),
    (torch.tensor([[0.0] * 5, [0.0, torch.nan, 0.0, 0.0, 0.0]]), r"x holds nan at \[1, 1\]"),
    (torch.tensor([[-torch.inf, 0.0, 0.0, 0.0, 0.0]]), r"x holds -inf at \[0, 0\]"),
], ids=["width", "one axis", "empty", "dtype", "integers", "nan", "inf"])
def test_inference_of_bad_input(idle, x, message):
    """If it fails, bad input gives NaN, or an error from deep inside."""
    net = lnn.LiftedNetwork([5, 8, 4])
    with pytest.raises(ValueError, match=message):
        lnn.infer(net, x, lnn.FenchelYoung() + lnn.Loss())


def test_inference_of_an_unbounded_energy(idle):
    """If it fails, z_L becomes the maximiser of a function that has no minimum."""
    net = lnn.LiftedNetwork([5, 8, 4])
    loss = lnn.Euclidean(torch.zeros(3, 4))
    for energy in (lnn.FenchelYoung() - loss, lnn.Reweighted([1.0, 0.5]) - 0.75 * loss):
        with pytest.raises(ValueError, match="unbounded below"):
            lnn.infer(net, torch.zeros(3, 5), energy)


@pytest.mark.parametrize(("solver", "setting"), [
    (lnn.PaperSweeps, {"passes": 0}), (lnn.Shooting, {"max_passes": 0}),
    (lnn.Shooting, {"tolerance": -1.0}), (lnn.Shooting, {"tolerance": math.nan})], ids=str)
def test_bad_solvers(solver, setting):
    """If it fails, inference without a pass returns the forward pass as an optimum."""
    (name, value), = setting.items()
    with pytest.raises(ValueError, match=f"{name}={value} must"):
        solver(**setting)


def test_finite_values_with_an_infinite_sum():
    """If it fails, large but finite values are refused."""
    x = torch.full((2, 4), 3e38)
    assert x.sum().isinf()
    net = lnn.LiftedNetwork([4, 3])
    with torch.no_grad():
        net.weights[0].zero_()
    assert lnn.BackPropagation()(net, x, GOOD_Y).isfinite()


def test_wrong_label_where_there_is_one_class(idle):
    """If it fails, the targeted attack on a single output ends in torch's random numbers."""
    net, loss = lnn.LiftedNetwork([4, 1]), lnn.TargetedAROVR(0.4, 0.25)
    with pytest.raises(ValueError, match="classes=1: a wrong label needs at least two"):
        loss(net, GOOD_X, torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize(("x", "y", "message"), [
    ([[0.0] * 4] * 2, GOOD_Y, r"x is a list .*; expected a tensor"),
    (GOOD_X, [0, 1], r"y is a list \(\[0, 1\]\); expected a tensor"),
], ids=["list x", "list y"])
def test_not_a_batch(idle, x, y, message):
    """If it fails, a list of labels ends in an AttributeError deep inside."""
    net = lnn.LiftedNetwork([4, 3, 2])
    with pytest.raises(TypeError, match=message):
        lnn.AROVR(0.25)(net, x, y)
