"""``gradients`` and ``over``: a training step without a graph, against ``backward()`` after a call.

That the latter is right is checked in test_objectives.py, against differences of energies.
"""

import warnings

import pytest
import torch
from strategies import random_inputs, random_network
from torch import nn
from torch.nn.utils import parametrizations

import lnn_core as lnn
from lnn_core import envelope
from lnn_core.data import Split
from lnn_core.experiments.training import train_epoch
from lnn_core.objectives import LiftedObjective


def seeded(number=3):
    return torch.Generator().manual_seed(number)


def objectives():
    return [
        lnn.BackPropagation(), lnn.ROVR(0.5), lnn.AROVR(0.2), lnn.AROVR(1e-6),
        lnn.AROVR(0.2, potential=lnn.Tilted([torch.ones(6).double(), None, None])),
        lnn.TargetedROVR(0.4, 0.3, lnn.Targeted(seeded())),
        lnn.TargetedAROVR(0.4, 0.3, lnn.Targeted(seeded()), tilt=lnn.GaussianTilt(0.1, generator=seeded())),
        lnn.ConstrainedAROVR(0.01),
        lnn.GeneralizedAROVR(0.2, lnn.PotentialDistance([1.0, 1.0, 1.0])),
    ]


each_objective = pytest.mark.parametrize("number", range(9), ids=[repr(o)[:40] for o in objectives()])


def problem():
    net = random_network(5, [5, 6, 6, 4], scale=0.6)
    return net, *random_inputs(5, net, samples=7)


def by_backward(objective, net, x, y):
    net.zero_grad()
    value = objective(net, x, y)
    value.backward()
    return value.detach(), [p.grad.clone() for p in net.parameters()]


def check(net, value, expected):
    torch.testing.assert_close(value, expected[0])
    assert not value.requires_grad
    for parameter, gradient in zip(net.parameters(), expected[1]):
        torch.testing.assert_close(parameter.grad, gradient)


@each_objective
def test_gradients_are_those_of_backward(number):
    """Value, gradient and report; what was in ``grad`` before is gone. If it fails, ``fit`` trains by
    another gradient than users who write their own loop."""
    net, x, y = problem()
    one, two = objectives()[number], objectives()[number]
    expected = by_backward(one, net, x, y)
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    check(net, two.gradients(net, x, y), expected)
    if one.report is not None:
        assert one.report.passes == two.report.passes
        torch.testing.assert_close(one.report.gap, two.report.gap)


@pytest.mark.parametrize("tool", [parametrizations.weight_norm, parametrizations.orthogonal])
def test_gradients_reach_what_weights_are_computed_from(tool):
    """If it fails, networks under torch's tools do not learn, or add up the gradients of all steps."""
    net, x, y = problem()
    tool(net.connections[1], "weight")
    expected = by_backward(lnn.AROVR(0.2), net, x, y)
    for _ in range(2):
        check(net, lnn.AROVR(0.2).gradients(net, x, y), expected)


def test_connections_that_share_parameters():
    """If it fails, a tied weight learns from one of its places alone."""
    torch.manual_seed(0)
    shared = nn.Linear(5, 5)
    net = lnn.lift(nn.Sequential(shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(5, 3)), (5,)).double()
    x, y = torch.randn(6, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])
    expected = by_backward(lnn.AROVR(0.1), net, x, y)
    for _ in range(2):
        check(net, lnn.AROVR(0.1).gradients(net, x, y), expected)


def test_parameters_that_are_frozen_keep_no_gradient():
    """If it fails, an optimizer moves weights that were to stay."""
    net, x, y = problem()
    net.connections[1].weight.requires_grad_(False).grad = torch.ones(6, 6).double()
    lnn.AROVR(0.2).gradients(net, x, y)
    assert net.connections[1].weight.grad is None
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad)


def test_the_input_gets_no_gradient():
    """If it fails, gradients of one step add up in x over a whole training run."""
    net, x, y = problem()
    x.requires_grad_()
    for objective in (lnn.BackPropagation(), lnn.AROVR(0.2)):
        objective.gradients(net, x, y)
        assert x.grad is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_gradients_have_the_network_s_precision(dtype):
    """Computed in at least float32, kept in the parameters' own. If it fails, optimizers raise."""
    net, x, y = problem()
    net, x, y = net.to(dtype), x.to(dtype), y.to(dtype)
    expected = by_backward(lnn.AROVR(0.2), net, x, y)
    check(net, lnn.AROVR(0.2).gradients(net, x, y), expected)
    assert all(p.grad.dtype == dtype for p in net.parameters())


@each_objective
def test_over_mini_batches(number):
    """Rows in any order, weights that change in place. If it fails, ``fit`` trains on other samples, or
    on the weights that the network had before the first step."""
    net, x, y = problem()
    one, two = objectives()[number], objectives()[number]
    step = two.over(net, x, y)
    for rows in (torch.tensor([3, 0, 5]), torch.tensor([6, 1])):
        expected = by_backward(one, net, x[rows], y[rows])
        check(net, step(rows), expected)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.sub_(0.1 * parameter.grad)


def test_over_reads_computed_weights_anew():
    """If it fails, a network under spectral or weight norm trains with the first step's weights."""
    net, x, y = problem()
    parametrizations.weight_norm(net.connections[1], "weight")
    step, rows = lnn.AROVR(0.2).over(net, x, y), torch.tensor([0, 4])
    for _ in range(2):
        check(net, step(rows), by_backward(lnn.AROVR(0.2), net, x[rows], y[rows]))
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(0.9)


def test_over_checks_all_samples_before_any_computing():
    """If it fails, a bad sample stops a training run in the middle of an epoch."""
    net, x, y = problem()
    x[6, 2] = torch.nan
    with pytest.raises(ValueError, match="nan"):
        lnn.AROVR(0.2).over(net, x, y)
    with pytest.raises(ValueError, match="labels have shape|y has shape"):
        lnn.AROVR(0.2).over(net, x.nan_to_num(), y[:3])


def test_a_warning_points_at_the_caller():
    """If it fails, users are told of β beyond the border in a file of the library."""
    net = lnn.LiftedNetwork([1, 1, 1], dtype=torch.float64)
    with torch.no_grad():
        for weight in net.weights:
            weight.fill_(3.0)
    x = torch.ones(2, 1).double()
    for call in (lambda: lnn.AROVR(0.9).gradients(net, x, x), lambda: lnn.AROVR(0.9)(net, x, x)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        assert [w.category for w in caught] == [lnn.StabilityWarning]
        assert caught[0].filename == __file__


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # which torch's tracer looks up
def test_objectives_inside_a_compiled_step():
    """torch.compile breaks its graph at the objective. If it fails, users' compiled steps raise."""
    net, x, y = problem()
    expected = by_backward(lnn.AROVR(0.2), net, x, y)
    net.zero_grad()
    objective = lnn.AROVR(0.2)

    @torch.compile(backend="eager")
    def step(x, y):
        return 2 * objective(net, 1.0 * x, y)

    value = step(x, y) / 2
    value.backward()
    check(net, value.detach(), expected)


def test_an_affine_module_of_one_s_own():
    """Its transposes are computed by autograd. If it fails, only matrices have such steps."""
    torch.manual_seed(0)
    circular = nn.Conv1d(1, 2, 3, padding=1, padding_mode="circular")
    net = lnn.lift(nn.Sequential(circular, nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)), (1, 4)).double()
    x, y = torch.randn(6, 1, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])
    check(net, lnn.AROVR(0.1).gradients(net, x, y), by_backward(lnn.AROVR(0.1), net, x, y))


# --- modules of one's own, and torch's machinery around a step ----------------------------------


class Same(nn.Module):
    """Returns its input itself."""

    def forward(self, x):
        return x


class Total(nn.Module):
    """One output, the sum: the transpose is one number many times."""

    def forward(self, x):
        return x.sum(-1, keepdim=True)


class LowRank(nn.Module):
    """Two parameters with the same gradient, and one whose gradient is one number many times."""

    def __init__(self):
        super().__init__()
        self.A, self.B = (nn.Parameter(torch.randn(4, 5, dtype=torch.float64)) for _ in range(2))
        self.c = nn.Parameter(torch.randn(4, dtype=torch.float64))

    def forward(self, x):
        return nn.functional.linear(x, self.A + self.B) + self.c.sum()


def samples(inputs, classes, count=7):
    x = torch.randn(count, inputs, generator=seeded(), dtype=torch.float64)
    return x, torch.arange(count) % classes


def test_a_module_that_returns_its_input():
    """Signals are scaled in place. If it fails, errors that share their memory are scaled, too, and the
    first pass is that of another problem."""
    reports = []
    for last in (Same(), nn.Identity()):
        torch.manual_seed(0)
        layers = nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), last
        net = lnn.lift(nn.Sequential(*layers), (5,)).double()
        objective = lnn.AROVR(0.4, solver=lnn.Shooting(0.0, max_passes=1))
        objective(net, *samples(5, 4))
        reports.append(objective.report.gap)
    torch.testing.assert_close(*reports)


def test_a_module_whose_transpose_repeats_one_number():
    """If it fails, such a network raises torch's error about memory."""
    torch.manual_seed(0)
    layers = nn.Linear(5, 4), nn.ReLU(), Total(), nn.ReLU(), nn.Linear(1, 3)
    net = lnn.lift(nn.Sequential(*layers), (5,)).double()
    x, y = samples(5, 3)
    check(net, lnn.AROVR(0.1).gradients(net, x, y), by_backward(lnn.AROVR(0.1), net, x, y))


def test_gradients_have_memory_of_their_own():
    """If it fails, clipping shortens some of them twice, or raises."""
    torch.manual_seed(0)
    net = lnn.lift(nn.Sequential(LowRank(), nn.ReLU(), nn.Linear(4, 3)).double(), (5,))
    lnn.AROVR(0.1).gradients(net, *samples(5, 3))
    gradients = [p.grad for p in net.parameters()]
    assert len({g.untyped_storage().data_ptr() for g in gradients}) == len(gradients)
    assert all(g.is_contiguous() for g in gradients)
    nn.utils.clip_grad_norm_(net.parameters(), 0.01)
    assert torch.cat([g.flatten() for g in gradients]).norm() == pytest.approx(0.01, rel=1e-3)


def test_gradients_under_autocast():
    """Weights that torch's tools compute, too. If it fails, ``fit`` raises under autocast where a call
    works."""
    net, x, y = problem()
    net, x, y = net.float(), x.float(), y.float()
    parametrizations.orthogonal(net.connections[1], "weight")
    expected = by_backward(lnn.AROVR(0.2), net, x, y)
    with torch.autocast("cpu", torch.bfloat16):
        check(net, lnn.AROVR(0.2).gradients(net, x, y), expected)
        step = lnn.AROVR(0.2).over(net, x, y)
        check(net, step(torch.arange(7)), expected)


@pytest.mark.parametrize("beta", [0.2, 1e-6], ids=["single", "in double precision"])
def test_gradients_under_no_grad(beta):
    """If it fails, they are missing, or those of the weights that ``over`` saw first."""
    net, x, y = problem()
    net, x, y, rows = net.float(), x.float(), y.float(), torch.arange(7)
    expected = by_backward(lnn.AROVR(beta), net, x, y)
    with torch.no_grad():
        check(net, lnn.AROVR(beta).gradients(net, x, y), expected)
        step, plain = lnn.AROVR(beta).over(net, x, y), lnn.BackPropagation().over(net, x, y)
        for parameter in net.parameters():
            parameter.mul_(0.9)
    expected = [by_backward(objective, net, x, y) for objective in (lnn.AROVR(beta), lnn.BackPropagation())]
    with torch.no_grad():
        for each, right in zip((step, plain), expected):
            check(net, each(rows), right)


def test_other_objectives_warn_too():
    """If it fails, ``fit`` does not say that a user's own objective is infinite."""
    net = lnn.LiftedNetwork([1, 1, 1], dtype=torch.float64)
    with torch.no_grad():
        for weight in net.weights:
            weight.fill_(3.0)

    class Own(LiftedObjective):
        def value(self, net, x, target):
            energy = lnn.FenchelYoung() - self.beta * lnn.Euclidean(target)
            return envelope.minima(net, x, self._infer(net, x, energy), energy.potential)[0]

    x = torch.ones(2, 1).double()
    step = Own(0.9).over(net, x, x)
    for _ in range(2):
        with pytest.warns(lnn.StabilityWarning):
            step(torch.arange(2))


@pytest.mark.parametrize("register", ["register_hook", "register_post_accumulate_grad_hook"])
def test_hooks_of_parameters_run(register):
    """If it fails, what users attach to gradients is silently left out by ``fit``."""
    net, x, y = problem()
    calls = []
    getattr(net.connections[1].weight, register)(lambda value: calls.append(value.shape))
    expected = by_backward(lnn.AROVR(0.2), net, x, y)
    check(net, lnn.AROVR(0.2).gradients(net, x, y), expected)
    assert len(calls) == 2


def test_a_mini_batch_without_samples():
    """If it fails, it raises ZeroDivisionError, or trains on nan."""
    net, x, y = problem()
    for objective in (lnn.BackPropagation(), lnn.AROVR(0.2)):
        with pytest.raises(ValueError, match="no rows"):
            objective.over(net, x, y)(torch.tensor([], dtype=torch.long))


def test_what_only_the_optimizer_has_starts_each_step_at_zero():
    """A factor in the loss that learns, too. If it fails, its gradients of all steps add up."""
    net, x, y = problem()
    factor = nn.Parameter(torch.ones((), dtype=torch.float64))
    objective = lnn.BackPropagation(lambda target: factor * lnn.Euclidean(target))
    optimizer = torch.optim.SGD([*net.parameters(), factor], lr=0.0)
    train_epoch(net, objective, Split(x, y), optimizer, batch=3, generator=seeded())
    last = torch.randperm(7, generator=seeded())[6:]
    expected = (0.5 * (net(x[last]) - y[last]).square().sum(1)).mean()
    torch.testing.assert_close(factor.grad, expected.detach())
