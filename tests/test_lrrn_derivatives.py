"""Derivatives of an LRRN's output, of first and second order and under torch.func's transforms."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lrrn_reference import EXACT, instance, network
from torch.func import functional_call, jacrev, vmap

import lnn_core as lnn
from lnn_core import lrrn
from lnn_core.propositions import lrrn_toys


def normal(*shape, seed=0):
    return lrrn_toys.normal(torch.Generator().manual_seed(seed), *shape)


def exact_network(*args, **options):
    net = network(*args, **options)
    net.solver = EXACT
    return net


@given(seed=st.integers(0, 10**6))
def test_output_is_differentiated_exactly(seed):
    """Central differences in x and all parameters; if it fails, attacks look the wrong way."""
    net, x, _ = instance(seed, samples=2)
    net.solver = EXACT
    direction = torch.Generator().manual_seed(seed)
    weight = lrrn_toys.normal(direction, 2, net.sizes[-1])
    x.requires_grad_()
    tensors = [x, *net.parameters()]
    gradients = torch.autograd.grad((weight * net(x)).sum(), tensors, materialize_grads=True)
    moves = [lrrn_toys.normal(direction, *t.shape) for t in tensors]
    predicted = float(sum((g * m).sum() for g, m in zip(gradients, moves)))

    def moved(t):
        with torch.no_grad():
            for tensor, move in zip(tensors, moves):
                tensor += t * move
            value, pattern = float((weight * net(x)).sum()), activity(net, x)
            for tensor, move in zip(tensors, moves):
                tensor -= t * move
        return value, pattern

    step = 1e-5
    (up, pattern_up), (down, pattern_down) = moved(step), moved(-step)
    if torch.equal(pattern_up, pattern_down):  # else a kink lies between
        assert predicted == pytest.approx((up - down) / (2 * step), rel=1e-5, abs=1e-6)


def activity(net, x):
    """Which units are inside their set at the minimum."""
    qp = net.quadratic(x)
    return qp.inside(EXACT(qp)[0])


def test_no_graph_without_need():
    """If it fails, evaluation keeps graphs alive."""
    net = network([4, 3, 2])
    x = torch.zeros(1, 4, dtype=torch.float64)
    with torch.no_grad():
        assert not net(x).requires_grad
    assert net(x).requires_grad
    z, _ = lrrn.infer(net, x)
    assert not any(part.requires_grad for part in z)


# --------------------------------------------------------------------------- second order


def test_second_derivatives_of_a_chain_by_hand():
    """Weights 1, β = (1, 0), γ = 1, x = 1: z_2 = W_2z_1 and z_1 = 2W_1x/(1 + W_1²), so that ∂z_2/∂x
    = 2W_1W_2/(1 + W_1²) has the slopes 0 in W_1 and 1 in W_2. If it fails, second derivatives lack
    a term."""
    net = lrrn.LRRN([1, 1, 1], lnn.Identity(), dtype=torch.float64)
    net.solver = EXACT
    for W in net.weights:
        W.data.fill_(1.0)
    x = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.grad(net(x).sum(), x, create_graph=True)[0]
    second = torch.autograd.grad(slope.sum(), list(net.weights), materialize_grads=True)
    assert slope.item() == pytest.approx(1)
    assert [float(entry) for entry in second] == pytest.approx([0, 1], abs=1e-9)


@pytest.mark.parametrize("activation", [lnn.Identity(), lnn.ReLU(), lnn.Box(-0.2, 0.4)], ids=str)
def test_second_derivatives_are_finite_differences(activation):
    """gradgradcheck, float64: if it fails, gradient penalties and Hessians are wrong numbers."""
    net = exact_network([3, 4, 3, 2], activation, beta=[0.7, 1.3, 0.4], gamma=0.8)
    x = normal(2, 3, seed=1)
    z = EXACT(net.quadratic(x).detach())[0]
    at_a_bound = ~net.quadratic(x).detach().inside(z)
    assert at_a_bound.any() != isinstance(activation, lnn.Identity)
    names = [name for name, _ in net.named_parameters()]

    def run(x, *parameters):
        return functional_call(net, dict(zip(names, parameters)), (x,))

    inputs = [x, *(p.detach().clone() for p in net.parameters())]
    inputs = [t.requires_grad_() for t in inputs]
    assert torch.autograd.gradcheck(run, inputs, atol=1e-6)
    assert torch.autograd.gradgradcheck(run, inputs, atol=1e-5)


@pytest.mark.parametrize("loss", [lrrn.Unsupervised(), lrrn.Contrastive()], ids=repr)
def test_second_derivatives_of_the_losses_are_refused(loss):
    """If it fails, a second derivative lacks dz*/dθ, as losses hold the activations fixed."""
    net = exact_network([3, 4, 2], beta=1.0)
    x, labels = normal(2, 3), torch.tensor([0, 1])
    once = torch.autograd.grad(loss(net, x, labels), net.weights[0])[0]
    assert once.abs().max() > 0
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        torch.autograd.grad(loss(net, x, labels), net.weights[0], create_graph=True)
    with pytest.raises(RuntimeError, match="torch.func are not supported"):
        torch.func.grad(lambda x: loss(net, x, labels))(x)


# --------------------------------------------------------------------------- torch.func


def test_transforms_give_the_jacobian():
    """If it fails, jacrev, or vmap over it, computes something else than ``lrrn.jacobian``."""
    net = exact_network([4, 5, 3, 2], lnn.ReLU())
    x = normal(6, 4)
    expected = lrrn.jacobian(net, x, solver=EXACT)
    by_sample = vmap(jacrev(lambda one: net(one[None])[0]))(x)
    whole = jacrev(net)(x)
    torch.testing.assert_close(by_sample, expected)
    torch.testing.assert_close(torch.stack([whole[i, :, i] for i in range(6)]), expected)


def test_vmap_over_inputs_weights_and_bounds():
    """If it fails, mapped calls are mixed up: each against a call of its own."""
    nets = [exact_network([3, 4, 2], lnn.Box(-0.3, 0.3), seed=seed) for seed in range(3)]
    x = normal(3, 5, 3)
    alone = torch.stack([net(part) for net, part in zip(nets, x)])
    stacked = {name: torch.stack([dict(net.named_parameters())[name] for net in nets])
               for name, _ in nets[0].named_parameters()}
    mapped = vmap(lambda parameters, part: functional_call(nets[0], parameters, (part,)))
    torch.testing.assert_close(mapped(stacked, x), alone)
    torch.testing.assert_close(vmap(nets[1], in_dims=1)(x.movedim(0, 1)),
                               torch.stack([nets[1](part) for part in x]))
    uppers = torch.tensor([0.1, 0.5]).double()[:, None].expand(2, 3)
    H, g = torch.eye(3).double(), normal(4, 3)
    place = vmap(lambda upper: lrrn.implicit.minimiser(lrrn.BoxQP(H, g, -upper, upper), EXACT))
    torch.testing.assert_close(place(uppers), torch.stack([g.clamp(-0.1, 0.1), g.clamp(-0.5, 0.5)]))


def test_gradients_of_each_sample():
    """vmap(grad) against one backward pass for each sample. If it fails, samples get each other's
    gradients."""
    net = exact_network([3, 4, 2], lnn.ReLU())
    x, parameters = normal(5, 3), {name: p.detach() for name, p in net.named_parameters()}

    def value(parameters, one):
        return functional_call(net, parameters, (one[None],)).square().sum()

    found = vmap(torch.func.grad(value), in_dims=(None, 0))(parameters, x)
    for i in range(5):
        alone = torch.autograd.grad(net(x[i:i + 1]).square().sum(), list(net.parameters()))
        for name, gradient in zip(found, alone):
            torch.testing.assert_close(found[name][i], gradient)


def test_a_hessian_in_x():
    """Piecewise linear in x: the Hessian of ½‖z_L‖² is JᵀJ off the kinks. If it fails, curvature in
    x is made up."""
    net = exact_network([3, 5, 4], lnn.ReLU())
    x = normal(1, 3)
    J = lrrn.jacobian(net, x, solver=EXACT)[0]
    H = jacrev(jacrev(lambda one: 0.5 * net(one[None]).square().sum()))(x[0])
    torch.testing.assert_close(H, J.T @ J)


def test_values_are_checked_under_vmap():
    """If it fails, NaN passes where inference cannot look at single values."""
    net = exact_network([3, 4, 2])
    x = normal(4, 2, 3)
    x[3, 1, 0] = torch.nan
    with pytest.raises(ValueError, match="x holds nan"):
        vmap(net)(x)
