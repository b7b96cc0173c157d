"""Networks, against forward passes written by hand and the block matrices of eq. (4)."""

import copy
import math

import pytest
import torch
from hypothesis import given
from reference import block_form, forward
from strategies import FUNCTIONS, networks, random_inputs, random_network

import lnn_core as lnn


def test_forward_pass_by_hand():
    """If it fails, the network is not the feed-forward network of the paper."""
    net = random_network(0, [3, 4, 5, 2])
    x, _ = random_inputs(0, net)
    (W1, W2, W3), (b1, b2, b3) = net.weights, net.biases
    h1 = torch.relu(x @ W1.T + b1)
    h2 = torch.relu(h1 @ W2.T + b2)
    for ours, expected in zip(net.activations(x), [x, h1, h2, h2 @ W3.T + b3], strict=True):
        torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(net(x), h2 @ W3.T + b3)


def test_forward_pass_is_torchs_own():
    """If it fails, weights cannot be exchanged with an ordinary torch network."""
    net = random_network(1, [3, 4, 2], lnn.Tanh())
    x, _ = random_inputs(1, net)
    twin = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    twin = twin.double()
    twin.load_state_dict({"0.weight": net.weight(1), "0.bias": net.biases[0],
                          "2.weight": net.weight(2), "2.bias": net.biases[1]})
    torch.testing.assert_close(net(x), twin(x))


def test_residual_network_by_hand():
    """If it fails, skip connections of eq. (4) add the wrong thing."""
    net = random_network(2, [3, 4, 4, 2], edges=[(0, 1), (1, 2), (2, 3), (1, 3), (0, 2)])
    x, _ = random_inputs(2, net)
    h1 = torch.relu(x @ net.weight(1).T + net.biases[0])
    h2 = torch.relu(h1 @ net.weight(2).T + x @ net.weight(2, 0).T + net.biases[1])
    expected = h2 @ net.weight(3).T + h1 @ net.weight(3, 1).T + net.biases[2]
    torch.testing.assert_close(net(x), expected)


@given(networks(outputs=FUNCTIONS))
def test_forward_pass_against_the_reference(net):
    """If it fails, some depth, activation or graph is computed differently from the paper."""
    x, _ = random_inputs(3, net)
    for ours, expected in zip(net.activations(x), forward(net, x), strict=True):
        torch.testing.assert_close(ours, expected)


@given(networks())
def test_preactivations_are_the_block_matrix_product(net):
    """a = Wz + W_0x + b with W strictly lower triangular: if it fails, eq. (4) does not hold."""
    W, W0, b = block_form(net)
    sizes = list(net.sizes[1:])
    blocks = torch.block_diag(*(torch.ones(size, size) for size in sizes)).bool()
    assert (W.triu() == 0).all() and (W[blocks] == 0).all()
    z = [torch.randn(3, size, dtype=torch.float64) for size in net.sizes]
    a = torch.cat(z[1:], 1) @ W.T + z[0] @ W0.T + b
    for k, expected in enumerate(a.split(sizes, 1), 1):
        torch.testing.assert_close(net.preactivation(k, z), expected)


@given(networks())
def test_feedback_is_the_transposed_product(net):
    """Against autograd of Σ e·a: if it fails, errors reach the wrong layer or through W, not Wᵀ."""
    z = [torch.randn(3, size, dtype=torch.float64, requires_grad=True) for size in net.sizes]
    errors = [torch.randn_like(z_k) for z_k in z]
    total = sum((errors[k] * net.preactivation(k, z)).sum() for k in range(1, net.depth + 1))
    expected = torch.autograd.grad(total, z[:-1])
    for k in range(1, net.depth):
        torch.testing.assert_close(net.feedback(k, errors), expected[k])
    assert net.feedback(net.depth, errors) is None


@given(networks())
def test_edges_are_found_from_both_ends(net):
    """If it fails, inference forgets a connection."""
    assert sorted((j, k) for j in range(net.depth) for k in net.children_of(j)) == sorted(net.edges)
    for (j, k), weight in zip(net.edges, net.weights):
        assert net.weight(k, j) is weight
        assert weight.shape == (net.sizes[k], net.sizes[j])
    assert net.is_chain == all(j == k - 1 for j, k in net.edges)


def test_missing_connection_is_named():
    """If it fails, asking for a weight that is not there gives another layer's."""
    net = lnn.LiftedNetwork([2, 3, 1])
    with pytest.raises(ValueError, match=r"no connection \(0, 2\)"):
        net.weight(2, 0)


def test_one_function_a_layer():
    """If it fails, layers take their neighbour's activation."""
    functions = [lnn.Tanh(), lnn.Box(0, 1)]
    net = lnn.LiftedNetwork([2, 3, 3, 2], functions, output=lnn.ReLU())
    assert [net.function(k) for k in (1, 2)] == functions
    assert isinstance(net.function(3), lnn.ReLU)
    assert isinstance(lnn.LiftedNetwork([2, 3, 2]).function(2), lnn.Identity)


# --- initial weights -----------------------------------------------------------------------------


@pytest.mark.parametrize(("init", "sd"), [("uniform", 1 / math.sqrt(3)), ("normal", 1.0)])
def test_initial_weights_scale_with_the_fan_in(init, sd):
    """If it fails, training starts from other weights than documented."""
    net = lnn.LiftedNetwork([300, 400, 200], init=init, generator=torch.Generator().manual_seed(0),
                            edges=[(0, 1), (1, 2), (0, 2)])
    for (_, k), weight in zip(net.edges, net.weights):
        scale = 1 / math.sqrt(300 if k == 1 else 700)
        assert weight.std().item() == pytest.approx(sd * scale, rel=0.02)
        assert abs(weight.mean().item()) < 0.02 * scale
        if init == "uniform":
            assert 0.99 * scale < weight.abs().max() <= scale
    assert all((bias == 0).all() for bias in net.biases)


def test_initial_weights_follow_the_generator_alone():
    """If it fails, runs with equal seeds are not paired, or the caller's seed is disturbed."""
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one, two, other = (lnn.LiftedNetwork([3, 4, 2], generator=torch.Generator().manual_seed(seed))
                       for seed in (5, 5, 6))
    assert torch.equal(state, torch.get_rng_state())
    assert all(map(torch.equal, one.weights, two.weights))
    assert not any(map(torch.equal, one.weights, other.weights))


def test_global_seed_is_the_default_source():
    """If it fails, torch.manual_seed does not make a network reproducible."""
    nets = []
    for _ in range(2):
        torch.manual_seed(3)
        nets.append(lnn.LiftedNetwork([3, 4, 2]))
    assert all(map(torch.equal, nets[0].weights, nets[1].weights))


# --- an ordinary torch module --------------------------------------------------------------------


def test_it_is_a_torch_module():
    """If it fails, optimisers, checkpoints, copies or .double() do not see all parameters."""
    net = lnn.LiftedNetwork([3, 4, 2])
    assert sum(p.numel() for p in net.parameters()) == 3 * 4 + 4 + 4 * 2 + 2
    twin = lnn.LiftedNetwork([3, 4, 2])
    twin.load_state_dict(net.state_dict())
    x = torch.randn(5, 3)
    assert torch.equal(net(x), twin(x))
    assert torch.equal(net(x), copy.deepcopy(net)(x))
    assert net.double()(x.double()).dtype == torch.float64
    assert "sizes=[3, 4, 2]" in repr(net)


def test_biases_can_be_left_out():
    """If it fails, bias=False keeps or forgets parameters."""
    net = lnn.LiftedNetwork([3, 4, 2], bias=False)
    assert len(list(net.parameters())) == 2
    assert torch.equal(net(torch.zeros(1, 3)), torch.zeros(1, 2))


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[], [3], [3, 0, 2], [3, -1]], ids=str)
def test_bad_sizes(sizes):
    """If it fails, a network without layers or units is built."""
    with pytest.raises(ValueError, match="sizes="):
        lnn.LiftedNetwork(sizes)


@pytest.mark.parametrize("edge", [(1, 1), (2, 1), (3, 0), (-1, 2), (0, 4)], ids=str)
def test_edge_that_closes_a_cycle(edge):
    """If it fails, W is not strictly lower triangular and eq. (4) has no forward pass."""
    with pytest.raises(ValueError, match="0 <= j < k <= 3") as error:
        lnn.LiftedNetwork([2, 2, 2, 2], edges=[(0, 1), (1, 2), (2, 3), edge])
    assert str(edge) in str(error.value)


@pytest.mark.parametrize(("edges", "message"), [
    ([(0, 1), (1, 3)], "nothing feeds layer 2"),
    ([(0, 1), (0, 2), (1, 3)], "layer 2 feeds nothing"),
], ids=["unfed", "unheard"])
def test_layers_outside_the_network(edges, message):
    """If it fails, a layer takes no part and its weights are never trained."""
    with pytest.raises(ValueError, match=message):
        lnn.LiftedNetwork([2, 2, 2, 2], edges=edges)


def test_bad_activations():
    """If it fails, the wrong number or kind of activations is found out at the first call."""
    with pytest.raises(ValueError, match="1 activations given for 2 hidden layers"):
        lnn.LiftedNetwork([2, 2, 2, 2], [lnn.ReLU()])
    with pytest.raises(TypeError, match="ConvexFunction"):
        lnn.LiftedNetwork([2, 2, 2], [torch.relu])
    with pytest.raises(ValueError, match="init='zeros'"):
        lnn.LiftedNetwork([2, 2], init="zeros")
