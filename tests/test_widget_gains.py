"""Gains: f_β, the singular values and Theorem 1 against lnn_core.lrrn, and their use in a browser."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from browsing import DESKTOP, PHONE, each_way
from javascript import Script
from test_widgets import positions

from lnn_core import lrrn, widgets

AGREE = {"rel": 1e-9, "abs": 1e-9}
LAYER = {"x": (-1.85, 1.85), "y": (-1.85, 1.85)}  # the pictures' windows, in powers of ten
NETWORK = {"x": (-1.05, 1.05), "y": (-2.2, 2.8)}
FLOOR = -1.75
SHOWN = ("lrrn", "layers", "bound", "plain")
RANGES = {control["name"]: control for control in widgets.Gains.controls()}


@pytest.fixture(scope="module")
def js():
    return Script(widgets.Gains)


def cases(count=120):
    """Random settings between the sliders' steps, and a singular value at the peak."""
    rng = np.random.default_rng(0)
    yield widgets.Gains()
    yield widgets.Gains(sigma2=1.0)
    yield widgets.Gains(beta=4.0, sigma1=0.5, depth=1)
    for _ in range(count):
        drawn = {name: float(np.exp(rng.uniform(*np.log([c["min"], c["max"]]))))
                 for name, c in RANGES.items() if c["log"]}
        yield widgets.Gains(**drawn, depth=int(rng.integers(1, 6)))


def without_feedback(widget):
    """The norm of a feed-forward chain of RR layers with the network's weights."""
    layer = lrrn.RRLayer(3, 3, widget.beta, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(widget.net.weights[0])
        x = torch.eye(3, dtype=torch.float64)
        for _ in range(widget.depth):
            x = layer(x)
    return float(torch.linalg.matrix_norm(x, 2))


def predicted(widget):
    """The four numbers under the picture, by lnn_core: from matrices, not from f."""
    slope, bound, plain = widget.stretch()
    return [slope, without_feedback(widget), bound, plain]


def test_gains_are_those_of_lnn_core(js):
    """If it fails, a dot or the curve belongs to another layer: f_β(σ), its maximum, RRLayer's
    norm."""
    for widget in cases():
        s = js("solve(p)", p=widget.state())
        sigma = widget.singular_values
        assert s["sigma"] == pytest.approx(sigma.tolist(), **AGREE)
        assert s["gains"] == pytest.approx(lrrn.gain(sigma, widget.beta).tolist(), **AGREE)
        assert s["largest"] == pytest.approx(lrrn.bounds.largest_gain(widget.beta), **AGREE)
        layer = widgets.Gains(**widget.state() | {"depth": 1})
        assert max(s["gains"]) == pytest.approx(without_feedback(layer), **AGREE), widget


def test_networks_are_those_of_lnn_core(js):
    """If it fails, the right picture's curves are not a network's exact slope (from its energy's
    matrix) and Theorem 1."""
    for widget in cases():
        s = js("solve(p)", p=widget.state())
        assert [s[name] for name in SHOWN] == pytest.approx(predicted(widget), **AGREE), widget


def test_the_slope_is_that_of_inference(js):
    """If it fails, z_L* of the energy's matrix is not what the network computes."""
    for widget in list(cases(6)):
        x = torch.zeros(1, 3, dtype=torch.float64)
        slope = torch.linalg.matrix_norm(lrrn.jacobian(widget.net, x), 2).item()
        assert js("solve(p).lrrn", p=widget.state()) == pytest.approx(slope, rel=1e-4)


def test_theorem_1_bounds_every_place_of_the_sliders(js):
    """LRRN ≤ layers without feedback ≤ bound. If it fails, a curve crosses the dotted line."""
    corners = product(*(positions(control, inner=1) for control in RANGES.values()))
    for values in list(corners)[::7]:
        s = js("solve(p)", p=dict(zip(RANGES, values)))
        slack = 1 + 1e-12
        assert s["lrrn"] <= slack * s["layers"] <= slack**2 * s["bound"]
        assert max(s["gains"]) <= slack * s["largest"]


def test_equality_where_a_singular_value_is_at_the_peak(js):
    """If it fails, the sentence claims an equality that is none, or misses one."""
    def said(**p):
        p = widgets.Gains(**p).state()
        return js("status(p, solve(p)).text", p=p)

    assert "is an equality" in said(sigma2=1.0)
    assert "is an equality" in said(sigma1=0.5, beta=4.0, depth=1)
    assert "without feedback the layers reach the bound" in said(sigma1=0.5, beta=4.0)
    assert "past the peak" in said(scale=8.0)
    assert "further than the plain" in said(scale=0.125)
    assert "falls again" in said()


def test_handles_move_what_they_touch(js):
    """If it fails, a drag sets another value than the one under the pointer, at some scale or β."""
    for widget in cases(20):
        p = widget.state()
        for panel, count in ((0, 7), (1, 1)):
            for i in range(count):
                handle, back = js("""(() => {
                    const h = explorable.panels[panel].handles(p, solve(p))[i];
                    return [h, h.move(...h.at)];
                })()""", p=p, panel=panel, i=i)
                assert back == {handle["name"]: pytest.approx(p[handle["name"]], rel=1e-9)}


# In a browser


def at_the_step(name, seen):
    """The slider's place next to a number that is rounded on the page."""
    low, step = RANGES[name]["min"], RANGES[name]["step"]
    return low * step ** round(math.log(seen / low, step))


def setting(page):
    values = {name: page.number(name) for name in RANGES}
    return widgets.Gains(depth=int(values.pop("depth")),
                         **{name: at_the_step(name, seen) for name, seen in values.items()})


@each_way
def test_dragging_gives_what_lnn_core_predicts(shown, width, theme):
    """If it fails, the numbers under the picture are not those of the library, or not in order."""
    page = shown(widgets.Gains(), width=width, theme=theme)
    for name, share in (("beta", 0.7), ("sigma3", 0.6), ("scale", 0.4), ("depth", 0.3)):
        before = page.picture(1)
        page.slide(name, share)
        after = page.numbers(*SHOWN)
        assert after == pytest.approx(predicted(setting(page)), abs=6e-4)
        assert after[0] <= after[1] <= after[2] and page.picture(1) != before


def test_no_scale_lifts_the_network_above_the_bound(shown):
    """From the least to the largest weights at β = 1. If it fails, the chapter's first experiment
    breaks the bound."""
    page = shown(widgets.Gains())
    page.press("scale", "Home")
    assert page.number("lrrn") > page.number("plain") and "further than the plain" in page.status
    page.press("scale", "End")
    assert page.number("plain") == 16**3 and page.number("lrrn") < 0.25
    assert page.number("bound") == 1 and "past the peak" in page.status


def test_a_singular_value_is_pulled_over_the_peak(shown):
    """If it fails, the bound is not reached at the peak, or not only there: the chapter's second
    experiment."""
    page = shown(widgets.Gains(depth=1))
    assert page.number("lrrn") < 1
    peak = page.place(0, FLOOR, LAYER)
    page.drag(page.place(math.log10(2), FLOOR, LAYER), peak)
    assert page.numbers("sigma1", "lrrn", "bound") == [1, 1, 1]
    assert "is an equality" in page.status


@pytest.mark.parametrize("pull, width", [("drag", DESKTOP), ("swipe", PHONE)])
def test_the_handles(shown, pull, width):
    """If it fails, peak, dot and scale do not follow the mouse or the finger."""
    page = shown(widgets.Gains(sigma2=0.125, sigma3=0.125), width=width)
    act = getattr(page, pull)
    act(page.place(0, 0, LAYER), page.place(math.log10(4), 0, LAYER))  # β = 1/16
    assert page.number("beta") == pytest.approx(1 / 16, abs=0.02)
    widget = setting(page)
    dot = page.place(math.log10(2), math.log10(lrrn.gain(2.0, widget.beta)), LAYER)
    act(dot, page.place(math.log10(8), 0, LAYER))
    assert page.number("sigma1") == pytest.approx(8, rel=0.2)
    act(page.place(0, -1.5, NETWORK, panel=1), page.place(math.log10(4), -1.5, NETWORK, panel=1),
        panel=1)
    assert page.number("scale") == pytest.approx(4, rel=0.2)
