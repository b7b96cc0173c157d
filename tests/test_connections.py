"""Affine maps read off torch modules, against torch.func, dense matrices and NumPy."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import lnn_core as lnn
from lnn_core.connections import ByAutograd, Composition, Convolution, Matrix, Reshape, connection

DOUBLE = {"dtype": torch.float64}


def frozen(norm):
    """Batch normalisation with statistics and weights that are not those of a fresh one."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*norm.parameters(), norm.running_mean, norm.running_var):
            tensor.uniform_(0.5, 2.0, generator=draw)
    return norm.eval()


class Doubled(nn.Module):
    """An affine module of a user's own."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([1.0, -2.0], **DOUBLE))

    def forward(self, x):
        return 2 * x.flip(1) + self.bias


#: module, shape of a sample, class that reads it.
MAPS = {
    "linear": (lambda: nn.Linear(5, 3, **DOUBLE), (5,), Matrix),
    "linear without bias": (lambda: nn.Linear(5, 3, bias=False, **DOUBLE), (5,), Matrix),
    "linear along the last axis": (lambda: nn.Linear(3, 4, **DOUBLE), (2, 3), ByAutograd),
    "conv1d": (lambda: nn.Conv1d(2, 3, 3, stride=2, padding=1, **DOUBLE), (2, 8), Convolution),
    "conv2d": (lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1, **DOUBLE), (2, 6, 5), Convolution),
    "conv2d dilated, grouped": (lambda: nn.Conv2d(
        4, 6, (2, 3), padding=(2, 0), dilation=2, groups=2, bias=False, **DOUBLE), (4, 5, 7), Convolution),
    "conv3d": (lambda: nn.Conv3d(1, 2, 2, **DOUBLE), (1, 3, 3, 4), Convolution),
    "conv2d circular": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular", **DOUBLE),
                        (2, 4, 4), ByAutograd),
    "conv2d same": (lambda: nn.Conv2d(2, 3, 3, padding="same", **DOUBLE), (2, 4, 4), ByAutograd),
    "transposed convolution": (lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, **DOUBLE), (2, 3, 3),
                               ByAutograd),
    "average pooling": (lambda: nn.AvgPool2d(2), (2, 4, 6), ByAutograd),
    "padding": (lambda: nn.ZeroPad2d((1, 0, 2, 1)), (2, 3, 3), ByAutograd),
    "batch normalisation": (lambda: frozen(nn.BatchNorm2d(3, **DOUBLE)), (3, 2, 2), ByAutograd),
    "flatten": (lambda: nn.Flatten(), (2, 3), Reshape),
    "unflatten": (lambda: nn.Unflatten(1, (2, 3)), (6,), Reshape),
    "user's own": (Doubled, (2,), ByAutograd),
    "composition": (lambda: nn.Sequential(
        nn.Conv2d(1, 2, 3, **DOUBLE), frozen(nn.BatchNorm2d(2, **DOUBLE)), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(8, 3, **DOUBLE)), (1, 6, 6), Composition),
    "flatten and linear": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 3, **DOUBLE)), (2, 3), Matrix),
    "nested": (lambda: nn.Sequential(nn.Sequential(
        nn.Unflatten(1, (2, 2)), nn.Conv1d(2, 1, 2, **DOUBLE))), (4,), Convolution),
}


@pytest.fixture(params=MAPS.values(), ids=MAPS)
def case(request):
    make, shape, kind = request.param
    torch.manual_seed(0)
    module = make()
    affine = connection(module, shape)
    assert type(affine) is kind
    draw = torch.Generator().manual_seed(1)
    z = torch.randn(4, *shape, generator=draw, **DOUBLE)
    e = torch.randn(module(z).flatten(1).shape, generator=draw, **DOUBLE)
    return module, affine, z, e, shape


def dense(affine):
    """A, column by column: A u_i = (A u_i + b) − b."""
    size = int(np.prod(affine.source))
    return (affine(torch.eye(size, **DOUBLE)) - affine(torch.zeros(1, size, **DOUBLE))).detach().T


def test_value_and_shape(case):
    """If it fails, inference works on another network than the one that predicts."""
    module, affine, z, *_ = case
    expected = module(z)
    torch.testing.assert_close(affine(z.flatten(1)), expected.flatten(1))
    assert affine.target == tuple(expected.shape[1:])


def test_transpose_against_vjp(case):
    """If it fails, errors go down through another matrix than activations come up."""
    module, affine, z, e, _ = case
    expected, = torch.func.vjp(module, z)[1](e.view_as(module(z)))
    found, before = affine.transpose(e), e.clone()
    torch.testing.assert_close(found, expected.flatten(1))
    found.zero_()  # as the first pass scales signals in place
    assert torch.equal(e, before), "the errors are the signals' memory"


def test_gradients_against_autograd(case):
    """Σ eᵀ(Az + b), in each tensor. If it fails, convolutions or norms learn something else."""
    module, affine, z, e, _ = case
    tensors = [t for t in affine.tensors if t.requires_grad]
    wanted = [t.requires_grad for t in affine.tensors]
    found = affine.gradients(z.flatten(1), e, wanted)
    assert [gradient is not None for gradient in found] == wanted
    if tensors:
        expected = torch.autograd.grad((module(z).flatten(1) * e).sum(), tensors)
        for mine, theirs in zip((g for g in found if g is not None), expected):
            torch.testing.assert_close(mine, theirs)
    assert affine.gradients(z.flatten(1), e, [False] * len(wanted)) == [None] * len(wanted)


def test_spectral_norm_against_numpy(case):
    """If it fails, certified bounds of a convolutional network are wrong."""
    affine = case[1]
    assert affine.spectral_norm() == pytest.approx(np.linalg.norm(dense(affine).numpy(), 2), rel=1e-9)


def test_frobenius_norm_against_numpy(case):
    """An estimate, by 16 random vectors, except for matrices and convolutions. If it fails, estimated
    gaps are far off."""
    affine = case[1]
    exact = isinstance(affine, (Matrix, Convolution))
    assert float(affine.squared_norm()) == pytest.approx(np.linalg.norm(dense(affine).numpy())**2,
                                                         rel=1e-12 if exact else 0.5)


def test_another_precision(case):
    """If it fails, a float32 network cannot be computed with in float64, or buffers stay behind."""
    module, affine, z, e, shape = case
    single = copy.deepcopy(module).float()
    lifted = connection(single, shape).to(torch.float64)
    assert lifted(z.flatten(1)).dtype == lifted.transpose(e).dtype == torch.float64
    torch.testing.assert_close(lifted(z.flatten(1)), affine(z.flatten(1)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("weight", [0.0, 1e-30])
def test_norm_of_next_to_nothing(weight):
    """Lanczos iteration cannot start on zero. If it fails, a pruned layer breaks all bounds."""
    conv = nn.Conv1d(1, 2, 2, **DOUBLE)
    nn.init.constant_(conv.weight, weight)
    affine = connection(conv, (1, 5))
    expected = np.linalg.norm(dense(affine).numpy(), 2)
    assert affine.spectral_norm() == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_transposed_convolution_with_a_spectral_norm():
    """Read by autograd, at every call. If it fails, energies are compared that belong to different
    weights."""
    module = parametrizations.spectral_norm(nn.ConvTranspose2d(1, 2, 2, **DOUBLE))
    with pytest.raises(ValueError, match="spectral norm .* moves on at every call: freeze it by .eval"):
        connection(module, (1, 3, 3))
    affine, z = connection(module.eval(), (1, 3, 3)), torch.ones(1, 9, **DOUBLE)
    assert torch.equal(affine(z), affine(z)) and torch.equal(affine(z), module(z.view(1, 1, 3, 3)).flatten(1))


def test_dropout_in_training_is_refused():
    """If it fails, an energy is another one at every call."""
    module = nn.Sequential(nn.AvgPool1d(2), nn.Dropout(0.5))
    with pytest.raises(ValueError, match="dropout 'Dropout' is in training mode, and random"):
        connection(module, (1, 4))
    connection(module.eval(), (1, 4))


def test_subclasses_with_a_forward_of_their_own():
    """If it fails, a module that inherits from nn.Identity or nn.Linear is taken for its parent."""
    class Minus(nn.Identity):
        def forward(self, x):
            return -x

    class Twice(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    z = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), **DOUBLE)
    for module in (Minus(), Twice(2, 2, **DOUBLE)):
        torch.testing.assert_close(connection(module, (2,))(z), module(z))


def test_replicas_are_refused():
    """If it fails, nn.DataParallel leaves the parameters of such modules without a gradient."""
    module = nn.ConvTranspose1d(1, 1, 2)
    module._is_replica = True
    with pytest.raises(ValueError, match="replica of nn.DataParallel.*DistributedDataParallel"):
        connection(module, (1, 3))


def test_batch_normalisation_in_training_is_refused():
    """If it fails, a sample's energy depends on the others of its batch."""
    with pytest.raises(ValueError, match="batch normalisation 'BatchNorm1d' is in training mode.*eval"):
        connection(nn.BatchNorm1d(3), (3,))
    with pytest.raises(ValueError, match="batch normalisation"):
        connection(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), (2,))


@pytest.mark.parametrize("tool", [
    lambda module: prune.l1_unstructured(module, "weight", 0.5),
    lambda module: parametrizations.spectral_norm(module),
    lambda module: parametrizations.weight_norm(module)], ids=["pruned", "spectral norm", "weight norm"])
def test_tools_on_convolutions(tool):
    """If it fails, a mask or a norm of a kernel is ignored, or its originals are not trained."""
    torch.manual_seed(0)
    module = nn.Conv2d(2, 3, 3, **DOUBLE)
    tool(module)
    module.eval()
    z = torch.randn(2, 2, 5, 5, **DOUBLE)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.5)
    affine = connection(module, (2, 5, 5))  # before a call of the module, in which torch's hooks run
    torch.testing.assert_close(affine(z.flatten(1)), module(z).flatten(1))
    affine.tensors[0].sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_a_matrix_is_asked_for():
    """If it fails, what needs matrices reads a kernel as one."""
    net = lnn.lift(nn.Sequential(nn.Conv1d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)), (1, 5))
    for wanted in (lambda: net.weight(1), lambda: net.weights, lambda: net.biases,
                   lambda: lnn.lipschitz.certified(net)):
        with pytest.raises(TypeError, match=r"connection \(0, 1\) is a Conv1d.*; this needs a matrix"):
            wanted()
    assert net.weight(2).shape == (2, 8)
