"""Inference: one pass against eq. (17) written out, the end against a generic minimiser."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import Model, forward, kind_of, unit
from strategies import POTENTIALS, gammas, networks, random_inputs, random_network, tilts

import lnn_core as lnn
from lnn_core.inference import minimise, sweep
from lnn_core.inference.iterate import residual

each_base = pytest.mark.parametrize("base", POTENTIALS, ids=repr)
EXACT = lnn.Shooting(tolerance=1e-20, max_passes=3000, every=True)
RESIDUAL = [(0, 1), (1, 2), (2, 3), (1, 3), (0, 2)]


def relu(a):
    return np.maximum(a, 0)


def numbers(*tensors):
    return [tensor.detach().numpy() for tensor in tensors]


# --- one pass ------------------------------------------------------------------------------------


def literal_pass(net, z, y, beta, gamma):
    """Eq. (17) for a 3-layer ReLU network and U − β½‖z_3 − y‖², in NumPy, line by line."""
    (W0, W1, W2), (b0, b1, b2) = numbers(*net.weights), numbers(*net.biases)
    x, z1, z2, z3 = z
    g1, g2, g3 = gamma
    a1, a2, a3 = x @ W0.T + b0, z1 @ W1.T + b1, z2 @ W2.T + b2
    z3 = (g3 * a3 - beta * y) / (g3 - beta)
    z2 = relu(a2 + (1 / g2) * (g3 * (z3 - a3)) @ W2)
    a3 = z2 @ W2.T + b2  # not used by z_1: the error of layer 3 does not reach it directly
    z1 = relu(a1 + (1 / g1) * (g2 * (z2 - relu(a2))) @ W1)
    return x, z1, z2, z3


@pytest.mark.parametrize("passes", [1, 2, 5])
def test_passes_are_equation_17(passes):
    """If it fails, the order of layers, a γ or a transposition of eq. (17) is wrong."""
    net = random_network(0, [4, 5, 5, 5])  # square: a forgotten transposition is no error of shapes
    x, y = random_inputs(0, net)
    gamma, beta = [0.6, 1.7, 0.9], 0.3
    energy = lnn.Reweighted(gamma) - beta * lnn.Euclidean(y)
    z, _ = lnn.infer(net, x, energy, solver=lnn.PaperSweeps(passes))
    expected = numbers(*forward(net, x))
    for _ in range(passes):
        expected = literal_pass(net, expected, y.numpy(), beta, gamma)
    for ours, theirs in zip(z, expected, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(z[1], forward(net, x)[1]), "the first layer did not hear"


@each_base
@given(net=networks(), seed=st.integers(0, 99))
def test_passes_on_any_graph(base, net, seed):
    """If it fails, skips, tilts or per-unit γ are wrong in (17), or a pass uses a stale a."""
    x, y = random_inputs(seed, net)
    gamma, g = gammas(net, seed, units=True), tilts(net, seed)
    beta = 0.5 * gamma[-1].min().item()
    model = Model(kind_of(base), gamma, g, loss=((-beta, y),))
    z, _ = lnn.infer(net, x, lnn.Tilted(g, lnn.Reweighted(gamma, base)) - beta * lnn.Euclidean(y),
                     solver=lnn.PaperSweeps(3))
    expected = forward(net, x)
    for _ in range(3):
        expected = model.sweep(net, expected)
    for ours, theirs in zip(z, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_residual_and_step():
    """If it fails, damping goes the wrong part of the way, or the residual is no norm."""
    net = random_network(1, [4, 5, 3])
    x, y = random_inputs(1, net)
    energy = lnn.FenchelYoung() - 0.3 * lnn.Euclidean(y)
    start = net.activations(x)
    full, half = list(start), list(start)
    wanted = sweep(net, energy, full)
    moved = sum((new - old).square().sum(1) for new, old in zip(full, start)).sqrt()
    torch.testing.assert_close(wanted, moved)
    share = torch.tensor([[1.0], [0.5], [0.0]], dtype=torch.float64)
    sweep(net, energy, half, step=share)
    torch.testing.assert_close(half[2] - start[2], share * (full[2] - start[2]))
    assert torch.equal(half[1][2], start[1][2])


# --- the end of the passes -----------------------------------------------------------------------


@each_base
@given(net=networks(), beta=st.floats(0.05, 0.3), sign=st.sampled_from([-1, 1]))
def test_fixed_points_are_stationary(base, net, beta, sign):
    """E's gradient, projected on G's domain, vanishes: if it fails, (17) rests elsewhere."""
    x, y = random_inputs(5, net)
    model = Model(kind_of(base), gammas(net), loss=((sign * beta * 0.3, y),))
    energy = lnn.Reweighted(model.gamma, base) + sign * beta * 0.3 * lnn.Euclidean(y)
    end, report = minimise(net, x, energy, EXACT)
    z = [x] + [z_k.requires_grad_() for z_k in end.z[1:]]
    slopes = torch.autograd.grad(model.energy(net, z).sum(), z[1:])
    at_rest = residual(net, energy, end) < 1e-10
    for k, slope in enumerate(slopes, 1):
        z_k, G = z[k].detach(), unit(net, k)
        stepped = z_k - slope
        if isinstance(base, lnn.FenchelYoung):
            stepped = stepped.clamp(G.lower, G.upper)
        assert ((stepped - z_k)[at_rest].abs() < 1e-6).all()
    assert at_rest.any()


HIDDEN = {"identity": lnn.Identity(), "relu": lnn.ReLU(), "box": lnn.Box(0, 1), "tanh": lnn.Tanh()}


@each_base
@pytest.mark.parametrize("edges", [None, RESIDUAL], ids=["chain", "residual"])
@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("beta", [0.25, -0.5], ids=["AROVR", "ROVR"])
def test_against_a_generic_minimiser(base, edges, hidden, beta):
    """scipy's L-BFGS-B over all activations at once: if it fails, inference stops elsewhere."""
    net = random_network(2, [20, 25, 25, 10], HIDDEN[hidden], edges=edges, scale=0.6)
    x, y = random_inputs(2, net, samples=4)
    model = Model(kind_of(base), loss=((-beta, y),))
    energy = base - beta * lnn.Euclidean(y)
    lowest = model.energy(net, model.descend(net, x))
    gain = energy(net, net.activations(x)) - lowest
    z, _ = lnn.infer(net, x, energy)
    assert ((energy(net, z) - lowest).abs() <= 0.04 * gain).all()
    # Least squares has kinks where f has: descent may stop at one, ours and scipy's.
    if isinstance(base, lnn.FenchelYoung) or hidden in ("identity", "tanh"):
        end, report = minimise(net, x, energy, EXACT)
        assert report.converged.all() and residual(net, energy, end).max() < 1e-7
        torch.testing.assert_close(end.energy, lowest, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("output", [lnn.Box(0, 1), lnn.Tanh()], ids=repr)
def test_outputs_with_a_domain(output):
    """If it fails, the output layer's answer is only right where the output is the identity."""
    net = random_network(3, [5, 8, 4], lnn.ReLU(), output)
    x, y = random_inputs(3, net)
    model = Model(loss=((0.8, y.tanh()),))
    energy = lnn.FenchelYoung() + 0.8 * lnn.Euclidean(y.tanh())
    z, _ = lnn.infer(net, x, energy, solver=EXACT)
    lowest = model.energy(net, model.descend(net, x))
    torch.testing.assert_close(energy(net, z), lowest, rtol=1e-7, atol=1e-9)


# --- the report ----------------------------------------------------------------------------------


def problem(dtype=torch.float64, samples=6):
    net = random_network(4, [5, 8, 6, 4], scale=0.6, dtype=dtype)
    x, y = random_inputs(4, net, samples)
    return net, x, lnn.FenchelYoung() - 0.25 * lnn.Euclidean(y)


def test_one_pass_is_not_called_converged():
    """If it fails, samples that were stopped midway are reported as done."""
    net, x, energy = problem()
    for solver in (lnn.Shooting(1e-9, max_passes=1), lnn.PaperSweeps(1)):
        _, report = lnn.infer(net, x, energy, solver=solver)
        assert report.passes == 1 and not report.converged.any() and (report.gap > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("sign", [-1, 1])
def test_interpolating_samples_are_done_at_once(dtype, sign):
    """y = z_L*: if it fails, a trained network spends passes on rounding, or looks unconverged."""
    net, x, _ = problem(dtype, samples=50)
    start = net.activations(x)
    energy = lnn.FenchelYoung() + sign * 0.3 * lnn.Euclidean(start[-1].detach())
    z, report = lnn.infer(net, x, energy)
    assert report.passes == 1 and report.converged.all()
    for ours, forward_pass in zip(z, start):
        torch.testing.assert_close(ours, forward_pass.detach())


def test_samples_are_judged_one_by_one():
    """One interpolating sample among others: if it fails, flags belong to the batch."""
    net, x, _ = problem()
    y = net(x).detach()
    y[1:] += 1.0
    _, report = lnn.infer(net, x, lnn.FenchelYoung() - 0.25 * lnn.Euclidean(y),
                          solver=lnn.PaperSweeps(1))
    assert report.converged.tolist() == [True] + 5 * [False]
    assert str(report).startswith("1 passes, ") and str(report).endswith("1 of 6 samples converged")


def test_converged_samples_stay():
    """If it fails, "converged" means nothing: another pass would still move the sample far."""
    net, x, energy = problem()
    z, report = lnn.infer(net, x, energy, solver=EXACT)
    assert (sweep(net, energy, list(z)) < 1e-9).all() and report.converged.all()
    first = sweep(net, energy, net.activations(x))
    z, report = lnn.infer(net, x, energy, solver=lnn.Shooting(1e-3, every=True))
    assert report.converged.all() and (sweep(net, energy, list(z)) < 0.1 * first).all()


@pytest.mark.parametrize("solver", [lnn.Shooting(0.0), lnn.PaperSweeps(1, 0.0)], ids=str)
def test_a_gap_of_zero_is_within_a_tolerance_of_zero(solver):
    """U alone is least at the forward pass. If it fails, nothing can be exact enough."""
    net, x, _ = problem()
    z, report = lnn.infer(net, x, lnn.FenchelYoung() + 0.0 * lnn.Loss(), solver=solver)
    assert report.passes == 1 and report.converged.all() and (report.gap == 0).all()
    assert all(map(torch.equal, z, net.activations(x)))


def test_the_papers_solver_runs_its_passes():
    """If it fails, "the paper's 20 passes" are another number of passes."""
    net, x, energy = problem()
    z, report = lnn.infer(net, x, energy, solver=lnn.PaperSweeps())
    expected = net.activations(x)
    for _ in range(20):
        sweep(net, energy, expected)
    assert report.passes == 20 and report.converged.all()
    for ours, theirs in zip(z, expected):
        torch.testing.assert_close(ours, theirs.detach())


@pytest.mark.parametrize("weight", [-0.25, 3.0], ids=["against the loss", "with it"])
def test_the_papers_solver_reports_its_gap(weight):
    """One pass over z₀ = 1 → z₁ → z₂, all weights 1, with weight·½(z₂ − 2)², by hand. If it fails,
    the gap is not half the square of the step that is left, relative to the energy or the gain."""
    net = lnn.LiftedNetwork([1, 1, 1], lnn.Identity(), dtype=torch.float64)
    for weight_of_layer, bias in zip(net.weights, net.biases):
        torch.nn.init.ones_(weight_of_layer), torch.nn.init.zeros_(bias)
    start, energy = weight / 2, lambda z1, z2: (
        (z1 - 1) ** 2 + (z2 - z1) ** 2 + weight * (z2 - 2) ** 2) / 2
    _, report = lnn.infer(net, torch.ones(1, 1, dtype=torch.float64), lnn.FenchelYoung()
                          + weight * lnn.Euclidean(torch.full((1, 1), 2.0, dtype=torch.float64)),
                          solver=lnn.PaperSweeps(1))
    z2 = (1 + 2 * weight) / (1 + weight)
    z1 = 1 + z2 - 1
    step = (1 + z2 - z1 - z1) ** 2 + ((z1 + 2 * weight) / (1 + weight) - z2) ** 2
    end = energy(z1, z2)
    assert report.gap.item() == pytest.approx(step / 2 / max(abs(end), start - end), rel=1e-12)
    assert report.converged.item() == (report.gap.item() < 1e-3)


def test_activations_that_run_away_are_an_error():
    """Sweeps above the exact threshold of a linear network: if it fails, NaN reaches the
    weights."""
    net = random_network(5, [4, 6, 3], lnn.Identity(), scale=6.0, dtype=torch.float32)
    x, y = random_inputs(5, net)
    energy = lnn.FenchelYoung() - 0.9 * lnn.Euclidean(y)
    with pytest.raises(lnn.InferenceDiverged, match="3 of 3 samples ran away"):
        lnn.infer(net, x, energy, solver=lnn.PaperSweeps(200))


# --- what callers rely on ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_what_comes_back(dtype):
    """If it fails, inference keeps an autograd history, changes x, or computes in another dtype."""
    net, x, energy = problem(dtype)
    before = x.clone()
    z, report = lnn.infer(net, x.requires_grad_(), energy)
    assert z[0] is x and torch.equal(x, before)
    assert [tuple(z_k.shape) for z_k in z] == [(6, size) for size in net.sizes]
    assert all(z_k.dtype == dtype and not z_k.requires_grad for z_k in z[1:])
    assert report.gap.shape == report.converged.shape == report.unbounded.shape == (6,)
    assert report.gap.dtype == dtype and report.converged.dtype == torch.bool


def test_same_input_same_answer():
    """If it fails, inference draws random numbers or keeps state between calls."""
    net, x, energy = problem()
    one, two = lnn.infer(net, x, energy)[0], lnn.infer(net, x, energy)[0]
    assert all(map(torch.equal, one, two))


def test_one_layer_whose_energy_overflows():
    """If it fails, a network without hidden layers ends in an error from inside torch."""
    net = lnn.LiftedNetwork([3, 2], generator=torch.Generator().manual_seed(0))
    x = torch.full((2, 3), 1e20)
    with pytest.raises(lnn.InferenceDiverged):
        lnn.AROVR(0.25)(net, x, torch.tensor([0, 1]))
