"""γ and tilts have gradients: against central differences and the closed form ∂AROVR/∂γ_k = −D_k/β."""

import pytest
import torch

import lnn_core as lnn

NET = lnn.LiftedNetwork([4, 6, 5, 3], generator=torch.Generator().manual_seed(0)).double()
SMOOTH = lnn.LiftedNetwork([4, 6, 5, 3], torch.nn.Tanh(),
                           generator=torch.Generator().manual_seed(0)).double()
X = torch.rand(7, 4, generator=torch.Generator().manual_seed(1)).double()
Y = torch.arange(7) % 3
EXACT = lnn.Shooting(1e-13, every=True, max_passes=500)
STEP = 1e-5

OBJECTIVES = {
    "rovr": lambda U: lnn.ROVR(0.25, potential=U, solver=EXACT),
    "arovr": lambda U: lnn.AROVR(0.25, potential=U, solver=EXACT),
    "targeted": lambda U: lnn.TargetedAROVR(0.49, 0.25, lnn.Targeted(torch.Generator().manual_seed(3)),
                                            potential=U, solver=EXACT),
    "cross-entropy": lambda U: lnn.AROVR(0.25, lnn.CrossEntropy, potential=U, solver=EXACT)}


def differences(value, at):
    """Central differences of a function of a tensor."""
    steps = STEP * torch.eye(at.numel(), dtype=at.dtype).view(-1, *at.shape)
    return torch.stack([(value(at + step) - value(at - step)) / (2 * STEP) for step in steps]).view(at.shape)


@pytest.mark.parametrize("base", [lnn.FenchelYoung, lnn.LeastSquares])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_gamma_of_layers(name, base):
    """If it fails, γ is learned in a wrong direction. (Least squares jump in slope at ReLU's kink.)"""
    net = NET if base is lnn.FenchelYoung else SMOOTH

    def value(gamma):
        return OBJECTIVES[name](lnn.Reweighted(list(gamma), base()))(net, X, Y)

    gamma = torch.tensor([0.8, 1.3, 1.1], dtype=torch.float64, requires_grad=True)
    found, = torch.autograd.grad(value(gamma), gamma)
    torch.testing.assert_close(found, differences(value, gamma.detach()), rtol=1e-5, atol=1e-8)


def test_gamma_of_units_and_of_weights_together():
    """If it fails, asking for γ's gradient changes that of the weights, or units share one."""
    def value(gamma):
        return OBJECTIVES["arovr"](lnn.Reweighted([1.0, gamma, 1.0]))(NET, X, Y)

    gamma = torch.linspace(0.7, 1.4, 5, dtype=torch.float64, requires_grad=True)
    found, *weights = torch.autograd.grad(value(gamma), [gamma, *NET.parameters()])
    torch.testing.assert_close(found, differences(value, gamma.detach()), rtol=1e-5, atol=1e-8)
    for one, other in zip(weights, torch.autograd.grad(value(gamma.detach()), list(NET.parameters()))):
        torch.testing.assert_close(one, other)


def test_closed_form():
    """Zach (2025), eq. (16): −D_k(z⁻, a_k)/β at the adversary, layer by layer."""
    gamma = torch.tensor([0.8, 1.3, 1.1], dtype=torch.float64, requires_grad=True)
    U = lnn.Reweighted(list(gamma))
    OBJECTIVES["arovr"](U)(NET, X, Y).backward()
    assert gamma.grad is not None
    z, _ = lnn.infer(NET, X, U - 0.25 * lnn.Euclidean(torch.eye(3).double()[Y]), solver=EXACT)
    torch.testing.assert_close(gamma.grad, -lnn.FenchelYoung().layer_values(NET, z).mean(1) / 0.25)


def test_a_tilt():
    """Two minima, both of which a tilt moves. If it fails, one of them is forgotten."""
    def value(g):
        return OBJECTIVES["arovr"](lnn.Tilted([None, g, None]))(NET, X, Y)

    g = torch.linspace(-0.2, 0.3, 5, dtype=torch.float64, requires_grad=True)
    value(g).backward()
    assert g.grad is not None
    torch.testing.assert_close(g.grad, differences(value, g.detach()), rtol=1e-5, atol=1e-8)


def test_no_second_derivatives():
    """If it fails, the activations' own dependence on γ is left out in silence."""
    gamma = torch.ones(3, dtype=torch.float64, requires_grad=True)
    first, = torch.autograd.grad(OBJECTIVES["arovr"](lnn.Reweighted(list(gamma)))(NET, X, Y), gamma,
                                 create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives"):
        first.sum().backward()
