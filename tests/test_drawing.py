"""What the explorables draw, item by item, at several settings: marks, curves, words, ticks.

Where things must be is computed here, by lnn_core, and put on the canvas by the pictures' stated
scales. The pictures are painted by the page's own script onto a canvas that takes notes.
"""

import math

import numpy as np
import pytest
import torch
from drawing import (
    COLOUR,
    INK,
    Area,
    Arrow,
    Axes,
    Contours,
    Curve,
    Frame,
    Horizontal,
    Item,
    Line,
    Mark,
    Shade,
    Straight,
    Text,
    Vertical,
    check,
    near,
)
from javascript import Page
from scipy.optimize import lsq_linear, minimize_scalar

from lnn_core import bounds, lrrn, oracle, widgets
from lnn_core.losses import Euclidean
from lnn_core.widgets.two_unit import TwoUnit

BLUE, RED, YELLOW = COLOUR["rovr"], COLOUR["arovr"], COLOUR["bound"]
WALL = [(-1, -9), (0, -9), (0, 9), (-1, 9)]


def wide(low, high, step):
    """Ticks from low to high."""
    return np.arange(round((high - low) / step) + 1) * step + low


def shows(widget, *pictures):
    """Check every panel: (axes, items)."""
    page = Page(widget)
    assert page("explorable.panels.length") == len(pictures)
    for panel, (axes, items) in enumerate(pictures):
        check(page.painted(panel), axes, items)


# The landscape


def landscape_items(widget):
    unit, weight, y = widget.unit, widget.weight, widget.y
    colour, attacked = COLOUR[widget.shown], widget.shown == "arovr"
    stable = widget.beta < unit.stability_threshold
    shown = unit.optimum(weight) if weight > 0 or stable else None
    forward = np.array(unit.forward())
    window = (0, 2.75), (-2.25, 3.25)

    def energy(z1, z2):
        return unit.landscape(weight, z1, z2)

    def opacity(z1, z2):
        E = energy(z1, z2)
        return 0.55 * (1 - np.sqrt((E - E.min()) / 12))

    origin = energy(*np.array(forward if shown is None else shown)).item()
    k = np.arange(-12 if shown is None else 1, 17)
    path = unit.path(weight, widget.passes)
    items = [
        Shade(opacity, window, 81, colour=colour),
        Contours(energy, origin + 0.05 * k * abs(k), window, 81),
        Area(WALL, alpha=0.15),
        Horizontal(y, dash=(6, 4), width=1.25),
        Text("target y ↕", (2.75, y), (-6, 11 if y > 2.9 else -11), "right"),
        Line(path, colour=colour, width=2.5),
        *[Mark(at, radius=3, colour=colour) for at in path[1:]]]
    if attacked and not stable:
        vector = np.linalg.eigh([[widget.gamma + 1, -1], [-1, 1 - widget.beta]])[1][:, 0]
        items += [
            Arrow(forward, forward + 1.2 * vector * np.sign(vector[0]), colour=RED, width=3),
            Text("no optimum: far out this way U − βℓ falls without end", (1.25, -2.25), (0, -16),
                 "center", bold=True, colour=RED)]
    items.append(Mark(forward, "square", name="forward pass", side=-1))
    up = np.sign(y - forward[1]) or 1  # where ROVR is, and AROVR is not
    items.append(Mark(unit.optimum(widget.beta), "triangle", name="ROVR", lift=-15 * up,
                      colour=BLUE))
    if stable:
        items.append(Mark(unit.optimum(-widget.beta), name="AROVR", lift=15 * up, colour=RED))
    return [*items, Frame("z₁, hidden unit", "z₂, output", wide(0, 2.5, 0.5), wide(-2, 3, 1))]


@pytest.mark.parametrize("p", [
    {}, {"passes": 3}, {"beta": 0.8}, {"beta": 0.7, "gamma": 0.5, "x": 0.5, "y": 3.0, "passes": 2},
    {"shown": "rovr", "beta": 0.9, "gamma": 2.0, "x": -0.5, "y": -1.0, "passes": 4},
    {"x": 2.5, "y": 1.5, "beta": 0.45}, {"x": 1.5, "y": 1.5}])
def test_landscape(p):
    """If it fails, a mark, a contour or a word of the front page is missing or in a wrong place."""
    widget = widgets.Landscape(**p)
    shows(widget, (Axes((-0.25, 2.75), (-2.25, 3.25)), landscape_items(widget)))


# One unit


def scalar(function):
    """A function of tensors as one of numbers."""
    return lambda t: float(function(torch.tensor(float(t), dtype=torch.float64)))


RANGES = {"identity": (-9, 9), "relu": (0, 9), "box": (0, 1), "tanh": (-1, 1)}  # 9: no end


def one_unit_prices(widget):
    a, z, G = widget.a, widget.z, widget.function
    lower, upper = RANGES[widget.activation]
    forbidden = [Area([(s, -9), (t, -9), (t, 9), (s, 9)], alpha=0.12)
                 for s, t in ((-9, lower), (upper, 9)) if abs(s - t) < 18 and s != t]
    divergence, squares = (scalar(lambda t, i=i: widget.prices(t)[i]) for i in (0, 1))
    fa = scalar(G.activation)(a)
    return [
        *forbidden,
        Horizontal(0, width=1, alpha=0.5),
        Vertical(z, dash=(2, 3), width=1.25),
        Text("z", (z, 4.2), (8, 10)),
        Curve(squares, colour=RED, width=2.5, dash=(7, 4)),
        Curve(divergence, over=(max(lower, -2.2), min(upper, 3.2)), colour=BLUE, width=2.5),
        Mark((fa, 0), "square", 6, "f(a)", lift=-13),
        Mark((a, 0), "diamond", 6, "a", side=-1, lift=-13),
        Mark((z, squares(z)), radius=6, colour=RED),
        *[Mark((z, divergence(z)), radius=6, colour=BLUE)] * (lower <= z <= upper),
        Frame("activation z", "price", wide(-2, 3, 1), wide(0, 4, 1))]


def one_unit_graph(widget):
    a, z, f = widget.a, widget.z, scalar(widget.function.activation)
    lower, upper = RANGES[widget.activation]
    forbidden = [Area([(-9, s), (-9, t), (9, t), (9, s)], alpha=0.12)
                 for s, t in ((-9, lower), (upper, 9)) if abs(s - t) < 18 and s != t]
    allowed = lower <= z <= upper
    end = math.atanh(z) if widget.activation == "tanh" and abs(z) < 1 else z
    graph = [(t, f(t)) for t in np.linspace(a, end, 61)]
    return [
        *forbidden,
        *[Area([*graph, (a, z)], colour=BLUE, alpha=0.35)] * allowed,
        Curve(f, width=2),
        Line([(a, f(a)), (a, z)], dash=(2, 3), width=1.25),
        Mark((a, f(a)), "square", 5),
        Mark((a, z), colour=BLUE if allowed else RED, name="(a, z)", side=-1 if a > 2 else 1),
        Text("graph of f", (-3.1, f(-3.1)), (0, 40 if widget.activation == "identity" else -14)),
        Frame("pre-activation a", "activation z", wide(-2, 2, 2), wide(-2, 3, 1))]


@pytest.mark.parametrize("p", [
    {}, {"a": 1.5, "z": -0.5}, {"activation": "tanh", "a": 2.1, "z": -0.9},
    {"activation": "tanh", "a": -3.0, "z": 1.5}, {"activation": "box", "a": 0.4, "z": 1.0},
    {"activation": "box", "a": 2.5, "z": 0.0}, {"activation": "identity", "a": -2.0, "z": 3.0}])
def test_one_unit(p):
    """If it fails, a price, its mark, or the area that it is, is not where it belongs."""
    widget = widgets.OneUnit(**p)
    shows(widget, (Axes((-2.2, 3.2), (-0.3, 4.2)), one_unit_prices(widget)),
          (Axes((-3.2, 3.2), (-2.2, 3.2)), one_unit_graph(widget)))


# Anisotropy


class Region(Area):
    """The set where U ≤ δ, by its border: every corner has the energy δ, and none is missing."""

    def find(self, notes, axes):
        part, = self.take(notes, "fill", clipped=axes.clip)["path"]
        self.is_border(axes.data(part["points"]), axes)

    def is_border(self, border, axes):
        unit, delta, w = self.points
        near = dict(rel=1e-6)
        assert unit.landscape(0.0, *border.T) == pytest.approx(np.full(len(border), delta), **near)
        far = unit.x + math.sqrt(2 * delta / unit.gamma + min(unit.x, 0) ** 2)
        assert border[:, 0].max() == pytest.approx(far, rel=1e-9)
        gaps = np.diff(axes.pixels(border), axis=0)[border[:-1, 0] + border[1:, 0] > 0]
        assert np.hypot(*gaps.T).max() < 12
        ends = border[[0, -1]]
        assert math.dist(*axes.pixels(ends)) < 1e-6 or (ends[:, 0] < 1e-9).all()


class Border(Line):
    """The same as a closed line."""

    def find(self, notes, axes):
        line, = self.strokes(notes, axes)
        assert (line[0] == line[-1]).all()
        Region(self.points).is_border(axes.data(line[:-1]), axes)


def reached(widget):
    """Activations of the worst point, and deviation, signal and share of the energy of both units."""
    far = widget.x + math.sqrt(2 * widget.delta / widget.gamma + min(widget.x, 0) ** 2)

    def output(z1, sign):
        """The farthest output at this z1, with all the energy that is left."""
        left = widget.delta - widget.unit.landscape(0.0, z1, widget.w * z1).item()
        return widget.w * z1 + sign * math.sqrt(2 * max(left, 0))

    def farthest(sign):
        found = minimize_scalar(lambda z1: -sign * output(z1, sign), bounds=(max(0, 2 * widget.x - far), far),
                                method="bounded", options={"xatol": 1e-12})
        return found.x, output(found.x, sign)

    z1, z2 = max(farthest(1), farthest(-1), key=lambda z: abs(z[1] - widget.y))
    deviation = np.array([z1 - max(widget.x, 0), z2 - widget.w * z1])
    beta = deviation[1] / (z2 - widget.y)  # eq. 17 at the output
    energy = [widget.delta - deviation[1] ** 2 / 2, deviation[1] ** 2 / 2]
    return (z1, z2), {"deviation": abs(deviation), "energy": np.array(energy) / widget.delta,
                      "signal": abs(np.array([widget.gamma, 1]) * deviation / beta)}


def anisotropy_region(widget):
    unit, w, y = widget.unit, widget.w, widget.y
    (z1, z2), _ = reached(widget)
    f1, f2 = unit.forward()
    even = TwoUnit(x=widget.x, y=y, w1=w, gamma=1.0)
    pink, green = COLOUR["arovr_abg"], COLOUR["arovr_ab"]
    return [
        Area(WALL, alpha=0.15),
        Horizontal(y, dash=(6, 4), width=1.25),
        Text("target y ↕", (2.75, y), (-6, 11 if y > 2.9 else -11), "right"),
        Region((unit, widget.delta, w), colour=RED, alpha=0.2),
        Border((unit, widget.delta, w), colour=RED, width=2.5),
        Border((even, widget.delta, w), width=1.25, dash=(3, 3), alpha=0.9),
        Line([(f1, f2), (2.75, f2 + w * (2.75 - f1))], width=1, alpha=0.35),
        Line([(0, f2 - w * f1), (f1, f2)], width=1, alpha=0.35),
        Horizontal(z2, colour=RED, width=1, dash=(2, 4)),
        Arrow((f1, f2), (z1, w * z1), colour=pink, width=3.5),
        Arrow((z1, w * z1), (z1, z2), colour=green, width=3.5),
        Mark((f1, f2), "square", 6),
        Mark((z1, z2), radius=5.5, colour=RED, name="worst", lift=14 if z2 < f2 else -14),
        Frame("z₁, hidden unit", "z₂, output", wide(0, 2.5, 0.5), wide(-1, 3, 1))]


QUANTITIES = {"deviation": ("deviation |z − f(a)|", (0, 1.4), wide(0, 1, 0.5)),
              "signal": ("error signal γ|z − f(a)|/β", (0, 3.5), wide(0, 3, 1)),
              "energy": ("share of the energy", (0, 1.25), wide(0, 1, 0.5))}


def anisotropy_reach(widget):
    words, (_, top), ticks = QUANTITIES[widget.shown]
    low, now = math.log10(1 / 16), math.log10(widget.gamma)
    pair = reached(widget)[1][widget.shown]
    signal, items = widget.shown == "signal", []
    error = abs(widget.w * max(widget.x, 0) - widget.y)
    sent = (widget.w * error if widget.x > 0 else 0, error)  # by back-propagation

    def of_unit(k):
        return lambda log: reached(widgets.Anisotropy(**widget.state() | {
            "gamma": min(max(10**log, 1 / 16), 16)}))[1][widget.shown][k]

    colours = COLOUR["arovr_abg"], COLOUR["arovr_ab"]
    for k, colour in enumerate(colours):
        items += [Horizontal(sent[k], colour=colour, width=1.5, dash=(7, 4))] * signal
        items += [Curve(of_unit(k), every=16, colour=colour, width=2.5),
                  Mark((now, pair[k]), ("triangle", "circle")[k], 6, colour=colour)]
    return [
        Vertical(0, width=1, alpha=0.5),
        Vertical(now, width=1.25, dash=(2, 3)),
        *items,
        *[Text(name, (-low, top), (-8, 11 + 18 * k), "right", True, colour=colour)
          for k, (name, colour) in enumerate(zip(("hidden unit", "output"), colours))],
        *[Text("dashes: back-propagation", (-low, top), (-8, 47), "right")] * signal,
        Frame("log₁₀ γ₁/γ₂ (soft ← hidden unit → stiff)", words, wide(-1, 1, 0.5), ticks)]


@pytest.mark.parametrize("p", [
    {}, {"shown": "signal", "gamma": 4.0, "delta": 0.2, "y": -0.5},
    {"shown": "energy", "gamma": 1.0, "x": 0.2, "delta": 0.4, "w": 0.75},
    {"shown": "signal", "x": -0.5, "y": 3.0, "gamma": 0.125, "delta": 0.4, "w": 1.5}])
def test_anisotropy(p):
    """If it fails, the region, its worst point or what reaches a unit is drawn somewhere else."""
    widget = widgets.Anisotropy(**p)
    low = math.log10(1 / 16)
    shows(widget, (Axes((-0.25, 2.75), (-1.25, 3.25)), anisotropy_region(widget)),
          (Axes((low, -low), QUANTITIES[widget.shown][1]), anisotropy_reach(widget)))


# Gains


def bounded(height, left, right, top, words):
    return [Area([(left, height), (right, height), (right, top), (left, top)], colour=YELLOW,
                 alpha=0.12),
            Horizontal(height, colour=YELLOW, width=2.5, dash=(2, 4)),
            Text(words, (left, height), (8, -13))]


def decades(*exponents):
    """Ticks of a logarithmic axis: numbers at powers of ten, nothing between."""
    return [(f"{10.0**e:g}" if e == int(e) else "", e) for e in exponents]


class LogFrame(Frame):
    """A frame whose ticks are pairs (words, exponent)."""

    @staticmethod
    def _named(ticks):
        return ticks


def gains_layer(widget):
    beta, values = widget.beta, widget.singular_values.tolist()

    def log_gain(x):
        return math.log10(lrrn.gain(10.0**x, beta))

    items = []
    for i, sigma in enumerate(values):
        x, y = math.log10(sigma), log_gain(math.log10(sigma))
        items += [Line([(x, -1.75), (x, max(x, y))], width=1.25, dash=(2, 3)),
                  Mark((x, x), "square", 5), Mark((x, y), colour=BLUE),
                  Mark((x, -1.75), "triangle", name=f"σ{'₁₂₃'[i]}", lift=-4)]
    height = math.log10(lrrn.bounds.largest_gain(beta))
    return [
        *bounded(height, -1.85, 1.85, 1.85, "½(√β + 1/√β)"),
        Straight(lambda x: x, width=2, dash=(7, 4)),
        Curve(log_gain, colour=BLUE, width=2.5),
        Mark((-math.log10(beta) / 2, height), "diamond", colour=YELLOW),
        *items,
        Text("plain", (1.85, 1.85), (-30, 14), "right", True),
        Text("LRRN", (1.85, log_gain(1.85)), (-8, -26), "right", True, colour=BLUE),
        LogFrame("sσ, singular value of a layer", "stretch of the layer",
                 decades(-1, 0, 1), decades(-1, 0, 1))]


def gains_network(widget):
    L, now = widget.depth, math.log10(widget.scale)

    def at(exponent):
        wanted = widgets.Gains(**widget.state())
        wanted.set_trait("scale", min(max(10.0**exponent, 0.125), 8.0))
        factor = 10.0**exponent / wanted.scale  # the window is wider than the slider
        sigma = wanted.singular_values * factor
        net = wanted.net
        with torch.no_grad():
            for W in net.weights:
                W.mul_(factor)
            system = net.quadratic(torch.eye(3, dtype=torch.float64))
            z = torch.linalg.solve(system.H, system.g.T)[-3:]
        layers = float(lrrn.gain(sigma, widget.beta).max()) ** L
        return {"plain": float(sigma.max()) ** L, "layers": layers,
                "lrrn": float(torch.linalg.matrix_norm(z, 2))}

    def curve(name, **style):
        return Curve(lambda e: math.log10(at(e)[name]), every=12, **style)

    height = L * math.log10(lrrn.bounds.largest_gain(widget.beta))
    here = at(now)
    return [
        *bounded(height, -1.05, 1.05, 2.8, "Theorem 1"),
        curve("plain", width=2, dash=(7, 4)),
        curve("layers", colour=BLUE, width=1.25, dash=(3, 3)),
        curve("lrrn", colour=BLUE, width=2.5),
        Vertical(now, width=1.25, dash=(2, 3)),
        Mark((now, height), "diamond", 6, colour=YELLOW),
        Mark((now, math.log10(here["plain"])), "square", 6),
        Mark((now, math.log10(here["lrrn"])), colour=BLUE),
        LogFrame("s, scale of all weights",
                 f"stretch of {L} layers" if L > 1 else "stretch of the layer",
                 decades(-1, -0.5, 0, 0.5, 1), decades(-2, -1, 0, 1, 2))]


@pytest.mark.parametrize("p", [
    {}, {"depth": 1, "beta": 4.0, "sigma1": 0.5}, {"depth": 5, "scale": 0.25, "beta": 0.25},
    {"scale": 8.0, "beta": 16.0, "sigma2": 1.0}])
def test_gains(p):
    """If it fails, a stretch, a bound or a singular value is drawn somewhere else."""
    widget = widgets.Gains(**p)
    shows(widget, (Axes((-1.85, 1.85), (-1.85, 1.85)), gains_layer(widget)),
          (Axes((-1.05, 1.05), (-2.2, 2.8)), gains_network(widget)))


# The sandwich


def price_of_move(widget, u):
    """The least U at which the output moves by u: bounded least squares in the hidden units."""
    a, w = np.array([1.0, widget.a]), np.array([1.0, widget.w])
    relu = widget.activation == "relu"
    f, root = np.maximum(a, 0) if relu else a, math.sqrt(widget.gamma)
    found = lsq_linear(np.vstack([root * np.eye(2), w]), np.append(root * a, u + w @ f),
                       (0 if relu else -np.inf, np.inf), tol=1e-14)
    return found.cost - widget.gamma / 2 * sum((f - a) ** 2)


def sandwich_of_beta(widget, points):
    """The objectives and bounds against β; every ``points``-th place is searched exhaustively."""
    net, gamma, y = widget.net, widget.potential.gamma, widget.target
    one = torch.ones(1, 1, dtype=torch.float64)
    safe, border = bounds.safe_beta(net, gamma), sandwich_border(widget)

    def exact(weight):
        energy = widget.potential + weight * Euclidean(y)
        return oracle.minimum(net, one, energy)[0].item() / weight

    def reduced(sign):
        def value(beta):
            if beta == 0:
                return 0.5  # the loss
            rovr, arovr = bounds.reduced(net, one, y, beta, gamma)
            return (rovr if sign < 0 else arovr).item()
        return value

    lower, upper = (lambda beta, i=i: widget.bounds(beta)[i] for i in (0, 1))
    up = min(1, 0.9999 * safe)
    betas = np.linspace(0, up, 101)
    dots = dict(colour=YELLOW, width=2.5, dash=(2, 4))
    return [
        Area([*[(b, upper(b)) for b in betas], *[(b, lower(b)) for b in betas[::-1]]],
             colour=YELLOW, alpha=0.12),
        Vertical(safe, colour=YELLOW, width=1.5, dash=(2, 4)),
        *[Vertical(border, colour=RED, width=1.5, dash=(2, 4))] * (border > 1.001 * safe),
        Horizontal(0.5, width=2, dash=(7, 4)),
        *[Curve(reduced(sign), every=12, width=1.25, dash=(3, 3), alpha=0.9) for sign in (1, -1)],
        Curve(exact, (0.001, 1), points, colour=BLUE, width=2.5),
        Curve(lambda beta: exact(-beta), (0.001, 0.9999 * border), points, colour=RED, width=2.5),
        Curve(upper, (0, up), **dots), Curve(lower, **dots),
        Vertical(widget.beta, width=1.25, dash=(2, 3)),
        *sandwich_marks(widget, dict.fromkeys(("lower", "upper", "rovr", "arovr", "loss"),
                                              widget.beta)),
        *([Text("1/κ = border", (safe, 0.5), (5, -12))] if (border - safe) * 504 < 3 else
          [Text("1/κ", (safe, 0.5), (5, -12)),
           Text("border", (border, 0.5), (5, -12), colour=RED)]),
        Frame("β", "objective", wide(0, 1, 0.2), wide(0, 2, 0.5))]


def sandwich_border(widget):
    """Where the energy of a large move ceases to grow."""
    zero = Euclidean(torch.zeros(1, 1, dtype=torch.float64))
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        grows = oracle.growth(widget.net, widget.potential - middle * zero) > 0
        low, high = (middle, high) if grows else (low, middle)
    return low


def sandwich_marks(widget, across):
    (rovr, arovr), (lower, upper) = widget.objectives(widget.beta), widget.bounds(widget.beta)
    values = {"lower": (lower, "diamond", YELLOW), "upper": (upper, "diamond", YELLOW),
              "rovr": (rovr, "triangle", BLUE), "arovr": (arovr, "circle", RED),
              "loss": (0.5, "square", INK)}
    return [Mark((across[name], value), shape, 6, colour=colour)
            for name, (value, shape, colour) in values.items() if value <= 2.25]


def sandwich_of_move(widget):
    beta, kappa = widget.beta, bounds.kappa(widget.net, widget.potential.gamma)

    def loss(u):
        return 0.5 * (1 + u) ** 2

    def paid(sign):
        return lambda u: loss(u) - sign * price_of_move(widget, u) / beta

    def bound(price):
        return lambda u: loss(u) - u**2 / (2 * kappa * price)

    dots = dict(colour=YELLOW, width=2.5, dash=(2, 4))
    places = dict.fromkeys(("lower", "upper", "rovr", "arovr"), np.nan) | {"loss": 0.0}
    for name, price in (("lower", -beta), ("upper", beta)):
        if price * kappa < 1:
            places[name] = minimize_scalar(lambda u, p=price: -np.sign(p) * bound(p)(u)).x
    for name, sign in (("rovr", -1), ("arovr", 1)):
        places[name] = minimize_scalar(lambda u, s=sign: -s * paid(s)(u), bounds=(-9, 9),
                                       method="bounded", options={"xatol": 1e-10}).x
    finite = np.isfinite(widget.objectives(beta)[1])
    words = [("ℓ + U/β", BLUE), ("ℓ", INK),
             ("ℓ − U/β" if finite else "ℓ − U/β has no maximum", RED)]
    return [
        Curve(bound(beta), **dots), Curve(bound(-beta), **dots),
        Curve(loss, width=2, dash=(7, 4)),
        Curve(paid(-1), free=True, colour=BLUE, width=2.5),
        Curve(paid(1), free=True, colour=RED, width=2.5),
        *sandwich_marks(widget, places),
        *[Text(term, (3.5, 0), (-8, 18 * i - 48), "right", True, colour=colour)
          for i, (term, colour) in enumerate(words)],
        Frame("u, move of the output", "", wide(-2, 3, 1), wide(0, 2, 0.5))]


@pytest.mark.parametrize("p", [
    {}, {"w": 1.0, "beta": 0.3, "gamma": 2.0, "a": 0.5}, {"beta": 0.6, "w": -1.5},
    {"activation": "identity", "w": 0.5, "beta": 0.2}])
def test_sandwich(p):
    """If it fails, an objective, a bound or a border is drawn somewhere else."""
    widget = widgets.Sandwich(**p)
    shows(widget, (Axes((0, 1), (0, 2.25)), sandwich_of_beta(widget, 25)),
          (Axes((-2.5, 3.5), (0, 2.25)), sandwich_of_move(widget)))


# The targets


class Star(Item):
    """Of five points, the first one up, 10 pixels large: a target, and its name."""

    def __init__(self, at, name, side):
        super().__init__()
        self.at, self.name, self.side = at, name, side

    def find(self, notes, axes):
        for what, colour in (("fill", INK), ("stroke", "rgb(255, 255, 255)")):
            self.colour = colour
            part, = self.take(notes, what, width=1.5, clipped=None)["path"]
            turns = np.arange(10) * math.pi / 5
            radius = np.where(np.arange(10) % 2, 4, 10)[:, None]
            corners = radius * np.stack([np.sin(turns), -np.cos(turns)], 1)
            near(part["points"], axes.pixels([self.at])[0] + corners)
            assert part["closed"]
        Text(self.name, self.at, (15 * self.side, -4), "left" if self.side > 0 else "right",
             True).find(notes, axes)


class Ring(Item):
    """9 pixels around a point; with a dot where it attracts (q > 0), a cross where it repels."""

    def __init__(self, at, q, colour):
        super().__init__(colour=colour)
        self.at, self.q = at, q

    def find(self, notes, axes):
        x, y = axes.pixels([self.at])[0]
        first, *cross = self.take(notes, "stroke", width=2.5, clipped=None)["path"]
        near([*first["centre"], first["radius"], first["angle"]], [x, y, 9, 2 * math.pi])
        ends = [[(x - 6, y + 6), (x + 6, y - 6)], [(x - 6, y - 6), (x + 6, y + 6)]]
        near([part["points"] for part in cross], ends if self.q < 0 else [])
        if self.q > 0:
            dot, = self.take(notes, "fill", clipped=None)["path"]
            near([*dot["centre"], dot["radius"], dot["angle"]], [x, y, 3, 2 * math.pi])


TERMS = {"along": ("triangle", COLOUR["rovr_ab"], "ᾱℓ⁻ + αℓ"), "alone": ("diamond", INK, "ᾱℓ⁻"),
         "against": ("circle", COLOUR["arovr_ab"], "ᾱℓ⁻ − αℓ")}


def far_target(axes, start, behind, name, q, colour):
    """The arrow to a target out of sight: from ``behind`` over ``start`` to the edge."""
    length = math.dist(start, behind)
    if length == 0:
        return []
    way, ends = (start - behind) / length, np.array([axes.x[1], axes.y[1]])
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(way == 0, np.inf, (ends - np.sign(way) * start) / abs(way))
    end = room.min() - 0.12
    if end < 0.55:
        return []
    tip = start + end * way
    low = axes.pixels([tip])[0, 1] > axes.box[3] - 30
    return [Arrow(start + (end - 0.55) * way, tip, colour=colour, width=3),
            Text(f"{name} {'far off' if q else 'at ∞'}", tip, (0, -18 if low else 18),
                 "right" if way[0] > 0 else "left")]


def targets_plane(widget, axes):
    y, wrong = (target[0].numpy() for target in widget.targets)
    window, shown, q = (axes.x, axes.y), TERMS[widget.shown], 1 - 2 * widget.alpha
    attack = {"alone": 1 - widget.alpha, "along": 1.0, "against": round(q, 12)}

    def height(a, b):
        z = torch.tensor(np.stack([a, b], -1).reshape(-1, 2))
        return widget.term(widget.shown)(z).numpy().reshape(np.shape(a))

    grid = height(*np.meshgrid(np.linspace(*axes.x, 51), np.linspace(*axes.y, 51)))
    low, spread = grid.min(), np.ptp(grid) or 1.0

    def opacity(a, b):
        return 0.4 * (1 - np.sqrt(np.clip((height(a, b) - low) / spread, 0, None)))

    def output(name, **p):
        return widgets.Targets(**widget.state() | p).output(name)

    def target(name, lift, words):
        q, colour = attack[name], TERMS[name][1]
        if q:
            along = {"along": widget.alpha * y, "against": -widget.alpha * y}[name]
            at = ((1 - widget.alpha) * wrong + along) / q
            if (abs(at) < [axes.x[1], axes.y[1]]).all():
                return [Ring(at, q, colour), Text(words, at, (0, lift), "center")]
        start, behind = (y, wrong) if q < 0 else (wrong, y)
        return far_target(axes, start, behind, words, q, colour)

    path = [output(widget.shown, alpha=max(i / 100, 0.01)) for i in range(1, 101)]
    left, found = (-1 if y[0] < wrong[0] else 1), {name: widget.output(name) for name in TERMS}
    return [
        Shade(opacity, window, 51, colour="#808080" if widget.shown == "alone" else shown[1]),
        *[Contours(height, low + spread * ((np.arange(18) + 0.5) / 18) ** 1.5, window, 51,
                   alpha=0.3)],
        Line([21 * y - 20 * wrong, 21 * wrong - 20 * y], alpha=0.5, width=1),
        Path([z for z in path if z is not None], axes, colour=shown[1], width=2, dash=(2, 4)),
        *[Arrow((0, 0), z, colour=TERMS[name][1], width=2, alpha=1 if name == widget.shown else 0.6)
          for name, z in found.items() if z is not None],
        Star(y, "y", left), Star(wrong, "y⁻", -left),
        *target("along", -20, "label"),
        *target("against", 20, "repels" if attack["against"] < 0 else "target"),
        Mark((0, 0), "square", 6, "z*", side=-1),
        *[Mark(z, TERMS[name][0], 6, colour=TERMS[name][1]) for name, z in found.items()
          if z is not None],
        Frame("first output", "second output", wide(-3, 3, 1), wide(-1, 1, 1))]


class Path(Line):
    """Outputs for α = 0, 0.01, …; the first one is not looked at (no α = 0 in Python)."""

    def __init__(self, points, axes, **style):
        super().__init__(points, **style)

    def find(self, notes, axes):
        line, = self.strokes(notes, axes)
        near(line[1:], np.clip(axes.pixels(self.points), -1e4, 1e4))


def targets_profile(widget):
    y, wrong = widget.targets
    size, q = (y - wrong).square().sum().item(), 1 - 2 * widget.alpha

    def height(name):
        return lambda t: widget.term(name)(y + t * (wrong - y)).item() / size

    items = []
    for name, turned in (("alone", 1 - widget.alpha), ("along", 1.0), ("against", q)):
        style = {"width": 3.5} if name == widget.shown else {"width": 2, "alpha": 0.75}
        items.append(Curve(height(name), every=4, colour=TERMS[name][1], **style))
        at = (1 - widget.alpha) / turned if abs(turned) > 1e-9 else np.inf
        if -2.5 < at < 4:
            items.append(Ring((at, height(name)(at)), turned, TERMS[name][1]))
    return [
        Horizontal(0, width=1, alpha=0.5),
        *[Vertical(t, width=1, alpha=0.6, dash=(2, 3)) for t in (0, 1)],
        *items,
        *[Text(name, (t, -1), (0, -10), "center", True) for t, name in enumerate(("y", "y⁻"))],
        *[Text(TERMS[name][2], (4, -1), (-8, 18 * i - 48), "right", True, colour=TERMS[name][1])
          for i, name in enumerate(("along", "alone", "against"))],
        Frame("along the line through y and y⁻", "output term", wide(-2, 4, 2),
              wide(-1, 2, 1))]


@pytest.mark.parametrize("p", [
    {}, {"alpha": 0.8, "shown": "along", "beta": 0.5}, {"alpha": 0.5, "shown": "alone"},
    {"alpha": 0.95, "beta": 4.0, "y1": 1.0, "y2": -0.5, "wrong1": -1.0, "wrong2": -1.5},
    {"alpha": 0.45, "shown": "against", "y1": 1.5, "y2": 0.5, "wrong1": -0.5, "wrong2": 0.7}])
def test_targets(p):
    """If it fails, a target, an output or a term is drawn somewhere else."""
    widget = widgets.Targets(**p)
    half = 3 * (350 - 46) / (560 - 56)
    axes = Axes((-3, 3), (-half, half))
    shows(widget, (axes, targets_plane(widget, axes)),
          (Axes((-2.5, 4), (-1, 2)), targets_profile(widget)))
