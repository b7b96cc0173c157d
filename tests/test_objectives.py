"""Objectives, against autograd through a converged inner problem, closed forms and limits."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import Model, forward, kind_of, unit
from strategies import FUNCTIONS, POTENTIALS, gammas, networks, random_inputs, random_network, tilts

import lnn_core as lnn
from lnn_core.objectives import LiftedObjective

each_base = pytest.mark.parametrize("base", POTENTIALS, ids=repr)
EXACT = lnn.Shooting(tolerance=1e-20, max_passes=1000, every=True)
RESIDUAL = [(0, 1), (1, 2), (2, 3), (1, 3), (0, 2)]
BETA, ALPHA = 0.2, 0.45


def next_label(loss, target):
    """ℓ⁻ for the label after the right one: a wrong label that is not random."""
    return loss(target.roll(1, 1))


def explicit(loss, z):
    """Σ w·½‖z − y‖² for pairs (w, y)."""
    return sum(w * (z - y).square().sum(1) / 2 for w, y in loss)


# --- gradients -----------------------------------------------------------------------------------
#
# A case: the objective, and its definition as a function of m((w, y), …) = min_z U + Σ w·½‖z − y‖².


def cases(base, net):
    """name: (objective, its definition, γ, g)."""
    B, A, N = BETA, ALPHA, 1 - ALPHA
    one, per_unit = gammas(net, 1), gammas(net, 2, units=True)
    g = [None if push is None else 0.3 * push for push in tilts(net, 3)]
    exact = {"solver": EXACT}
    targeted = {**exact, "attack": next_label, "potential": base}

    def tilt(_, potential):
        return lnn.Tilted(g, potential)

    def rovr(m, y, _):
        return (m((B, y)) - m()) / B

    def arovr(m, y, _):
        return (m() - m((-B, y))) / B

    def targeted_rovr(m, y, wrong):
        return (m((B * N, wrong), (B * A, y)) - m((B * N, wrong))) / (B * A)

    def targeted_arovr(m, y, wrong):
        return (m((B * N, wrong)) - m((B * N, wrong), (-B * A, y))) / (B * A)

    return {
        "ROVR": (lnn.ROVR(B, potential=base, **exact), rovr, None, None),
        "AROVR": (lnn.AROVR(B, potential=base, **exact), arovr, None, None),
        "reweighted": (lnn.AROVR(B, potential=lnn.Reweighted(one, base), **exact),
                       arovr, one, None),
        "reweighted by unit": (lnn.ROVR(B, potential=lnn.Reweighted(per_unit, base), **exact),
                               rovr, per_unit, None),
        "tilted": (lnn.AROVR(B, potential=lnn.Tilted(g, base), **exact), arovr, None, g),
        "tilted ROVR": (lnn.ROVR(B, potential=lnn.Tilted(g, base), **exact), rovr, None, g),
        "targeted ROVR": (lnn.TargetedROVR(A, B, **targeted), targeted_rovr, None, None),
        "targeted AROVR": (lnn.TargetedAROVR(A, B, **targeted), targeted_arovr, None, None),
        "AROVR^g": (lnn.TargetedAROVR(A, B, tilt=tilt, **targeted), targeted_arovr, None, g),
        "targeted, reweighted": (
            lnn.TargetedAROVR(A, B, **{**targeted, "potential": lnn.Reweighted(one, base)}),
            targeted_arovr, one, None),
    }


NAMES = list(cases(lnn.FenchelYoung(), lnn.LiftedNetwork([1, 1])))


@each_base
@pytest.mark.parametrize("edges", [None, RESIDUAL], ids=["chain", "residual"])
@pytest.mark.parametrize("name", NAMES)
def test_value_and_gradient(base, edges, name):
    """Against autograd through every pass of a converged solver, for all weights, biases and x.

    If it fails, .backward() is not the gradient of the objective that the paper defines.
    """
    # Least squares has kinks where f has, and (17) may jump across one for ever: smooth f there.
    first = lnn.ReLU() if isinstance(base, lnn.FenchelYoung) else lnn.Tanh()
    net = random_network(6, [4, 6, 5, 3], [first, lnn.Tanh()], edges=edges, scale=0.6)
    x, _ = random_inputs(6, net, samples=4)
    labels = torch.tensor([0, 2, 1, 2])
    y = torch.nn.functional.one_hot(labels, 3).double()
    objective, definition, gamma, g = cases(base, net)[name]

    def m(*loss):
        if not loss and g is None:
            return 0.0
        return Model(kind_of(base), gamma, g, loss).minimum(net, x, passes=60)

    x.requires_grad_()
    parameters = [*net.parameters(), x]
    expected = definition(m, y, y.roll(1, 1))
    slopes = torch.autograd.grad(expected.mean(), parameters)
    value = objective(net, x, labels)
    torch.testing.assert_close(objective(net, x, labels, reduction="none"), expected,
                               rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(value, expected.mean(), rtol=1e-8, atol=1e-9)
    ours = torch.autograd.grad(value, parameters, materialize_grads=True)
    for mine, theirs in zip(ours, slopes, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-8)


def test_back_propagation_is_torchs_own():
    """If it fails, the baseline of every table is not back-propagation."""
    net = random_network(7, [4, 6, 3])
    x, y = random_inputs(7, net)
    twin = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
    twin.double().load_state_dict(dict(zip(["0.weight", "0.bias", "2.weight", "2.bias"], [
        net.weight(1), net.biases[0], net.weight(2), net.biases[1]])))
    expected = 3 * torch.nn.functional.mse_loss(twin(x), y) / 2
    value = lnn.BackPropagation()(net, x, y)
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    torch.testing.assert_close(net.weight(1).grad, twin[0].weight.grad)
    torch.testing.assert_close(net.biases[1].grad, twin[2].bias.grad)


# --- bounds and limits ---------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*border of stability")
@each_base
@given(net=networks(outputs=FUNCTIONS), beta=st.floats(0.01, 0.95), seed=st.integers(0, 99))
def test_rovr_loss_arovr(base, net, beta, seed):
    """ROVR ≤ ℓ(z*) ≤ AROVR: if it fails, one of them is not a bound, whatever the solver did."""
    x, y = random_inputs(seed, net)
    middle = explicit([(1, y)], forward(net, x)[-1])
    lower = lnn.ROVR(beta, potential=base)(net, x, y, reduction="none")
    upper = lnn.AROVR(beta, potential=base)(net, x, y, reduction="none")
    slack = 1e-9 * (1 + middle)
    assert (lower <= middle + slack).all() and (middle <= upper + slack).all()


def smooth_problem():
    net = random_network(8, [4, 6, 5, 3], lnn.Tanh(), scale=0.8)
    x, y = random_inputs(8, net)
    return net, x, y


def by_beta(name, base, alpha=ALPHA):
    targeted = {"attack": next_label, "potential": base, "solver": EXACT}
    return {
        "ROVR": lambda beta: lnn.ROVR(beta, potential=base, solver=EXACT),
        "AROVR": lambda beta: lnn.AROVR(beta, potential=base, solver=EXACT),
        "targeted ROVR": lambda beta: lnn.TargetedROVR(alpha, beta, **targeted),
        "targeted AROVR": lambda beta: lnn.TargetedAROVR(alpha, beta, **targeted),
    }[name]


@each_base
@pytest.mark.parametrize("name", ["ROVR", "AROVR", "targeted ROVR", "targeted AROVR"])
def test_small_beta_is_back_propagation(base, name):
    """Proposition 4.4 and its order: if it fails, value or gradient tends elsewhere."""
    net, x, y = smooth_problem()
    parameters = list(net.parameters())
    loss = explicit([(1, y)], forward(net, x)[-1]).mean()
    slopes = torch.autograd.grad(loss, parameters)
    errors = []
    for beta in (2e-3, 1e-3):
        value = by_beta(name, base)(beta)(net, x, y)
        ours = torch.autograd.grad(value, parameters)
        gap = sum((mine - theirs).square().sum() for mine, theirs in zip(ours, slopes)).sqrt()
        errors.append((abs(value - loss).item(), gap.item()))
    (value_2, slope_2), (value_1, slope_1) = errors
    assert value_2 < 0.1 * loss and value_2 / value_1 == pytest.approx(2, abs=0.05)
    assert slope_2 < 0.1 and slope_2 / slope_1 == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("hidden", [lnn.ReLU(), lnn.Tanh()], ids=repr)
@each_base
def test_first_order_in_beta(base, hidden):
    """(AROVR − ℓ)/β → ½Σ_k ‖∂ℓ/∂z_k‖²/γ_k, each unit's share times f′(a) for Fenchel–Young.

    If it fails, what AROVR adds to the loss is not the size of the back-propagated error.
    """
    net = random_network(9, [4, 6, 5, 3], hidden)
    x, y = random_inputs(9, net)
    gamma = gammas(net)
    z = [x]
    for k in range(1, net.depth + 1):  # as reference.forward, with a leaf in every layer
        a = net.preactivation(k, z)
        z.append(unit(net, k).f(a))
        z[k].retain_grad()
    loss = explicit([(1, y)], z[-1])
    loss.sum().backward()
    penalty = 0.0
    for k in range(1, net.depth + 1):
        saturated = kind_of(base) == "fenchel-young"
        share = unit(net, k).slope(net.preactivation(k, z)) if saturated else 1.0
        penalty = penalty + (share * z[k].grad.square()).sum(1) / (2 * gamma[k - 1])
    beta = 1e-5
    upper = lnn.AROVR(beta, potential=lnn.Reweighted(gamma, base), solver=EXACT)
    lower = lnn.ROVR(beta, potential=lnn.Reweighted(gamma, base), solver=EXACT)
    above = (upper(net, x, y, reduction="none") - loss) / beta
    below = (loss - lower(net, x, y, reduction="none")) / beta
    torch.testing.assert_close(above.detach(), penalty.detach(), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(below.detach(), penalty.detach(), rtol=1e-3, atol=1e-6)


# --- special cases -------------------------------------------------------------------------------


def per_sample(objective, net, x, y):
    return objective(net, x, y, reduction="none")


@each_base
def test_alpha_of_one_is_untargeted(base):
    """If it fails, α and 1 − α are swapped."""
    net, x, y = smooth_problem()
    options = {"potential": base, "solver": EXACT}
    for targeted, plain in [(lnn.TargetedROVR, lnn.ROVR), (lnn.TargetedAROVR, lnn.AROVR)]:
        torch.testing.assert_close(per_sample(targeted(1, BETA, **options), net, x, y),
                                   per_sample(plain(BETA, **options), net, x, y))


@each_base
def test_special_attacks(base):
    """ℓ⁻ = 0 gives AROVR_{αβ}; ℓ⁻ = (α/ᾱ)ℓ gives ROVR_{αβ}; ℓ⁻ = −ℓ gives AROVR_β − ᾱ·AROVR_{ᾱβ}.

    The first two follow Proposition 4.1 in Zach (2025), the third is worked out from eq. (26);
    all three times α. If it fails, the attack enters with the wrong weight or sign.
    """
    net, x, y = smooth_problem()
    options = {"potential": base, "solver": EXACT}
    none, same = lambda loss, target: lnn.Loss(), lambda loss, y: (ALPHA / (1 - ALPHA)) * loss(y)

    def attacked(attack):
        objective = lnn.TargetedAROVR(ALPHA, BETA, attack, per_alpha=False, **options)
        return per_sample(objective, net, x, y)

    def arovr(beta):
        return per_sample(lnn.AROVR(beta, **options), net, x, y)

    torch.testing.assert_close(attacked(none), ALPHA * arovr(ALPHA * BETA))
    rovr = per_sample(lnn.ROVR(ALPHA * BETA, **options), net, x, y)
    torch.testing.assert_close(attacked(same), ALPHA * rovr)
    torch.testing.assert_close(attacked(lnn.untargeted),
                               arovr(BETA) - (1 - ALPHA) * arovr((1 - ALPHA) * BETA))


@pytest.mark.parametrize("targeted", [lnn.TargetedROVR, lnn.TargetedAROVR])
def test_scaling_by_alpha(targeted):
    """If it fails, (1/α)·AROVR_{α,β} and AROVR_{α,β} are mixed up, and learning rates with them."""
    net, x, y = smooth_problem()
    scaled = targeted(ALPHA, BETA, next_label)(net, x, y)
    itself = targeted(ALPHA, BETA, next_label, per_alpha=False)(net, x, y)
    torch.testing.assert_close(ALPHA * scaled, itself)


def lowest_of_squares(terms):
    """min_z Σ w·½‖z − c‖² for pairs (w, c), by completing the square."""
    total = sum(w for w, _ in terms)
    centre = sum(w * c for w, c in terms) / total
    return explicit(terms, centre)


@each_base
@pytest.mark.parametrize("gamma", [1.0, 0.7, 3.0])
def test_one_layer_is_equation_13(base, gamma):
    """½‖r‖²·γ/(γ − β) and its relatives: if it fails, a ½, a γ or a β is lost."""
    net = random_network(10, [4, 3])
    x, y = random_inputs(10, net)
    y, wrong = y.softmax(1), y.softmax(1).roll(1, 1)
    a = x @ net.weight(1).T + net.biases[0]
    half = (a - y).square().sum(1) / 2
    U = {"potential": lnn.Reweighted([gamma], base)}
    arovr, rovr = (per_sample(plain(BETA, **U), net, x, y) for plain in (lnn.AROVR, lnn.ROVR))
    torch.testing.assert_close(arovr, half * gamma / (gamma - BETA))
    torch.testing.assert_close(rovr, half * gamma / (gamma + BETA))
    attack, truth = (BETA * (1 - ALPHA), wrong), (BETA * ALPHA, y)
    attacked = lowest_of_squares([(gamma, a), attack])
    upper = (attacked - lowest_of_squares([(gamma, a), attack, (-BETA * ALPHA, y)])) / BETA
    lower = (lowest_of_squares([(gamma, a), attack, truth]) - attacked) / BETA
    options = {**U, "attack": next_label, "per_alpha": False}
    for targeted, expected in [(lnn.TargetedAROVR, upper), (lnn.TargetedROVR, lower)]:
        torch.testing.assert_close(per_sample(targeted(ALPHA, BETA, **options), net, x, y), expected)


def test_one_layer_with_a_linear_loss():
    """max gᵀz − (γ/β)·½‖z − a‖² = gᵀa + (β/2γ)‖g‖²: if it fails, linear losses lose their slope."""
    net = random_network(11, [4, 3])
    x, g = random_inputs(11, net)
    a = x @ net.weight(1).T + net.biases[0]
    U = {"potential": lnn.Reweighted([0.5]), "loss": lnn.Linear}
    gain = 1.7 / (2 * 0.5) * g.square().sum(1)
    torch.testing.assert_close(per_sample(lnn.AROVR(1.7, **U), net, x, g), (g * a).sum(1) + gain)
    torch.testing.assert_close(per_sample(lnn.ROVR(1.7, **U), net, x, g), (g * a).sum(1) - gain)


def test_large_beta_where_it_is_allowed():
    """If it fails, ROVR or AROVR_{α,β} with α < ½ is refused for a β that the paper allows."""
    net, x, y = smooth_problem()
    for objective in (lnn.ROVR(50.0), lnn.TargetedAROVR(0.49, 50.0, next_label),
                      lnn.TargetedROVR(0.9, 50.0, next_label)):
        assert torch.isfinite(objective(net, x, y))


def test_interpolation_leaves_nothing_to_learn():
    """Proposition 3.3's stall: if it fails, AROVR moves a network whose loss is zero."""
    net, x, _ = smooth_problem()
    value = lnn.AROVR(0.1)(net, x, net(x).detach())
    assert abs(value) < 1e-15
    slopes = torch.autograd.grad(value, list(net.parameters()))
    assert max(slope.abs().max() for slope in slopes) < 1e-12


# --- what callers rely on ------------------------------------------------------------------------


each_objective = pytest.mark.parametrize("objective", [
    lnn.BackPropagation(), lnn.ROVR(BETA), lnn.AROVR(BETA),
    lnn.TargetedROVR(ALPHA, BETA, next_label), lnn.TargetedAROVR(ALPHA, BETA, next_label)], ids=repr)


@each_objective
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_dtypes(objective, dtype):
    """If it fails, float32 training computes something else than the float64 checks."""
    net = random_network(12, [4, 6, 3], scale=0.7)
    x, _ = random_inputs(12, net)
    labels = torch.tensor([0, 1, 2])
    expected = objective(net, x, labels)
    expected.backward()
    expected_slope = net.weight(1).grad.clone()
    net = net.to(dtype)
    net.zero_grad()
    value = objective(net, x.to(dtype), labels)
    value.backward()
    assert value.dtype == net.weight(1).grad.dtype == dtype
    torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net.weight(1).grad.double(), expected_slope, rtol=1e-3, atol=1e-4)


@each_objective
def test_labels_targets_and_reduction(objective):
    """If it fails, labels are not one-hot targets, or the mean is not over the batch."""
    net = random_network(13, [4, 6, 3], scale=0.7)
    x, _ = random_inputs(13, net)
    labels = torch.tensor([2, 0, 0])
    values = objective(net, x, labels, reduction="none")
    assert values.shape == (3,)
    for y in (labels.to(torch.uint8), torch.nn.functional.one_hot(labels).double(),
              torch.nn.functional.one_hot(labels).float()):
        torch.testing.assert_close(objective(net, x, y), values.mean())


@each_objective
def test_samples_do_not_see_each_other(objective):
    """If it fails, a sample's value depends on its batch."""
    net = random_network(14, [4, 6, 3], scale=0.7)
    x, _ = random_inputs(14, net)
    labels = torch.tensor([2, 0, 1])
    if isinstance(objective, LiftedObjective):
        objective.solver = EXACT  # the default stops when the batch as a whole has little to gain
    together = objective(net, x, labels, reduction="none")
    alone = [objective(net, x[i:i + 1], labels[i:i + 1]) for i in range(3)]
    torch.testing.assert_close(together, torch.stack(alone))


@each_objective
def test_any_optimizer_takes_it_from_here(objective):
    """If it fails, the five-line example of the README does not train."""
    net = random_network(15, [4, 6, 3], scale=0.7)
    x, _ = random_inputs(15, net, samples=10)
    labels = torch.arange(10) % 3
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    before = objective(net, x, labels).item()
    for _ in range(20):
        optimizer.zero_grad()
        objective(net, x, labels).backward()
        optimizer.step()
    assert objective(net, x, labels) < 0.8 * before


def test_report_of_the_last_call():
    """If it fails, training cannot tell how inference went."""
    net, x, y = smooth_problem()
    objective = lnn.AROVR(BETA, solver=lnn.PaperSweeps(7))
    assert objective.report is None
    objective(net, x, y)
    assert objective.report.passes == 7 and objective.report.converged.shape == (3,)
    plain = lnn.BackPropagation()
    plain(net, x, y)
    assert plain.report is None


def test_attack_is_drawn_afresh_from_its_generator():
    """If it fails, a sample is always attacked with the same wrong label, or without a seed."""
    net = random_network(16, [4, 6, 5], scale=0.7)
    x, _ = random_inputs(16, net, samples=8)
    labels = torch.arange(8) % 5

    def two_values(seed):
        attack = lnn.Targeted(torch.Generator().manual_seed(seed))
        objective = lnn.TargetedAROVR(ALPHA, BETA, attack)
        return [objective(net, x, labels).item() for _ in range(2)]

    assert two_values(0) == two_values(0)
    assert len({*two_values(0), *two_values(1)}) == 4
