"""Networks lifted from torch modules: what they compute, what is refused, and torch's tools on them."""

import copy
import io
import math
import re

import pytest
import torch
from torch import nn

import lnn_core as lnn
from lnn_core.lift import REFUSED

EXACT = lnn.Shooting(1e-13, 3000, every=True)


def convolutional(dtype=torch.float64, activation=nn.ReLU):
    """A small convolutional network with pooling and frozen batch normalisation; its input's shape."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), activation(), nn.AvgPool2d(2),
        nn.Conv2d(3, 4, 2, stride=2), activation(), nn.Flatten(), nn.Linear(4, 3)).to(dtype)
    module[1].running_mean.uniform_(-0.2, 0.2)
    module[1].running_var.uniform_(0.5, 1.5)
    return module.eval(), (1, 4, 4)


def data(shape, samples=5, dtype=torch.float64):
    draw = torch.Generator().manual_seed(3)
    return (torch.randn(samples, *shape, generator=draw, dtype=dtype),
            torch.randint(0, 3, (samples,), generator=draw))


def as_matrices(net):
    """The same network with every connection written as a dense matrix, fully connected."""
    twin = lnn.LiftedNetwork(net.sizes, net.functions[:-1], net.functions[-1], edges=net.edges,
                             dtype=net.dtype)
    with torch.no_grad():
        for i, (_, k) in enumerate(net.edges):
            affine, linear = net.connection(i), twin.connections[i]
            linear.weight.copy_(affine.transpose(torch.eye(net.sizes[k], dtype=net.dtype)))
            at_zero = affine(torch.zeros(1, linear.in_features, dtype=net.dtype))[0]
            twin.connections[[to for _, to in net.edges].index(k)].bias.add_(at_zero)
    return twin


def test_predictions_are_the_modules():
    """If it fails, lifting changes the network."""
    module, shape = convolutional()
    net = lnn.lift(module, shape)
    x, _ = data(shape)
    assert net.shapes == ((1, 4, 4), (3, 4, 4), (4, 1, 1), (3,)) and net.sizes == (16, 48, 4, 3)
    for prediction in (net(x), net.fixed()(x), net.activations(x)[-1]):
        torch.testing.assert_close(prediction, module(x))


@pytest.mark.parametrize("loss", [lnn.Euclidean, lnn.CrossEntropy])
@pytest.mark.parametrize("objective", [
    lambda loss: lnn.ROVR(0.5, loss), lambda loss: lnn.AROVR(0.1, loss),
    lambda loss: lnn.AROVR(0.1, loss, lnn.Reweighted([2.0, 0.7, 1.5])),
    lambda loss: lnn.TargetedAROVR(0.4, 0.2, lnn.untargeted, loss=loss),
    lambda loss: lnn.BackPropagation(loss)],
    ids=["ROVR", "AROVR", "reweighted", "targeted", "back-propagation"])
def test_a_convolution_written_as_a_matrix_gives_the_same(objective, loss):
    """If it fails, the solver treats operators otherwise than the matrices that they are."""
    net = lnn.lift(*convolutional())
    x, y = data(net.input_shape)
    twin, objective = as_matrices(net), objective(loss)
    objective.solver = EXACT
    value, expected = objective(net, x, y), objective(twin, x.flatten(1), y)
    torch.testing.assert_close(value, expected)
    kernel, = torch.autograd.grad(value, [net.connections[1][1].weight])
    dense, = torch.autograd.grad(expected, [twin.connections[1].weight])

    def written(weight):
        """The dense matrix of pooling and convolution, linear in the kernel."""
        pooled = nn.functional.avg_pool2d(torch.eye(48, dtype=torch.float64).view(48, 3, 4, 4), 2)
        return nn.functional.conv2d(pooled, weight, stride=2).flatten(1).T

    expected, = torch.func.vjp(written, net.connections[1][1].weight.detach())[1](dense)
    torch.testing.assert_close(kernel, expected)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.Softplus, lambda: nn.LeakyReLU(0.2),
                                        nn.ReLU6, nn.Hardsigmoid, lambda: nn.Hardtanh(-0.5, 0.7)])
@pytest.mark.parametrize("loss", [lnn.Euclidean, lnn.CrossEntropy])
def test_gradients_against_finite_differences(activation, loss):
    """Of AROVR and ROVR in all parameters and in x. If it fails, training follows another slope."""
    net = lnn.lift(*convolutional(activation=activation))
    x, y = data(net.input_shape, samples=2)
    for objective in (lnn.AROVR(0.1, loss, solver=EXACT), lnn.ROVR(0.4, loss, solver=EXACT)):
        x.requires_grad_()
        places = [x, *net.parameters()]
        found = torch.autograd.grad(objective(net, x, y), places)
        draw = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for place, gradient in zip(places, found):
                direction = torch.randn(place.shape, generator=draw, dtype=place.dtype)
                h, values = 5e-5, []
                for sign in (1, -1):
                    place.add_(sign * h * direction)
                    values.append(objective(net, x, y).item())
                    place.sub_(sign * h * direction)
                slope = (values[0] - values[1]) / (2 * h)
                assert (gradient * direction).sum().item() == pytest.approx(slope, rel=2e-5, abs=1e-7)


def test_oracle_on_a_toy_convolution():
    """The exhaustive global optimum. If it fails, inference through a convolution ends elsewhere."""
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv1d(1, 1, 2, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(2, 2)).double()
    net = lnn.lift(module, (1, 4))
    x, y = data((1, 4), samples=6)
    targets = nn.functional.one_hot(y % 2, 2).double()
    for weight in (0.7, -0.1):
        energy = lnn.FenchelYoung() + weight * lnn.Euclidean(targets)
        exact, _ = lnn.oracle.minimum(net, x, energy)
        z, _ = lnn.infer(net, x, energy, solver=EXACT)
        torch.testing.assert_close(energy(net, z), exact, rtol=1e-9, atol=1e-9)


def residual(dtype=torch.float64):
    """A post-activation residual block: a_2 = W z_1 + b, a_3 = W z_2 + b + z_1."""
    torch.manual_seed(2)
    module = nn.Sequential(nn.Conv1d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv1d(2, 2, 3, padding=1), nn.ReLU(),
                           nn.Conv1d(2, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).to(dtype)
    return module, lnn.lift(module, (1, 4), skips={(1, 3): nn.Identity()})


def test_residual_edges():
    """If it fails, a skip adds nothing, or its errors do not come back."""
    module, net = residual()
    x, y = data((1, 4))
    first, second, third, head = module[:2], module[2:4], module[4], module[6:]
    z_1 = first(x)
    expected = head((third(second(z_1)) + z_1).relu())
    torch.testing.assert_close(net(x), expected)
    objective, twin = lnn.AROVR(0.05, solver=EXACT), as_matrices(net)
    torch.testing.assert_close(objective(net, x, y), objective(twin, x.flatten(1), y))
    assert lnn.bounds.kappa(net) == pytest.approx(lnn.bounds.kappa(twin), rel=1e-9)


def test_bounds_of_operators():
    """Against the same network as matrices. If it fails, a certificate is that of another network."""
    net = lnn.lift(*convolutional())
    x, y = data(net.input_shape)
    twin, flat = as_matrices(net), x.flatten(1)
    assert lnn.bounds.kappa(net) == pytest.approx(lnn.bounds.kappa(twin), rel=1e-9)
    for measure in (lnn.bounds.output_gram, lnn.bounds.stability_threshold, lnn.bounds.energy_budget):
        torch.testing.assert_close(measure(net, x), measure(twin, flat))
    found, expected = lnn.bounds.two_sided(net, x, y, 0.01), lnn.bounds.two_sided(twin, flat, y, 0.01)
    torch.testing.assert_close(found, expected)


def test_weights_are_shared_with_the_module():
    """If it fails, training the lifted network leaves the user's module as it was."""
    module, shape = convolutional()
    net = lnn.lift(module, shape)
    x, y = data(shape)
    lnn.AROVR(0.1)(net, x, y).backward()
    assert all(p.grad is not None for p in module.parameters())
    assert {id(p) for p in net.parameters()} == {id(p) for p in module.parameters()}


def test_hard_sigmoid_is_torchs():
    """If it fails, the affine half of nn.Hardsigmoid is lost: the layer is another one."""
    module = nn.Sequential(nn.Linear(3, 4), nn.Hardsigmoid(), nn.Linear(4, 2))
    x = 5 * torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    net = lnn.lift(module, (3,))
    torch.testing.assert_close(net(x), module(x))
    assert list(map(repr, net.functions)) == ["Box(0, 1)", "Identity()"]


def test_skips_are_the_modules_given():
    """If it fails, a projection on a skip connection is taken for the identity."""
    torch.manual_seed(0)
    chain = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    skip = nn.Linear(4, 4, bias=False)
    net = lnn.lift(chain, (3,), skips={(1, 3): skip})
    x = torch.randn(5, 3)
    z_1 = chain[:2](x)
    for found in (net(x), net.activations(x)[-1]):
        torch.testing.assert_close(found, chain[4](chain[2:4](z_1)) + skip(z_1))


REFUSALS = {
    "max pooling": (nn.MaxPool2d(2), "MaxPool2d.*cannot be lifted: it is not affine: use nn.Avg"),
    "GELU": (nn.GELU(), "not monotone"), "dropout": (nn.Dropout(), "DropoutTilt"),
    "layer norm": (nn.LayerNorm(4), "BatchNorm2d, frozen"), "softmax": (nn.Softmax(1), "CrossEntropy"),
    "attention": (nn.MultiheadAttention(4, 1), "encoder in front"),
    "ELU": (nn.ELU(), "write it as a ConvexFunction and pass it in activations"),
    "SELU": (nn.SELU(), "slope may exceed 1"), "LSTM": (nn.LSTM(4, 4), "nonlinearities inside"),
    "steep softplus": (nn.Softplus(beta=2), "use nn.Softplus\\(\\) with its defaults")}


@pytest.mark.parametrize(("module", "message"), REFUSALS.values(), ids=REFUSALS)
def test_what_cannot_be_lifted_says_why(module, message):
    """If it fails, a network is lifted that has no potential, or the user is not told what to do."""
    with pytest.raises(TypeError, match=message):
        lnn.lift(nn.Sequential(nn.Conv2d(1, 2, 3), module, nn.Flatten(), nn.Linear(8, 2)), (1, 4, 4))


def test_every_refused_name_is_torchs():
    """If it fails, a module is refused by a name that no module has."""
    known = {re.sub(r"[123]d$", "", name) for name in dir(nn)}
    assert set(REFUSED) - known == set()


def test_a_module_of_zeros_is_affine():
    """z = 0 whatever goes in. If it fails, a network whose layers start at zero cannot be lifted."""
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    net, (x, _) = lnn.lift(module, [3]), data([3])
    assert torch.equal(net(x), torch.zeros(len(x), 2, dtype=torch.float64))


NOT_AFFINE = {
    "square": lambda x: x + x.square(), "slightly bent": lambda x: x + 2e-5 * x.square(),
    "clipped far off": lambda x: x.clamp(-6, 6), "not a number": lambda x: x.log(),
    "steps": lambda x: (x * 512).round() / 512, "mixes samples": lambda x: x - x.mean(0)}


@pytest.mark.parametrize("function", NOT_AFFINE.values(), ids=NOT_AFFINE)
def test_modules_that_are_not_affine_are_found(function):
    """If it fails, a user's own nonlinear module becomes a matrix in the solver's eyes."""
    class Own(nn.Module):
        def forward(self, x):
            return function(x)

    with pytest.raises(TypeError, match=r"Own \+ Linear into layer 1 is not an affine function of one"):
        lnn.lift(nn.Sequential(Own(), nn.Linear(3, 2)), (3,))


def test_activations_of_ones_own():
    """A ConvexFunction for a torch module. If it fails, the reason why ELU is refused names no way out."""
    class Leaky(lnn.LeakyReLU):
        pass

    module = nn.Sequential(nn.Linear(3, 4), nn.ELU(), nn.Linear(4, 2))
    net = lnn.lift(module, (3,), activations={nn.ELU: Leaky(0.5)})
    assert isinstance(net.function(1), Leaky) and net.depth == 2
    for bad, message in (({"ELU": Leaky()}, "activations has the key a str"),
                         ({nn.ELU: nn.ReLU()}, "the activation for ELU is a ReLU")):
        with pytest.raises(TypeError, match=message):
            lnn.lift(module, (3,), activations=bad)


def test_the_users_modes_are_kept():
    """If it fails, a part that was frozen by .eval() is training again."""
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    module[0].eval()
    net = lnn.lift(module, (3,))
    assert net.training and not module[0].training and module[2].training


@pytest.mark.parametrize(("make", "error", "message"), [
    (lambda: lnn.lift(nn.Sequential(nn.Linear(3, 2)), (4,)), ValueError, "does not take samples of shape"),
    (lambda: lnn.lift(nn.Sequential(nn.ReLU(), nn.Linear(3, 2)), (3,)), ValueError,
     "no affine module before it"),
    (lambda: lnn.lift(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Tanh()), (3,)), ValueError,
     "no affine module before it"),
    (lambda: lnn.lift(nn.Sequential(), (3,)), ValueError, "nothing to lift"),
    (lambda: lnn.lift(nn.Sequential(nn.AvgPool1d(2), nn.ReLU()), (1, 4)), ValueError,
     "parameters have 0 types"),
    (lambda: lnn.lift(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2).double()), (3,)), ValueError,
     "parameters have 2 types"),
    (lambda: lnn.lift([nn.Linear(3, 2)], (3,)), TypeError, "module is a list"),
    (lambda: lnn.lift(nn.Linear(3, 2), 3), TypeError, "input_shape is an int"),
    (lambda: lnn.lift(nn.Linear(3, 2), (0,)), ValueError, "input_shape=\\(0,\\) must"),
    (lambda: lnn.lift(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 4)),
                      (3,), skips={(1, 3): nn.Identity()}),
     ValueError, "skip \\(1, 3\\) leads to shape \\(2,\\)"),
    (lambda: lnn.lift(nn.Sequential(nn.Linear(3, 2)), (3,), skips={(0, 1): nn.Identity()}), ValueError,
     "skip \\(0, 1\\) is an edge"),
    (lambda: lnn.lift(nn.Sequential(nn.Linear(3, 2)), (3,), skips={(0, 5): nn.Identity()}), ValueError,
     "0 <= j < k <= 1"),
])
def test_bad_input(make, error, message):
    """If it fails, the mistake shows up later, as an error deep inside."""
    with pytest.raises(error, match=message):
        make()


def test_inputs_have_the_networks_shape():
    """If it fails, flat images are taken for images or the reverse."""
    net = lnn.lift(*convolutional())
    x, y = data((1, 4, 4))
    with pytest.raises(ValueError, match=r"x has shape \(5, 16\); the network takes \(batch, 1, 4, 4\)"):
        lnn.AROVR(0.1)(net, x.flatten(1), y)
    z, _ = lnn.infer(net, x, lnn.FenchelYoung() + lnn.Loss())
    assert [tuple(z_k.shape) for z_k in z] == [(5, 16), (5, 48), (5, 4), (5, 3)]


def test_gradient_in_images():
    """If it fails, attacks on a convolutional network have the wrong shape or slope."""
    net = lnn.lift(*convolutional())
    x, y = data(net.input_shape)
    x.requires_grad_()
    slope, = torch.autograd.grad(lnn.AROVR(0.1, solver=EXACT)(net, x, y), x)
    twin, flat = as_matrices(net), x.detach().flatten(1).requires_grad_()
    expected, = torch.autograd.grad(lnn.AROVR(0.1, solver=EXACT)(twin, flat, y), flat)
    torch.testing.assert_close(slope, expected.view_as(x))


# --- torch's own tools on a lifted network -----------------------------------------------------------


def test_training_mode_leaves_batch_normalisation_frozen():
    """If it fails, a training loop's net.train() makes samples depend on each other."""
    net = lnn.lift(*convolutional())
    x, y = data(net.input_shape)
    before = net(x).detach()
    net.train()
    assert net.training and not net.connections[0][1].training
    torch.testing.assert_close(net(x), before)
    lnn.AROVR(0.1)(net, x, y).backward()


def test_copies_and_files():
    """deepcopy, state_dict and torch.save of the whole network. If it fails, a copy shares weights with
    the original, or a saved network is another one."""
    net = lnn.lift(*convolutional())
    x, y = data(net.input_shape)
    twin = copy.deepcopy(net)
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    fresh = lnn.lift(*convolutional())
    with torch.no_grad():
        for p in fresh.parameters():
            p.zero_()
    fresh.load_state_dict(net.state_dict())
    value = lnn.AROVR(0.1)(net, x, y)
    for other in (twin, loaded, fresh):
        torch.testing.assert_close(lnn.AROVR(0.1)(other, x, y), value)
        lnn.AROVR(0.1)(other, x, y).backward()
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("assign", [False, True])
def test_networks_from_the_meta_device(assign):
    """How large models are loaded. If it fails, all keys match and the weights are still those of nowhere."""
    net = lnn.lift(*convolutional())
    x, y = data(net.input_shape)
    with torch.device("meta"):
        module, shape = convolutional()
        empty = lnn.lift(module, shape)
    assert all(p.is_meta for p in empty.parameters()) and empty.sizes == net.sizes
    empty = empty if assign else empty.to_empty(device="cpu")
    empty.load_state_dict(net.state_dict(), assign=assign)
    torch.testing.assert_close(lnn.AROVR(0.1)(empty, x, y), lnn.AROVR(0.1)(net, x, y))


def test_hooks_run_where_the_network_predicts():
    """If it fails, features cannot be read off a lifted network."""
    net, seen = lnn.lift(*convolutional()), []
    net.connections[0].register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    net(data(net.input_shape)[0])
    assert seen == [torch.Size([5, 3, 4, 4])]


def test_shared_and_frozen_weights():
    """One module in two places; a frozen one. If it fails, gradients are lost or frozen weights move."""
    torch.manual_seed(0)
    shared = nn.Linear(4, 4).double()
    net = lnn.lift(nn.Sequential(shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(4, 3).double()), (4,))
    x, y = data((4,))
    twin = as_matrices(net)
    loss = lnn.AROVR(0.1, solver=EXACT)
    (found,) = torch.autograd.grad(loss(net, x, y), [shared.weight])
    one, two = torch.autograd.grad(loss(twin, x, y), [twin.connections[0].weight, twin.connections[1].weight])
    torch.testing.assert_close(found, one + two)
    shared.requires_grad_(False)
    loss(net, x, y).backward()
    assert shared.weight.grad is None and net.connections[2].weight.grad is not None


def test_scheduler_and_scaled_gradients():
    """If it fails, an optimizer with a schedule and clipped gradients does not train a lifted network."""
    net = lnn.lift(*convolutional())
    x, y = data(net.input_shape, samples=20)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30)
    loss, values = lnn.AROVR(0.1, lnn.CrossEntropy), []
    for _ in range(30):
        optimizer.zero_grad()
        value = loss(net, x, y)
        value.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        values.append(value.item())
    assert values[-1] < 0.8 * values[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mixed_precision(dtype):
    """Half-precision parameters, and autocasting. If it fails, energies are computed in half precision."""
    net = lnn.lift(*convolutional(torch.float32))
    x, y = data(net.input_shape, dtype=torch.float32)
    loss = lnn.AROVR(0.1, lnn.CrossEntropy)
    expected = loss(net, x, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(loss(net, x, y), expected)
    half = copy.deepcopy(net).to(dtype)
    value = loss(half, x.to(dtype), y)
    assert value.dtype == torch.float32 and math.isclose(value.item(), expected.item(), rel_tol=0.05)


def test_encoder_in_front():
    """What cannot be lifted stays in front. If it fails, the encoder gets no gradient."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GELU(), nn.MaxPool2d(2), nn.Flatten()).double()
    head = lnn.lift(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double(), (4,))
    x, y = data((1, 4, 4))
    lnn.AROVR(0.1, lnn.CrossEntropy)(head, encoder(x), y).backward()
    assert encoder[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("call", "message"), [
    (lambda x, y: lnn.AROVR(0.1)(nn.Sequential(nn.Linear(3, 2)), x, y), r"net is a Sequential.*lift\("),
    (lambda x, y: lnn.AROVR(0.1, loss=nn.CrossEntropyLoss()),
     r"loss is a CrossEntropyLoss.*loss=lnn_core.CrossEntropy"),
    (lambda x, y: lnn.LiftedNetwork([3, 4, 2], activation="relu"),
     r"activation is a str \('relu'\); expected .*ReLU\(\)"),
    (lambda x, y: lnn.LiftedNetwork([3, 4, 2], activation=nn.GELU()), "activation is a GELU"),
], ids=["sequential", "torch's loss", "string", "GELU"])
def test_habits_of_pytorch_are_answered(call, message):
    """If it fails, the user is not told in one line what to write."""
    with pytest.raises(TypeError, match=message):
        call(torch.zeros(2, 3), torch.tensor([0, 1]))


def test_torchs_activations_are_taken():
    """If it fails, LiftedNetwork([…], activation=nn.ReLU()) is refused though its meaning is clear."""
    net = lnn.LiftedNetwork([3, 4, 4, 2], activation=[nn.ReLU(), nn.Hardtanh(-2, 1)], output=nn.Tanh())
    assert list(map(repr, net.functions)) == ["ReLU()", "Box(-2, 1)", "Tanh()"]
    assert repr(lnn.LiftedNetwork([3, 4, 2], activation=nn.Softplus()).functions[0]) == "Softplus()"
