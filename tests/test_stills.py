"""The pictures for readers without scripts, and those of ``widgets.two_unit``: what is drawn in them.

Every line, mark and level is compared with what lnn_core computes for it, and no other may be there.
"""

import math
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from drawing import COLOUR
from matplotlib.colors import to_hex, to_rgb
from matplotlib.lines import AxLine
from test_drawing import reached, scalar
from test_real_network_page import activations

from lnn_core import bounds, lrrn, style, widgets
from lnn_core.widgets.base import INK
from lnn_core.widgets.two_unit import TwoUnit, draw_landscape, draw_sandwich

BLUE, RED, YELLOW = (COLOUR[name].lower() for name in ("rovr", "arovr", "bound"))


@dataclass
class Drawn:
    """A line or mark: its name in the legend ("" for none), places, colour and look."""

    name: str
    xy: object  # the corners, or f with y = f(x) at all corners
    colour: str = INK
    line: str = "-"
    marker: str = "None"
    width: float | None = None
    size: float | None = None
    ends: tuple | None = None  # the first and the last x, where f is given

    def check(self, found):
        name = "" if found.get_label().startswith("_") else found.get_label()
        look = (name, to_hex(found.get_color()), found.get_linestyle(), found.get_marker())
        line = "None" if self.marker != "None" else self.line
        assert look == (self.name, self.colour.lower(), line, self.marker), self
        for wanted, seen in ((self.width, found.get_linewidth()), (self.size, found.get_markersize())):
            assert wanted is None or seen == wanted, self
        endless = isinstance(found, AxLine)  # through two points
        xy = np.array([found.get_xy1(), found.get_xy2()] if endless else found.get_xydata())
        if callable(self.xy):
            y = np.array([self.xy(x) for x in xy[:, 0]])
            np.testing.assert_allclose(xy[:, 1], np.where(np.isinf(y), xy[:, 1], y), atol=1e-4,
                                       err_msg=str(self))
            np.testing.assert_allclose(xy[[0, -1], 0], self.ends, atol=1e-9)
            assert len(xy) >= 25
        else:
            np.testing.assert_allclose(xy, self.xy, atol=1e-4, err_msg=str(self))


def across(name, y, **look):
    """A line at a height, from one side to the other."""
    return Drawn(name, [(0, y), (1, y)], **look)


def upright(name, x, **look):
    return Drawn(name, [(x, 0), (x, 1)], **look)


def at(name, place, marker, colour=INK, **look):
    """A mark."""
    return Drawn(name, [place], colour, marker=marker, **look)


@pytest.fixture
def figure():
    """Draws a still picture, or calls what draws one, in the book's style."""
    with plt.rc_context():
        style.use()

        def draw(what, **arguments):
            fig = what.still() if hasattr(what, "still") else what(**arguments)
            fig.canvas.draw()
            plt.close(fig)
            return fig

        yield draw


def check(ax, lines, *, x, y, xlabel, ylabel, legend=True, grid=False):
    """Lines, the limits of the axes and their names, and that the legend names the lines beside them."""
    assert len(ax.lines) == len(lines)
    for found, expected in zip(ax.lines, lines):
        expected.check(found)
    names = (ax.get_xlabel(), ax.get_ylabel())
    assert names == (xlabel, ylabel)
    if x:
        assert ax.get_xlim() == pytest.approx(x)
    if y:
        assert ax.get_ylim() == pytest.approx(y)
    assert any(line.get_visible() for line in ax.get_xgridlines()) == grid
    if legend:
        words = [text.get_text() for text in ax.get_legend().get_texts()]
        assert words == [line.name for line in lines if line.name]
        extent = ax.get_legend().get_window_extent()
        if legend == "beside":
            assert extent.x0 >= ax.bbox.x1 - 1 and extent.y0 > 0
            assert abs(extent.y0 + extent.y1 - ax.bbox.y0 - ax.bbox.y1) < 2


def check_contours(found, f, levels, colour, width, window, **tolerance):
    """Lines of one colour where f takes each of the levels, over the whole window."""
    np.testing.assert_allclose(found.levels, levels, atol=1e-9)
    assert {to_hex(c) for c in found.get_edgecolor()} == {colour.lower()}
    assert {round(w, 6) for w in found.get_linewidths()} == {width}
    ends = []
    for level, path in zip(found.levels, found.get_paths()):
        if len(path.vertices):
            np.testing.assert_allclose(f(*path.vertices.T), level, **{"atol": 0.03} | tolerance)
            ends.append(path.vertices)
    assert {style for _, dashes in found.get_linestyles() for style in [dashes]} == {None}
    corners = np.concatenate(ends)
    for found_ends, (low, high) in zip(corners.T, window):
        assert low - 1e-9 <= found_ends.min() and found_ends.max() <= high + 1e-9


@pytest.mark.parametrize("p", [
    {}, {"beta": 0.6}, {"beta": 0.9, "shown": "rovr", "gamma": 2.0, "x": 0.5, "y": -0.5}])
def test_landscape(figure, p):
    """If it fails, readers without scripts see another landscape than the page's."""
    widget = widgets.Landscape(**p)
    ax, = (fig := figure(widget)).axes
    assert fig.get_size_inches().tolist() == [6.4, 3.8]
    unit, weight = widget.unit, widget.weight
    stable = widget.beta < unit.stability_threshold
    shown = unit.optimum(weight) if stable or weight > 0 else unit.forward()
    k = np.arange(1 if stable or weight > 0 else -8, 10)
    origin = unit.landscape(weight, *np.array(shown)).item()
    window = (0, 2.75), (-2.25, 3.25)
    check_contours(ax.collections[0], lambda a, b: unit.landscape(weight, a, b),
                   origin + 0.15 * k * abs(k), COLOUR[widget.shown], 0.8, window)
    check(ax, [
        across("target y", widget.y, line="--", width=1),
        at("forward pass z*", unit.forward(), "s"),
        at("ROVR", unit.optimum(widget.beta), "^", BLUE, size=8),
        *[at("AROVR", unit.optimum(-widget.beta), "o", RED, size=8) for _ in [0] if stable],
    ], x=(0, 2.75), y=(-2.25, 3.25), xlabel="z₁, hidden unit", ylabel="z₂, output", legend="beside")


@pytest.mark.parametrize("p", [{}, {"activation": "box", "a": 0.4}, {"activation": "tanh"}])
def test_one_unit(figure, p):
    """If it fails, readers without scripts see another price than the page's."""
    widget = widgets.OneUnit(**p)
    ax, = (fig := figure(widget)).axes
    assert fig.get_size_inches().tolist() == [6.4, 3.6]
    prices = [scalar(lambda z, i=i: widget.prices(z)[i]) for i in (0, 1)]
    ends = (-2.2, 3.2)
    found = ax.lines[0].get_xydata()
    outside = [z for z, price in found if math.isnan(price)]
    assert all(math.isinf(prices[0](z)) for z in outside)
    ax.lines[0].set_ydata([prices[0](z) if math.isnan(price) else price for z, price in found])
    fa = scalar(widget.function.activation)(widget.a)
    check(ax, [
        Drawn("Fenchel–Young D(z‖a)", prices[0], BLUE, ends=ends),
        Drawn("least squares ½(z − f(a))²", prices[1], RED, "--", ends=ends),
        at("z = f(a)", (fa, 0), "s"),
    ], x=None, y=(-0.3, 4.2), xlabel="activation z", ylabel="price")
    assert ax.get_title() == f"a = {widget.a:.2f}, {widget.activation}"


@pytest.mark.parametrize("p", [{}, {"gamma": 4.0, "x": -0.2, "y": -0.5, "delta": 0.4, "w": 0.5}])
def test_anisotropy(figure, p):
    """If it fails, readers without scripts see another region than the page's."""
    widget = widgets.Anisotropy(**p)
    ax, = (fig := figure(widget)).axes
    assert fig.get_size_inches().tolist() == [6.4, 3.8]
    for found, gamma, colour, dotted in zip(ax.collections, (widget.gamma, 1.0), (RED, INK), (0, 1)):
        unit = TwoUnit(x=widget.x, y=widget.y, w1=widget.w, gamma=gamma)
        vertices = found.get_paths()[0].vertices
        np.testing.assert_allclose(unit.landscape(0.0, *vertices.T), widget.delta, atol=0.01)
        assert found.levels == [widget.delta] and to_hex(found.get_edgecolor()) == colour
        assert bool(found.get_linestyles()[0][1]) == dotted
    check(ax, [
        Drawn(f"U = δ, γ₁/γ₂ = {widget.gamma:.2f}", np.empty((0, 2)), RED),
        Drawn("U = δ, γ₁/γ₂ = 1.00", np.empty((0, 2)), INK, ":"),
        across("target y", widget.y, line="--", width=1),
        at("forward pass", widget.unit.forward(), "s"), at("worst point", reached(widget)[0], "o", RED),
    ], x=(-0.25, 2.75), y=(-1.25, 3.25), xlabel="z₁, hidden unit", ylabel="z₂, output",
        legend="beside")


@pytest.mark.parametrize("p", [{}, {"w": 1.0, "gamma": 2.0}])
def test_sandwich(figure, p):
    """If it fails, readers without scripts see other bounds or objectives than the page's."""
    widget = widgets.Sandwich(**p)
    ax, = (fig := figure(widget)).axes
    assert fig.get_size_inches().tolist() == [6.4, 3.6]
    ends = (0.01, 0.95)

    def of(pair, i):
        return lambda beta: pair(float(beta))[i]

    assert np.isinf(ax.lines[0].get_ydata()).any() and np.isinf(ax.lines[2].get_ydata()).any()
    check(ax, [
        Drawn("AROVR", of(widget.objectives, 1), RED, ends=ends),
        Drawn("ROVR", of(widget.objectives, 0), BLUE, ends=ends),
        Drawn("ℓ/(1 ± βκ)", of(widget.bounds, 1), YELLOW, ":", width=2.2, ends=ends),
        Drawn("", of(widget.bounds, 0), YELLOW, ":", width=2.2, ends=ends),
        across("ℓ(z*)", 0.5, line="--"),
        upright("1/κ", bounds.safe_beta(widget.net, widget.potential.gamma), line=":", width=1),
    ], x=(0, 1), y=(0, 2.25), xlabel="β", ylabel="objective", legend="beside")


@pytest.mark.parametrize("p", [
    {}, {"shown": "alone", "alpha": 0.9, "beta": 4.0}, {"shown": "along", "y1": 1.2, "y2": 0.6}])
def test_targets(figure, p):
    """If it fails, readers without scripts see other targets or outputs than the page's."""
    widget = widgets.Targets(**p)
    ax, = (fig := figure(widget)).axes
    assert fig.get_size_inches().tolist() == [6.4, 3.6]
    y, wrong = (target[0].numpy() for target in widget.targets)
    colours = {"alone": INK, "against": COLOUR["arovr_ab"], "along": COLOUR["rovr_ab"]}

    def term(a, b):
        return widget.term(widget.shown)(torch.tensor(np.stack([a, b], 1))).numpy()

    levels = ax.collections[0].levels
    assert 8 <= len(levels) <= 12
    window = (-3, 3), (-2, 2)
    check_contours(ax.collections[0], term, levels, colours[widget.shown], 0.7, window, atol=0.05)
    marks = {"alone": ("attack alone", "D"), "against": ("against the loss", "o"),
             "along": ("along with the loss", "^")}
    check(ax, [
        *[Drawn("", [y, wrong], width=0.8) for _ in [0] if (y != wrong).any()],
        at("", y, "*", size=11), at("", wrong, "*", size=11),
        at("forward pass", (0, 0), "s"),
        *[at(words, widget.output(name), marker, colours[name])
          for name, (words, marker) in marks.items() if widget.output(name) is not None],
    ], x=window[0], y=window[1], xlabel="first output", ylabel="second output", legend="beside")
    assert [(text.get_text(), text.xy, text.get_position()) for text in ax.texts] == [
        (name, pytest.approx(place), (6, 5)) for name, place in (("y", y), ("y⁻", wrong))]
    assert ax.get_aspect() == 1


@pytest.mark.parametrize("p", [{}, {"depth": 1, "beta": 4.0, "scale": 2.0}])
def test_gains(figure, p):
    """If it fails, readers without scripts see other stretches or bounds than the page's."""
    widget = widgets.Gains(**p)
    fig = figure(widget)
    left, right = fig.axes
    assert fig.get_size_inches().tolist() == [6.4, 3.4]
    beta, values = widget.beta, widget.singular_values.numpy()
    peak, ends = lrrn.bounds.largest_gain(beta), (1 / 64, 64)
    check(left, [
        Drawn("plain", [(1 / 64, 1 / 64), (64, 64)], line="--"),
        Drawn("LRRN", lambda sigma: lrrn.gain(sigma, beta), BLUE, ends=ends),
        across("bound", peak, colour=YELLOW, line=":", width=2.2),
        Drawn("", np.stack([values, values], 1), marker="s", size=4),
        Drawn("", np.stack([values, lrrn.gain(values, beta)], 1), BLUE, marker="o"),
    ], x=None, y=None, xlabel="sσ, singular value", ylabel="stretch of a layer", legend=False)

    def of(i):
        return lambda s: widgets.Gains(**widget.state() | {"scale": float(s)}).stretch()[i]

    ends = (1 / 8, 8)
    check(right, [
        Drawn("", of(2), line="--", ends=ends), Drawn("", of(0), BLUE, ends=ends),
        Drawn("", of(1), YELLOW, ":", width=2.2, ends=ends),
        upright("", widget.scale, line=":", width=1),
    ], x=None, y=(1e-2, 1e3), xlabel="s, scale of all weights",
        ylabel=f"stretch of {widget.depth} layers", legend=False)
    for ax in fig.axes:
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        assert not len(ax.xaxis.get_minorticklocs()) and not len(ax.yaxis.get_minorticklocs())
        assert ax.xaxis.get_major_formatter()(0.1) == ax.yaxis.get_major_formatter()(0.1) == "0.1"
    legend, = fig.legends
    assert [text.get_text() for text in legend.get_texts()] == ["plain", "LRRN", "bound"]
    assert legend._ncols == 3 and legend.get_window_extent().y1 <= left.get_tightbbox().y0 + 1


def sheet(image, opacity, colour):
    """An image of one colour, as opaque as the values say."""
    pixels = np.asarray(image.get_array())
    side = math.isqrt(len(opacity))
    np.testing.assert_allclose(pixels[..., 3], opacity.reshape(side, side), atol=1e-3)
    np.testing.assert_allclose(pixels[..., :3], np.broadcast_to(to_rgb(colour), (side, side, 3)))
    assert image.get_interpolation() == "none"


@pytest.mark.parametrize("p", [{}, {"image": "8 doubtful", "adversary": "budget", "delta": 0.1}])
def test_real_network(figure, p):
    """If it fails, readers without scripts see other activations than the page's."""
    widget = widgets.RealNetwork(**p)
    fig = figure(widget)
    before, after, signal = activations(widget)
    assert fig.get_size_inches().tolist() == [7.2, 4.2] and not fig.get_suptitle()
    axes = {ax.get_title(): ax for ax in fig.axes}
    expected = {"x, image": (before[0], None, 1), "W₀ᵀe₁, signal": (0.3 * before[0], signal, 0.04)}
    expected |= {f"z{'₀₁₂'[k]}": (0.6 * before[k], after[k] - before[k], 0.12) for k in (1, 2)}
    assert list(axes) == ["x, image", "z₁", "", "W₀ᵀe₁, signal", "z₂"]
    for title, (ink, change, half) in expected.items():
        ax = axes[title]
        sheet(ax.images[0], np.clip(ink, 0, 1), "0.5")
        for image, sign, colour in zip(ax.images[1:], (1, -1), (RED, BLUE)):
            part = np.maximum(sign * change, 0)
            sheet(image, part**2 / (part**2 + half**2), colour)
        assert len(ax.images) == (1 if change is None else 3)
        assert not len(ax.get_xticks()) and not len(ax.get_yticks())
        assert ax.title.get_fontsize() == 10
        assert all(spine.get_visible() and spine.get_alpha() == 0.4 for spine in ax.spines.values())
    ax = axes[""]
    for bars, values, colour, shift in zip(ax.containers, (before, after), (INK, RED), (-0.18, 0.18)):
        places = [(bar.get_width(), bar.get_y() + bar.get_height() / 2) for bar in bars]
        np.testing.assert_allclose(places, np.stack([values[3], np.arange(10) + shift], 1), atol=1e-3)
        assert {(to_hex(bar.get_facecolor()), round(bar.get_height(), 6)) for bar in bars} == {
            (colour, 0.34)}
    assert ax.get_xlim() == (-0.65, 1.65) and ax.get_ylim() == (9.7, -0.7)
    assert [t.get_fontweight() == "bold" for t in ax.get_yticklabels()] == [
        digit == widget.label for digit in range(10)]
    assert ax.get_xlabel() == "outputs z₃" and not ax.get_xgridlines()[0].get_visible()
    legend = ax.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["z* forward", "z attacked"]
    assert legend.get_window_extent().y0 >= ax.bbox.y1 - 1 and legend._ncols == 2
    assert {text.get_fontsize() for text in legend.get_texts()} == {9}


def test_real_network_where_inference_does_not_settle(figure):
    """If it fails, a forward pass is shown as if it were the attack, or AROVR is called
    infinite."""
    fig = figure(widgets.RealNetwork(image="9 clear", beta=0.75))
    assert fig.get_suptitle() == "β = 0.75: inference does not settle"
    forward, attacked = fig.axes[2].containers
    assert [bar.get_width() for bar in forward] == [bar.get_width() for bar in attacked]


# The sliders of the book


@pytest.mark.parametrize("p", [
    {}, {"beta": 0.7, "passes": 0}, {"beta": 0.5, "x": 2.0, "y": -1.0, "w1": -0.5, "passes": 2}])
def test_two_landscapes(figure, p):
    """If it fails, the first chapter's sliders draw an optimum, a level or a sweep where it is
    not."""
    fig = figure(draw_landscape, **p)
    assert fig.get_size_inches().tolist() == [7.6, 5.0]
    p = {"beta": 0.25, "x": 1.0, "y": 2.0, "w1": 1.0, "passes": 3} | p
    beta, y, passes = p["beta"], p["y"], p["passes"]
    unit = TwoUnit(x=p["x"], y=y, w1=p["w1"])
    forward = unit.forward()
    right = max(2.5, forward.z1 + 1.5)
    low, high = min(forward.z2, y) - 2.2, max(forward.z2, y) + 2.2
    for ax, weight, name, method in zip(fig.axes, (beta, -beta), ("nudged: $U + \\beta\\ell$",
                                        "attacked: $U - \\beta\\ell$"), ("rovr", "arovr")):
        stable, colour = weight > -unit.stability_threshold, COLOUR[method]
        shown = unit.optimum(weight) if stable else forward
        k = np.arange(0 if stable else -12, 17)
        levels = unit.landscape(weight, *np.array(shown)).item() + 0.05 * k * abs(k)
        filled, lines = ax.collections
        np.testing.assert_allclose(filled.levels, levels, atol=1e-9)
        assert filled.filled and filled.extend == "both" and filled.get_alpha() == 0.4
        shades = filled.get_facecolor()[:, :3]
        np.testing.assert_allclose(shades[0], to_rgb(colour), atol=0.02)  # dark is low
        np.testing.assert_allclose(shades[-1], 1, atol=0.02)
        check_contours(lines, lambda a, b, w=weight: unit.landscape(w, a, b), levels, "#808080", 0.5,
                       ((0, right), (low, high)), atol=5e-3)
        grey = to_hex("0.35")
        seen = "" if not stable or (-0.3 <= shown.z1 <= right and low <= shown.z2 <= high) else (
            " (outside the window)")
        value = unit.rovr if weight > 0 else unit.arovr
        check(ax, [
            across("", y, colour=grey, line="--", width=1),
            *[Drawn("sweeps of (17)", unit.path(weight, passes), colour, width=1.2)
              for _ in [0] if passes],
            *[at(f"{style.METHODS[method].label} = {value(beta):.3f}{seen}", shown, "o", colour, size=9)
              for _ in [0] if stable],
            at(f"$\\ell(z^*)$ = {unit.loss():.3f}", forward, "s", "#000000", size=7),
        ], x=(-0.3, right), y=(low, high), xlabel="$z_1$ (hidden)",
            ylabel="$z_2$ (output)" if weight > 0 else "")
        assert ax.get_title() == name
        assert all(line.get_markeredgecolor() == "white" for line in ax.lines
                   if line.get_marker() in "os")
        wall, = ax.patches
        assert (wall.get_x(), wall.get_width(), to_hex(wall.get_facecolor())) == (
            -0.3, 0.3, to_hex("0.85"))
        target, *announced = ax.texts
        assert (target.get_text(), target.xy, target.get_position(), target.get_ha()) == (
            "target $y$", (pytest.approx(right), y), (-3, 3), "right")
        assert [text.get_text() for text in announced] == [] if stable else [
            f"β = {beta:.2f}: no minimum to draw.\nPast the border of stability,\n"
            f"1/(1 + w₁²) = {unit.stability_threshold:.2f}, AROVR = ∞"]
        legend = ax.get_legend().get_window_extent()
        assert legend.y1 <= ax.get_tightbbox(bbox_extra_artists=[ax.xaxis]).y0 + 20
        assert abs(legend.x0 + legend.x1 - ax.bbox.x0 - ax.bbox.x1) < 2


@pytest.mark.parametrize("p", [{}, {"x": -1.0, "y": 0.0, "w1": 2.0}, {"x": 2.0, "y": 0.5, "w1": 0.5}])
def test_the_sandwich_of_two_units(figure, p):
    """If it fails, the first chapter's second figure has another curve, or ends elsewhere."""
    ax, = figure(draw_sandwich, **p).axes
    unit = TwoUnit(**{"x": 1.0, "y": 2.0, "w1": 1.0} | p)
    border = unit.stability_threshold
    ends = (0.01 * border, 0.99 * border - 0.98 / 49 * border)
    loss, dots = unit.loss(), {"colour": YELLOW, "line": ":", "ends": ends}
    found = {line.get_label(): line for line in ax.lines}
    assert found["bound"].get_zorder() == 3
    check(ax, [
        Drawn("bound", lambda beta: unit.bounds(beta)[1], **dots),
        Drawn("", lambda beta: unit.bounds(beta)[0], **dots),
        Drawn(r"AROVR$_\beta$", unit.arovr, RED, ends=ends),
        across(r"$\ell(z^*)$", loss, colour="#000000", line="--"),
        Drawn(r"ROVR$_\beta$", unit.rovr, BLUE, ends=ends),
        upright("", border, colour=to_hex("0.6"), width=1),
    ], x=(0, 1.02 * border), y=(0, max(7 * loss, 1e-3)), xlabel=r"$\beta$", ylabel="", grid=True)
    words, = ax.texts
    assert (words.get_text(), words.xy, words.get_rotation(), words.get_position()) == (
        "border of stability", (unit.stability_threshold, 1.3 * loss), 90, (-4, 0))
    assert (words.get_ha(), words.get_va()) == ("right", "bottom")
