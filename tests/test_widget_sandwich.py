"""The sandwich against β: its mathematics against exhaustive search, and its use in a browser."""

import math

import numpy as np
import pytest
import torch
from browsing import DESKTOP, PHONE, each_way
from javascript import Script

from lnn_core import bounds, oracle, widgets
from lnn_core.losses import Euclidean, Linear
from lnn_core.widgets.sandwich import ONE

AGREE = {"rel": 1e-9, "abs": 1e-9}
AGAINST_BETA = {"x": (0, 1), "y": (0, 2.25)}  # the left picture's window
SHOWN = ("lower", "rovr", "loss", "arovr", "upper")


@pytest.fixture(scope="module")
def js():
    return Script(widgets.Sandwich)


def cases(count=90):
    """Random settings between the sliders' steps, and some where a unit sits on its kink."""
    rng = np.random.default_rng(0)
    yield widgets.Sandwich()
    yield widgets.Sandwich(w=0.0)
    yield widgets.Sandwich(a=0.0, w=1.0)
    for i in range(count):
        yield widgets.Sandwich(
            beta=rng.uniform(0.01, 0.95), w=rng.uniform(-2, 2), gamma=4 ** rng.uniform(-1, 1),
            a=rng.uniform(-1.5, 1.5), activation=("relu", "relu", "identity")[i % 3])


def exact(widget, weight):
    """min U + weight·ℓ and the output's move at the minimum, by exhaustive search."""
    value, z = oracle.minimum(widget.net, ONE, widget.potential + weight * Euclidean(widget.target))
    return value.item() / weight, (z[2] - widget.target).item() - 1


def test_objectives_and_optima_are_global(js):
    """If it fails, a number, or the top of a curve, is a local optimum or a formula's value."""
    finite = 0
    for widget in cases():
        s, beta = js("solve(p)", p=widget.state()), widget.beta
        rovr, u = exact(widget, beta)
        assert [s["rovr"]["value"], s["rovr"]["u"]] == pytest.approx([rovr, u], **AGREE), widget
        distance = beta / s["border"] - 1
        if distance > 0:
            assert s["arovr"]["value"] == math.inf
        elif distance < -1e-3:
            arovr, u = exact(widget, -beta)
            scale = {"rel": 1e-9, "abs": 1e-9 / -distance}
            found = [s["arovr"]["value"], s["arovr"]["u"]]
            assert found == pytest.approx([arovr, u], **scale), widget
            finite += 1
    assert finite > 30  # else mostly the infinite values have been compared


def test_bounds_and_reduced_formula_are_those_of_lnn_core(js):
    """If it fails, the dotted or the thinly dashed lines belong to another theorem."""
    for widget in cases():
        s, gamma = js("solve(p)", p=widget.state()), widget.potential.gamma
        net, y, beta = widget.net, widget.target, widget.beta
        assert s["kappa"] == pytest.approx(bounds.kappa(net, gamma), **AGREE)
        assert s["safe"] == pytest.approx(bounds.safe_beta(net, gamma), **AGREE)
        assert [s["lower"], s["upper"]] == pytest.approx(widget.bounds(beta), **AGREE)
        if beta < s["safe"]:
            pair = [value.item() for value in bounds.two_sided(net, ONE, y, beta, gamma)]
            assert [s["lower"], s["upper"]] == pytest.approx(pair, **AGREE)
        for name, value in zip(("rovr", "arovr"), bounds.reduced(net, ONE, y, beta, gamma)):
            assert s["reduced"][name] == pytest.approx(value.item(), **AGREE), widget


def test_border_is_where_the_energy_ceases_to_grow(js):
    """If it fails, the mark on the slider stands where AROVR is still finite, or has long been
    infinite."""
    zero = Euclidean(torch.zeros(1, 1, dtype=torch.float64))
    for widget in list(cases())[::2]:
        border = js("border(p)", p=widget.state())
        inside, outside = (oracle.growth(widget.net, widget.potential - share * border * zero)
                           for share in (1 - 1e-6, 1 + 1e-6))
        assert inside > 0 > outside, widget


def test_on_the_border_itself_the_value_is_the_limit(js):
    """If it fails, AROVR is called infinite where it is not: as a supremum of functions that are
    continuous in β it has on the border the value that it tends to from below."""
    infinite = 0
    for w, a, activation in [(-2, -0.5, "relu"), (-2, 0.5, "relu"), (-1, -0.5, "relu"),
                             (2, 0.7, "relu"), (2, -0.5, "relu"), (2, -1.5, "relu"),
                             (1, -1.0, "relu"), (0.5, 0.5, "identity")]:
        widget = widgets.Sandwich(w=w, a=a, activation=activation, gamma=1.0)
        border = js("border(p)", p=widget.state())
        value = js("relaxed(p, 1, beta).value", p=widget.state(), beta=border)
        limit, _ = exact(widget, -border * (1 - 1e-6))
        infinite += limit > 1e3
        assert value == (math.inf if limit > 1e3 else pytest.approx(limit, abs=1e-4)), widget
    assert infinite == 3


def test_no_cheaper_way_to_move_the_output(js):
    """U(e) is the least for its move u. If it fails, the right picture's curves overstate the
    price."""
    for widget in list(cases())[::3]:
        for e in (-1.7, -0.4, 0.3, 2.2):
            found = js("answer(p, e)", p=widget.state(), e=e)
            push = Linear(torch.full((1, 1), -e, dtype=torch.float64))
            value, z = oracle.minimum(widget.net, ONE, widget.potential + push)
            u = (z[2] - widget.target).item() - 1
            price = value.item() + e * z[2].item()
            assert [found["u"], found["price"]] == pytest.approx([u, price], **AGREE), widget


def test_says_which_unit_has_switched(js):
    """If it fails, the sentence under the picture explains a departure by the wrong unit."""
    def switched(**p):
        return js("solve(p).switched", p=widgets.Sandwich(**p).state())

    assert switched() == []
    assert switched(w=1.0, beta=0.3) == [2]  # e = β/(1 − 2β) = ¾ > ½ wakes it
    assert switched(w=1.0, beta=0.2) == []  # e = ⅓ does not
    assert switched(w=-1.0, a=0.2, beta=0.3) == [2]
    assert switched(w=1.0, beta=0.3, activation="identity") == []


# In a browser


def predicted(page):
    """The five numbers under the picture, by lnn_core."""
    widget = widgets.Sandwich(**{name: page.number(name) for name in ("beta", "w", "gamma", "a")})
    (rovr, arovr), (lower, upper) = widget.objectives(widget.beta), widget.bounds(widget.beta)
    return [lower, rovr, 0.5, arovr, upper]


@each_way
def test_dragging_gives_what_lnn_core_predicts(shown, width, theme):
    """If it fails, the numbers under the picture are not those of the library, or not in order."""
    page = shown(widgets.Sandwich(), width=width, theme=theme)
    for name, share in (("a", 0.5), ("w", 0.6), ("beta", 0.2), ("w", 0.3)):
        before = page.numbers(*SHOWN), page.picture()
        page.slide(name, share)
        after = page.numbers(*SHOWN)
        assert after == pytest.approx(predicted(page), abs=6e-4)
        assert after == sorted(after) and (after, page.picture()) != before


def test_the_bound_does_not_see_the_sign_of_a_weight(shown):
    """If it fails, w from −1 to 1 moves the bounds, and not AROVR and its border alone: the
    chapter's first experiment."""
    page = shown(widgets.Sandwich(beta=0.3))
    mark, before = page.root.locator(".limit").first, page.numbers(*SHOWN)
    left = mark.bounding_box()["x"]
    assert before[3] == 1.25  # ½/(1 − 2β)
    for _ in range(40):
        page.control("w").press("ArrowRight")
    page.settle()
    after = page.numbers(*SHOWN)
    assert page.number("w") == 1 and mark.bounding_box()["x"] < left - 20
    assert after[0] == before[0] and after[4] == before[4] and after[3] > 1.25
    assert "unit 2 has switched" in page.status
    assert "AROVR at its border 0.333" in page.label()


def test_in_a_linear_network_the_bounds_are_the_objectives(shown):
    """If it fails, the reduced formula and (19) are not exact there: the chapter's second
    experiment."""
    page = shown(widgets.Sandwich())
    lower, rovr, _, arovr, upper = page.numbers(*SHOWN)
    assert lower < rovr and arovr < upper
    page.control("activation").select_option("identity")
    page.settle()
    lower, rovr, _, arovr, upper = page.numbers(*SHOWN)
    assert lower == rovr and arovr == upper
    assert "linear network" in page.status


@each_way
def test_bound_and_objective_end_at_their_own_borders(shown, width, theme):
    """If it fails, there is a bound past 1/κ = ⅓, or a maximum past ½, and the picture does not
    light up."""
    page = shown(widgets.Sandwich(beta=0.33), width=width, theme=theme)
    assert page.number("upper") == 50
    page.press("beta", "ArrowRight")
    assert page.numbers("arovr", "upper") == pytest.approx([0.5 / 0.32, math.inf], abs=1e-3)
    assert "past 1/κ" in page.status and not page.lit
    for _ in range(15):
        page.control("beta").press("ArrowRight")
    page.settle()
    assert page.number("beta") == 0.49 and not page.lit and page.number("arovr") == 25
    page.press("beta", "ArrowRight")
    assert page.lit and page.number("arovr") == math.inf and "reached the border" in page.status
    assert "no highest point" in page.label(1)


@pytest.mark.parametrize("pull, width", [("drag", DESKTOP), ("swipe", PHONE)])
def test_the_line_at_beta_can_be_dragged(shown, pull, width):
    """If it fails, the picture does not follow the mouse or the finger."""
    page = shown(widgets.Sandwich(), width=width)
    getattr(page, pull)(page.place(0.25, 1.7, AGAINST_BETA), page.place(0.6, 1.7, AGAINST_BETA))
    assert page.number("beta") == pytest.approx(0.6, abs=0.02) and page.lit
