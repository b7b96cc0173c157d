"""LRRN losses and gradients: closed forms in linear networks, finite differences elsewhere."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lrrn_reference import EXACT, flat, instance, network, reference

import lnn_core as lnn
from lnn_core import lrrn
from lnn_core.experiments.training import accuracy, train_epoch
from lnn_core.propositions import lrrn_toys

seeds = st.integers(0, 10**6)


def energies(net, x, y=None):
    """min E, (batch,), at SciPy's minimiser."""
    return net.energy(net.split(x, reference(net, x, y))).detach()


def gradients(value, net):
    """Of a scalar in all parameters, zero where it does not depend on one."""
    return torch.autograd.grad(value, list(net.parameters()), materialize_grads=True)


def closed_form(net, x, y=None):
    """min E in a network without constraints, (batch,), differentiable through the solve.

    E(z) = E(0) − gᵀz + ½zᵀHz with E(0) and g from the energy alone, H from its Hessian."""
    n = sum(net.sizes[1:])
    free = n if y is None else n - net.sizes[-1]

    def energy(z, sample, target):
        whole = z if y is None else torch.cat([z, target])
        return net.energy(net.split(sample[None], whole[None]))[0]

    values = []
    for i in range(len(x)):
        target = None if y is None else y[i]
        zero = x.new_zeros(free, requires_grad=True)
        value = energy(zero, x[i], target)
        if not free:
            values.append(value)
            continue
        slope = torch.autograd.grad(value, zero, create_graph=True)[0]
        H = torch.autograd.functional.hessian(lambda z: energy(z, x[i], target), zero,
                                              create_graph=True)
        values.append(value - 0.5 * slope @ torch.linalg.solve(H, slope))
    return torch.stack(values)


# --------------------------------------------------------------------------- values


@given(seed=seeds)
def test_values_are_differences_of_minima(seed):
    """(18) and (21) at SciPy's minima; if it fails, training minimises something else."""
    net, x, y = instance(seed)
    value = lrrn.Unsupervised(EXACT)(net, x, reduction="none")
    torch.testing.assert_close(value.detach(), energies(net, x), atol=1e-9, rtol=1e-7)
    value = lrrn.Contrastive(EXACT)(net, x, y, reduction="none")
    expected = energies(net, x, y) - energies(net, x)
    torch.testing.assert_close(value.detach(), expected, atol=1e-9, rtol=1e-6)
    assert (value >= -1e-12).all()


def test_mean_and_labels():
    """If it fails, the loss depends on the batch size or labels are not one-hot."""
    net = network([4, 3, 2], lnn.ReLU())
    x, labels = lrrn_toys.normal(torch.Generator().manual_seed(0), 5, 4), torch.tensor([0, 1, 1, 0, 1])
    loss = lrrn.Contrastive(EXACT)
    one_hot = torch.nn.functional.one_hot(labels, 2).double()
    torch.testing.assert_close(loss(net, x, labels), loss(net, x, one_hot, "none").mean())


@given(seed=seeds, passes=st.integers(1, 3))
def test_error_of_a_rough_value_is_reported(seed, passes):
    """If it fails, the report understates how wrong the loss is."""
    net, x, y = instance(seed)
    loss = lrrn.Contrastive(lrrn.SpectralDescent(1e-9, max_passes=passes))
    value = loss(net, x, y, reduction="none").detach()
    exact = energies(net, x, y) - energies(net, x)
    assert ((value - exact).abs() <= loss.report.gap + 1e-9).all()


def test_single_precision_does_not_cancel():
    """Energies near 500 that differ by 1e-3: if it fails, two large numbers are subtracted."""
    net = network([400, 20, 20, 5], lnn.ReLU(), beta=[1, 1, 0])
    draw = torch.Generator().manual_seed(0)
    x = 2 * lrrn_toys.normal(draw, 20, 400)
    net.solver = EXACT
    y = net(x).detach() + 0.01 * lrrn_toys.normal(draw, 20, 5)
    single = lrrn.LRRN([400, 20, 20, 5], lnn.ReLU(), beta=[1, 1, 0])
    single.load_state_dict(net.state_dict())
    exact = lrrn.Contrastive(EXACT)(net, x, y, reduction="none")
    # One step of float32 near 400 is 3e-5: a difference of energies would be off by percents.
    assert exact.max() < 2e-3 and energies(net, x).min() > 400
    rough = lrrn.Contrastive(lrrn.SpectralDescent(1e-6))(single, x.float(), y.float(), "none")
    assert ((rough - exact).abs() < 0.05 * exact).all()


def test_one_layer_by_hand():
    """L = 1: clamping leaves nothing to infer; β = 0 is half the squared error. If it fails, the
    simplest loss is wrong."""
    net = network([4, 3], beta=0.0)
    draw = torch.Generator().manual_seed(0)
    x, y = lrrn_toys.normal(draw, 5, 4), lrrn_toys.normal(draw, 5, 3)
    value = lrrn.Contrastive(EXACT)(net, x, y, reduction="none")
    error = x @ net.weights[0].T + net.biases[0] - y
    torch.testing.assert_close(value, 0.5 * error.square().sum(1))


# --------------------------------------------------------------------------- gradients


@given(seed=seeds)
def test_gradients_in_linear_networks_are_those_of_the_closed_form(seed):
    """Autograd through H⁻¹: if it fails, the envelope theorem is applied wrongly."""
    net, x, y = instance(seed, samples=2, sets=(lnn.Identity(),))
    for value, expected in (
            (lrrn.Unsupervised(EXACT)(net, x), closed_form(net, x).mean()),
            (lrrn.Contrastive(EXACT)(net, x, y),
             (closed_form(net, x, y) - closed_form(net, x)).mean())):
        torch.testing.assert_close(value, expected, atol=1e-9, rtol=1e-7)
        for ours, theirs in zip(gradients(value, net), gradients(expected, net)):
            torch.testing.assert_close(ours, theirs, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("kind", [lrrn.Unsupervised, lrrn.Contrastive])
@given(seed=seeds)
def test_gradients_with_constraints_are_finite_differences(kind, seed):
    """Minima of E are differentiable in parameters and x: central differences, no kinks. If it
    fails, training follows another slope."""
    net, x, y = instance(seed, samples=2, sets=(lnn.ReLU(), lnn.Box(0, 1)))
    draw, loss = torch.Generator().manual_seed(seed), kind(EXACT)
    x.requires_grad_()
    tensors = [x, *net.parameters()]
    found = torch.autograd.grad(loss(net, x, y), tensors, materialize_grads=True)
    moves = [lrrn_toys.normal(draw, *t.shape) for t in tensors]
    predicted = float(sum((g * m).sum() for g, m in zip(found, moves)))

    def value(t):
        with torch.no_grad():
            for tensor, move in zip(tensors, moves):
                tensor += t * move
            result = float(loss(net, x, y))
            for tensor, move in zip(tensors, moves):
                tensor -= t * move
        return result

    step = 1e-4
    assert predicted == pytest.approx((value(step) - value(-step)) / (2 * step), rel=1e-3, abs=1e-4)


def test_gradient_of_section_4_corrected():
    """The formulas in the module's docstring, written out; the printed one would not even fit. If
    it fails, they are not the code's."""
    net = network([5, 4, 3], lnn.ReLU(), beta=[0.7, 1.3], gamma=0.6)
    x = lrrn_toys.normal(torch.Generator().manual_seed(0), 1, 5)
    gradient = gradients(lrrn.Unsupervised(EXACT)(net, x), net)
    z = [part[0] for part in lrrn.infer(net, x, solver=EXACT)[0]]
    for k, (W, b, c, beta) in enumerate(
            zip(net.weights, net.biases, net.reconstruction_biases, net.beta)):
        regression, reconstruction = z[k + 1] - W @ z[k] - b, W.T @ z[k + 1] - z[k] - c
        dW = beta * torch.outer(z[k + 1], reconstruction) - torch.outer(regression, z[k])
        for i, expected in ((k, dW), (2 + k, -regression), (4 + k, -beta * reconstruction)):
            torch.testing.assert_close(gradient[i], 0.6**k * expected.detach())


# --------------------------------------------------------------------------- training


def test_contrastive_training_on_digits():
    """If it fails, the loss does not train: 3 epochs on real digits, held-out accuracy."""
    data = lnn.data.load("digits")
    draw = torch.Generator().manual_seed(0)
    net = lrrn.LRRN([64, 32, 32, 10], generator=draw)
    loss = lrrn.Contrastive()
    optimizer = torch.optim.Adam(lrrn.parameter_groups(net, 1e-2), lr=5e-3)
    history = [train_epoch(net, loss, data.train, optimizer, 50, draw) for _ in range(3)]
    values = [epoch.objective for epoch in history]
    assert values[0] > values[1] > values[2] > 0
    assert [epoch.converged for epoch in history] == pytest.approx([1, 1, 1])
    assert accuracy(net, data.test) > 0.85


def test_unsupervised_training_lowers_the_energy_of_its_own_data():
    """Also that a loss without labels fits the training loop. If it fails, it learns nothing, or a
    loss without labels does not fit the training loop."""
    data = lnn.data.load("digits")
    draw = torch.Generator().manual_seed(0)
    net = lrrn.LRRN([64, 16, 16], output=lnn.ReLU(), beta=1.0, generator=draw)
    loss = lrrn.Unsupervised()
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(3):
        train_epoch(net, loss, data.train, optimizer, 50, draw)
    with torch.no_grad():
        own, noise = loss(net, data.test.x), loss(net, torch.rand(300, 64, generator=draw))
    assert 2 * own < noise


def test_weight_decay_is_on_the_last_weight_alone():
    """If it fails, features are decayed too, or biases that are switched off are trained."""
    net = lrrn.LRRN([4, 3, 2], bias=False)
    rest, last = lrrn.parameter_groups(net, 0.1)
    assert last["params"] == [net.weights[1]] and last["weight_decay"] == 0.1
    assert [id(p) for p in rest["params"]] == [id(net.weights[0])] and "weight_decay" not in rest
    with pytest.raises(ValueError, match="decay=-1 must be finite and not negative"):
        lrrn.parameter_groups(net, -1)


@pytest.mark.parametrize("arguments, message", [
    ((None,), "needs labels or targets"),
    ((torch.tensor([0, 5]),), "label 5 is outside"),
    ((torch.tensor([0, 1]), "sum"), "reduction='sum' must be"),
])
def test_bad_arguments(arguments, message):
    """If it fails, the mistake shows later, or never."""
    with pytest.raises(ValueError, match=message):
        lrrn.Contrastive()(lrrn.LRRN([4, 3, 2]), torch.zeros(2, 4), *arguments)


def test_clamped_activations_start_from_the_free_ones():
    """If it fails, the second inference of the contrastive loss is a cold one."""
    net = network([6, 20, 20, 3], lnn.ReLU())
    draw = torch.Generator().manual_seed(0)
    x = lrrn_toys.normal(draw, 8, 6)
    free, _ = lrrn.infer(net, x, solver=EXACT)
    near = free[-1] + 1e-4 * lrrn_toys.normal(draw, 8, 3)
    cold = lrrn.infer(net, x, near)[1].passes
    warm, report = lrrn.infer(net, x, near, start=free)
    assert report.passes < cold and torch.equal(warm[-1], near)
    loss = lrrn.Contrastive()
    loss(net, x, near)
    assert loss.report.passes == lrrn.infer(net, x)[1].passes + report.passes
    assert flat(warm).shape == (8, 43)
