"""What an LRRN, its solvers and its program refuse, and that it says why before it computes."""

import numpy as np
import pytest
import torch

import lnn_core as lnn
from lnn_core import lrrn, propositions
from lnn_core.experiments import lrrn_runs
from lnn_core.lrrn import bounds
from lnn_core.lrrn.implicit import minimiser

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("options, message", [
    ({"beta": -1.0}, "beta=-1.0 must be finite and not negative"),
    ({"beta": [1.0, float("nan")]}, "beta=nan must be finite"),
    ({"beta": [1.0]}, "1 values of beta given for 2 layers"),
    ({"gamma": 0.0}, "gamma=0.0 must be positive"),
    ({"init": "ones"}, "init='ones' must be"),
    ({"activation": [lnn.ReLU(), lnn.ReLU()]}, "2 activations given for 1 hidden layers"),
])
def test_networks_that_cannot_be(options, message):
    """If it fails, a wrong setting trains silently."""
    with pytest.raises(ValueError, match=message):
        lrrn.LRRN([4, 3, 2], **options)


def test_sets_that_are_no_boxes():
    """If it fails, Tanh's domain is taken for its function."""
    with pytest.raises(TypeError, match="the set of layer 1 is a Tanh .*; expected a box such as"):
        lrrn.LRRN([4, 3, 2], lnn.Tanh())


@pytest.mark.parametrize("x, y, message", [
    (torch.rand(4), None, r"x has shape \(4,\); the network takes \(batch, 4\)"),
    (torch.zeros(2, 5), None, r"x has shape \(2, 5\); the network takes \(batch, 4\)"),
    (torch.full((2, 4), float("nan")), None, r"x holds nan at \[0, 0\]"),
    (torch.zeros(2, 4), torch.tensor([0, 2]), "label 2 is outside 0…1"),
    (torch.zeros(2, 4), torch.full((2, 2), -0.5), r"y holds -0.5, outside the output's set"),
])
def test_inputs_that_do_not_fit(x, y, message):
    """If it fails, the error comes from inside a solver, or not at all."""
    with pytest.raises(ValueError, match=message):
        lrrn.infer(lrrn.LRRN([4, 3, 2], output=lnn.ReLU()), x, y)


@pytest.mark.parametrize("kind, options, message", [
    (lrrn.SpectralDescent, {"tolerance": 0.0}, "tolerance=0.0 must be positive"),
    (lrrn.CoordinateDescent, {"tolerance": float("inf")}, "tolerance=inf must be positive"),
    (lrrn.CoordinateDescent, {"max_passes": 0}, "max_passes=0 must be at least 1"),
    (lrrn.SpectralDescent, {"check_every": 0}, "check_every=0 must be at least 1"),
])
def test_solvers_that_cannot_be(kind, options, message):
    """If it fails, a solver returns its start, or loops."""
    with pytest.raises(ValueError, match=message):
        kind(**options)


@pytest.mark.parametrize("x, message", [
    (torch.rand(4), r"x has shape \(4,\); the network takes \(batch, 4\)"),
    (torch.rand(2, 4, 1), r"x has shape \(2, 4, 1\)"),
    (torch.rand(0, 4), "x is an empty batch"),
    (torch.rand(2, 4).double(), "x has dtype torch.float64; the network has torch.float32"),
    (torch.tensor([[0.0] * 4, [0, 0, INF, 0]]), r"x holds inf at \[1, 2\]"),
])
@pytest.mark.parametrize("use", [
    lambda net, x: net(x), lambda net, x: lrrn.infer(net, x), lambda net, x: net.quadratic(x),
    lambda net, x: lrrn.jacobian(net, x), lambda net, x: lrrn.certified_radius(net, x),
    lambda net, x: lrrn.Unsupervised()(net, x),
    lambda net, x: lrrn.Contrastive()(net, x, torch.zeros(len(x), dtype=torch.long))])
def test_every_use_checks_x(use, x, message):
    """If it fails, (4,) counts as a batch of four equal samples, or NaN gives a number."""
    with pytest.raises(ValueError, match=message):
        use(lrrn.LRRN([4, 3, 2]), x)


@pytest.mark.parametrize("value", [NAN, -INF])
@pytest.mark.parametrize("name", ["weights.0", "weights.1", "biases.1", "reconstruction_biases.0"])
@pytest.mark.parametrize("use", [
    lambda net: net(torch.ones(1, 4)), lambda net: lrrn.infer(net, torch.ones(1, 4)),
    lrrn.lipschitz, lrrn.layer_constants, lrrn.refined_constants])
def test_parameters_that_have_blown_up_are_named(use, name, value):
    """If it fails, a diverged training run ends in NaN or a linear-algebra error."""
    net = lrrn.LRRN([4, 3, 2])
    dict(net.named_parameters())[name].data.view(-1)[1] = value
    with pytest.raises(ValueError, match=f"{name} holds {value} at .*; all values must be finite"):
        use(net)


def test_weights_too_large_for_their_type():
    """If it fails, H overflows to a wrong number: each weight is finite, their products not."""
    net = lrrn.LRRN([4, 3, 2])
    net.weights[0].data.fill_(1e30)
    with pytest.raises(ValueError, match=r"H holds inf at \[0, 0\]; all values must be finite"):
        net(torch.ones(1, 4))


@pytest.mark.parametrize("sizes, message", [
    ([4.0, 3, 2], r"an entry of sizes is a float \(4.0\); expected an integer"),
    ("432", r"sizes is a str \('432'\); expected integers"),
    (4, r"sizes is an int \(4\); expected integers"),
])
@pytest.mark.parametrize("make", [lrrn.LRRN, lrrn.feed_forward, lnn.LiftedNetwork])
def test_sizes_are_integers(make, sizes, message):
    """If it fails, 3.9 units become 3."""
    with pytest.raises(TypeError, match=message):
        make(sizes)
    assert lrrn.LRRN(np.array([4, 3])).sizes == (4, 3)


# --------------------------------------------------------------------------- kinds


NET = lrrn.LRRN([3, 2, 2])
X = torch.zeros(1, 3)
A_NET = "expected an LRRN"


@pytest.mark.parametrize("call, message", [
    (lambda: lrrn.infer(0.5, X), r"net is a float \(0.5\); " + A_NET),
    (lambda: lrrn.infer(lnn.LiftedNetwork([3, 2]), X), "net is a LiftedNetwork; " + A_NET),
    (lambda: lrrn.infer(NET, X, solver="exact"), r"solver is a str \('exact'\); expected a solver"),
    (lambda: lrrn.infer(NET, [[0.0] * 3]), "x is a list .*; expected a tensor"),
    (lambda: lrrn.infer(NET, X, start=X), r"start is a tensor .*; expected .x, z_1"),
    (lambda: lrrn.infer(NET, X, start=[X, 0, 0]), r"start\[1\] is an int \(0\); expected a tensor"),
    (lambda: lrrn.Unsupervised(1e-3), r"solver is a float \(0.001\); expected a solver"),
    (lambda: lrrn.Contrastive()("net", X, X), r"net is a str \('net'\); " + A_NET),
    (lambda: lrrn.parameter_groups(NET.weights, 0.1), "net is a Parameter.*; " + A_NET),
    (lambda: lrrn.parameter_groups(NET, "0.1"), r"decay is a str \('0.1'\); expected a number"),
    (lambda: lrrn.jacobian(None, X), "net is None; " + A_NET),
    (lambda: lrrn.jacobian(NET, X, solver=3), r"solver is an int \(3\); expected a solver"),
    (lambda: lrrn.certified_radius(X, X), r"net is a tensor .*; " + A_NET),
    (lambda: lrrn.certified_radius(NET, X, rho="1"), r"rho is a str \('1'\); expected a number"),
    (lambda: lrrn.lipschitz(lrrn.LRRN), "net is the class LRRN; " + A_NET),
    (lambda: lrrn_runs.exact(0.5), r"net is a float \(0.5\); " + A_NET),
    (lambda: lrrn.layer_constants(2), r"net is an int \(2\); " + A_NET),
    (lambda: lrrn.refined_constants([NET]), "net is a list; " + A_NET),
    (lambda: propositions.lrrn.undiscounted(1.0), r"net is a float \(1.0\); " + A_NET),
    (lambda: lrrn.gain("1", 1.0), r"sigma is a str \('1'\); expected a number, tensor or array"),
    (lambda: lrrn.gain(1.0, None), "beta is None; expected a number"),
    (lambda: bounds.largest_gain("1"), r"beta is a str \('1'\); expected a number"),
    (lambda: lrrn.RRLayer(3, 2, "1"), r"beta is a str \('1'\); expected a number"),
    (lambda: lrrn.RRLayer(3, 2.0), r"an entry of sizes is a float \(2.0\); expected an integer"),
    (lambda: lrrn.RRLayer(3, 2)(0.5), r"x is a float \(0.5\); expected a tensor"),
    (lambda: lrrn.feed_forward([3, 2], activation=2), r"activation is an int \(2\); expected a class"),
    (lambda: lrrn.LRRN([3, 2], beta="1"), r"beta is a str \('1'\); expected a number or one for each layer"),
    (lambda: lrrn.LRRN([3, 2], gamma="1"), r"gamma is a str \('1'\); expected a number"),
    (lambda: lrrn.LRRN([3, 2], output=0.5), r"output is a float \(0.5\); expected a ConvexFunction"),
    (lambda: NET.energy(0.5), r"z is a float \(0.5\); expected .x, z_1"),
    (lambda: lrrn.SpectralDescent("1"), r"tolerance is a str \('1'\); expected a number"),
    (lambda: lrrn.SpectralDescent()(X), r"qp is a tensor .*; expected a BoxQP"),
    (lambda: lrrn.BoxQP(1.0, X, X, X), r"H is a float \(1.0\); expected a tensor"),
    (lambda: lrrn.BoxQP(X, X, X, None), "upper is None; expected a tensor"),
    (lambda: minimiser(NET.quadratic(X), "exact"), r"solver is a str \('exact'\)"),
])
def test_arguments_of_another_kind_are_named(call, message):
    """If it fails, a float where a network belongs ends in an AttributeError deep inside."""
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize("call, message", [
    (lambda: NET.energy([X, X, X]), r"z holds shapes \[\(1, 3\), \(1, 3\), \(1, 3\)\]; expected"),
    (lambda: NET.energy([X, torch.zeros(2, 2), torch.zeros(2, 2)]), r"z holds shapes .*\(2, 2\)"),
    (lambda: lrrn.infer(NET, X, start=[torch.zeros(2, d) for d in NET.sizes]),
     r"start holds shapes .*; expected \[\(1, 3\), \(1, 2\), \(1, 2\)\]"),
    (lambda: lrrn.infer(NET, X, start=[X]), r"start holds shapes \[\(1, 3\)\]"),
    (lambda: lrrn.infer(NET, X, start=[]), r"start holds shapes \[\]"),
    (lambda: lrrn.RRLayer(3, 2)(torch.zeros(2, 4)), r"x has shape \(2, 4\); the layer takes"),
    (lambda: lrrn.gain(1.0, -1.0), "beta=-1.0 must be finite and not negative"),
    (lambda: lrrn.gain(1.0, 1.0, -1.0), "m=-1.0 must be finite and not negative"),
])
def test_shapes_and_values_that_do_not_fit(call, message):
    """If it fails, shapes broadcast to a wrong number."""
    with pytest.raises(ValueError, match=message):
        call()


# --------------------------------------------------------------------------- the program


def program(H=((2.0, 0.5), (0.5, 1.0)), g=((1.0, 1.0),), lower=(0.0, 0.0), upper=(INF, 1.0)):
    return lrrn.BoxQP(*(part if isinstance(part, torch.Tensor) else torch.tensor(part)
                        for part in (H, g, lower, upper)))


@pytest.mark.parametrize("solver", [lrrn.SpectralDescent(), lrrn.CoordinateDescent()],
                         ids=["spectral", "coordinate"])
@pytest.mark.parametrize("part, value, message", [
    ("H", ((2.0, NAN), (NAN, 1.0)), r"H holds nan at \[0, 1\]; all values must be finite"),
    ("g", ((1.0, INF),), r"g holds inf at \[0, 1\]; all values must be finite"),
    ("H", ((2.0, 0.5), (0.4, 1.0)), r"H must be symmetric; H\[0, 1\] is 0.5, H\[1, 0\] is 0.4"),
    ("lower", (0.0, 2.0), "no number lies between lower=2 and upper=1"),
    ("lower", (NAN, 0.0), "no number lies between lower=nan and upper=inf"),
    ("lower", (INF, 0.0), "no number lies between lower=inf and upper=inf"),
    ("upper", (1.0, -INF), "no number lies between lower=0 and upper=-inf"),
    ("upper", ((INF, -1.0),), "no number lies between lower=0 and upper=-1"),
    ("H", ((1.0, 2.0), (2.0, 4.0)), "H must be positive definite in torch.float32; its smallest "
                                    "eigenvalue is .*, its largest 5"),
    ("H", ((-1.0, 0.0), (0.0, 3.0)), "its smallest eigenvalue is -1, its largest 3"),
])
def test_programs_without_one_solution(solver, part, value, message):
    """If it fails, a certificate calls a wrong point converged, or an error blames the weights."""
    with pytest.raises(ValueError, match=message):
        solver(program(**{part: value}))
    if part != "H":
        free = {"lower": (-INF, -INF), "upper": (INF, INF)}
        free.pop(part, None)
        solver(program(**free))


def test_the_extreme_eigenvalues_are_named():
    """If it fails, the message on an H that is not positive definite names other ones."""
    H = torch.diag(torch.tensor([2.0, -3.0, 5.0]))
    with pytest.raises(ValueError, match="smallest eigenvalue is -3, its largest 5"):
        lrrn.SpectralDescent()(lrrn.BoxQP(H, torch.ones(1, 3), torch.zeros(3), torch.ones(3)))


def test_free_units_are_looked_at_too():
    """If it fails, a unit without bounds, which is eliminated, hides that H is indefinite."""
    with pytest.raises(ValueError, match="its smallest eigenvalue is -1, its largest 3"):
        lrrn.SpectralDescent()(program(((-1.0, 0.0), (0.0, 3.0)), lower=(-INF, -INF)))


def test_a_box_may_be_a_point():
    """If it fails, an equality is taken for an empty box; H may be unsymmetric by rounding."""
    z, report = lrrn.SpectralDescent(1e-6)(program(
        ((2.0, 0.5), (0.5 + 1e-7, 1.0)), lower=(0.3, -INF), upper=(0.3, INF)))
    assert report.converged.all()
    torch.testing.assert_close(z, torch.tensor([[0.3, 0.85]]))


@pytest.mark.parametrize("part, value, message", [
    ("g", (1.0, 1.0), r"g has shape \(2,\); expected \(batch, n\)"),
    ("H", ((1.0, 0.0),), r"H has shape \(1, 2\); expected \(2, 2\)"),
    ("lower", ((0.0,),), r"lower has shape \(1, 1\); expected \(2,\) or \(1, 2\)"),
    ("upper", 1.0, r"upper has shape \(\); expected \(2,\) or \(1, 2\)"),
    ("H", torch.eye(2).double(), "H has dtype torch.float64; g has torch.float32"),
    ("upper", (1, 1), "upper has dtype torch.int64; g has torch.float32"),
])
def test_programs_that_do_not_fit_together(part, value, message):
    """If it fails, shapes broadcast to another program."""
    with pytest.raises(ValueError, match=message):
        program(**{part: value})


@pytest.mark.parametrize("start, message", [
    (torch.zeros(2), r"start has shape \(2,\); expected \(1, 2\)"),
    (torch.full((1, 2), NAN), "start holds nan"),
])
def test_starts_that_do_not_fit(start, message):
    """If it fails, a solver starts from NaN and returns it."""
    for solver in (lrrn.SpectralDescent(), lrrn.CoordinateDescent()):
        with pytest.raises(ValueError, match=message):
            solver(program(), start)
