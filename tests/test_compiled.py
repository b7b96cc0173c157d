"""Compiled first passes against eager ones, and what happens where nothing can be compiled."""

import copy
import pickle
import shutil

import pytest
import torch
from strategies import random_inputs, random_network
from torch import nn

import lnn_core as lnn
from lnn_core.inference import CompilationWarning
from lnn_core.inference.compiled import Kernels

#: Where a processor has no vector instructions, or is said to have none, torch 2.13 writes some all the same.
needs_a_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++"))
    or torch.backends.cpu.get_cpu_capability() == "DEFAULT",
    reason="torch.compile needs a C++ compiler, and vector instructions")
compiled = lnn.Shooting(compiled=True)


def seeded():
    return torch.Generator().manual_seed(3)


def chain():
    net = random_network(5, [5, 6, 6, 4], scale=0.6)
    return net, *random_inputs(5, net, samples=7)


def skips():
    net = lnn.LiftedNetwork([5, 6, 6, 4], edges=[(0, 1), (1, 2), (0, 2), (2, 3), (1, 3)],
                            generator=seeded(), dtype=torch.float64)
    return net, *random_inputs(5, net, samples=7)


def convolutions():
    torch.manual_seed(0)
    net = lnn.lift(nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(2, 3, 3),
                                 nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)), (1, 8, 8)).double()
    return net, torch.randn(6, 1, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])


CASES = {
    "AROVR": (chain, lambda solver: lnn.AROVR(0.2, solver=solver)),
    "reweighted, skips": (skips, lambda solver: lnn.ROVR(
        0.5, potential=lnn.Reweighted([1.0, 2.0, 3.0], lnn.LeastSquares()), solver=solver)),
    "targeted, tilted": (chain, lambda solver: lnn.TargetedAROVR(
        0.4, 0.3, lnn.Targeted(seeded()), tilt=lnn.GaussianTilt(0.1, generator=seeded()), solver=solver)),
    "convolutions": (convolutions, lambda solver: lnn.AROVR(0.1, solver=solver)),
}


def outcome(net, call):
    net.zero_grad()
    value = call(net)
    return value.detach(), [p.grad for p in net.parameters()]


@needs_a_compiler
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_compiled_is_eager_to_rounding(case):
    """Value, gradients and report, by ``gradients`` and by ``backward()``. If it fails, a setting that
    is about speed changes results."""
    (net, x, y), make = case[0](), case[1]

    def backward(solver):
        def call(net):
            value = make(solver)(net, x, y)
            value.backward()
            return value
        return call

    for way in (backward, lambda solver: lambda net: make(solver).gradients(net, x, y)):
        eager, fast = outcome(net, way(None)), outcome(net, way(compiled))
        torch.testing.assert_close(fast, eager)
    one, two = make(None), make(compiled)
    one.gradients(net, x, y), two.gradients(net, x, y)
    assert one.report.passes == two.report.passes
    torch.testing.assert_close(one.report.gap, two.report.gap, rtol=1e-4, atol=1e-12)


@needs_a_compiler
def test_where_one_pass_is_not_enough():
    """If it fails, the other passes are left out where the first one is compiled."""
    net, x, y = chain()
    few, many = (lnn.AROVR(0.2, solver=lnn.Shooting(1e-12, compiled=fast)) for fast in (False, True))
    expected = outcome(net, lambda net: few.gradients(net, x, y))
    torch.testing.assert_close(outcome(net, lambda net: many.gradients(net, x, y)), expected)
    assert few.report.passes == many.report.passes > 1


@needs_a_compiler
def test_more_kinds_of_calls_than_there_may_be_kernels():
    """If it fails, a training run that meets another size of batch, or another β, ends in torch's error."""
    net, x, y = chain()
    objective = lnn.AROVR(0.2, solver=lnn.Shooting(compiled=True))
    objective.solver.__dict__["kernels"] = Kernels(most=1)
    objective.gradients(net, x, y)
    with pytest.warns(CompilationWarning, match="not compiled"):
        found = outcome(net, lambda net: objective.gradients(net, x[:5], y[:5]))
    torch.testing.assert_close(found, outcome(net, lambda net: lnn.AROVR(0.2).gradients(net, x[:5], y[:5])))


def test_cross_entropy_runs_as_it_is():
    """Newton steps stop when they are done, which is not a single graph. If it fails, the setting makes
    cross-entropy raise."""
    net, x, y = chain()
    y, solver = y.argmax(1), lnn.Shooting(compiled=True)
    fast = lnn.AROVR(0.2, lnn.CrossEntropy, solver=solver)
    with pytest.warns(CompilationWarning, match="not compiled: .*branching"):
        found = outcome(net, lambda net: fast.gradients(net, x, y))
    torch.testing.assert_close(
        found, outcome(net, lambda net: lnn.AROVR(0.2, lnn.CrossEntropy).gradients(net, x, y)))
    fast.gradients(net, x, y)  # warns once: the suite turns warnings into errors


def test_without_a_compiler(monkeypatch):
    """If it fails, whoever has none gets torch's error instead of a result."""
    import torch._inductor.config

    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    torch._dynamo.reset()
    net, x, y = chain()
    net, x, y = copy.deepcopy(net).float(), x.float(), y.float()
    solver = lnn.Shooting(compiled=True)
    with pytest.warns(CompilationWarning, match="not compiled"):
        found = outcome(net, lambda net: lnn.AROVR(0.2, solver=solver).gradients(net, x, y))
    torch.testing.assert_close(found, outcome(net, lambda net: lnn.AROVR(0.2).gradients(net, x, y)))
    torch._dynamo.reset()


def test_a_used_solver_can_be_pickled():
    """Without what was compiled. If it fails, an objective cannot be saved, or sent to a worker, once it
    has taken a step."""
    solver = lnn.Shooting(1e-4, compiled=True)
    solver.kernels._compiled[chain] = lambda: None  # as a compiled function, not to be pickled
    again = pickle.loads(pickle.dumps(solver))
    assert again == solver and "kernels" not in vars(again) and again.kernels._compiled == {}


def test_solvers_with_equal_settings_are_equal():
    """What was compiled is not a setting. If it fails, a used solver no longer equals a fresh one, or
    runs with equal configurations have different records."""
    one, two = lnn.Shooting(compiled=True), lnn.Shooting(compiled=True)
    assert one.kernels is not two.kernels and one == two and repr(one) == repr(two)
