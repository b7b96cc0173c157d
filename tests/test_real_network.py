"""The explorable of a trained network: its data, its mathematics, its page.

The page infers by itself, in float64, on the network that Python unpacks from the same bytes: what
it shows must be what lnn_core infers there, to nine digits.
"""

import base64
import hashlib
import json
import math
import os
import re
from pathlib import Path
from types import SimpleNamespace

import assets.real_network
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import traitlets
from _ext.explorable_data import copy_data
from browsing import PAGE, PHONE, TWO_FRAMES, Shown, each_way, has_nan
from javascript import Script
from test_widgets import NO_WORD

import lnn_core as lnn
from lnn_core import bounds, data
from lnn_core.constrained import ConstrainedAROVR
from lnn_core.experiments import Run
from lnn_core.widgets import packed, real_network
from lnn_core.widgets.real_network import IMAGES, SLIDERS, Attack, RealNetwork, attack

NETWORK = real_network.load()
FILE = Path(real_network.__file__).with_name("real_network.data.js")
RECORD = json.loads(assets.real_network.RECORD.read_text())
NAMES = list(IMAGES)
AGREE = {"rtol": 1e-9, "atol": 1e-9}
CLOSE = lnn.Shooting(tolerance=1e-22, max_passes=1000, every=True)
needs_data = pytest.mark.skipif("LNN_DATA" not in os.environ, reason="needs MNIST: set LNN_DATA")


def image(name):
    """An image, (1, 784), its label and its one-hot target."""
    i = NETWORK.names.index(name)
    target = torch.nn.functional.one_hot(torch.tensor([NETWORK.labels[i]]), 10).double()
    return NETWORK.images[i:i + 1], NETWORK.labels[i], target


# The data: bytes, a record of what rounding changes, and how both are made


def test_record_belongs_to_the_committed_network():
    """If it fails, the accuracy on the page is another network's."""
    content = packed.from_script(FILE.read_text())
    assert hashlib.sha256(content).hexdigest() == RECORD["sha256"]
    assert RECORD["bytes"] == FILE.stat().st_size < 600_000
    assert assets.real_network.SCRIPT == FILE and RECORD["config"] == assets.real_network.RUN.config
    assert NETWORK.names == list(RECORD["images"]) == NAMES


@needs_data
def test_record_holds():
    """If it fails, the record's accuracies, or which test images the page shows, are not what the
    network gives."""
    test, rounding = data.load("mnist").test, RECORD["rounding"]
    right = int((NETWORK.net(test.x.double()).argmax(1) == test.y).sum()) / len(test.y)
    assert right == rounding["accuracy_rounded"] and rounding["test_images"] == len(test.y)
    assert abs(right - rounding["accuracy"]) <= rounding["predictions_changed"] / len(test.y) < 1e-3
    rows = list(RECORD["images"].values())
    torch.testing.assert_close(NETWORK.images.float(), test.x[rows], rtol=0, atol=1e-7)
    assert test.y[rows].tolist() == NETWORK.labels


def small(**options):
    net = lnn.LiftedNetwork([6, 5, 4, 3], generator=torch.Generator().manual_seed(0), **options)
    with torch.no_grad():
        for i, bias in enumerate(net.biases or ()):
            bias += 0.1 * (i + 1)
    return net


def test_packing_rounds_each_row_to_its_own_127_steps():
    """If it fails, a weight is further off than half a step of its row."""
    net, images = small(), torch.rand(2, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        net.weights[1][2] = 0  # a row with nothing to scale
    found = packed.unpack(packed.pack(net, images, ["a", "b"], [1, 0]))
    for before, after in zip(net.weights, found.net.weights):
        step = before.double().abs().amax(1, keepdim=True) / 127
        assert ((before - after).abs() <= 0.5001 * step + 1e-12).all()
    for before, after in zip(net.biases, found.net.biases):
        torch.testing.assert_close(after.float(), before, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.images.float(), images, rtol=0, atol=0.5001 / 255)
    assert (found.names, found.labels) == (["a", "b"], [1, 0])
    assert found.kappa == bounds.kappa(found.net)
    again = packed.pack(found.net, found.images, ["a", "b"], [1, 0])
    assert packed.from_script(packed.to_script(again)) == again


@pytest.mark.parametrize("net, images, names, message", [
    (small(bias=False), torch.zeros(1, 6), ["a"], "only a chain of layers with biases"),
    (small(edges=[(0, 1), (1, 2), (2, 3), (1, 3)]), torch.zeros(1, 6), ["a"], "only a chain"),
    (small(), torch.zeros(1, 5), ["a"], r"1 names and 1 labels .* \(1, 5\) for 6 inputs"),
    (small(), torch.zeros(2, 6), ["a"], r"1 names and 1 labels do not fit"),
])
def test_what_cannot_be_packed_is_refused(net, images, names, message):
    """If it fails, a page shows another network than the one that was given."""
    with pytest.raises(ValueError, match=message):
        packed.pack(net, images, names, [0])


def test_training_for_the_page_repeats_and_keeps_the_best_epoch():
    """If it fails, the asset cannot be made again, or is the last epoch's network."""
    run = Run(dataset="digits", samples=200, hidden=(12, 12), epochs=3, learning_rate=3e-3)
    digits = data.load("digits")
    (net, history), (again, _) = (assets.real_network.train(run, digits) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters()))
    right = (net(digits.validation.x).argmax(1) == digits.validation.y).double().mean().item()
    assert right == pytest.approx(max(history.validation), abs=1e-9)


def test_images_are_chosen_by_their_margins():
    """If it fails, an image called clear is doubtful."""
    net = lnn.LiftedNetwork([10, 10, 10], dtype=torch.float64)
    with torch.no_grad():
        for weight in net.weights:
            weight.copy_(torch.eye(10))  # outputs are inputs
    eye = torch.eye(10, dtype=torch.float64)
    sure, clear, doubtful = 1.2 * eye, 0.9 * eye, 0.9 * eye + 0.8 * eye.roll(1, 0)
    x = torch.cat([sure, doubtful.flip(0), clear, doubtful.roll(3, 0)])
    y = torch.cat([torch.arange(10), torch.arange(9, -1, -1), torch.arange(10), torch.arange(10)])
    chosen = assets.real_network.choose(net, data.Split(x, y))
    assert list(chosen) == NAMES
    assert [chosen[f"{i} clear"] for i in range(10)] == list(range(20, 30))
    assert [chosen[f"{i} doubtful"] for i in range(10)] == list(range(19, 9, -1))
    assert (chosen["overconfident"], chosen["misread"]) == (0, 30)


def test_pruning_forgets_pixels_that_are_never_inked():
    """If it fails, there is noise in the picture of the signal; or a pixel that was trained is
    lost."""
    samples = data.Split(torch.tensor([[0.0, 0, 0.5, 0, 0, 0], [0, 0, 0, 0, 0, 1]]), torch.zeros(2))
    net = small()
    before, after = net.weights[0].clone(), assets.real_network.pruned(net, samples).weights[0]
    assert torch.equal(after[:, [2, 5]], before[:, [2, 5]]) and not after[:, [0, 1, 3, 4]].any()
    assert torch.equal(net.weights[0], before)


def test_rounding_is_compared_output_by_output():
    """If it fails, the record does not say what rounding changes."""
    net = small()
    twin = packed.unpack(packed.pack(net, torch.zeros(1, 6), ["a"], [0])).net
    with torch.no_grad():
        twin.biases[2][1] += 10
    test = data.Split(torch.rand(50, 6), torch.ones(50, dtype=torch.int64))
    found = assets.real_network.compare(net, twin, test)
    assert found["accuracy_rounded"] == 1 and found["test_images"] == 50
    assert found["predictions_changed"] == round(50 * (1 - found["accuracy"]))
    assert found["largest_change"] == pytest.approx(10, abs=0.1)
    assert found["mean_change"] == pytest.approx(10 / 3, abs=0.1)


def test_the_book_ships_the_data(tmp_path):
    """If it fails, built pages look for a file that is not there."""
    copy_data(SimpleNamespace(outdir=tmp_path))
    assert (tmp_path / "_static" / FILE.name).read_bytes() == FILE.read_bytes()


# The mathematics of the page


@pytest.fixture(scope="module")
def js():
    """The page's script with the network, and with a blank pad."""
    script = Script(RealNetwork)
    body = list(packed.zlib.decompress(packed.from_script(FILE.read_text())))
    script.context.eval(f"net = unpack(Uint8Array.from({json.dumps(body)}));"
                        "host = { get: () => [] }; drawn = inked(drawnBytes());")
    return script


EXACT = {"tolerance": 1e-12, "most": 500}


def solve(js, options=EXACT, **p):
    """What the page shows at these parameters; z, forward and signal as arrays."""
    setting = {"image": "4 doubtful", "adversary": "price", "beta": 0.25, "delta": 0.01} | p
    found = js("""(({ z, forward, signal, start, y, ...rest }) => ({
        ...rest, signal: Array.from(signal), z: z.map(v => Array.from(v)),
        forward: forward.map(v => Array.from(v)) }))(solve(p, options))""",
               p=setting, options=options)
    return SimpleNamespace(**found)


def test_forward_pass_agrees(js):
    """If it fails, bytes are read in another order, or in another scale."""
    for name in NAMES:
        x, label, _ = image(name)
        s = solve(js, {}, image=name, beta=0.0)
        for k, z in enumerate(NETWORK.net.activations(x)):
            np.testing.assert_allclose(s.forward[k], z[0], rtol=1e-12, atol=1e-12)
        assert s.z == s.forward and s.potential == 0 and s.loss[0] == s.loss[1] == s.arovr
        assert not any(s.signal) and s.lead == s.remains and s.label == label
    assert solve(js, {}, image="misread").read != image("misread")[1]


def test_border_and_certified_budget_agree(js):
    """If it fails, the marks on the tracks are elsewhere than the bounds."""
    for name in NAMES[::3]:
        x, _, _ = image(name)
        s = solve(js, {}, image=name, beta=0.0)
        assert s.border == pytest.approx(bounds.stability_threshold(NETWORK.net, x).item(), rel=1e-9)
        assert s.certified == pytest.approx(bounds.energy_budget(NETWORK.net, x).item(), rel=1e-9)


@pytest.mark.parametrize("name, beta", [
    ("4 doubtful", 0.05), ("4 doubtful", 0.25), ("0 clear", 0.25), ("0 clear", 0.5),
    ("9 doubtful", 0.25), ("3 clear", 0.4), ("overconfident", 0.45), ("misread", 0.25),
    ("7 doubtful", 0.35), ("8 clear", 0.1)])
def test_inference_agrees_with_lnn_core(js, name, beta):
    """If it fails, a bar, a cell of a grid, or a number of the page is wrong."""
    x, label, target = image(name)
    energy = lnn.FenchelYoung() - beta * lnn.Euclidean(target)
    z, _ = lnn.infer(NETWORK.net, x, energy, solver=CLOSE)
    s = solve(js, image=name, beta=beta)
    assert not s.stopped
    for k in range(4):
        np.testing.assert_allclose(s.z[k], z[k][0], **AGREE)
    potential = lnn.FenchelYoung()(NETWORK.net, z).item()
    loss = 0.5 * (z[-1] - target).square().sum().item()
    assert s.potential == pytest.approx(potential, rel=1e-8, abs=1e-10)
    assert s.loss[1] == pytest.approx(loss, rel=1e-9)
    assert s.arovr == pytest.approx(loss - potential / beta, rel=1e-9)
    expected = Attack(None, z, beta, True).signal[0]
    np.testing.assert_allclose(s.signal, expected, **AGREE)
    others = np.delete(s.z[-1], s.read)
    assert s.remains == s.z[-1][s.read] - others.max() and s.attackedRead == np.argmax(s.z[-1])


def test_signal_is_the_gradient_with_respect_to_the_image():
    """If it fails, the picture is not the change of the image that would help the adversary,
    −∂U/∂x."""
    x, label, _ = image("4 doubtful")
    found = attack(x, label, 0.25)
    pixels = x.clone().requires_grad_()
    lnn.FenchelYoung()(NETWORK.net, [pixels, *found.after[1:]]).backward()
    torch.testing.assert_close(found.signal, -pixels.grad)


BUDGETS = [("4 doubtful", 0.001), ("4 doubtful", 0.1), ("0 clear", 0.2), ("9 clear", 0.3),
           ("overconfident", 0.05), ("misread", 1.0)]


@pytest.mark.parametrize("name, delta", BUDGETS)
def test_budget_is_spent_at_a_stationary_point(js, name, delta):
    """Eq. (7). If it fails, U is not δ, or a layer does not answer the signal from above, the
    output β(z_L − y)."""
    _, _, target = image(name)
    s, net = solve(js, adversary="budget", image=name, delta=delta), NETWORK.net
    z = [torch.tensor([z_k], dtype=torch.float64) for z_k in s.z]
    assert lnn.FenchelYoung()(net, z).item() == pytest.approx(delta, rel=1e-9)
    errors = [None] + [z[k] - net.function(k).activation(net.preactivation(k, z))
                       for k in range(1, 4)]
    np.testing.assert_allclose(errors[3], s.beta * (z[3] - target), **AGREE)
    for k in (1, 2):
        answer = (net.preactivation(k, z) + net.feedback(k, errors)).clamp_min(0)
        np.testing.assert_allclose(z[k], answer, **AGREE)


@pytest.mark.parametrize("name, delta", [*BUDGETS[:3], ("8 doubtful", 0.1)])
def test_budget_buys_as_much_as_lnn_core_finds(js, name, delta):
    """If it fails, the page's adversary with a budget is weaker than ConstrainedAROVR."""
    x, _, target = image(name)
    objective = ConstrainedAROVR(delta, solver=lnn.Shooting(1e-16, 300, True), steps=45)
    value = objective(NETWORK.net, x, target).item()
    s = solve(js, {"most": 200}, adversary="budget", image=name, delta=delta)
    assert s.loss[1] >= value - 1e-5
    if objective.certificate.energy > 0.999999 * delta:
        assert s.loss[1] == pytest.approx(value, rel=1e-5)
        assert s.beta == pytest.approx(objective.certificate.beta.item(), rel=1e-4)


def test_page_is_as_exact_as_it_is_written(js):
    """If it fails, the few passes that a frame allows leave a number wrong in its third digit."""
    for p in ({"beta": 0.25}, {"image": "0 clear", "beta": 0.55},
              {"adversary": "budget", "delta": 0.03}, {"adversary": "budget", "delta": 1.0}):
        quick, exact = solve(js, {}, **p), solve(js, {"tolerance": 1e-9, "most": 200}, **p)
        for name in ("potential", "arovr", "remains"):
            assert getattr(quick, name) == pytest.approx(getattr(exact, name), abs=2e-4, nan_ok=True)
        assert quick.loss == pytest.approx(exact.loss, abs=2e-4)


def test_nothing_within_the_certified_budget_changes_a_prediction(js):
    """If it fails, the picture breaks what the mark on δ's track promises."""
    for name in NAMES:
        certified = solve(js, {}, image=name, beta=0.0).certified
        for share in (0.3, 0.99):
            s = solve(js, {}, image=name, adversary="budget", delta=share * certified)
            assert s.attackedRead == s.read and s.remains > 0


def test_where_inference_does_not_settle_the_picture_stops(js):
    """If it fails, there are numbers without end, or a stop where lnn_core finds an optimum."""
    for name in ("4 doubtful", "9 clear"):
        x, label, _ = image(name)
        s = solve(js, {}, image=name, beta=0.75)
        assert s.stopped and math.isnan(s.arovr) and 0.8 * s.border < s.beta <= s.border
        assert not attack(x, label, 0.75).settled and attack(x, label, s.beta).settled
        below = solve(js, {}, image=name, beta=0.95 * s.beta)
        assert not below.stopped and below.beta == 0.95 * s.beta


def test_no_nan_or_gap_in_words_and_numbers(js):
    """If it fails, a reader sees or hears `NaN` or `undefined` at some setting."""
    for name in (NAMES[0], "misread", "drawn"):
        for p in ({"beta": 0.0}, {"beta": 0.3}, {"adversary": "budget", "delta": 1e-4},
                  {"adversary": "budget", "delta": 1.0}):
            setting = {"image": name, "adversary": "price", "beta": 0.25, "delta": 0.01} | p
            words = js("""(() => {
                const s = solve(p), list = explorable.readouts(p, s).filter(item => item.name);
                return [...explorable.panels.map(panel => panel.describe(p, s)), status(p, s).text,
                        ...list.map(item => number(item.value, item.digits ?? 3))].join(" ");
            })()""", p=setting)
            assert not re.search(NO_WORD, words), words


def test_a_stroke_inks_what_the_pen_touches(js):
    """If it fails, a digit is drawn elsewhere, or with gaps between two places of the mouse."""
    blank = [0] * 784
    line = np.reshape(js("stroke(b, [4.5, 10.5], [20.5, 10.5])", b=blank), (28, 28))
    assert (line[10, 4:21] == 255).all() and not line[13:].any() and not line[:8].any()
    assert (line[8:13] == line[12:7:-1]).all()
    assert not line[:, 23:].any() and not line[:, :2].any()
    twice = js("stroke(stroke(b, [4.5, 10.5], [20.5, 10.5]), [9, 3], [9, 3])", b=blank)
    assert (np.reshape(twice, (28, 28)) >= line).all()


def test_a_drawing_is_moved_to_the_middle(js):
    """If it fails, the network, which has only seen digits there, misreads a good one elsewhere."""
    corner = js("stroke(b, [6.5, 5.5], [9.5, 11.5])", b=[0] * 784)
    ink = np.reshape(js("centred(b)", b=corner), (28, 28))
    rows, columns = np.indices(ink.shape)
    for places in (rows, columns):
        assert abs((places * ink).sum() / ink.sum() - 13.5) <= 0.5
    assert sorted(ink.ravel()) == sorted(corner)
    assert js("centred(b)", b=[0] * 784) == [0] * 784


def test_a_drawing_has_the_label_that_the_network_reads(js):
    """If it fails, the adversary pulls a reader's digit away from a label that nobody gave."""
    bytes_ = js("stroke(b, [14, 4], [14, 24])", b=[0] * 784)
    js.context.eval(f"drawn = inked({bytes_})")
    s = solve(js, {}, image="drawn", beta=0.2)
    widget = RealNetwork(image="drawn", drawing=bytes_, beta=0.2)
    assert s.label == s.read == widget.label == 1
    np.testing.assert_allclose(s.z[-1], widget.attack().after[-1][0], atol=1e-4)
    js.context.eval("drawn = inked(drawnBytes())")


# In Python


def test_callback_over_its_whole_grid():
    """If it fails, a slider seems to do nothing: `interact` hides exceptions."""
    low, high, step = SLIDERS["beta"]
    betas = np.arange(low, high + step / 2, step)
    for name in SLIDERS["image"]:
        x, label, _ = image(name)
        for beta in betas:
            found = attack(x, label, float(beta))
            assert all(z.isfinite().all() for z in found.after) and found.signal.isfinite().all()
    for name, beta in [(name, 0.25) for name in NAMES[::4]] + [("4 doubtful", b) for b in betas[::3]]:
        figure = real_network.draw_attack(name, float(beta))
        assert len(figure.axes) == 5
        plt.close(figure)


@pytest.mark.parametrize("arguments, message", [
    (("4", 0.2), "image='4' must be one of 0 clear, 0 doubtful"),
    (("4 clear", 1.0), r"beta=1.0 must be in \[0, 1\)"), (("4 clear", -0.1), "beta=-0.1 must be")])
def test_callback_refuses_what_is_not_there(arguments, message):
    """If it fails, there is a picture of something else than what was asked for."""
    with pytest.raises(ValueError, match=message):
        real_network.draw_attack(*arguments)


def test_kernel_side_of_the_explorable():
    """If it fails, what a kernel reads from the widget is not what the page shows."""
    widget = RealNetwork(image="7 clear", beta=0.2)
    x, label, _ = image("7 clear")
    assert torch.equal(widget.x, x) and widget.label == label and widget.net is NETWORK.net
    found = widget.attack()
    assert found.before[-1].argmax() == 7 and found.beta == 0.2 and "reads 7" in widget.describe()
    widget.adversary = "budget"
    within = widget.attack()
    assert lnn.FenchelYoung()(widget.net, within.after).item() == pytest.approx(0.01, rel=1e-3)
    assert "budget of 0.0100" in widget.describe()
    widget.drawing = [255] * 784
    with pytest.raises(traitlets.TraitError, match="drawing has 3 values: it must have 784"):
        widget.drawing = [1, 2, 3]


def test_a_page_does_not_carry_the_network_and_a_kernel_does():
    """If it fails, a page has 0.4 MB before anything is seen; or a widget in Jupyter lacks its
    network."""
    widget = RealNetwork()
    assert len(widget.html()) < 90_000 and "_packed" not in widget.state()
    assert widget.get_state()["_packed"] == packed.from_script(FILE.read_text())


# In a browser

READOUTS = ("loss", "arovr", "attacked", "energy", "lead", "remains")


def predicted(page):
    """The numbers under the picture, by lnn_core."""
    name, beta = page.control("image").input_value(), page.number("beta")
    x, label, target = image(name)
    found = attack(x, label, beta)
    loss = [0.5 * (z[-1] - target).square().sum().item() for z in (found.before, found.after)]
    potential = lnn.FenchelYoung()(NETWORK.net, found.after).item()
    read = found.before[-1].argmax()
    margin = [(z[-1][0, read] - z[-1][0, torch.arange(10) != read].max()).item()
              for z in (found.before, found.after)]
    return [loss[0], loss[1] - potential / beta, loss[1], potential, *margin]


def outputs(page):
    """The bars: outputs of the forward pass, and attacked."""
    numbers = re.findall(r"−?\d+\.\d\d", page.label(2))
    values = [float(number.replace("−", "-")) for number in numbers]
    return values[:10], values[10:]


@each_way
def test_sliding_beta_gives_what_lnn_core_predicts(shown, width, theme):
    """If it fails, the numbers under the picture are not those of the library."""
    page = shown(RealNetwork(), width=width, theme=theme)
    for share in (0.1, 0.3, 0.5):
        page.slide("beta", share)
        assert page.numbers(*READOUTS) == pytest.approx(predicted(page), abs=1e-3)
    page.control("image").select_option("0 clear")
    page.settle()
    assert page.numbers(*READOUTS) == pytest.approx(predicted(page), abs=1e-3)
    assert page.errors == [] and not has_nan(page)


def test_without_strength_there_is_no_adversary(shown):
    """If it fails, β = 0 is not the forward pass, in all numbers and both rows of bars."""
    page = shown(RealNetwork())
    attacked = [page.picture(panel) for panel in range(3)]
    page.press("beta", "Home")
    assert page.number("beta") == page.number("energy") == 0
    assert page.number("loss") == page.number("arovr") == page.number("attacked")
    assert page.number("lead") == page.number("remains")
    forward, after = outputs(page)
    assert forward == after and "does not change that" in page.status
    assert all(page.picture(panel) != attacked[panel] for panel in range(3))


def test_the_right_output_falls_with_beta_until_the_reading_turns(shown):
    """If it fails, a doubtful 4 does not become a 6, as the chapter's first experiment says."""
    page, seen = shown(RealNetwork(beta=0.0)), []
    for share in (0.05, 0.1, 0.2, 0.3, 0.4):
        page.slide("beta", share)
        seen.append(outputs(page)[1])
    right, wrong = [z[4] for z in seen], [z[6] for z in seen]
    assert right == sorted(right, reverse=True) and wrong == sorted(wrong)
    assert right[0] > wrong[0] and right[-1] < wrong[-1]
    assert "A 4 (4 doubtful), read as 4; under the adversary, as 6." in page.status
    assert page.number("remains") < 0 < page.number("lead")


def test_an_overconfident_output_is_raised(shown):
    """The Euclidean loss also grows above 1, and there the adversary goes. If it fails, the third
    experiment shows something else."""
    page = shown(RealNetwork(image="overconfident", beta=0.3))
    forward, after = outputs(page)
    right = max(range(10), key=forward.__getitem__)
    assert after[right] > forward[right] > 1 and page.number("remains") > page.number("lead")


@each_way
def test_where_inference_does_not_settle_the_page_says_so(shown, width, theme):
    """If it fails, a β without optimum is drawn as if it had one; or AROVR is called infinite
    unproved."""
    page = shown(RealNetwork(image="9 clear"), width=width, theme=theme)
    assert not page.lit
    page.press("beta", "End")
    assert page.lit and page.text("arovr") == "–" and "does not settle" in page.status
    assert "infinite" not in page.status and "falls without end" not in page.status
    assert page.number("price") < page.number("beta") == 0.75
    assert f"stays at β = {page.text('price')}" in page.status
    stopped = outputs(page)
    page.press("beta", "ArrowLeft")
    assert outputs(page) == stopped
    page.slide("beta", 0.4)
    assert not page.lit and page.number("price") == page.number("beta")


def test_budget_is_spent_in_full(shown):
    """If it fails, U is not δ somewhere on δ's slider, or the loss does not grow with it."""
    page, losses = shown(RealNetwork(image="0 clear", adversary="budget")), []
    for share in (0.2, 0.4, 0.6, 0.8, 1.0):
        page.slide("delta", share)
        assert page.number("energy") == pytest.approx(page.number("delta"), abs=2e-4)
        losses.append(page.number("attacked"))
    assert losses == sorted(losses) and losses[0] > page.number("loss")
    assert page.text("arovr") == "–" and page.number("price") > 0
    assert "read as 0; under the adversary, as" in page.status


def test_within_the_certified_budget_no_reading_changes(shown):
    """If it fails, the second experiment, over all images, breaks what the mark on the track
    promises."""
    page, names = shown(RealNetwork(image="0 clear", adversary="budget", delta=1e-4)), set()
    for _ in NAMES:
        names.add(page.control("image").input_value())
        certified = "Nothing within the certified budget could" in page.status
        lead = page.number("lead")
        assert certified == (lead**2 / (4 * NETWORK.kappa) > 1e-4) or lead < 0.08
        assert not certified or "does not change that" in page.status
        page.click("next")
    assert names == set(NAMES) and page.control("image").input_value() == "0 clear"


def pad(page):
    """The pad's place on the canvas: its left and top, and its side, in pixels."""
    box = page.canvas().bounding_box()
    wide = box["width"] > box["height"]
    room = ((box["width"] - 12) / 2, box["height"] - 24) if wide else \
        (box["width"], (box["height"] - 12) / 2 - 24)
    side = math.floor(min(room))
    left = (box["width"] - (2 * side + 12 if wide else side)) / 2
    return left, 24 + ((box["height"] - 24 - side) / 2 if wide else 0), side


def draw_one(page, pull):
    """A vertical stroke in the middle of the pad."""
    left, top, side = pad(page)
    getattr(page, pull)((left + side / 2, top + 0.2 * side), (left + side / 2, top + 0.8 * side))


@pytest.mark.parametrize("pull, width", [("drag", 1280), ("swipe", PHONE)])
def test_a_reader_draws_a_digit(shown, pull, width):
    """If it fails, the pad does not answer to the mouse or the finger, or scrolls away under it."""
    page = shown(RealNetwork(), width=width)
    page.page.evaluate("document.body.style.paddingBottom = '2000px'")
    page.press("beta", "Home")
    page.click("draw")
    assert page.control("image").input_value() == "drawn"
    page.canvas().scroll_into_view_if_needed()
    blank, scroll = page.picture(), page.page.evaluate("scrollY")
    draw_one(page, pull)
    assert page.picture() != blank and "Your digit, read as 1" in page.status
    assert page.page.evaluate("scrollY") == scroll
    assert page.number("lead") == page.number("remains") > 0
    page.click("draw")
    assert page.picture() == blank
    assert page.errors == [] and not has_nan(page)


def test_an_image_of_the_test_set_is_not_drawn_upon(shown):
    """If it fails, a finger that wants to scroll spoils the image."""
    page = shown(RealNetwork())
    before = page.numbers(*READOUTS)
    draw_one(page, "drag")
    assert page.numbers(*READOUTS) == before


def open_page(browser, path, html, root=""):
    """A page of one's own; ``root`` is what a book says about where its files are."""
    text = PAGE.format(theme="light", html=html)
    path.write_text(text.replace("<html ", f'<html data-content_root="{root}" '), encoding="utf-8")
    explorable = Shown(browser.new_page())
    explorable.page.set_default_timeout(120_000)
    explorable.page.goto(path.as_uri())
    return explorable


def test_network_is_loaded_when_it_is_about_to_be_seen(browser, tmp_path):
    """If it fails, readers of a page's beginning pay for its end; or a chapter in a folder finds
    nothing."""
    (tmp_path / "book").mkdir()
    copy_data(SimpleNamespace(outdir=tmp_path))
    html = "<div style='height: 5000px'>Text</div>" + RealNetwork().html()
    page = open_page(browser, tmp_path / "book" / "page.html", html, root="../")
    page.page.evaluate(TWO_FRAMES)
    assert not any(FILE.name in url for url in page.requests)
    page.page.evaluate("scrollTo(0, 5000)")
    page.page.wait_for_selector("canvas")
    assert [url for url in page.requests if not url.startswith("file:")] == []
    assert sum(FILE.name in url for url in page.requests) == 1
    assert page.errors == []
    page.page.close()


def test_page_without_the_file_says_so(browser, tmp_path):
    """If it fails, nobody understands an exported page: the picture goes, or no sentence says
    why."""
    page = open_page(browser, tmp_path / "alone.html", RealNetwork().html(), root="nowhere/")
    page.page.wait_for_selector("text=could not be loaded")
    assert f"nowhere/_static/{FILE.name}" in page.root.inner_text()
    assert page.root.locator(".still svg").is_visible()
    assert not [error for error in page.errors if "Failed to load resource" not in error]
    page.page.close()


def test_in_jupyter_the_kernel_sends_the_network(browser, tmp_path):
    """If it fails, JupyterLab looks for a file beside the page, while the bytes come with the
    widget."""
    content = base64.b64encode(packed.from_script(FILE.read_text())).decode()
    script = RealNetwork._esm.replace("export default", "const widget =")
    state = json.dumps(RealNetwork(beta=0.1).state())
    html = f"""<div id="cell"></div><script type="module">{script}
        const bytes = Uint8Array.from(atob("{content}"), code => code.charCodeAt(0));
        const values = {{ ..._state, _packed: new DataView(bytes.buffer) }};
        widget.render({{ model: pageModel(values), el: document.getElementById("cell") }});
        </script>""".replace("_state", state)
    page = open_page(browser, tmp_path / "lab.html", html)
    page.page.wait_for_selector("canvas")
    assert page.numbers(*READOUTS) == pytest.approx(predicted(page), abs=1e-3)
    assert len(page.requests) == 1 and page.errors == []  # the page itself
    page.page.close()
