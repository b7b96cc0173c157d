"""torch's own tools applied to networks and objectives.

The oracle is a plain network whose matrices are those that the tool computes, multiplied or
differentiated by hand here; for the tools' own mathematics, torch's nn.Linear under the same tool.
"""

import copy
import warnings

import pytest
import torch
from strategies import random_inputs, random_network
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import lnn_core as lnn

SQUARE = [4, 4, 4, 4]


def problem(dtype=torch.float64):
    net = random_network(5, SQUARE, scale=0.6, dtype=dtype)
    return net, *random_inputs(5, net)


def old(tool):
    """A tool from before parametrizations, which torch calls deprecated."""
    def apply(*arguments):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return tool(*arguments)
    return apply


def pruned(module, name):
    prune.l1_unstructured(module, name, 0.5)


def removed(module, name):
    """A finished pruning puts its parameter back at the end of the list."""
    pruned(module, name)
    prune.remove(module, name)


def unparametrized(module, name):
    parametrizations.orthogonal(module, name)
    parametrize.remove_parametrizations(module, name)


TOOLS = {"pruned": pruned, "pruning removed": removed,
         "spectral norm": parametrizations.spectral_norm, "weight norm": parametrizations.weight_norm,
         "orthogonal": parametrizations.orthogonal, "parametrization removed": unparametrized,
         "old spectral norm": old(nn.utils.spectral_norm), "old weight norm": old(nn.utils.weight_norm)}
each_tool = pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)


def twin_of(net, weights):
    """A plain network with these matrices and the same biases."""
    twin = lnn.LiftedNetwork(net.sizes, net.functions[:-1], net.functions[-1], dtype=torch.float64)
    with torch.no_grad():
        for mine, given in zip([*twin.weights, *twin.biases], [*weights, *net.biases]):
            mine.copy_(given)
    return twin


def treated(tool):
    """A network in evaluation mode under the tool, and what it makes of W_1, by nn.Linear."""
    net, x, y = problem()
    linear = nn.Linear(4, 4, dtype=torch.float64)
    with torch.no_grad():
        linear.weight.copy_(net.weight(1))
    for module, name in ((linear, "weight"), (net.connections[0], "weight")):
        torch.manual_seed(0)  # the start of a power iteration
        tool(module, name)
    net.eval(), linear.eval()
    linear(x)  # so that torch's hooks run
    weights = [linear.weight.detach(), net.weight(2).detach(), net.weight(3).detach()]
    return net, x, y, weights


@each_tool
def test_everyone_sees_what_the_tool_computes(tool):
    """If it fails, layers get each other's matrices, or a bound is that of another network."""
    net, x, y, weights = treated(tool)
    twin = twin_of(net, weights)
    z = twin.activations(x)
    for ours, expected in zip(net.activations(x), z):
        torch.testing.assert_close(ours, expected)
    assert [tuple(W.shape) for W in (net.weight(k) for k in (1, 2, 3))] == 3 * [(4, 4)]
    torch.testing.assert_close(net.connections_into(1)[0][1].weight.detach(), weights[0])
    errors = [None, *random_inputs(7, net)[1].repeat(3, 1, 1)]
    torch.testing.assert_close(net.feedback(1, errors), errors[2] @ weights[1])
    for measure in (lnn.bounds.kappa, lnn.lipschitz.certified, lnn.lipschitz.trivial,
                    lambda net: lnn.lipschitz.lower(net, x), lnn.lipschitz.surrogate,
                    lambda net: lnn.bounds.stability_threshold(net, x).sum().item(),
                    lambda net: lnn.AROVR(0.2)(net, x, y).item(),
                    lambda net: lnn.ConstrainedAROVR(0.1)(net, x, y).item()):
        assert measure(net) == pytest.approx(measure(twin), rel=1e-9)


@each_tool
def test_gradients_reach_the_originals(tool):
    """If it fails, a pruned entry is trained, or the originals behind a norm are not.

    Oracle: torch's own chain rule through the tool, fed with the plain network's gradient.
    """
    net, x, y, weights = treated(tool)
    twin = twin_of(net, weights)
    objective = lnn.AROVR(0.2, solver=lnn.Shooting(1e-12, 500, every=True))
    objective(twin, x, y).backward()
    originals = [p for p in net.connections.parameters() if p.shape[0] == 4]
    (net.weight(1) * twin.weight(1).grad).sum().backward()
    expected = {id(p): p.grad.clone() for p in originals if p.grad is not None}
    assert expected
    net.zero_grad()
    objective(net, x, y).backward()
    for parameter in originals:
        if id(parameter) in expected:
            torch.testing.assert_close(parameter.grad, expected[id(parameter)])
    for k in (2, 3):
        torch.testing.assert_close(net.weight(k).grad, twin.weight(k).grad)


def test_pruned_entries_stay_pruned_in_training():
    """If it fails, the mask is applied once and forgotten when the optimizer moves the original."""
    net, x, y = problem()
    pruned(net.connections[2], "weight")
    zero = net.connections[2].get_buffer("weight_mask") == 0
    assert zero.sum() == 8
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    before = net.weight(3).detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        lnn.AROVR(0.1)(net, x, y).backward()
        optimizer.step()
    assert (net.weight(3)[zero] == 0).all() and (net.weight(3)[~zero] != before[~zero]).all()


def test_a_call_computes_weights_once():
    """A spectral norm moves on with every access. If it fails, activations and gradient have
    different weights."""
    class Counting(nn.Module):
        calls = 0

        def forward(self, W):
            Counting.calls += 1
            return W * (1 + 0.1 * Counting.calls)

    net, x, y = problem()
    parametrize.register_parametrization(net.connections[1], "weight", Counting())
    for call in (lambda: lnn.infer(net, x, lnn.FenchelYoung() + 0.1 * lnn.Euclidean(y)),
                 lambda: lnn.AROVR(0.1)(net, x, y).backward(), lambda: net(x),
                 lambda: lnn.bounds.energy_budget(net, x), lambda: lnn.lipschitz.bracket(net, x),
                 lambda: lnn.bounds.reduced(net, x, y, 0.1),
                 lambda: lnn.ConstrainedAROVR(0.1, steps=2)(net, x, y).backward()):
        before = Counting.calls
        call()
        assert Counting.calls == before + 1


def test_ordinary_networks_are_as_before():
    """If it fails, checkpoints of today cannot be loaded, or seeds give other weights."""
    net = lnn.LiftedNetwork([3, 4, 2], generator=torch.Generator().manual_seed(3))
    assert list(net.state_dict()) == ["connections.0.weight", "connections.0.bias",
                                      "connections.1.weight", "connections.1.bias"]
    expected = torch.empty(4, 3).uniform_(-(3**-0.5), 3**-0.5,
                                          generator=torch.Generator().manual_seed(3))
    assert torch.equal(net.weight(1), expected) and net.weight(1) is net.connections[0].weight
    assert copy.deepcopy(net).fixed().fixed().weight(2).is_leaf


def test_checkpoints_of_version_0_1_are_loaded():
    """If it fails, weights saved before layers were modules are lost."""
    net = lnn.LiftedNetwork([3, 4, 5, 2], edges=[(0, 1), (0, 2), (1, 2), (2, 3)])
    old = {f"weights.{i}": torch.randn_like(W) for i, W in enumerate(net.weights)}
    old |= {f"biases.{i}": torch.randn_like(b) for i, b in enumerate(net.biases)}
    keys = net.load_state_dict(old, strict=False)
    assert not keys.missing_keys and not keys.unexpected_keys
    for name, found in (("weights", net.weights), ("biases", net.biases)):
        for i, tensor in enumerate(found):
            assert torch.equal(tensor, old[f"{name}.{i}"])
    holder = nn.ModuleDict({"net": lnn.LiftedNetwork([3, 4, 5, 2], edges=net.edges)})
    holder.load_state_dict({f"net.{name}": tensor for name, tensor in old.items()}, strict=False)
    assert torch.equal(holder["net"].weight(3), old["weights.3"])


def test_fresh_weights_behind_a_tool_are_refused():
    """If it fails, a draw changes a tensor that is computed anew and thrown away."""
    net, _, _ = problem()
    pruned(net.connections[0], "weight")
    with pytest.raises(TypeError, match="computed by one of torch's tools"):
        net.reset_parameters()


# --- second derivatives and transforms -------------------------------------------------------------

INFERRED = {
    "AROVR": lnn.AROVR(0.2), "ROVR": lnn.ROVR(0.2), "targeted": lnn.TargetedAROVR(0.4, 0.2),
    "constrained": lnn.ConstrainedAROVR(0.05),
    "potential distance": lnn.GeneralizedAROVR(0.1, lnn.PotentialDistance([1.0] * 3)),
    "element-wise": lnn.GeneralizedAROVR(0.1, lnn.ElementWise([1.0] * 3))}
each_inferred = pytest.mark.parametrize("objective", INFERRED.values(), ids=INFERRED)


@each_inferred
def test_second_derivatives_are_refused(objective):
    """If it fails, they hold the activations fixed, and are wrong without a word. Not only where
    the incoming gradient is a variable: that of .sum() is a constant.

    Not only where the incoming gradient is a variable: that of .sum() is a constant.
    """
    net, x, _ = problem()
    y, x = torch.tensor([0, 1, 2]), x.requires_grad_()
    for leaf in (net.weight(2), net.biases[0], x):
        for by in (net.weight(1), net.weight(2), x):
            values = objective(net, x, y, reduction="none")
            first, = torch.autograd.grad(values.sum(), leaf, create_graph=True)
            with pytest.raises(RuntimeError, match="second derivatives .* are not supported"):
                torch.autograd.grad(first.square().sum(), by)


@each_inferred
def test_create_graph_leaves_the_gradient_as_it_is(objective):
    """A penalty on another term's gradient asks for create_graph. If it fails, the first derivative
    changes with it."""
    net, x, _ = problem()
    y, gradients = torch.tensor([0, 1, 2]), []
    for create in (False, True):
        torch.manual_seed(0)
        value = objective(net, x, y)
        gradients.append(torch.autograd.grad(value, list(net.parameters()), create_graph=create))
    for plain, graph in zip(*gradients):
        torch.testing.assert_close(graph.detach(), plain)


def test_second_derivative_in_a_learned_distance():
    """If it fails, ∂²A/∂θ∂γ is taken with z held fixed, and is wrong; γ is no parameter of the
    network."""
    net, x, y = problem()
    gamma = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)

    def distance(z, other):
        return gamma * sum((z_k - o).square().sum(1) for z_k, o in zip(z[1:], other[1:]))

    value = lnn.GeneralizedAROVR(0.1, distance)(net, x, y)
    first, = torch.autograd.grad(value, net.weight(1), create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives"):
        torch.autograd.grad(first.sum(), gamma)


def test_second_derivative_of_the_oracle():
    """The oracle's values are used as the truth about objectives. If it fails, their slopes are not
    true."""
    net = random_network(0, [2, 1, 1])
    x, y = random_inputs(0, net)
    values, _ = lnn.oracle.minimum(net, x, lnn.FenchelYoung() + lnn.Euclidean(y))
    first, = torch.autograd.grad(values.sum(), net.weight(1), create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives"):
        torch.autograd.grad(first.sum(), net.weight(1))


@each_inferred
def test_functional_transforms_are_refused(objective):
    """torch.func sees no inference. If it fails, it ends in an internal error of torch."""
    net, x, _ = problem()
    parameters = dict(net.named_parameters())

    def loss(parameters):
        twin = copy.copy(net)
        return torch.func.functional_call(Wrapped(twin, objective), {
            f"net.{name}": p for name, p in parameters.items()}, (x, torch.tensor([0, 1, 2])))

    with pytest.raises(RuntimeError, match="cannot be transformed by torch.func"):
        torch.func.grad(loss)(parameters)


def test_back_propagation_can_be_transformed():
    """It infers nothing. Oracle: autograd. If it fails, more is refused than must be."""
    net, x, y = problem()
    loss = Wrapped(net, lnn.BackPropagation())
    found = torch.func.grad(lambda p: torch.func.functional_call(loss, p, (x, y)))(
        dict(loss.named_parameters()))
    loss(x, y).backward()
    for name, parameter in loss.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)


# --- parallel training ------------------------------------------------------------------------------


class Wrapped(nn.Module):
    """The module that the error message asks for: its forward is the loss."""

    def __init__(self, net, objective):
        super().__init__()
        self.net, self.objective = net, objective

    def forward(self, x, y):
        return self.objective(self.net, x, y)


@pytest.fixture
def group(tmp_path):
    torch.distributed.init_process_group("gloo", rank=0, world_size=1,
                                         init_method=f"file://{tmp_path / 'store'}")
    yield
    torch.distributed.destroy_process_group()


def test_distributed_training_wraps_the_loss(group):
    """If it fails, replicas are not synchronised: DDP must see the call that gives the loss."""
    net, x, y = problem()
    with pytest.raises(TypeError, match="net is a DistributedDataParallel around a LiftedNetwork; "
                                        "wrap a module whose forward returns objective"):
        lnn.AROVR(0.1)(nn.parallel.DistributedDataParallel(net), x, y)
    reduced = []
    ddp = nn.parallel.DistributedDataParallel(Wrapped(net, lnn.AROVR(0.1)))
    ddp.register_comm_hook(None, lambda _, bucket: reduced.append(bucket) or done(bucket.buffer()))
    ddp(x, y).backward()
    assert reduced, "no gradient was reduced"
    found = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    lnn.AROVR(0.1)(net, x, y).backward()
    for gradient, parameter in zip(found, net.parameters()):
        torch.testing.assert_close(gradient, parameter.grad)


def done(buffer):
    future = torch.futures.Future()
    future.set_result(buffer)
    return future


def test_data_parallel_wraps_the_loss():
    """If it fails, it does not call the module as it is where there is no second device."""
    net, x, y = problem()
    with pytest.raises(TypeError, match="net is a DataParallel around a LiftedNetwork"):
        lnn.infer(nn.DataParallel(net), x, lnn.FenchelYoung() + lnn.Loss())
    value = nn.DataParallel(Wrapped(net, lnn.AROVR(0.1)))(x, y)
    torch.testing.assert_close(value, lnn.AROVR(0.1)(net, x, y))


def test_compiled_networks_are_taken():
    """torch.compile returns a wrapper of another class, with the same parameters. If it fails, it
    is refused."""
    net, x, y = problem()
    compiled = torch.compile(net, backend="eager")
    torch.testing.assert_close(lnn.AROVR(0.1)(compiled, x, y), lnn.AROVR(0.1)(net, x, y))
