"""Precisions: networks in half precision, autocasting, small beta, ordinary result tensors.

The oracle is the same computation in float64, to a tolerance that the coarser type allows; for
saturated units it is arithmetic.
"""

import copy
import math

import pytest
import torch
from strategies import random_inputs, random_network

import lnn_core as lnn

#: How far gradients may be off. A gap is quadratic in the activations' errors, a slope linear: for the
#: default gap of 1e-3 that would be 3e-2, but a small β leaves less to find.
SLOPES = 5e-3
EXACT = lnn.Shooting(1e-12, 500, every=True)


def next_label(loss, target):
    """The attack that aims at the label after the right one."""
    return loss(target.roll(1, 1))


MAKERS = {
    "ROVR": lambda **options: lnn.ROVR(0.25, **options),
    "AROVR": lambda **options: lnn.AROVR(0.25, **options),
    "targeted ROVR": lambda **options: lnn.TargetedROVR(0.4, 0.25, next_label, **options),
    "targeted AROVR": lambda **options: lnn.TargetedAROVR(0.4, 0.25, next_label, **options),
    "constrained": lambda **options: lnn.ConstrainedAROVR(0.05, **options),
    "element-wise": lambda **options: lnn.GeneralizedAROVR(
        0.1, lnn.ElementWise([1.0, 1.0]), **options),
    "user's distance": lambda **options: lnn.GeneralizedAROVR(
        0.1, lambda z, o: sum((a - b).square().sum(1) for a, b in zip(z, o)), **options)}
each_maker = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def problem(dtype=torch.float32):
    """A network and samples with values that all types hold exactly; the same in float64."""
    net = random_network(4, [4, 6, 3], scale=0.7, dtype=torch.bfloat16)
    net = net.to(dtype)
    x = random_inputs(4, net, samples=6)[0].bfloat16().to(dtype)
    return net, x, torch.arange(6) % 3, copy.deepcopy(net).double(), x.double()


def gradients(objective, net, x, y):
    net.zero_grad()
    value = objective(net, x, y)
    value.backward()
    return value.detach(), torch.cat([p.grad.flatten().double() for p in net.parameters()])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@each_maker
def test_half_precision(make, dtype):
    """If it fails, it crashes, or energies that differ by 1 % are the same number.

    Half precision is what the weights are stored in; what is inferred is computed in float32.
    """
    net, x, y, exact, exact_x = problem(dtype)
    assert lnn.BackPropagation()(net, x, y).dtype == torch.float32
    value, gradient = gradients(make(solver=lnn.Shooting(1e-6, 500, every=True)), net, x, y)
    true_value, true_gradient = gradients(make(solver=EXACT), exact, exact_x, y)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), true_value, rtol=1e-3, atol=0)
    assert (gradient - true_gradient).norm() < 0.01 * true_gradient.norm()
    assert all(p.grad.dtype == dtype for p in net.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_beyond_what_settles(dtype):
    """Passes that are taken back, and the border of stability: eigenvalues have no bfloat16. If it
    fails, one of them ends in an error of torch."""
    net = random_network(0, [8, 16, 16, 4], scale=1.5, dtype=dtype)
    x, _ = random_inputs(0, net, samples=6)
    objective = lnn.AROVR(0.6)
    with pytest.warns(lnn.StabilityWarning):
        values = objective(net, x, torch.arange(6) % 4, reduction="none")
    assert values.isfinite().all() and objective.report.unbounded.any()
    for bound in (lnn.bounds.stability_threshold, lnn.bounds.energy_budget,
                  lnn.lipschitz.jacobian_norms):
        torch.testing.assert_close(bound(net, x).double(), bound(copy.deepcopy(net).double(), x.double()),
                                   rtol=1e-3, atol=1e-5)
    z, _ = lnn.infer(net, x, lnn.FenchelYoung() + lnn.Euclidean(torch.zeros(6, 4, dtype=dtype)))
    assert {z_k.dtype for z_k in z} == {dtype}
    assert (lnn.FenchelYoung()(net, z) >= 0).all()


@each_maker
def test_autocasting_is_off(make):
    """If it fails, torch.lerp meets two types, or a gradient carries bfloat16's errors."""
    net, x, y, _, _ = problem()
    expected = gradients(make(), net, x, y)
    net.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert net(x).dtype == torch.bfloat16
        value = make()(net, x, y)
    value.backward()
    assert torch.equal(value, expected[0])
    assert torch.equal(torch.cat([p.grad.flatten().double() for p in net.parameters()]), expected[1])


def test_backward_inside_autocast():
    """torch advises against it. If it fails, the envelope's products do not stay in float32."""
    net, x, y, _, _ = problem()
    expected = gradients(lnn.AROVR(0.25), net, x, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(map(torch.equal, gradients(lnn.AROVR(0.25), net, x, y), expected))


def test_certificates_are_not_autocast():
    """If it fails, a budget is certified that bfloat16 has rounded up."""
    net, x, y, _, _ = problem()
    calls = [lambda: lnn.bounds.energy_budget(net, x), lambda: lnn.bounds.reduced(net, x, y, 0.1)[1],
             lambda: lnn.bounds.two_sided(net, x, y, 0.01)[0], lambda: lnn.bounds.output_gram(net, x),
             lambda: lnn.bounds.stability_threshold(net, x), lambda: lnn.lipschitz.jacobian_norms(net, x),
             lambda: torch.tensor(lnn.lipschitz.lower(net, x)),
             lambda: lnn.infer(net, x, lnn.FenchelYoung() + lnn.Euclidean(torch.zeros(6, 3)))[0][1]]
    expected = [call() for call in calls]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(torch.equal(call(), value) for call, value in zip(calls, expected))


def test_autocasting_is_off_for_every_kind_of_device():
    """If it fails, energies are rounded to bfloat16 on devices that this machine does not have.

    torch says which dispatch keys cast, one for each kind of device; a solver looks at them.
    """
    kinds = [name.removeprefix("Autocast") for name in dir(torch._C.DispatchKey)
             if name.startswith("Autocast") and "Private" not in name]  # needs a backend to be there

    def casting():
        return [kind for kind in kinds if not torch._C._dispatch_tls_is_dispatch_key_excluded(
            getattr(torch._C.DispatchKey, f"Autocast{kind}"))]

    def solver(net, energy, start):
        seen.append(casting())
        return lnn.Shooting()(net, energy, start)

    (net, x, y, _, _), seen = problem(), []
    try:
        for kind in kinds:
            torch.set_autocast_enabled(kind.lower(), True)
        seen.append(casting())
        lnn.AROVR(0.25, solver=solver)(net, x, y)
        seen.append(casting())
    finally:
        for kind in kinds:
            torch.set_autocast_enabled(kind.lower(), False)
    assert len(kinds) > 2 and seen == [kinds, [], kinds]


# --- small beta ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [1e-3, 4e-4, 3e-4, 1e-5, 1e-7, 1e-9, 1e-11])
@pytest.mark.parametrize("make", [
    lnn.ROVR, lnn.AROVR, lambda beta, **options: lnn.TargetedROVR(0.4, beta, next_label, **options),
    lambda beta, **options: lnn.TargetedAROVR(0.4, beta, next_label, **options)],
    ids=["ROVR", "AROVR", "targeted ROVR", "targeted AROVR"])
def test_small_beta_in_single_precision(make, beta):
    """Errors e_k are about β. If it fails, what float32 cannot hold beside the activations is not
    held in float64.

    The oracle's own error is eps/β at most; that of the default solver 1e-3 in the energy.
    """
    net, x, y, exact, exact_x = problem()
    value, gradient = gradients(make(beta), net, x, y)
    true_value, true_gradient = gradients(make(beta, solver=EXACT), exact, exact_x, y)
    torch.testing.assert_close(value.double(), true_value, rtol=1e-5, atol=0)
    assert (gradient - true_gradient).norm() < SLOPES * true_gradient.norm()
    assert value.dtype == net.weight(1).grad.dtype == torch.float32


@pytest.mark.parametrize("delta", [1e-6, 1e-8, 1e-12])
def test_small_budgets_in_single_precision(delta):
    """As for β, which is about √(2δ)/‖r‖. If it fails, small budgets drown in rounding."""
    net, x, y, exact, exact_x = problem()
    value, gradient = gradients(lnn.ConstrainedAROVR(delta), net, x, y)
    true_value, true_gradient = gradients(lnn.ConstrainedAROVR(delta), exact, exact_x, y)
    torch.testing.assert_close(value.double(), true_value, rtol=1e-5, atol=0)
    assert (gradient - true_gradient).norm() < SLOPES * true_gradient.norm()


@pytest.mark.parametrize("alpha", [1e-2, 1e-5, 1e-8])
def test_small_alpha(alpha):
    """If it fails, the two minima are the same number and the objective is zero."""
    net, x, y, exact, exact_x = problem()
    for cls in (lnn.TargetedAROVR, lnn.TargetedROVR):
        value, _ = gradients(cls(alpha, 0.25, next_label), net, x, y)
        true_value, _ = gradients(cls(alpha, 0.25, next_label, solver=EXACT), exact, exact_x, y)
        torch.testing.assert_close(value.double(), true_value, rtol=1e-3, atol=0)


@pytest.mark.parametrize("make", [lambda: lnn.AROVR(1e-40), lambda: lnn.ROVR(9e-13),
                                  lambda: lnn.TargetedAROVR(1e-8, 1e-5)])
def test_what_double_precision_cannot_hold_is_refused(make):
    """If it fails, the value is infinite, or the gradient noise."""
    with pytest.raises(ValueError, match="beta=.* must be at least 1e-12"):
        make()


@pytest.mark.parametrize("objective", [lnn.ROVR(1e-5), lnn.TargetedAROVR(1e-3, 1e-3),
                                       lnn.ConstrainedAROVR(1e-9)], ids=repr)
def test_a_device_without_double_precision_is_named(monkeypatch, objective):
    """Apple's MPS has no float64: if it fails, torch's error does not say who needs it, or why."""
    empty = torch.empty

    def without_double(*size, dtype=None, **options):
        if dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return empty(*size, dtype=dtype, **options)

    net, x, y, exact, exact_x = problem()
    monkeypatch.setattr(torch, "empty", without_double)
    with pytest.raises(ValueError, match=r"\(.*\) is computed in float64, which cpu lacks: move the "
                                         r"network and its data to the CPU, or raise beta"):
        objective(net, x, y)
    assert torch.isfinite(lnn.ROVR(0.25)(net, x, y))  # float32 is enough
    assert torch.isfinite(objective(exact, exact_x, y))  # a float64 network is there already


# --- saturated units ----------------------------------------------------------------------------------


@pytest.mark.parametrize("x", [8.0, 45.0, 255.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_a_saturated_unit_leaves_the_output_to_move(dtype, x):
    """1-1-1 tanh, weights 1, target 0: z_1 = 1 is pinned, so that ℓ = ½ becomes ½/(1 ± β).

    The unit's own answer to the signal is of the order of 1 − tanh x. If it fails, that answer is
    lost or blown up.
    """
    net = lnn.LiftedNetwork([1, 1, 1], lnn.Tanh(), dtype=dtype)
    with torch.no_grad():
        for weight in net.weights:
            weight.fill_(1.0)
    x, y = torch.tensor([[x]], dtype=dtype), torch.zeros(1, 1, dtype=dtype)
    for objective, expected in ((lnn.ROVR(0.5), 1 / 3), (lnn.AROVR(0.25), 2 / 3)):
        assert objective(net, x, y).item() == pytest.approx(expected, rel=2e-6)
        assert objective.report.converged.all()


# --- results are ordinary tensors ---------------------------------------------------------------------


@each_maker
def test_reports_are_ordinary_tensors(make):
    """If it fails, weighting a loss by report.converged, or report.gap.clamp_(), raises."""
    net, x, y, _, _ = problem()
    objective = make()
    values = objective(net, x, y, reduction="none")
    report = objective.report
    copies = len(report.gap) // 6  # both minima of a difference
    (values.repeat(copies) * report.converged * (1 + report.gap)).mean().backward()
    assert net.weight(1).grad.isfinite().all()
    for tensor in (report.gap, report.converged, report.unbounded, report.infinite):
        assert not tensor.is_inference() and tensor.shape == (6 * copies,)
    report.gap.clamp_(max=0.5)
    held = [*objective.activations] if hasattr(objective, "activations") else []
    for z in (z_k for part in held for z_k in (part if isinstance(part, list) else [part])):
        assert not z.is_inference()
    assert math.isfinite(values.sum().item())


def test_certificates_are_ordinary_tensors():
    """If it fails, they cannot be part of a loss."""
    net, x, y, _, _ = problem()
    objective = lnn.ConstrainedAROVR(0.05)
    objective(net, x, y)
    for tensor in (objective.certificate.beta, objective.certificate.energy, objective.certificate.gap):
        assert not tensor.is_inference()
        tensor.clone().requires_grad_().square().sum().backward()


def test_a_solver_of_the_users_own_sees_ordinary_tensors():
    """If it fails, what it keeps cannot be used in autograd."""
    kept = []

    def solver(net, energy, start):
        kept.extend([start.energy, *start.z[1:]])
        return lnn.Shooting()(net, energy, start)

    net, x, y, _, _ = problem()
    lnn.AROVR(0.25, solver=solver)(net, x, y)
    assert kept and not any(tensor.is_inference() for tensor in kept)
