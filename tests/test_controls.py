"""Controls, against what each is by definition, written out in torch."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

import lnn_core as lnn
from lnn_core.experiments import Run
from lnn_core.experiments.controls import CONTROLS, away, smoothed
from lnn_core.experiments.training import seeded_generator

NET = lnn.LiftedNetwork([4, 6, 5, 3], generator=torch.Generator().manual_seed(0))
X = torch.rand(7, 4, generator=torch.Generator().manual_seed(1))
Y = torch.arange(7) % 3
ONE_HOT = torch.eye(3)[Y]


def control(name, strength=0.3, seed=0, loss=lnn.Euclidean):
    return CONTROLS[name](strength, loss, torch.Generator().manual_seed(seed))


def forward(after=lambda k, z: z, before=lambda k, a: a):
    """The network in torch, with something done to pre-activations and activations."""
    z = X
    for k, connection in enumerate(NET.connections, 1):
        a = before(k, connection(z))
        z = after(k, a.relu() if k < 3 else a)
    return z


def squares(output, target=ONE_HOT):
    return 0.5 * (output - target).square().sum(1)


def test_noise_of_a_batch():
    """If it fails, the noise is not that of a tilt: one vector per layer for all samples, in all layers."""
    generator = torch.Generator().manual_seed(0)
    drawn = {k: torch.randn(size, generator=generator) for k, size in ((1, 6), (2, 5), (3, 3))}
    expected = squares(forward(before=lambda k, a: a + 0.3 * drawn[k]))
    torch.testing.assert_close(control("batch noise")(NET, X, Y, reduction="none"), expected)


def test_noise_of_a_sample():
    """If it fails, samples share noise, or the output has it, too."""
    generator = torch.Generator().manual_seed(0)
    drawn = {k: torch.randn(7, size, generator=generator) for k, size in ((1, 6), (2, 5))}
    expected = squares(forward(before=lambda k, a: a + 0.3 * drawn.get(k, 0.0)))
    torch.testing.assert_close(control("sample noise")(NET, X, Y, reduction="none"), expected)


def test_dropout():
    """If it fails, outputs are dropped, too, or hidden units do not keep their mean."""
    generator = torch.Generator().manual_seed(0)
    kept = {k: torch.rand(7, size, generator=generator) >= 0.3 for k, size in ((1, 6), (2, 5))}
    expected = squares(forward(lambda k, z: z * kept[k] / 0.7 if k < 3 else z))
    torch.testing.assert_close(control("dropout")(NET, X, Y, reduction="none"), expected)


def test_decay_is_torch_s():
    """One step of SGD with torch's weight decay of matrices alone. If it fails, biases decay, or not at
    this rate."""
    one, other = copy.deepcopy(NET), copy.deepcopy(NET)
    with torch.no_grad():
        for parameter in (*one.parameters(), *other.parameters()):
            parameter.add_(0.5)  # biases are not 0
    control("weight decay")(one, X, Y).backward()
    torch.optim.SGD(one.parameters(), lr=0.1).step()
    lnn.BackPropagation()(other, X, Y).backward()
    matrices, vectors = ([p for p in other.parameters() if p.ndim == n] for n in (2, 1))
    torch.optim.SGD([{"params": matrices, "weight_decay": 0.3}, {"params": vectors}], lr=0.1).step()
    for a, b in zip(one.parameters(), other.parameters()):
        torch.testing.assert_close(a, b)


def test_smoothing_is_torch_s():
    """With cross-entropy: torch has label smoothing itself. If it fails, ours is another."""
    value = control("label smoothing", loss=lnn.CrossEntropy)(NET, X, Y)
    torch.testing.assert_close(value, nn.CrossEntropyLoss(label_smoothing=0.3)(NET(X), Y))
    torch.testing.assert_close(smoothed(lnn.Euclidean, 0.3, ONE_HOT)(NET(X)),
                               squares(NET(X), 0.7 * ONE_HOT + 0.1))


def test_away_from_a_wrong_label_is_an_attack_on_the_output():
    """ℓ(z̃) of a single linear layer, z̃ inferred under the attack alone, up to a factor. If it fails, the
    control is not what the page says that targets do."""
    net = lnn.LiftedNetwork([4, 3], generator=torch.Generator().manual_seed(0)).double()
    x, share = X.double(), 0.25 * 0.51
    found = away(lnn.Euclidean, share, torch.Generator().manual_seed(5), ONE_HOT.double())(net(x))
    attack = lnn.Targeted(torch.Generator().manual_seed(5))(lnn.Euclidean, ONE_HOT.double())
    z = lnn.infer(net, x, lnn.FenchelYoung() + share * attack, solver=lnn.Shooting(1e-12))[0][-1]
    torch.testing.assert_close(found, (1 + share) ** 2 * squares(z, ONE_HOT.double()))


@pytest.mark.parametrize("radius", [0.05, 0.3])
def test_attacked_inputs(radius):
    """If it fails, inputs leave the ball or [0, 1], the loss falls, or the parameters' gradients are those of
    the attack."""
    from lnn_core.experiments.attacks import greatest_loss

    objective, plain = control("attacked inputs", radius), lnn.BackPropagation()
    NET.zero_grad()
    attacked = greatest_loss(NET, lnn.Euclidean(ONE_HOT), X, radius)
    assert all(parameter.grad is None for parameter in NET.parameters())
    assert (attacked - X).norm(dim=1).max() <= radius * (1 + 1e-5)
    assert 0 <= attacked.min() and attacked.max() <= 1
    assert (plain(NET, attacked, Y, "none") > plain(NET, X, Y, "none")).all()
    value = objective.gradients(NET, X, Y)
    assert value == plain(NET, attacked, Y)
    found = [p.grad.clone() for p in NET.parameters()]
    plain.gradients(NET, attacked, Y)
    assert all(torch.equal(p.grad, old) for p, old in zip(NET.parameters(), found))


def test_an_attack_on_a_linear_network_is_the_best_one():
    """The farthest point of a ball in closed form. If it fails, seven steps do not get there."""
    from lnn_core.experiments.attacks import greatest_loss

    net, x = nn.Linear(4, 1, bias=False), torch.full((2, 4), 0.5)
    loss = lnn.Euclidean(net(x).detach() - 1.0)  # grows with the output
    direction = net.weight[0] / net.weight.norm()
    torch.testing.assert_close(greatest_loss(net, loss, x, 0.2), x + 0.2 * direction.detach())


@pytest.mark.parametrize("name", CONTROLS)
def test_a_seed_decides(name):
    """If it fails, runs cannot be repeated."""
    values = [control(name)(NET, X, Y).item() for _ in range(2)]
    assert values[0] == values[1]


def test_runs_have_controls():
    """If it fails, a record's control is not what was trained with."""
    run = Run(method="backprop", control="dropout", strength=0.2, seed=3)
    expected = CONTROLS["dropout"](0.2, lnn.Euclidean, seeded_generator(3, "dropout"))
    torch.testing.assert_close(run.objective()(NET, X, Y), expected(NET, X, Y))


@pytest.mark.parametrize(("change", "message"), [
    ({"control": "prayer", "strength": 1.0}, "control='prayer' must be one of batch noise"),
    ({"control": "dropout"}, "control='dropout' needs a value for strength"),
    ({"strength": 0.1}, "strength=0.1 belongs to a control"),
    ({"control": "dropout", "strength": 1.0}, "strength=1.0 must be below 1"),
    ({"control": "dropout", "strength": 0.0}, "strength=0.0 must be positive"),
    ({"control": "dropout", "strength": 0.1, "method": "arovr", "beta": 0.1, "solver": "tight"},
     "method='arovr' has no controls"),
    ({"control": "attacked inputs", "strength": 0.1, "standardise": True}, "attacked inputs stay in"),
    ({"validation": 0}, "validation=0 must be at least 1")], ids=str)
def test_settings_that_do_not_fit(change, message):
    """If it fails, a run's record says something that it did not do."""
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(Run(method="backprop"), **change)


def test_validation_can_be_small():
    """If it fails, a run with few validation samples has more, or those of another seed."""
    run = Run(dataset="digits", method="backprop", samples=100, validation=25, epochs=2, hidden=(8,))
    found = run.execute()
    assert all(value is None or round(25 * value, 6).is_integer() for value in found["history"]["validation"])
    other = dataclasses.replace(run, validation=None).execute()
    assert other["history"]["objective"] == found["history"]["objective"]
