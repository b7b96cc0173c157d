"""Arguments of the wrong kind: every public function of the core names them in the same words.

Each call of the table is right; then each of its arguments in turn is replaced by what does not
belong there. The error has to be a TypeError or ValueError that names the argument, before any
computing.
"""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import lnn_core as lnn
from lnn_core import data, quantisation
from lnn_core.experiments import training
from lnn_core.experiments.lrrn_runs import filters, gaussian
from lnn_core.propositions import CLAIMS
from lnn_core.propositions.lrrn_equivalence import without_discount
from lnn_core.tilts import DropoutTilt, GaussianTilt

NET = lnn.LiftedNetwork([4, 3, 2], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TOY = lnn.LiftedNetwork([2, 1, 1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
X, Y, TARGET = torch.zeros(3, 4).double(), torch.tensor([0, 1, 0]), torch.zeros(3, 2).double()
U, ENERGY = lnn.FenchelYoung(), lnn.FenchelYoung() - 0.25 * lnn.Euclidean(TARGET)
TOY_X, TOY_ENERGY = torch.zeros(2, 2).double(), U - 0.1 * lnn.Euclidean(torch.zeros(2, 1).double())
OBJECTIVE = {"loss": lnn.Euclidean, "potential": U, "solver": lnn.Shooting()}
TARGETED = {"alpha": 0.4, "beta": 0.25, "attack": lnn.untargeted, "tilt": GaussianTilt(0.1), **OBJECTIVE}
Z = NET.activations(X)
DISTANCE = lnn.ElementWise([1.0, 1.0])
LEARNER, SPLIT = copy.deepcopy(NET), data.Split(X, Y)

CALLS = {
    "LiftedNetwork": (lnn.LiftedNetwork, {
        "sizes": [3, 2, 1], "activation": lnn.ReLU(), "output": lnn.ReLU(),
        "edges": [(0, 1), (1, 2)], "init": "uniform"}),
    "Box": (lnn.Box, {"lower": 0.0, "upper": 1.0}),
    "Euclidean": (lnn.Euclidean, {"target": TARGET}),
    "Linear": (lnn.Linear, {"slope": TARGET}),
    "Reweighted": (lnn.Reweighted, {"gamma": [1.0, 2.0], "base": U}),
    "Tilted": (lnn.Tilted, {"g": [None, torch.ones(2).double()], "base": U}),
    "Energy": (lnn.Energy, {"potential": U, "output": lnn.Loss()}),
    "GaussianTilt": (GaussianTilt, {"sd": 0.1, "generator": torch.Generator()}),
    "DropoutTilt": (DropoutTilt, {"rate": 0.1, "M": 10.0}),
    "a tilt's call": (GaussianTilt(0.1), {"net": NET, "potential": U}),
    "Shooting": (lnn.Shooting, {"tolerance": 1e-3, "max_passes": 5, "every": True, "compiled": False}),
    "PaperSweeps": (lnn.PaperSweeps, {"passes": 5, "tolerance": 1e-3}),
    "infer": (lnn.infer, {"net": NET, "x": X, "energy": ENERGY, "solver": lnn.Shooting()}),
    "ROVR": (lnn.ROVR, {"beta": 0.25, **OBJECTIVE}),
    "AROVR": (lnn.AROVR, {"beta": 0.25, **OBJECTIVE}),
    "BackPropagation": (lnn.BackPropagation, {"loss": lnn.Euclidean}),
    "TargetedROVR": (lnn.TargetedROVR, TARGETED),
    "TargetedAROVR": (lnn.TargetedAROVR, TARGETED),
    "an objective's call": (lnn.AROVR(0.25), {"net": NET, "x": X, "y": Y, "reduction": "mean"}),
    "gradients": (lnn.AROVR(0.25).gradients, {"net": NET, "x": X, "y": Y}),
    "over": (lnn.AROVR(0.25).over, {"net": NET, "x": X, "y": Y}),
    "BackPropagation's call": (lnn.BackPropagation(), {"net": NET, "x": X, "y": Y}),
    "ConstrainedAROVR": (lnn.ConstrainedAROVR, {"delta": 0.1, "steps": 5, **OBJECTIVE}),
    "its call": (lnn.ConstrainedAROVR(0.1, steps=2), {"net": NET, "x": X, "y": Y}),
    "GeneralizedAROVR": (lnn.GeneralizedAROVR, {
        "beta": 0.25, "distance": DISTANCE, "weight": 1.0, **OBJECTIVE}),
    "ElementWise": (lnn.ElementWise, {"gamma": [1.0, 1.0]}),
    "PotentialDistance": (lnn.PotentialDistance, {"gamma": [1.0, 1.0], "base": U}),
    "kappa": (lnn.bounds.kappa, {"net": NET, "gamma": [1.0, 2.0]}),
    "safe_beta": (lnn.bounds.safe_beta, {"net": NET, "gamma": [1.0, 2.0]}),
    "output_gram": (lnn.bounds.output_gram, {"net": NET, "x": X, "gamma": [1.0, 2.0], "base": U}),
    "stability_threshold": (lnn.bounds.stability_threshold, {
        "net": NET, "x": X, "gamma": [1.0, 2.0], "base": U, "curvature": 2.0}),
    "two_sided": (lnn.bounds.two_sided, {"net": NET, "x": X, "y": Y, "beta": 0.01,
                                         "gamma": [1.0, 2.0], "loss": lnn.Euclidean}),
    "energy_budget": (lnn.bounds.energy_budget, {"net": NET, "x": X, "gamma": [1.0, 2.0]}),
    "reduced": (lnn.bounds.reduced, {"net": NET, "x": X, "y": Y, "beta": 0.01, "gamma": [1.0, 2.0],
                                     "base": U}),
    "bracket": (lnn.lipschitz.bracket, {"net": NET, "x": X, "steps": 1}),
    "lower": (lnn.lipschitz.lower, {"net": NET, "x": X, "steps": 1}),
    "jacobian_norms": (lnn.lipschitz.jacobian_norms, {"net": NET, "x": X}),
    "certified": (lnn.lipschitz.certified, {"net": NET}),
    "trivial": (lnn.lipschitz.trivial, {"net": NET}),
    "surrogate": (lnn.lipschitz.surrogate, {"net": NET}),
    "oracle.minimum": (lnn.oracle.minimum, {"net": TOY, "x": TOY_X, "energy": TOY_ENERGY}),
    "oracle.growth": (lnn.oracle.growth, {"net": TOY, "energy": TOY_ENERGY}),
    "oracle.objective": (lnn.oracle.objective, {
        "objective": lnn.AROVR(0.1), "net": TOY, "x": TOY_X, "y": torch.zeros(2, 1).double()}),
    "fit": (training.fit, {
        "net": LEARNER, "objective": lnn.AROVR(0.1), "train": SPLIT, "validation": SPLIT,
        "test": SPLIT, "epochs": 1, "patience": 1, "batch": 2, "learning_rate": 1e-3,
        "generator": torch.Generator(), "omit_unbounded": False, "clip": 1.0,
        "on_epoch": lambda epoch, history: None}),
    "train_epoch": (training.train_epoch, {
        "net": LEARNER, "objective": lnn.AROVR(0.1), "train": SPLIT,
        "optimizer": torch.optim.SGD(LEARNER.parameters(), lr=1e-3), "batch": 2,
        "generator": torch.Generator(), "omit_unbounded": False, "clip": 1.0}),
    "accuracy": (training.accuracy, {"net": LEARNER, "split": SPLIT}),
    "Targeted": (lnn.Targeted, {"generator": torch.Generator()}),
}
#: What a number, a text, an object, a torch module and a class stand for.
JUNK = {"number": 0.5, "text": "relu", "object": object(), "module": nn.Linear(4, 2), "class": lnn.ReLU,
        "list": [object()], "complex": 1j}
#: (argument, junk) that may be right: a number for a number, a module where a function is called.
FINE = {("delta", "number"), ("sd", "number"), ("rate", "number"), ("M", "number"), ("lower", "number"),
        ("upper", "number"), ("tolerance", "number"), ("beta", "number"), ("alpha", "number"),
        ("weight", "number"), ("curvature", "number"), ("solver", "module"), ("attack", "module"),
        ("tilt", "module"), ("distance", "module"), ("loss", "module"), ("loss", "class"),
        ("clip", "number"), ("learning_rate", "number"), ("on_epoch", "module")}
#: Of ``own_precision``, and what torch's compiler adds to them once it was imported.
WRAPPERS = {"call", "precise", "_fn"}


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("name", CALLS)
def test_arguments_of_the_wrong_kind_are_named(name, junk):
    """If it fails, the error comes from deep inside and does not say which argument to mend."""
    function, right = CALLS[name]
    for argument in right:
        if (argument, junk) in FINE:
            continue
        with pytest.raises((TypeError, ValueError)) as error:
            function(**{**right, argument: JUNK[junk]})
        text = str(error.value)
        assert f"{argument}" in text and ("expected" in text or "must" in text), (argument, text)
        frames = [entry for entry in error.traceback if entry.name not in WRAPPERS]
        assert len(frames) < 14, "not at once"


@pytest.mark.parametrize("name", CALLS)
def test_the_table_is_right(name):
    """If it fails, the calls above are refused for another reason."""
    function, right = CALLS[name]
    function(**right)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: lnn.kinds.expect("net", 0.5, lnn.LiftedNetwork, "a LiftedNetwork"),
     r"^net is a float \(0.5\); expected a LiftedNetwork$"),
    (lambda: lnn.infer("net", X, ENERGY), r"net is a str \('net'\); expected a LiftedNetwork"),
    (lambda: lnn.AROVR(0.25)(nn.Sequential(nn.Linear(4, 2)), X, Y),
     "net is a Sequential; expected a LiftedNetwork"),
    (lambda: lnn.AROVR(0.25)(None, X, Y), "net is None; expected a LiftedNetwork"),
    (lambda: lnn.AROVR(0.25, loss="mse"),
     r"loss is a str \('mse'\); expected a function of the targets that returns a Loss"),
    (lambda: lnn.AROVR(0.25, loss=nn.CrossEntropyLoss())(NET, X, Y),
     "loss is a CrossEntropyLoss, which takes outputs too: write loss=lnn_core.CrossEntropy"),
    (lambda: lnn.AROVR(0.25, loss=nn.functional.cross_entropy)(NET, X, Y),
     r"loss\(targets\) fails: .* missing 1 required positional argument.*; expected a Loss"),
    (lambda: lnn.AROVR(0.25, loss=nn.Identity())(NET, X, Y),
     r"loss\(targets\) is a tensor.*; expected a Loss"),
    (lambda: lnn.AROVR(0.25, loss=lnn.ReLU)(NET, X, Y),
     r"loss\(targets\) fails: .*; expected a Loss"),
    (lambda: lnn.TargetedAROVR(0.4, 0.25, loss=lambda y: y)(NET, X, Y),
     r"loss\(targets\) is a tensor.*; expected a Loss"),
    (lambda: lnn.AROVR(0.25, loss=lnn.Euclidean(TARGET)), "loss is a Loss; expected a function"),
    (lambda: lnn.AROVR(0.25, loss=lambda y: y)(NET, X, Y),
     r"loss\(targets\) is a tensor.*; expected a Loss"),
    (lambda: lnn.TargetedAROVR(0.4, 0.25, lambda loss, y: y)(NET, X, Y),
     r"attack\(loss, target\) is a tensor.*; expected a Loss"),
    (lambda: lnn.TargetedAROVR(0.4, 0.25, tilt=lambda net, U: 1)(NET, X, Y),
     r"tilt\(net, potential\) is an int \(1\); expected a Potential"),
    (lambda: lnn.TargetedAROVR(0.4, 0.25, lnn.Targeted), "attack is the class Targeted; expected"),
    (lambda: lnn.AROVR(0.25, solver=lnn.Shooting), "solver is the class Shooting; expected a solver"),
    (lambda: lnn.AROVR(0.25, potential=lnn.FenchelYoung), "potential is the class FenchelYoung"),
    (lambda: lnn.LiftedNetwork([4, 3, 2], "relu"), r"activation is a str \('relu'\); expected a Conv"),
    (lambda: lnn.LiftedNetwork([4, 3, 2], nn.GELU()), "activation is a GELU; expected a ConvexFunction"),
    (lambda: lnn.LiftedNetwork([4, 3, 2], lnn.ReLU), "activation is the class ReLU; expected a Convex"),
    (lambda: lnn.LiftedNetwork([4, 2], output=nn.ReLU), "output is the class ReLU; expected"),
    (lambda: lnn.GeneralizedAROVR(0.1, lambda z, other: 0.0)(NET, X, Y),
     r"distance returns a float \(0.0\); expected \(3,\)"),
])
def test_the_words(call, message):
    """If it fails, a kind of mistake has another message than the others."""
    with pytest.raises((TypeError, ValueError), match=message):
        call()


class Doubled:
    """2·½‖z − y‖², from an object that is called with the targets."""

    def __call__(self, y):
        return 2 * lnn.Euclidean(y)


class DoubledModule(nn.Module):
    forward = Doubled.__call__


class DoubledLoss(lnn.Loss):
    """The same as a class, whose call makes an instance."""

    def __init__(self, y):
        super().__init__(((2.0, y),))


@pytest.mark.parametrize("family", [lambda y: 2 * lnn.Euclidean(y), Doubled(), Doubled().__call__,
                                    partial(lambda w, y: w * lnn.Euclidean(y), 2), DoubledModule(),
                                    DoubledLoss],
                         ids=["function", "object", "method", "partial", "module", "class"])
def test_a_loss_is_anything_that_returns_one(family):
    """If it fails, a loss has to be written as a plain function. Oracle: ½‖z − y‖² twice."""
    x = torch.ones(3, 4).double()
    y = nn.functional.one_hot(Y, 2).double()
    expected = (NET(x) - y).square().sum(1)
    found = lnn.BackPropagation(family)(NET, x, Y, reduction="none")
    torch.testing.assert_close(found, expected)
    for made in (lnn.AROVR(0.1, family), lnn.GeneralizedAROVR(0.1, DISTANCE, loss=family),
                 lnn.TargetedAROVR(0.4, 0.1, lnn.untargeted, loss=family)):
        assert torch.isfinite(made(NET, x, Y))
    lower, upper = lnn.bounds.two_sided(NET, x, Y, 0.01, loss=family)
    assert (lower <= expected).all() and (expected <= upper).all()


@pytest.mark.parametrize("wrong", [0.5, "text", None, lnn.Euclidean],
                         ids=["number", "text", "None", "function"])
def test_arithmetic_with_what_is_no_loss(wrong):
    """If it fails, U + 0.5 is an energy that fails at its first use."""
    for left in (U, lnn.Euclidean(TARGET)):
        with pytest.raises(TypeError, match="unsupported operand"):
            left + wrong
        with pytest.raises(TypeError, match="unsupported operand"):
            left - wrong
    if not isinstance(wrong, float):
        with pytest.raises(TypeError):
            wrong * lnn.Euclidean(TARGET)


# --- whole numbers and labels ------------------------------------------------------------------------


@pytest.mark.parametrize(("sizes", "message"), [
    ([6.9, 5.2, 3.999], r"an entry of sizes is a float \(6.9\); expected an integer"),
    ([4.0, 2], r"an entry of sizes is a float \(4.0\)"), ("345", r"sizes is a str \('345'\)"),
    ([True, 2], r"an entry of sizes is a bool \(True\)"), (5, r"sizes is an int \(5\)"),
    ([np.float64(3.0), 2], "sizes is a float64"), ([None, 2], "an entry of sizes is None")], ids=repr)
def test_sizes_that_are_no_integers(sizes, message):
    """If it fails, 6.9 units become 6 without a word."""
    with pytest.raises(TypeError, match=message):
        lnn.LiftedNetwork(sizes)


@pytest.mark.parametrize(("edges", "message"), [
    ([(0.9, 1.9), (1, 2)], r"an entry of edges is a float \(0.9\)"),
    (["01", "12"], "an entry of edges is a str"),
    ("01", "edges is a str"), ([0, 1], "an entry of edges is an int")], ids=repr)
def test_edges_that_are_no_integers(edges, message):
    """If it fails, edges are rounded to others."""
    with pytest.raises(TypeError, match=message):
        lnn.LiftedNetwork([2, 2, 2], edges=edges)
    with pytest.raises(ValueError, match=r"edge \(0, 1, 2\) has 3 entries"):
        lnn.LiftedNetwork([2, 2, 2], edges=[(0, 1, 2)])


def test_integers_of_numpy_are_integers():
    """If it fails, sizes read from data cannot be used."""
    net = lnn.LiftedNetwork(np.array([3, 2, 1]), edges=np.array([[0, 1], [1, 2]]))
    assert net.sizes == (3, 2, 1) and net.is_chain and all(type(size) is int for size in net.sizes)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32,
                                   torch.uint32, torch.int64, torch.uint64], ids=str)
def test_labels_of_any_integer_type(dtype):
    """If it fails, labels as a file holds them end in an error about aminmax."""
    objective, x = lnn.AROVR(0.25), torch.ones(3, 4).double()
    torch.testing.assert_close(objective(NET, x, Y.to(dtype)), objective(NET, x, Y))
    with pytest.raises(ValueError, match="label 2 is outside 0…1"):
        objective(NET, X, torch.tensor([0, 2, 1]).to(dtype))


@pytest.mark.parametrize("y", [Y.bool(), TARGET.to(torch.complex64)], ids=["bool", "complex"])
def test_labels_of_no_number_type(y):
    """If it fails, a mask passes for labels."""
    with pytest.raises(TypeError, match="y has dtype torch.(bool|complex64); expected integer labels"):
        lnn.AROVR(0.25)(NET, X, y)


# --- what would broadcast, or never end ---------------------------------------------------------------


@pytest.mark.parametrize(("target", "message"), [
    (torch.zeros(2).double(), r"a target has shape \(2,\); expected \(3, 2\)"),
    (torch.zeros(3, 1).double(), r"a target has shape \(3, 1\); expected \(3, 2\)"),
    (torch.zeros(2, 2).double(), r"a target has shape \(2, 2\), which does not broadcast to \(3, 2\)"),
    (torch.zeros(3, 2, dtype=torch.int64), "a target has dtype torch.int64; the network has"),
    (torch.full((3, 2), math.nan).double(), r"the output term holds nan at \[0, 0\]; all values"),
    (torch.tensor([[0.0, 0], [0, math.inf], [0, 0]]).double(), r"holds inf at \[1, 1\]"),
], ids=["labels", "one column", "fewer samples", "integers", "nan", "inf"])
def test_targets_that_do_not_fit_the_energy(idle, target, message):
    """If it fails, labels are taken for a target that all samples share."""
    with pytest.raises(ValueError, match=message):
        lnn.infer(NET, X, U - 0.25 * lnn.Euclidean(target))


def test_a_target_of_another_precision(idle):
    """If it fails, torch's own error about mixed dtypes comes from deep inside."""
    net = lnn.LiftedNetwork([4, 3, 2])
    with pytest.raises(ValueError, match="a target has dtype torch.float64; the network has torch.float32"):
        lnn.infer(net, X.float(), ENERGY)


@pytest.mark.parametrize("weight", [torch.ones(3).double(), torch.ones(2, 1).double(),
                                    torch.ones(1, 3, 2).double()], ids=lambda w: str(tuple(w.shape)))
def test_weights_that_do_not_broadcast(idle, weight):
    """If it fails, weights of shape (batch,) count for outputs, or end in an error of torch."""
    with pytest.raises(ValueError, match=r"a weight has shape .* does not broadcast to \(3, 2\)"):
        lnn.AROVR(0.25, loss=lambda y: weight * lnn.Euclidean(y))(NET, X, Y)


@pytest.mark.parametrize("rows", [6, 2])
def test_tilts_for_another_batch(idle, rows):
    """If it fails, the rows beyond the batch are ignored."""
    tilted = lnn.Tilted([torch.ones(rows, 3).double(), None])
    for call in (*(partial(make, NET, X, Y) for make in (
                     lnn.AROVR(0.1, potential=tilted), lnn.ROVR(0.1, potential=tilted),
                     lnn.TargetedROVR(0.4, 0.1, potential=tilted),
                     lnn.GeneralizedAROVR(0.1, DISTANCE, potential=tilted))),
                 lambda: lnn.infer(NET, X, tilted + lnn.Loss())):
        with pytest.raises(ValueError, match=f"tilted for {rows} samples; the batch has 3"):
            call()
    mixed = lnn.Tilted([torch.ones(3, 3).double(), torch.ones(2, 2).double()])
    with pytest.raises(ValueError, match=r"different numbers of samples: \[2, 3\]"):
        lnn.infer(NET, X, mixed + lnn.Loss())


@pytest.mark.parametrize(("make", "message"), [
    (lambda: lnn.ConstrainedAROVR(0.1, steps=0), "steps=0 must be at least 1"),
    (lambda: lnn.ConstrainedAROVR(0.1, steps=10**30), "steps=1000.* must be at most 1000000"),
    (lambda: lnn.PaperSweeps(10**30), "passes=1000.* must be at most 1000000"),
    (lambda: lnn.Shooting(max_passes=10**30), "max_passes=1000.* must be at most 1000000"),
    (lambda: lnn.lipschitz.lower(NET, X, steps=10**30), "steps=1000.* must be at most 1000000"),
    (lambda: lnn.lipschitz.lower(NET, X, steps=-1), "steps=-1 must be at least 0"),
])
def test_steps_without_end(idle, make, message):
    """If it fails, a slip of the finger runs for ever."""
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("wrong", [2.5, 1.0, True, "3", None, [3], np.array([1, 2]), Y, int],
                         ids=lambda wrong: f"{type(wrong).__name__}")
@pytest.mark.parametrize(("name", "make"), [
    ("steps", lambda wrong: lnn.ConstrainedAROVR(0.1, steps=wrong)),
    ("steps", lambda wrong: lnn.lipschitz.lower(NET, X, steps=wrong)),
    ("passes", lnn.PaperSweeps), ("max_passes", lambda wrong: lnn.Shooting(max_passes=wrong)),
    ("check_every", lambda wrong: lnn.lrrn.SpectralDescent(check_every=wrong)),
    ("an entry of sizes", lambda wrong: lnn.LiftedNetwork([4, wrong])),
    ("an entry of edges", lambda wrong: lnn.LiftedNetwork([4, 3, 2], edges=[(0, 1), (1, wrong)]))])
def test_counts_that_are_no_integers(name, make, wrong):
    """If it fails, the same mistake is a ValueError here and a TypeError there."""
    with pytest.raises(TypeError, match=f"^{name} is .*; expected an integer$"):
        make(wrong)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["a weight into", "the bias of"])
def test_weights_that_are_not_finite(bad, where):
    """If it fails, a bound is NaN, which no comparison notices."""
    net = lnn.LiftedNetwork([4, 3, 2], lnn.Identity())
    with torch.no_grad():
        (net.weights if "weight" in where else net.biases)[1].view(-1)[0] = bad
    x = torch.ones(2, 4)
    for call in (lambda: lnn.bounds.kappa(net), lambda: lnn.bounds.stability_threshold(net),
                 lambda: lnn.bounds.energy_budget(net, x), lambda: lnn.lipschitz.certified(net),
                 lambda: lnn.bounds.reduced(net, x, torch.tensor([0, 1]), 0.1),
                 lambda: lnn.lipschitz.bracket(net, x), lambda: lnn.lipschitz.jacobian_norms(net, x)):
        with pytest.raises(ValueError, match=f"{where} layer 2 holds {bad} at .*; all values must be"):
            call()
    for call in (lambda: lnn.infer(net, x, U + lnn.Euclidean(torch.zeros(2, 2))),
                 lambda: lnn.AROVR(0.1)(net, x, torch.tensor([0, 1]))):
        with pytest.raises(lnn.InferenceDiverged, match="no longer finite|not a number"):
            call()


def test_reduced_looks_at_x_first(idle):
    """If it fails, the message is about y, which is right."""
    with pytest.raises(ValueError, match=r"x has shape \(3, 5\)"):
        lnn.bounds.reduced(NET, torch.zeros(3, 5).double(), Y, 0.1)


def test_a_convex_function_that_returns_nan():
    """If it fails, NaN energies count as "worse" for ever, and the value is that of the plain
    loss."""
    class Broken(lnn.ReLU):
        def divergence_sum(self, z, a, e):
            return super().divergence_sum(z, a, e) * math.nan

    net = lnn.LiftedNetwork([4, 3, 2], Broken(), dtype=torch.float64)
    with pytest.raises(lnn.InferenceDiverged, match="not a number .* for 3 samples"):
        lnn.AROVR(0.25)(net, X + 1, Y)


# --- devices ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeded", [False, True])
def test_another_default_device(seeded):
    """A model on the CPU, "meta" as default. If it fails, what is drawn or made there has no values, or is
    not drawn by the generator that was given."""
    def run():
        generator = torch.Generator("cpu").manual_seed(1) if seeded else None
        torch.seed() if seeded else torch.manual_seed(1)  # torch's own is for those who give no other
        net = lnn.LiftedNetwork([4, 3, 2], lnn.Tanh(), generator=generator, device="cpu")
        y, x = torch.tensor([0, 1], device="cpu"), torch.ones(2, 4, device="cpu")
        tilt = (GaussianTilt(0.1, generator=generator), DropoutTilt(0.4, 1.0, generator=generator))
        attack = lnn.Targeted(generator)
        values = [lnn.TargetedAROVR(0.4, 0.1, attack, tilt=g)(net, x, y) for g in tilt]
        values += [lnn.TargetedAROVR(0.4, 1e-5)(net, x, y), lnn.ConstrainedAROVR(0.1)(net, x, y)]
        values += [make(net, x, y) for make in (
            lnn.AROVR(0.1), lnn.AROVR(0.6), lnn.AROVR(0.1, potential=lnn.Reweighted([1.0, 2.0])),
            lnn.GeneralizedAROVR(0.1, lnn.PotentialDistance([1.0, 1.0])),
            lnn.GeneralizedAROVR(0.1, lambda z, o: sum((a - b).square().sum(1) for a, b in zip(z, o))))]
        values += [lnn.bounds.stability_threshold(net, x, curvature=2.0).sum(),
                   *lnn.bounds.reduced(net, x, y, 0.1), *lnn.bounds.two_sided(net, x, y, 0.1),
                   *lnn.lipschitz.bracket(net, x)]
        toy = lnn.LiftedNetwork([4, 1, 1], generator=generator, device="cpu", dtype=torch.float64)
        zero = torch.zeros(2, 1, dtype=torch.float64, device="cpu")
        values += [lnn.oracle.objective(lnn.AROVR(0.1), toy, x.double(), zero).sum()]
        split = data.Split(x, y)
        for objective in (lnn.BackPropagation(), lnn.TargetedAROVR(0.4, 0.1, attack, tilt=tilt[0])):
            history = training.fit(net, objective, split, split, split, epochs=2, batch=1, clip=0.1,
                                   omit_unbounded=True, generator=generator)
            values += [number for curve in vars(history).values() for number in curve]
        values += net.parameters()
        lrrn = lnn.lrrn.LRRN([4, 3, 2], generator=generator, device="cpu")
        optimizer = torch.optim.SGD(lrrn.parameters(), lr=0.1)
        values += training.train_epoch(lrrn, lnn.lrrn.Contrastive(), split, optimizer, 1, generator)
        values += [training.accuracy(lrrn, split), lnn.lrrn.certified_radius(lrrn, x),
                   gaussian(x, 3, torch.Generator("cpu").manual_seed(2)),
                   filters({"filters": quantisation.to_json(lrrn.weights[0])}),
                   without_discount(
                       lnn.lrrn.LRRN([4, 3, 2], beta=1.0, gamma=0.5, generator=generator,
                                     device="cpu"))[2],
                   *(claim.worst(0) for claim in CLAIMS.values())]
        return [value.detach().sum().item() if isinstance(value, torch.Tensor) else value
                for value in values]

    expected = run()
    try:
        torch.set_default_device("meta")
        assert run() == expected
    finally:
        torch.set_default_device(None)


def test_weights_are_drawn_where_the_generator_lives():
    """If it fails, a seeded network cannot be made on another device."""
    net = lnn.LiftedNetwork([4, 3], generator=torch.Generator("cpu").manual_seed(0), device="meta")
    assert net.weight(1).is_meta
