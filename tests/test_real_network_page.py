"""The page of a trained network: what it draws, says and counts, beside what lnn_core infers."""

import json
import math

import numpy as np
import pytest
import torch
from drawing import COLOUR, INK, Area, Axes, Item, Shade, Text, Vertical, check, near
from javascript import Page
from test_explorable_words import n, says

import lnn_core as lnn
from lnn_core import bounds
from lnn_core.constrained import ConstrainedAROVR
from lnn_core.widgets import packed, real_network
from lnn_core.widgets.real_network import RealNetwork

NETWORK = real_network.load()
BYTES = list(packed.zlib.decompress(real_network._data()))
RISE, FALL = COLOUR["arovr"], COLOUR["rovr"]
CLOSE = lnn.Shooting(tolerance=1e-22, max_passes=1000, every=True)
STROKE = [255 if 10 < i // 28 < 18 and 12 < i % 28 < 16 else 0 for i in range(784)]


def opened(widget, size=(560, 350)):
    return Page(widget, f"""Object.assign(SIZE, {{ width: {size[0]}, height: {size[1]} }});
        net = unpack(Uint8Array.from({json.dumps(BYTES)})); host = model;
        drawn = inked(drawnBytes())""")


def activations(widget):
    """Forward pass, those of the adversary, and W₀ᵀe₁, by lnn_core; all as arrays."""
    net, x = NETWORK.net, widget.x
    target = torch.nn.functional.one_hot(torch.tensor([widget.label]), 10).double()
    before = after = net.activations(x)
    if widget.adversary == "budget":
        objective = ConstrainedAROVR(widget.delta, solver=lnn.Shooting(1e-16, 300, True), steps=45)
        objective(net, x, target)
        after = objective.activations
    elif widget.beta > 0:
        after, _ = lnn.infer(net, x, lnn.FenchelYoung() - widget.beta * lnn.Euclidean(target),
                             solver=CLOSE)
    signal = (after[1] - net.function(1).activation(net.preactivation(1, after))) @ net.weight(1)
    return [z[0].numpy() for z in before], [z[0].numpy() for z in after], signal[0].numpy()


class Box(Item):
    """A frame around a square, inside it."""

    def __init__(self, left, top, side):
        super().__init__(alpha=0.4)
        self.box = [left + 0.5, top + 0.5, side - 1, side - 1]

    def find(self, notes, axes):
        near(self.take(notes, "strokeRect", width=1, clipped=axes.clip)["box"], self.box)


def squares(width, height):
    """Two squares with 24 pixels for captions and 12 between, worked out for either shape."""
    if width > height:
        side = math.floor(min((width - 12) / 2, height - 24))
        left, top = (width - 2 * side - 12) / 2, 24 + (height - 24 - side) / 2
        return (left, top, side), (left + side + 12, top, side)
    side = math.floor(min(width, (height - 12) / 2 - 24))
    left = (width - side) / 2
    return (left, 24, side), (left, 24 + side + 12 + 24, side)


def grid(square, caption, sheets):
    """Values as squares in colours on top of each other: (opacities, colour)."""
    left, top, side = square
    window = (left, left + side), (top + side, top)
    items = []
    for opacity, colour in sheets:
        count = math.isqrt(len(opacity))
        items.append(Shade(lambda x, y, o=opacity, c=count: o.reshape(c, c), window, count, False,
                           colour=colour))
    return [*items, Box(left, top, side), Text(caption, (left, top - 0.45 * 24))]


def changes(values, half):
    rises, falls = np.maximum(values, 0), np.maximum(-values, 0)
    return [(v**2 / (v**2 + half**2), colour) for v, colour in ((rises, RISE), (falls, FALL))]


def pixels(size):
    return Axes((0, size[0]), (size[1], 0), (0, 0, 0, 0), size)


def bars(widget, before, after):
    axes_x, top, bottom = (-0.65, 1.65), -0.7, 9.7
    items = [Vertical(x, width=1, alpha=0.5, dash=(5, 4) if x else ()) for x in (0, 1)]
    for values, colour, start in ((before, INK, -0.34), (after, RISE, 0.02)):
        for digit, v in enumerate(values):
            low, high = digit + start, digit + start + 0.32
            items.append(Area([(0, low), (v, low), (v, high), (0, high)], colour=colour))
    label = widget.label
    return [
        *items,
        *[Text(str(d), (-0.65, d), (-6, 0), "right", d == label) for d in range(10)],
        Text("label", (1.65, label), (-4, 0), "right", alpha=0.85),
        *[Text(f"{x:g}".replace("-", "−"), (x, bottom), (0, 10), "center", alpha=0.85)
          for x in (-0.5, 0, 0.5, 1, 1.5)],
        Text("z₃, outputs", (0.5, bottom), (0, 25), "center", alpha=0.85),
        Text("■ z* forward", (axes_x[0], top), (0, -0.45 * 24)),
        Text("■ z attacked", (axes_x[1], top), (0, -0.45 * 24), "right", colour=RISE),
        Outline()]


class Outline(Item):
    """Around the outputs."""

    def __init__(self):
        super().__init__(alpha=0.4)

    def find(self, notes, axes):
        near(self.take(notes, "strokeRect", width=1, clipped=None)["box"], axes.clip)


@pytest.mark.parametrize("p, size", [
    ({}, (560, 350)), ({"image": "0 clear", "beta": 0.4}, (250, 500)),
    ({"image": "8 doubtful", "adversary": "budget", "delta": 0.1}, (300, 700)),
    ({"image": "drawn"}, (560, 350)), ({"image": "drawn", "drawing": STROKE}, (500, 250)),
    ({"image": "misread", "beta": 0.0}, (200, 201))])
def test_pictures(p, size):
    """If it fails, an activation, its change or an output is drawn as another one."""
    widget = RealNetwork(**p)
    before, after, signal = activations(widget)
    page, (first, second) = opened(widget, size), squares(*size)
    mine, blank = widget.image == "drawn", not before[0].any()
    left, top, side = first
    middle = [Text("draw here", (left + side / 2, top + side / 2), align="center", alpha=0.7)]
    check(page.painted(0), pixels(size), [
        *grid(first, "x, your digit" if mine else "x, image", [(before[0], INK)]),
        *grid(second, "W₀ᵀe₁, signal at the image",
              [(0.3 * before[0], INK), *changes(signal, 0.04)]), *middle * blank])
    check(page.painted(1), pixels(size), [
        item for k, square in ((1, first), (2, second)) for item in grid(
            square, f"z{'₀₁₂'[k]}, 256 units",
            [(0.6 * before[k], INK), *changes(after[k] - before[k], 0.12)])])
    check(page.painted(2), Axes((-0.65, 1.65), (9.7, -0.7), (24, 8, 34, 20), size),
          bars(widget, before[3], after[3]))


def margin(z, digit):
    return z[digit] - np.delete(z, digit).max()


@pytest.mark.parametrize("p, certain", [
    ({}, False), ({"image": "0 clear", "beta": 0.4}, False), ({"image": "misread", "beta": 0.0}, False),
    ({"image": "3 clear", "adversary": "budget", "delta": 1e-4}, True),
    ({"image": "8 doubtful", "adversary": "budget", "delta": 0.1}, False),
    ({"image": "drawn", "drawing": STROKE}, False)])
def test_words(p, certain):
    """If it fails, readers hear or read other numbers than lnn_core's; ``certain``: nothing within
    the budget could change the reading, which the page says then and only then."""
    widget = RealNetwork(**p)
    net, x, label = NETWORK.net, widget.x, widget.label
    before, after, signal = activations(widget)
    y = np.eye(10)[label]
    loss = [0.5 * sum((z[3] - y) ** 2) for z in (before, after)]
    U = lnn.FenchelYoung()(net, [torch.tensor(z)[None] for z in after]).item()
    read, attacked = before[3].argmax(), after[3].argmax()
    budget, strength = widget.adversary == "budget", widget.beta
    if budget:
        strength = np.linalg.norm(after[3] - net.preactivation(3, [
            torch.tensor(z)[None] for z in after])[0].numpy()) / np.linalg.norm(after[3] - y)
    gained = math.nan if budget else loss[1] - (U / strength if strength else 0)
    subject = "Your digit" if widget.image == "drawn" else f"A {label} ({widget.image})"
    status = f"{subject}, read as {read}; " + (
        f"under the adversary, as {attacked}." if attacked != read
        else "the adversary does not change that.")
    status += " Nothing within the certified budget could." if certain else ""
    length = np.linalg.norm
    hidden = "; ".join(f"those of layer {k}, of length {n(length(before[k]))}, by "
                       f"{n(length(after[k] - before[k]), 3)}" for k in (1, 2))
    outputs = [", ".join(n(v) for v in z[3]) for z in (before, after)]
    border = bounds.stability_threshold(net, x).item()
    certified = bounds.energy_budget(net, x).item()
    says(widget, [
        f"{subject}, and W₀ᵀe₁, the change of it that would help the adversary: of length "
        f"{n(length(signal), 3)}; orange asks for more ink, blue for less.",
        f"Activations as grids of units, and how the adversary changes them: {hidden}.",
        f"Outputs for the digits 0 to 9: of the forward pass {outputs[0]}; attacked {outputs[1]}.",
    ], status, False, [
        ["■ ℓ(z*)", n(loss[0], 3), "forward pass", None], "≤",
        ["● ℓ(z) − U/β", n(gained, 3), "AROVR, or less", RISE],
        ["ℓ(z)", n(loss[1], 3), "attacked", None], ["U(z; x)", n(U, 4), "spent", None],
        ["β", n(strength, 3), "used", None],
        ["margin", n(margin(before[3], read), 3), "of z*", None], "→",
        ["margin", n(margin(after[3], read), 3), "of z", None],
    ], {"beta": (border, "near border", False), "delta": (certified, "certified budget", False)},
        page=opened(widget))


def test_words_where_inference_does_not_settle():
    """If it fails, the page claims what it does not know: that AROVR is infinite, or a number for
    it."""
    page = opened(RealNetwork(image="9 clear", beta=0.75))
    stopped = page.text("price")
    assert page.status == [
        "Inference from the forward pass does not settle at this β: it finds no optimum nearby. "
        "(Whether AROVR is finite depends on the weights alone, and this does not tell.) The picture "
        f"stays at β = {stopped}, the largest found at which it settles. A 9 (9 clear), read as 9; "
        "under the adversary, as 4.", True]
    assert page.text("arovr") == "–" and page.text("beta") == "0.750" and page.mark("beta")[2]
    page.set(beta=0.95 * float(stopped))
    assert page.status[1] is False and float(page.text("arovr")) > float(page.text("loss"))


# How much is computed: counted, not timed

COUNTED = """const count = { down: 0, solve: 0 };
    const [plainDown, plainSolve] = [down, explorable.solve];
    down = (...values) => { count.down++; return plainDown(...values); };
    explorable.solve = (...values) => { count.solve++; return plainSolve(...values); }"""


@pytest.mark.parametrize("adversary, slider, passes", [("price", "beta", 40), ("budget", "delta", 40)])
def test_a_redraw_takes_few_passes(adversary, slider, passes):
    """If it fails, the slider lags behind the finger: a pass is a tenth of a million products."""
    page = opened(RealNetwork(adversary=adversary))
    page.context.eval(COUNTED)
    taken = []
    last = page(f"Number(named('{slider}').attributes.max)")
    for share in np.linspace(0, 0.5 if slider == "beta" else 1, 12):
        page("count.down = count.solve = 0")
        page.do(f"named('{slider}').value = at; named('{slider}').act('input')",
                at=round(share * last))
        assert page("count.solve") == 1
        taken.append(page("count.down"))
    # A frame of 16 ms holds the 6 million products of the worst place at 375 million per second.
    assert max(taken) <= 60 and sorted(taken)[len(taken) // 2] <= passes, taken


# The pad


def pad_event(page, event, column, row, prevented=False):
    """A pointer at a pixel of the reader's digit."""
    left, top, side = squares(560, 350)[0]
    place = {"clientX": 100 + left + column / 28 * side, "clientY": 50 + top + row / 28 * side}
    values = {"touches": [place]} if event == "touchstart" else {"pointerId": 1, **place}
    found = page(f"one(e => e.tagName === 'CANVAS').act('{event}', values)", values=values)
    page.do("")
    return found


def test_strokes_are_inked_where_the_pen_goes_and_centred_at_the_end():
    """If it fails, ink is beside the pen, or the network reads a digit that is out of place."""
    page = opened(RealNetwork(image="drawn"))
    pad_event(page, "pointermove", 3, 3)
    assert page("model.get('drawing').length") == 0  # the pen is up
    for event, column, row in (("pointerdown", 5.5, 4.5), ("pointermove", 5.5, 12.5)):
        pad_event(page, event, column, row)
    ink = np.reshape(page("model.get('drawing')"), (28, 28))
    assert (ink[4:12, 5] == 255).all() and not ink[:, 9:].any() and not ink[16:].any()
    pad_event(page, "pointerup", 5.5, 12.5)
    centred = np.reshape(page("model.get('drawing')"), (28, 28))
    rows, columns = np.indices(ink.shape)
    for places in (rows, columns):
        assert abs((places * centred).sum() / centred.sum() - 13.5) <= 0.5
    pad_event(page, "pointermove", 20, 20)
    assert (np.reshape(page("model.get('drawing')"), (28, 28)) == centred).all()
    page.do("named('draw').act('click')")
    assert page("[model.get('drawing').length, model.get('image')]") == [0, "drawn"]


@pytest.mark.parametrize("image, column, row, taken", [
    ("drawn", 0.2, 0.2, True), ("drawn", 27.8, 27.8, True), ("drawn", -0.2, 5, False),
    ("drawn", 5, 28.2, False), ("drawn", 28.2, 5, False), ("4 clear", 5, 5, False)])
def test_only_the_pad_is_drawn_upon(image, column, row, taken):
    """If it fails, a finger that wants to scroll draws, or one that draws scrolls."""
    page = opened(RealNetwork(image=image))
    assert pad_event(page, "touchstart", column, row) == taken
    pad_event(page, "pointerdown", column, row)
    assert bool(page("model.get('drawing').length")) == taken


def test_buttons():
    """If it fails, an image is left out, or the last one is followed by none."""
    page = opened(RealNetwork(image="overconfident"))
    labels = page("el.all().filter(e => e.tagName === 'BUTTON').map(e => e.textContent)")
    assert labels == ["Next image", "Draw a digit"]
    seen = []
    for _ in range(3):
        page.do("named('next').act('click')")
        seen.append(page("model.get('image')"))
    assert seen == ["misread", "0 clear", "0 doubtful"]
