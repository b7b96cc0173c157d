"""Rescaled hidden units: the function stays, and one gauge is found whatever the scales were."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from strategies import random_network, seeds
from torch import nn

import lnn_core as lnn
from lnn_core import gauge
from lnn_core.gauge import balanced, rescaled

HOMOGENEOUS = [lnn.ReLU(), lnn.Identity(), lnn.LeakyReLU(0.2)]


@st.composite
def chains(draw, most=4):
    """Chains of positively homogeneous functions, any output, and scales of their hidden units."""
    depth = draw(st.integers(1, most))
    sizes = draw(st.lists(st.integers(1, 5), min_size=depth + 1, max_size=depth + 1))
    hidden = draw(st.lists(st.sampled_from(HOMOGENEOUS), min_size=depth - 1, max_size=depth - 1))
    seed = draw(seeds)
    return random_network(seed, sizes, hidden, draw(st.sampled_from([None, lnn.Tanh()]))), scales(seed, sizes)


def scales(seed, sizes, spread=2.0):
    generator = torch.Generator().manual_seed(seed)
    return [(spread * torch.randn(size, generator=generator, dtype=torch.float64)).exp()
            for size in sizes[1:-1]]


def inputs(net, samples=5):
    return torch.randn(samples, net.sizes[0], generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def parts(net):
    """W_1, b_1, W_2, … in NumPy."""
    return [tensor.detach().numpy() for pair in zip(net.weights, net.biases) for tensor in pair]


def both_sides(net):
    """Squared norms of what comes in, with the bias, and of what goes out, by hidden layer."""
    found = parts(net)
    return [((found[2 * k]**2).sum(1) + found[2 * k + 1]**2, (found[2 * k + 2]**2).sum(0))
            for k in range(net.depth - 1)]


def assert_same(one, other, tolerance=1e-9):
    for a, b in zip(parts(one), parts(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@given(chains())
def test_rescaling_leaves_the_function(case):
    """If it fails, networks that are compared as one compute different things."""
    net, s = case
    x = inputs(net)
    old, new = net.activations(x), rescaled(net, s).activations(x)
    for k, factor in enumerate(s, 1):
        torch.testing.assert_close(new[k], factor * old[k])
    torch.testing.assert_close(new[-1], old[-1])


@given(chains())
def test_what_comes_in_goes_out(case):
    """If it fails, the gauge is not the one that the docstring names, or the function has changed."""
    net, _ = case
    found = balanced(net)
    for taken, sent in both_sides(found):
        np.testing.assert_allclose(taken, sent, rtol=1e-9)
    torch.testing.assert_close(found(inputs(net)), net(inputs(net)))
    assert found.functions == net.functions


@given(chains())
def test_there_is_one_gauge(case):
    """The heart of it. If it fails, a measure in the balanced gauge depends on how units were scaled."""
    net, s = case
    assert_same(balanced(rescaled(net, s)), balanced(net))


@pytest.mark.parametrize("seed", range(5))
def test_the_sum_of_squares_is_least(seed):
    """Oracle: SciPy over the logarithms of all scales. If it fails, the proof is of something else."""
    net = random_network(seed, (3, 4, 3, 2))

    def total(t):
        moved = rescaled(net, [torch.tensor(part).exp() for part in (t[:4], t[4:])])
        return sum((part**2).sum() for part in parts(moved)[:-1])  # the output's bias has no scale

    least = minimize(total, np.zeros(7), tol=1e-14)
    assert sum((part**2).sum() for part in parts(balanced(net))[:-1]) == pytest.approx(least.fun, rel=1e-9)


def test_one_unit_by_hand():
    """W_1 = (3, 4), b_1 = 12, W_2 = 2: norms 13 and 2. If it fails, the bias does not count, or a root is
    missing."""
    net = gauge.chain([torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0]])],
                      [torch.tensor([12.0]), torch.tensor([5.0])], [lnn.ReLU(), lnn.Identity()])
    s = math.sqrt(2 / 13)
    W, b, V, c = parts(balanced(net))
    np.testing.assert_allclose([*W[0], b[0], V[0, 0], c[0]], [3 * s, 4 * s, 12 * s, 2 / s, 5.0], rtol=1e-6)


def test_a_unit_with_nothing_but_a_bias():
    """If it fails, a unit that is always 1 ends in a division by 0."""
    net = random_network(0, (3, 4, 2))
    with torch.no_grad():
        net.weights[0][1] = 0.0
        net.biases[0][1] = 0.7
    found = balanced(rescaled(net, scales(1, net.sizes)))
    assert_same(found, balanced(net))
    assert all(part > 0 for sides in both_sides(found) for side in sides for part in side)


def without(net, dead):
    """The network without these units: {layer: unit}."""
    keep = [[i for i in range(size) if dead.get(k) != i] for k, size in enumerate(net.sizes)]
    return gauge.chain([W[after][:, before] for W, before, after in zip(net.weights, keep, keep[1:])],
                       [b[after] for b, after in zip(net.biases, keep[1:])], net.functions), keep


@pytest.mark.parametrize("kind", ["no input", "no output", "feeds the dead", "fed by the dead"])
def test_dead_units_are_gone(kind):
    """Oracle: the network without them. If it fails, a unit that does nothing moves the scales of others,
    is scaled without end, or keeps weights that count in a norm."""
    net = random_network(3, (3, 4, 4, 2))
    (W1, W2, W3), (b1, b2, _) = net.weights, net.biases
    dead = {1: 1}
    with torch.no_grad():
        if kind == "no input":
            W1[1], b1[1] = 0.0, 0.0
        elif kind == "no output":
            W2[:, 1] = 0.0
        elif kind == "feeds the dead":
            W2[[0, 1, 3], 1], W3[:, 2], dead[2] = 0.0, 0.0, 2
        else:
            W1[1], b1[1] = 0.0, 0.0
            W2[2, [0, 2, 3]], b2[2], dead[2] = 0.0, 0.0, 2
    found, x = balanced(net), inputs(net)
    torch.testing.assert_close(found(x), net(x))
    assert_same(found, balanced(rescaled(net, scales(2, net.sizes))))
    smaller, keep = without(net, dead)
    left, _ = without(found, dead)
    assert_same(left, balanced(smaller))
    for k, unit in dead.items():
        taken, sent = both_sides(found)[k - 1]
        assert taken[unit] == sent[unit] == 0
    assert len(keep[1]) == 3


@pytest.mark.parametrize("depth", [2, 3, 6])
def test_sweeps_are_as_good_as_stated(depth, monkeypatch):
    """Errors of about e³⁰ at first. If it fails, convergence is slower than what is proved of it."""
    net = random_network(1, [3] * (depth + 1))
    net = rescaled(net, scales(0, net.sizes, spread=10.0))
    factor = math.cos(math.pi / depth)
    sweeps = 2 + (math.ceil(math.log(1e-15) / math.log(factor)) if factor > 1e-9 else 0)
    monkeypatch.setattr(gauge, "SWEEPS", sweeps)
    assert_same(balanced(net), balanced(rescaled(net, scales(1, net.sizes))))


def test_scales_that_have_not_settled(monkeypatch):
    """If it fails, a network that is not balanced passes for one that is."""
    monkeypatch.setattr(gauge, "SWEEPS", 2)
    overflowing = random_network(0, (3, 3, 2), scale=1e200)
    for net in (random_network(0, (3, 3, 3, 3, 2)), overflowing):
        with pytest.raises(RuntimeError, match="scales have not settled after 2 sweeps"):
            balanced(net)


def test_nothing_else_changes():
    """If it fails, the network given is changed, its type is, or torch's random numbers are others than
    without the call."""
    net = lnn.LiftedNetwork([4, 5, 3], bias=False, generator=torch.Generator().manual_seed(0))
    old, state = copy.deepcopy(net.state_dict()), torch.random.get_rng_state()
    found = balanced(net)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, old[name]) for name, value in net.state_dict().items())
    assert found.dtype == torch.float32 and found.biases is None
    assert all(new.data_ptr() != own.data_ptr() for new, own in zip(found.weights, net.weights))


CHAIN = random_network(0, (3, 4, 2))
CONVOLUTION = lnn.lift(nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(),
                                     nn.Linear(2, 2)), (4,))


@pytest.mark.parametrize("call, error, message", [
    (lambda: balanced(random_network(0, (3, 4, 2), edges=[(0, 1), (1, 2), (0, 2)])), ValueError, "chains"),
    (lambda: balanced(random_network(0, (3, 4, 2), lnn.Tanh())), ValueError, "layer 1 is Tanh.*changes"),
    (lambda: balanced(random_network(0, (3, 4, 2), lnn.Box(0, 1))), ValueError, "layer 1 is Box"),
    (lambda: balanced(CONVOLUTION), TypeError, "needs a matrix"),
    (lambda: balanced(0.5), TypeError, "expected a LiftedNetwork"),
    (lambda: rescaled(random_network(0, (3, 4, 2), lnn.Tanh()), [torch.ones(4)]), ValueError, "layer 1"),
    (lambda: rescaled(CHAIN, []), ValueError, "scales has 0 entries; the network has 1 hidden"),
    (lambda: rescaled(CHAIN, [torch.ones(3)]), ValueError, r"scales\[0\] has shape \(3,\).* has 4 units"),
    (lambda: rescaled(CHAIN, [torch.zeros(4)]), ValueError, r"scales\[0\] holds 0; scales must be positive"),
    (lambda: rescaled(CHAIN, [torch.full((4,), math.inf)]), ValueError, r"scales\[0\] holds inf"),
    (lambda: rescaled(CHAIN, [2.0]), TypeError, r"scales\[0\] is a float"),
    (lambda: rescaled(CHAIN, 2.0), TypeError, "scales is a float"),
])
def test_what_cannot_be_rescaled(call, error, message):
    """If it fails, a network is changed by what should leave it alone, or a wrong scale is not named."""
    with pytest.raises(error, match=message):
        call()


def test_weights_that_are_not_finite():
    """If it fails, sweeps run on NaN until they give up."""
    net = random_network(0, (3, 4, 2))
    with torch.no_grad():
        net.weights[0][0, 0] = math.nan
    with pytest.raises(ValueError, match="a weight into layer 1 holds nan"):
        balanced(net)
