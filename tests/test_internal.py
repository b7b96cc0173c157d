"""Internal robustness: closed forms, brute force on toys, and rescalings that must not matter."""

import copy
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import norm
from strategies import random_network, seeds

import lnn_core as lnn
from lnn_core import data, gauge
from lnn_core.data import Split
from lnn_core.experiments import internal, runs, studies, training
from lnn_core.experiments.internal import InternalRobustness
from lnn_core.experiments.records.repeating import disagreements, findings
from lnn_core.experiments.training import accuracy

#: Attacks move back to the border in ten halvings.
ABOVE = 1 + 2e-3


def inputs(net, samples=6, seed=9):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, net.sizes[0], generator=generator, dtype=net.dtype)


def linear(seed, sizes=(6, 5, 4, 3)):
    return random_network(seed, sizes, lnn.Identity())


def scales(net, seed, spread=1.5):
    generator = torch.Generator().manual_seed(seed)
    return [(spread * torch.randn(size, generator=generator, dtype=torch.float64)).exp()
            for size in net.sizes[1:-1]]


def labelled(net, samples=40):
    """Images in [0, 1], labelled as the network reads them but for a few."""
    x = torch.rand(samples, net.sizes[0], generator=torch.Generator().manual_seed(3), dtype=net.dtype)
    y = net(x).argmax(1)
    y[::5] = (y[::5] + 1) % net.sizes[-1]
    return Split(x, y)


# --- closed forms: linear networks ---------------------------------------------------------------


def rivals(outputs, width):
    """(sample, predicted, rival, difference of outputs) of every pair."""
    for n, row in enumerate(outputs):
        first = int(row.argmax())
        for j in set(range(width)) - {first}:
            yield n, first, j, float(row[first] - row[j])


@pytest.mark.parametrize("k", range(3))
@pytest.mark.parametrize("seed", range(3))
def test_one_layer_of_a_linear_network(k, seed):
    """Distances to hyperplanes in NumPy. If it fails, another part of the network is perturbed, gradients
    are of other outputs, or lengths are not those beside ‖z_k‖."""
    net = linear(seed)
    x, exact = inputs(net), np.full(6, np.inf)
    found = internal.alone(net, x, k)
    balanced = gauge.balanced(net)
    W = [weight.detach().numpy() for weight in balanced.weights]
    M = np.linalg.multi_dot([np.eye(3), np.eye(3), *W[:k:-1], W[k]])
    z = balanced.activations(x)[k].detach().numpy()
    for n, i, j, gap in rivals(net(x).detach().numpy(), 3):
        exact[n] = min(exact[n], gap / np.linalg.norm(M[i] - M[j]) / np.linalg.norm(z[n]))
    np.testing.assert_allclose(found.linearised, exact, rtol=1e-9)
    assert (found.certified <= found.linearised * (1 + 1e-9)).all()
    assert (found.attack >= found.linearised * (1 - 1e-5)).all()
    assert (found.attack <= found.linearised * ABOVE).all()


@pytest.mark.parametrize("seed", range(3))
def test_two_outputs_leave_no_gap(seed):
    """Opposite outputs: the certificate is exact, too. If it fails, √2 or the constant is misplaced."""
    net = linear(seed, (4, 3, 2))
    with torch.no_grad():
        net.weights[1][1] = -net.weights[1][0]
    for k in range(2):
        found = internal.alone(net, inputs(net), k)
        torch.testing.assert_close(found.certified, found.linearised)


@pytest.mark.parametrize("seed", range(3))
def test_all_layers_of_a_linear_network(seed):
    """½Σ‖e_k‖² with a linear constraint, in NumPy. If it fails, the price of an output's move is another,
    or the attack goes on past the border, or the wrong way."""
    net = linear(seed)
    x, exact = inputs(net), np.full(6, np.inf)
    found = internal.jointly(net, x)
    W = [weight.detach().numpy() for weight in gauge.balanced(net).weights]
    J = [np.eye(3), W[2], W[2] @ W[1]]
    for n, i, j, gap in rivals(net(x).detach().numpy(), 3):
        exact[n] = min(exact[n], gap**2 / (2 * sum(np.sum((M[i] - M[j])**2) for M in J)))
    np.testing.assert_allclose(found.linearised, exact, rtol=1e-9)
    assert (found.certified <= found.linearised * (1 + 1e-9)).all()
    assert (found.attack >= found.linearised * (1 - 1e-6)).all()
    assert (found.attack <= found.linearised * ABOVE).all()


# --- brute force -----------------------------------------------------------------------------------


@pytest.mark.parametrize("k", range(3))
def test_the_linearisation_is_autograds(k):
    """If it fails, slopes are those of another layer or another input."""
    net = random_network(2, (4, 5, 6, 3))
    x = inputs(net)
    found, balanced = internal.alone(net, x, k).linearised, gauge.balanced(net)
    z = balanced.activations(x)[k].detach()
    for n, out in enumerate(net(x).detach()):
        def upper(part):
            for layer in range(k + 1, 4):
                a = balanced.weight(layer) @ part + balanced.biases[layer - 1]
                part = a.relu() if layer < 3 else a
            return part

        J, first = torch.autograd.functional.jacobian(upper, z[n]), int(out.argmax())
        least = min(float((out[first] - out[j]) / (J[first] - J[j]).norm()) for j in range(3) if j != first)
        assert float(found[n] * z[n].norm()) == pytest.approx(least, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_a_layer_of_two_units_against_all_directions(seed):
    """720 directions, a flip along each found on a fine grid. If it fails, a change shorter than the
    certificate flips a prediction, or an attack's flips none."""
    net = random_network(seed, (3, 2, 4, 3), scale=1.5)
    with torch.no_grad():
        net.biases[0].add_(3.0)  # no sample has z_1 = 0, beside which every length is infinite
    x = inputs(net)
    found, balanced = internal.alone(net, x, 1), gauge.balanced(net)
    upper, z = internal.above(balanced, 1), balanced.activations(x)[1].detach()
    angle, steps = torch.linspace(0, 2 * math.pi, 721, dtype=torch.float64)[:-1], 2000
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    for n, part in enumerate(z):
        length = part.norm()
        reach = min(float(found.attack[n] * length) * 1.5, 1e3)
        radii = torch.linspace(0, reach, steps, dtype=torch.float64)
        moved = part + radii[:, None, None] * circle
        flips = (upper(moved.flatten(0, 1)).argmax(1) != upper(part[None]).argmax(1)).view(steps, -1).any(1)
        brute = radii[flips].min() if flips.any() else torch.inf
        assert found.certified[n] * length <= brute
        assert found.attack[n] * length >= 0.999 * brute - reach / steps


def least_energy(net, x):
    """min U over z with another prediction, L = 2, convex in z_1: the output's best answer to a_2 is in
    closed form, and SciPy does the rest. One number per sample."""
    W, V = (weight.detach().numpy() for weight in net.weights)
    b, c = (bias.detach().numpy() for bias in net.biases)
    s = (np.square(V).sum(0) / (np.square(W).sum(1) + b**2)) ** 0.25  # balanced, in closed form
    W, b, V = s[:, None] * W, s * b, V / s
    found = np.full(len(x), np.inf)
    for n, i, j, _ in rivals(net(x).detach().numpy(), len(c)):
        a = W @ x[n].numpy() + b

        def energy(z):
            out = V @ z + c
            hidden = 0.5 * z @ z - z @ a + 0.5 * np.square(np.maximum(a, 0)).sum()
            return hidden + 0.25 * max(out[i] - out[j], 0.0) ** 2

        best = minimize(energy, np.maximum(a, 0), bounds=[(0, None)] * len(a), method="L-BFGS-B",
                        options={"ftol": 1e-15, "gtol": 1e-10})
        found[n] = min(found[n], best.fun)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_two_layers_against_convex_optimisation(seed):
    """If it fails, U is taken in another gauge, too few rivals are attacked, or the attack stops early."""
    net = random_network(seed, (3, 5, 4), scale=1.5)
    x = inputs(net)
    found, exact = internal.jointly(net, x), torch.tensor(least_energy(net, x))
    assert (found.certified <= exact).all()
    assert (found.attack >= exact * (1 - 1e-6)).all() and (found.attack <= exact * ABOVE).all()


@pytest.mark.parametrize("seed", range(3))
def test_no_cheap_activations_flip(seed):
    """20,000 random activations. If it fails, a certificate holds for the forward pass of another
    network."""
    net = random_network(seed, (3, 4, 4, 3))
    balanced, x = gauge.balanced(net), inputs(net, 1)
    generator = torch.Generator().manual_seed(seed)
    found = internal.jointly(net, x)
    z = [part.expand(20_000, -1) for part in balanced.activations(x)]
    spread = torch.rand(20_000, 1, generator=generator, dtype=torch.float64)
    moved = [z[0], *(part + spread * torch.randn(part.shape, generator=generator, dtype=part.dtype)
                     for part in z[1:])]
    moved[1:3] = [part.clamp_min(0) for part in moved[1:3]]
    U, flips = lnn.FenchelYoung()(balanced, moved), moved[-1].argmax(1) != z[-1].argmax(1)
    assert flips.any() and (U[flips] >= found.certified).all()
    assert found.certified <= found.attack


# --- rescalings ------------------------------------------------------------------------------------


@st.composite
def twins(draw):
    """A network and one that differs from it by the scales of its hidden units."""
    depth = draw(st.integers(1, 3))
    sizes = [*draw(st.lists(st.integers(2, 5), min_size=depth, max_size=depth)), 3]
    net, seed = random_network(draw(seeds), sizes), draw(seeds)
    return net, gauge.rescaled(net, scales(net, seed))


def close(one, other):
    """Two Flips: certificates and closed forms to rounding, attacks to a shift of their last steps."""
    for name, tolerance in (("certified", 1e-7), ("linearised", 1e-7), ("attack", 5e-3)):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=tolerance, atol=0,
                                   equal_nan=True, msg=lambda text, name=name: f"{name}: {text}")


@given(twins())
@settings(max_examples=20)
def test_layers_do_not_depend_on_scales(pair):
    """If it fails, a network can look more robust by being written down in another way."""
    net, twin = pair
    for k in range(net.depth):
        close(internal.alone(net, inputs(net), k), internal.alone(twin, inputs(net), k))


@given(twins())
@settings(max_examples=20)
def test_energies_do_not_depend_on_scales(pair):
    """As above, of U and of what it is compared with."""
    net, twin = pair
    close(internal.jointly(net, inputs(net)), internal.jointly(twin, inputs(net)))
    torch.testing.assert_close(internal.squared_activations(net, inputs(net)),
                               internal.squared_activations(twin, inputs(net)))


@given(twins(), st.sampled_from(["noise", "deletion"]))
@settings(max_examples=20)
def test_factors_do_not_depend_on_scales(pair, kind):
    """If it fails, noise has a size of its own instead of one beside the activations."""
    net, twin = pair
    split = labelled(net)
    one, other = (internal.disturbed_accuracy(
        each, split, getattr(internal, kind)(0.5, torch.Generator().manual_seed(0))) for each in pair)
    assert one == other


@given(twins(), st.sampled_from(internal.BITS))
@settings(max_examples=20)
def test_coarse_weights_do_not_depend_on_scales(pair, bits):
    """If it fails, matrices are rounded in the gauge that they happen to be in."""
    net, twin = pair
    for W, V in zip(internal.quantised(net, bits).weights, internal.quantised(twin, bits).weights):
        torch.testing.assert_close(W, V)


@pytest.mark.parametrize("seed", range(2))
def test_records_do_not_depend_on_scales(seed):
    """Every number of a record at once. If it fails, one has been added that does."""
    net = random_network(seed, (6, 8, 7, 3), scale=2.0)
    split = labelled(net, 200)
    one, other = (internal.measures(each, split, 50, 0)
                  for each in (net, gauge.rescaled(net, scales(net, seed))))
    assert flat(one).keys() == flat(other).keys()
    for name, value in flat(one).items():
        assert flat(other)[name] == (None if value is None else pytest.approx(value, rel=5e-3)), name
    assert sum(value is not None for value in flat(one).values()) > 20


def flat(found, name=""):
    """Numbers by their places."""
    if not isinstance(found, dict | list):
        return {name: found}
    entries = found.items() if isinstance(found, dict) else enumerate(found)
    return {inner: value for key, part in entries for inner, value in flat(part, f"{name}.{key}").items()}


# --- attacks on a layer ------------------------------------------------------------------------------


def test_no_box_around_hidden_layers(monkeypatch):
    """The last sample is two hundred times as far from the border, z_1 + z_2 = 1, as the others, and its
    shortest way there leads to (1, 0), outside of all samples. If it fails, the bounds that an attack has to
    be given are in its way."""
    net = linear(0, (2, 2, 2))
    with torch.no_grad():
        net.weights[0].copy_(torch.eye(2))
        net.biases[0].zero_()
        net.weights[1].copy_(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
        net.biases[1].copy_(torch.tensor([-1.0, 1.0]))
    x = torch.tensor([[0.5, 0.495], [0.495, 0.5], [0.5, 0.496], [0.5, -0.5]], dtype=torch.float64)
    found = internal.alone(net, x, 1)
    assert found.attack.isfinite().all() and (found.attack <= found.linearised * ABOVE).all()
    monkeypatch.setattr(internal, "FAR", 10 * internal.FAR)
    torch.testing.assert_close(internal.alone(net, x, 1).attack, found.attack, rtol=2e-3, atol=0)


def test_a_box_is_kept():
    """Only x < 0 flips. If it fails, an image is attacked by what is no image, or bounds are not in the
    units of the attack."""
    net = gauge.chain([torch.tensor([[10.0], [-10.0]])], [torch.zeros(2)], [lnn.Identity()])
    x = torch.tensor([[0.05], [0.1]])
    assert internal.alone(net, x, 0, (0.0, 1.0)).attack.isinf().all()
    for box in (None, (-1.0, 1.0)):
        torch.testing.assert_close(internal.alone(net, x, 0, box).attack, torch.ones(2).double(), rtol=2e-3,
                                   atol=0)


def test_attacks_take_steps_that_fit():
    """Borders at a hundredth and at a hundred times the usual lengths. If it fails, attacks overshoot or
    never arrive: their steps have one length."""
    net = random_network(1, (4, 6, 5, 3))
    usual = internal.alone(net, inputs(net), 1).attack
    for factor in (1e-2, 1e2):
        first = net.weights[0] * factor, net.biases[0] * factor
        other = gauge.chain([first[0], *net.weights[1:]], [first[1], *(b * factor for b in net.biases[1:])],
                            net.functions)  # all activations times this factor, and so all borders
        W, b = other.weights[0], other.biases[0]
        upper = internal.above(other, 1)
        z = torch.relu(inputs(net) @ W.T + b).detach()
        found = internal._attacked(upper, z, internal._linearised(upper, z).detach(), None)
        plain = internal.above(net, 1)
        z = net.activations(inputs(net))[1].detach()
        expected = internal._attacked(plain, z, internal._linearised(plain, z).detach(), None)
        torch.testing.assert_close(found, factor * expected, rtol=5e-3, atol=0)
    assert usual.isfinite().all()


def test_the_shorter_attack_counts(monkeypatch):
    """If it fails, one attack's result is the other's, or a mean of both."""
    from lnn_core.experiments import attacks

    net = random_network(0, (4, 6, 3))
    both = internal.alone(net, inputs(net), 1).attack
    single = []
    for name in internal.ATTACKS:
        monkeypatch.setattr(internal, "ATTACKS", (name,))
        single.append(internal.alone(net, inputs(net), 1).attack)
    torch.testing.assert_close(both, torch.stack(single).amin(0))
    assert set(internal.ATTACKS) <= set(attacks.ATTACKS)


# --- factors, deletions, coarse weights ----------------------------------------------------------------


def steps(depth):
    """x = 1, hidden units 1, and class 0 as long as the last of them is above 0.1."""
    one = torch.ones(1, 1)
    zeros = [torch.zeros(1)] * depth
    return gauge.chain([*[one] * depth, torch.tensor([[1.0], [0.0]])], [*zeros, torch.tensor([0.0, 0.1])],
                       [*[lnn.ReLU()] * depth, lnn.Identity()])


SAMPLES = 20_000
ONES = Split(torch.ones(SAMPLES, 1), torch.zeros(SAMPLES, dtype=torch.int64))


@pytest.mark.parametrize("depth", [1, 2])
def test_deletion_in_closed_form(depth):
    """(1 − p)^depth, within five standard deviations. If it fails, units are deleted more often or more
    rarely than said, in one layer only, or all samples' at once."""
    found = internal.disturbed_accuracy(steps(depth), ONES, internal.deletion(0.3, torch.Generator()), 2)
    expected = 0.7**depth
    assert found == pytest.approx(expected, abs=5 * math.sqrt(expected * (1 - expected) / (2 * SAMPLES)))


def test_noise_in_closed_form():
    """P(1 + s·N > 0.1). If it fails, noise is larger or smaller than said, or added."""
    net = steps(1)
    with torch.no_grad():
        net.weights[0].mul_(3.0)
        net.weights[1].div_(3.0)
    found = internal.disturbed_accuracy(net, ONES, internal.noise(0.5, torch.Generator()), draws=2)
    expected = norm.cdf(0.9 / 0.5)
    assert found == pytest.approx(expected, abs=5 * math.sqrt(expected * (1 - expected) / (2 * SAMPLES)))


def test_factors_written_out():
    """The same draws in torch. If it fails, outputs or inputs are disturbed, or a layer is not."""
    net = random_network(0, (6, 8, 7, 3))
    split = labelled(net, 300)
    generator, right = torch.Generator().manual_seed(4), 0
    found = internal.disturbed_accuracy(net, split, internal.noise(0.7, generator), 3)
    generator.manual_seed(4)
    for _ in range(3):
        z = split.x
        for layer, size in zip(net.connections[:2], (8, 7)):
            z = layer(z).relu() * (1 + 0.7 * torch.randn(300, size, generator=generator))
        right += int((net.connections[2](z).argmax(1) == split.y).sum())
    assert found == right / 900 < 1


def test_a_generator_decides():
    """If it fails, records cannot be repeated."""
    net = random_network(0, (6, 8, 3))
    split = labelled(net)
    one, other = ([internal.disturbed_accuracy(net, split, kind(0.5, torch.Generator().manual_seed(1)))
                   for kind in (internal.noise, internal.deletion)] for _ in range(2))
    assert one == other


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_coarse_weights(bits):
    """If it fails, there are more levels than bits allow, the largest weight is not met, a weight goes to
    another level than the nearest, or biases are rounded."""
    net = random_network(0, (6, 8, 7, 3))
    exact, found = gauge.balanced(net), internal.quantised(net, bits)
    for W, V in zip(exact.weights, found.weights):
        scale = W.abs().max() / (2 ** (bits - 1) - 1)
        levels = V / scale
        torch.testing.assert_close(levels, levels.round())
        assert len(levels.round().unique()) <= 2**bits - 1
        torch.testing.assert_close(V.abs().max(), W.abs().max())
        assert ((V - W).abs() <= scale / 2 * (1 + 1e-9)).all()
    assert all(torch.equal(b, c) for b, c in zip(exact.biases, found.biases))


def test_a_matrix_of_zeros_stays_one():
    """If it fails, a collapsed network becomes NaN."""
    net = random_network(0, (4, 5, 3))
    with torch.no_grad():
        net.weights[0].zero_()
    assert not internal.quantised(net, 3).weights[0].any()


# --- records ---------------------------------------------------------------------------------------------

SMALL = InternalRobustness("digits", method="backprop", samples=200, hidden=(16, 12), batch=20, epochs=8,
                           patience=None, learning_rate=0.02, images=20, level=0.3)


@pytest.fixture(scope="module")
def trained():
    """SMALL's record, and the network after each epoch, trained once more."""
    states = []
    SMALL.run.execute(lambda net, _: states.append(copy.deepcopy(net.state_dict())))
    return json.loads(json.dumps(SMALL.record(), allow_nan=False)), states


def network(states, epoch):
    net = SMALL.run.network(64)
    net.load_state_dict(states[epoch - 1])
    return net


def loss(net):
    split = data.load("digits").subset(200, 0)
    return 0.5 * (net(split.x) - torch.eye(10)[split.y]).square().sum(1).mean().item()


def test_a_record_is_that_of_its_networks(trained):
    """If it fails, what is recorded was measured on another epoch, other images, or another network."""
    record, states = trained
    split = data.load("digits").test
    assert record["best"]["epoch"] == record["result"]["best_epoch"]
    assert record["best"]["test"] == record["result"]["test"]
    assert record["best"]["epoch"] != record["matched"]["epoch"]  # else one could be the other
    for name in ("best", "matched"):
        found = record[name]
        net = network(states, found["epoch"])
        assert found["test"] == accuracy(net, split) and found["images"] == 20
        assert found["loss"] == pytest.approx(loss(net), rel=1e-5)
        x = split.x[net(split.x).argmax(1) == split.y][:20]
        for k in range(3):
            direct = internal.alone(net, x, k, (0.0, 1.0) if k == 0 else None)
            for part, values in direct._asdict().items():
                assert found["layers"][part][k] == pytest.approx(float(values.median()), rel=1e-9)
            assert found["layers"]["closest"][k] == pytest.approx(
                float((direct.attack / direct.certified).min())) and found["layers"]["closest"][k] >= 1
        direct = internal.jointly(net, x)
        squares = internal.squared_activations(net, x)
        for part, values in direct._asdict().items():
            assert found["energy"][part] == pytest.approx(float(values.median()), rel=1e-9)
            beside = (2 * values / squares).sqrt()
            assert found["joint"][part] == pytest.approx(float(beside.median()), rel=1e-9)
        assert found["quantised"] == [accuracy(internal.quantised(net, bits), split) for bits in (4, 3, 2)]
        generator = training.seeded_generator(0, "disturbances")
        assert found["noise"] == [internal.disturbed_accuracy(net, split, internal.noise(sd, generator))
                                  for sd in (0.5, 1.0)]
        assert found["deletion"] == [internal.disturbed_accuracy(net, split, internal.deletion(p, generator))
                                     for p in (0.25, 0.5)]


def test_networks_are_matched_at_the_first_epoch_with_this_loss(trained):
    """If it fails, one that learns slowly is compared with one that has learned more."""
    record, states = trained
    below = [epoch for epoch in range(1, 9) if loss(network(states, epoch)) <= SMALL.level]
    assert record["matched"]["epoch"] == below[0] > 1


def test_every_finding_is_judged(trained):
    """A tenth added to one of them at a time. If it fails, a repeated record may differ there by as much as
    it likes."""
    record = trained[0]
    assert not list(disagreements(record, record, 0.0))
    names = [name for name in findings(record) if name.startswith(("best.", "matched."))]
    assert len(names) > 30
    for name in names:
        changed = copy.deepcopy(record)
        *places, last = name.split(".")
        part = changed
        for place in places:
            part = part[place]
        old = part[last]
        part[last] = [value and value * 1.1 for value in old] if isinstance(old, list) else old * 1.1
        judged = [] if last == "epoch" or name == "best.loss" else [name]
        assert [line.split(":")[0] for line in disagreements(record, changed)] == judged


def test_training_is_the_runs(trained):
    """If it fails, there is a second way to train."""
    record, plain = trained[0], SMALL.run.execute()
    assert record["history"] == plain["history"] and record["result"] == plain["result"]


def test_a_loss_that_is_never_reached():
    """If it fails, the last network stands for one that fits as well as the others."""
    found = replace(SMALL, level=1e-6, epochs=1).execute()
    assert found["matched"] is None and found["best"]["epoch"] == 1


def test_a_run_that_diverges_at_once(monkeypatch):
    """If it fails, it ends in an exception instead of a record."""
    def fails(*_, **__):
        raise runs.InferenceDiverged("not finite")

    monkeypatch.setattr(runs, "fit", fails)
    found = json.loads(json.dumps(SMALL.execute(), allow_nan=False))
    assert found["best"] is found["matched"] is found["result"] is None and found["diverged"] == "not finite"


def test_a_network_that_collapses():
    """A constant one: nothing flips it. If it fails, its record is an exception, or has numbers."""
    net = random_network(0, (4, 5, 4, 3))
    with torch.no_grad():
        net.weights[2].zero_()
    x = torch.rand(30, 4, dtype=torch.float64)
    found = internal.measures(net, Split(x, net(x).argmax(1)), 10, 0)
    json.dumps(found, allow_nan=False)
    assert set(sum(found["layers"].values(), [])) == {None}
    assert found["test"] == 1
    assert found["noise"] == found["deletion"] == [1.0, 1.0]


def test_images_are_the_first_that_are_read_correctly():
    """If it fails, a flip of a wrong prediction counts as a fault."""
    net = random_network(0, (4, 5, 3))
    split = labelled(net, 30)
    looked = []
    patch = pytest.MonkeyPatch()
    patch.setattr(internal, "squared_activations", lambda net, x: looked.append(x) or torch.ones(len(x)))
    internal.measures(net, split, 12, 0)
    patch.undo()
    right = [n for n in range(30) if n % 5][:12]
    assert torch.equal(looked[0], split.x[right])


@pytest.mark.parametrize("change, complaint", [
    ({"images": 0}, "images=0 must be at least 1"), ({"level": 0.0}, "level=0.0 must be positive"),
    ({"method": "sgd"}, "method='sgd' must be one of"), ({"beta": -1.0, "method": "arovr"}, "beta=-1"),
    ({"control": "dropout"}, "needs a value for strength"), ({"epochs": 0}, "epochs=0 must be at least 1")])
def test_bad_settings_are_named(change, complaint):
    """If it fails, a wrong setting shows up only after training."""
    with pytest.raises(ValueError, match=complaint):
        replace(SMALL, **change)


@pytest.mark.parametrize("call, complaint", [
    (lambda net, x: internal.alone(net, x, 2), "k=2 must be at most 1"),
    (lambda net, x: internal.alone(net, x, -1), "k=-1 must be at least 0"),
    (lambda net, x: internal.alone(net, x, 0, (5.0, 6.0)), r"layer 0 lies in \[.*\], not within"),
    (lambda net, x: internal.alone(random_network(0, (4, 3, 1)), x, 0), "at least 2 outputs"),
    (lambda net, x: internal.jointly(random_network(0, (4, 3, 3), lnn.Tanh()), x), "layer 1 is Tanh"),
    (lambda net, x: internal.jointly(net, x[:, :2]), "x has shape"),
    (lambda net, x: internal.jointly(net, x, rivals=0), "rivals=0"),
    (lambda net, x: internal.jointly(net, x, steps=0), "steps=0"),
    (lambda net, x: internal.noise(0.0, torch.Generator()), "sd=0"),
    (lambda net, x: internal.deletion(1.0, torch.Generator()), "probability=1.0 must be between"),
    (lambda net, x: internal.quantised(net, 1), "bits=1 must be at least 2"),
    (lambda net, x: internal.quantised(net, 9), "bits=9 must be at most 8"),
    (lambda net, x: internal.disturbed_accuracy(net, Split(x, x[:, 0]), lambda z: z, 0), "draws=0"),
])
def test_bad_arguments_are_named(call, complaint):
    """If it fails, they end in an error deep inside, or in a number."""
    net = random_network(0, (4, 3, 3))
    with pytest.raises(ValueError, match=complaint):
        call(net, inputs(net))


def test_the_settings_of_records():
    """If it fails, a default changes: records no longer belong to it, or the run is not Table 1's."""
    assert InternalRobustness().config == {
        "dataset": "mnist", "seed": 0, "method": "arovr", "beta": 0.25, "samples": 5000,
        "hidden": [256, 256], "batch": 50, "epochs": 300, "patience": 30, "learning_rate": 2e-4,
        "images": 500, "level": 0.05}
    assert internal.NOISE == (0.5, 1.0) and internal.DELETED == (0.25, 0.5) and internal.BITS == (4, 3, 2)
    table = {run.key for run in studies.table1()}
    in_table = [one for one in studies.inside() if one.control is None and one.method != "rovr"
                and one.beta in (None, 0.25)]
    assert len(in_table) == 4 * 2 * 10 and {one.run.key for one in in_table} <= table


def test_the_networks_compared():
    """If it fails, a network is missing, or differs in more than how it was trained."""
    found = studies.inside([3], ["mnist"])
    assert [(one.method, one.beta, one.control, one.strength) for one in found] == [
        ("backprop", None, None, None), ("arovr", 0.25, None, None), ("arovr_ab", 0.25, None, None),
        ("arovr_abg", 0.25, None, None), ("rovr", 0.25, None, None), ("arovr", 0.5, None, None),
        ("backprop", None, "batch noise", 1 / 16), ("backprop", None, "dropout", 0.2),
        ("backprop", None, "attacked inputs", 0.5)]
    for name in ("dataset", "seed", "samples", "hidden", "batch", "epochs", "patience", "learning_rate",
                 "images", "level"):
        assert len({getattr(one, name) for one in found}) == 1
    assert len(studies.inside()) == len({one.key for one in studies.inside()}) == 180
    assert {one.samples for one in studies.inside([0], samples=100)} == {100}
