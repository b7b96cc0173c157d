"""γ by meta-learning: the hypergradient against differences of the validation loss, step and all."""

import copy

import pytest
import torch

import lnn_core as lnn
from lnn_core.data import Split
from lnn_core.experiments import meta
from lnn_core.experiments.training import fit

GENERATOR = torch.Generator().manual_seed(0)
NET = lnn.LiftedNetwork([4, 6, 5, 3], torch.nn.Tanh(), generator=GENERATOR).double()
X, VALIDATION = torch.rand(7, 4, generator=GENERATOR).double(), torch.rand(9, 4, generator=GENERATOR).double()
Y, LABELS = torch.arange(7) % 3, torch.arange(9) % 3
EXACT = lnn.Shooting(1e-13, every=True, max_passes=500)
RATE = 0.3


def arovr(gamma):
    return lnn.AROVR(0.25, potential=lnn.Reweighted(list(gamma)), solver=EXACT)


def loss_after_a_step(gamma):
    """ℓ_val(θ − η∇A(θ, γ))."""
    net = copy.deepcopy(NET)
    arovr(gamma).gradients(net, X, Y)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter -= RATE * parameter.grad
    return lnn.BackPropagation()(net, VALIDATION, LABELS).item()


def test_hypergradient_is_that_of_the_step():
    """If it fails, γ moves to where the next training step is worse."""
    gamma = torch.tensor([0.8, 1.3, 1.0], dtype=torch.float64)
    entries = [value.clone().requires_grad_() for value in gamma]
    before = copy.deepcopy(NET.state_dict())
    found = meta.hypergradient(NET, arovr(entries), X, Y, Split(VALIDATION, LABELS), RATE)
    steps = 1e-4 * torch.eye(3, dtype=torch.float64)
    expected = [(loss_after_a_step(gamma + step) - loss_after_a_step(gamma - step)) / 2e-4 for step in steps]
    assert torch.stack(found).tolist() == pytest.approx(expected, rel=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in NET.state_dict().items())


def test_only_entries_that_are_learned_count():
    """If it fails, γ_L moves, on which the bound of β hangs."""
    entry = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    found = meta.hypergradient(NET, arovr([entry, 1.3, 1.0]), X, Y, Split(VALIDATION, LABELS), RATE)
    assert len(found) == 1


def test_a_potential_without_gamma():
    """If it fails, the error is about an attribute."""
    with pytest.raises(TypeError, match=r"the potential is FenchelYoung\(\); expected Reweighted"):
        meta.hypergradient(NET, lnn.AROVR(0.25), X, Y, Split(VALIDATION, LABELS), RATE)


def test_frozen_parameters_stay():
    """If it fails, directions go to other parameters than those they belong to."""
    net, entry = copy.deepcopy(NET), torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    net.connections[0].requires_grad_(False)

    def after(gamma):
        ahead = copy.deepcopy(net)
        arovr([gamma, 1.3, 1.0]).gradients(ahead, X, Y)
        torch.optim.SGD(ahead.parameters(), RATE).step()
        return lnn.BackPropagation()(ahead, VALIDATION, LABELS).item()

    found, = meta.hypergradient(net, arovr([entry, 1.3, 1.0]), X, Y, Split(VALIDATION, LABELS), RATE)
    assert float(found) == pytest.approx((after(0.8 + 1e-4) - after(0.8 - 1e-4)) / 2e-4, rel=1e-4)


def learned(**options):
    return meta.LearnedGamma(0.25, 2, Split(VALIDATION.float(), LABELS), 5,
                             torch.Generator().manual_seed(1), **options)


def test_one_step_of_gamma():
    """Adam's first step is its rate against the sign of the gradient. If it fails, γ learns by another
    derivative than that by its logarithm, or with another sign."""
    net, x, objective = copy.deepcopy(NET).float(), X.float(), learned(rate=0.1)
    drawn = torch.randint(9, (5,), generator=torch.Generator().manual_seed(1))
    entries = [torch.ones((), requires_grad=True) for _ in range(2)]
    plain = lnn.AROVR(0.25, potential=lnn.Reweighted([*entries, 1.0]), solver=meta.SOLVER)
    found = meta.hypergradient(net, plain, x, Y, Split(VALIDATION.float()[drawn], LABELS[drawn]),
                               objective.learning_rate)
    objective.gradients(net, x, Y)
    expected = [float((-0.1 * one.sign()).exp()) for one in found]
    assert objective.gamma == pytest.approx((*expected, 1.0), rel=1e-4)
    assert objective.path == [objective.gamma]


def test_training_is_that_of_arovr_with_the_gamma_of_now():
    """If it fails, γ is learned and not used, or used before it is there."""
    net, x, objective = copy.deepcopy(NET).float(), X.float(), learned(every=2)
    for step in range(4):
        value = objective.gradients(net, x, Y)
        found = [p.grad.clone() for p in net.parameters()]
        plain = lnn.AROVR(0.25, potential=lnn.Reweighted(objective.gamma))
        assert value == plain.gradients(net, x, Y)
        assert all(torch.equal(p.grad, one) for p, one in zip(net.parameters(), found))
        assert len(objective.path) == 1 + step // 2


def test_gamma_is_learned_by_fit():
    """If it fails, ``fit`` leaves γ where it is, or a seed does not decide."""
    train, rest = Split(X.float(), Y), Split(VALIDATION.float(), LABELS)
    objectives = [learned(every=1), learned(every=1)]
    for objective in objectives:
        history = fit(copy.deepcopy(NET).float(), objective, train, rest, rest, epochs=3, batch=3,
                      generator=torch.Generator().manual_seed(0))
    assert len(objectives[0].path) == 9 and objectives[0].path == objectives[1].path
    assert objectives[0].gamma[2] == 1.0 and all(entry != 1.0 for entry in objectives[0].gamma[:2])
    assert history.passes[0] >= 1


@pytest.mark.parametrize("option", ["every", "rate", "learning_rate"])
def test_settings_have_bounds(option):
    """If it fails, γ is learned backwards or never."""
    with pytest.raises(ValueError, match=f"^{option}="):
        learned(**{option: 0})
