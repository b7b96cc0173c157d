"""Explorables in a browser, as readers use them: mouse, keyboard, finger, phone, desktop, dark.

Each is shown on a page that holds nothing else, opened from the file system. What a change must
do is predicted by lnn_core or by the mathematics, not merely "the picture changes".
"""

import math
from itertools import pairwise, product

import pytest
import torch
from browsing import DESKTOP, PHONE, each_way, has_nan
from test_widgets import CLASSES, each_class, sliders

from lnn_core import widgets
from lnn_core.widgets.two_unit import TwoUnit

LANDSCAPE = {"x": (-0.25, 2.75), "y": (-2.25, 3.25)}  # the pictures' windows
PRICES = {"x": (-2.2, 3.2), "y": (-0.3, 4.2)}
GRAPH = {"x": (-3.2, 3.2), "y": (-2.2, 3.2)}
PAPER = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 30)"}


# What holds for every explorable


@each_class
def test_opens_clean_on_phones_and_desktops_light_and_dark(shown, cls):
    """If it fails, an explorable fails to start, asks another server, is wider than a phone, or is
    drawn dark on dark."""
    page, pictures = shown(cls()), set()
    for width, (theme, paper) in product((DESKTOP, PHONE), PAPER.items()):
        page.page.set_viewport_size({"width": width, "height": 900})
        page.page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        page.settle()
        assert page.page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.canvas().evaluate("canvas => getComputedStyle(canvas).backgroundColor") == paper
        pictures.add(page.picture())
    assert len(pictures) == 4
    assert page.canvas().get_attribute("role") == "img" and len(page.label()) > 40
    assert not page.root.locator(".still").count() and not has_nan(page)
    assert page.errors == []
    assert [url for url in page.requests if not url.startswith(("file:", "data:", "blob:"))] == []


@each_class
def test_every_slider_answers_to_mouse_keyboard_and_finger(shown, cls):
    """If it fails, there is a parameter that some readers cannot change."""
    page = shown(cls(), width=PHONE)
    for control in sliders(cls):
        name, digits = control["name"], control["digits"]
        page.slide(name, 0.75)
        pulled = page.number(name)
        page.tap(name, 0.25)
        touched = page.number(name)
        page.press(name, "ArrowRight")
        low, high = control["min"], control["max"]
        near = ({"rel": 0.1} if control["log"] else
                {"abs": 0.04 * (high - low) + 0.51 * control["step"]})
        for share, seen in ((0.75, pulled), (0.25, touched)):
            wanted = low * (high / low) ** share if control["log"] else low + share * (high - low)
            assert seen == pytest.approx(wanted, **near)
        assert page.number(name) > touched or digits < 2 and control["step"] < 10**-digits
        assert page.control(name).get_attribute("aria-valuetext") == page.text(name)
    assert page.errors == []


@each_class
def test_no_nan_at_the_ends_of_the_sliders(shown, cls):
    """If it fails, the picture breaks at an extreme setting."""
    page = shown(cls())
    for key in ("End", "Home"):
        for control in sliders(cls):
            page.press(control["name"], key)
            assert not has_nan(page), control["name"]
    assert page.errors == []


@each_class
def test_without_scripts_there_is_a_picture(shown, cls):
    """If it fails, readers see an empty box where scripts are switched off."""
    page = shown(cls(), width=PHONE, java_script_enabled=False)
    picture = page.root.locator(".still svg")
    assert picture.bounding_box()["height"] > 100 and picture.bounding_box()["width"] <= PHONE
    assert picture.get_attribute("aria-label") == cls().describe()
    assert "cannot be dragged" in page.root.inner_text()


def test_several_on_a_page_do_not_disturb_each_other(shown):
    """If it fails, two scripts share names, or a slider moves another picture."""
    explorables = [cls() for cls in CLASSES] + [widgets.Landscape(beta=0.4)]
    page = shown(*explorables)
    assert page.errors == []
    roots = page.page.locator(".lnn-explorable")
    assert roots.count() == len(explorables)
    last = roots.nth(len(explorables) - 1)
    assert last.locator("[data-value=beta]").inner_text() == "0.40"
    last.locator("[name=beta]").press("End")
    page.settle()
    assert last.locator("[data-value=beta]").inner_text() == "0.95"
    first = roots.nth(CLASSES.index(widgets.Landscape))
    assert first.locator("[data-value=beta]").inner_text() == "0.25"


# The landscape


def predicted(**p):
    """The three numbers under the landscape, by lnn_core."""
    beta = p.pop("beta")
    unit = TwoUnit(**p)
    arovr = unit.arovr(beta) if beta < unit.stability_threshold else float("inf")
    return [unit.rovr(beta), unit.loss(), arovr]


def setting(page):
    return {name: page.number(name) for name in ("beta", "x", "y")}


METHODS = ("rovr", "forward", "arovr")


@each_way
def test_dragging_gives_what_lnn_core_predicts(shown, width, theme):
    """If it fails, the numbers under the picture are not those of the library."""
    page = shown(widgets.Landscape(), width=width, theme=theme)
    for name, share in (("beta", 0.4), ("x", 0.3), ("y", 0.45)):
        before = page.numbers(*METHODS)
        page.slide(name, share)
        assert page.numbers(*METHODS) != before
        assert page.numbers(*METHODS) == pytest.approx(predicted(**setting(page)), abs=6e-4)


def test_a_stronger_attack_widens_the_sandwich(shown):
    """ROVR falls and AROVR rises with β, the loss stays. If it fails, readers do not see what the
    front page invites them to see."""
    page, seen = shown(widgets.Landscape(beta=0.1)), []
    for share in (0.15, 0.25, 0.35, 0.45):
        page.slide("beta", share)
        seen.append(page.numbers(*METHODS))
    for low, high in pairwise(seen):
        assert high[0] < low[0] and high[1] == low[1] and high[2] > low[2]


def test_the_three_optima_coincide_as_beta_vanishes(shown):
    """If it fails, β → 0 does not give back-propagation's loss, within ℓ/(1 ± 2β), and marks upon
    each other."""
    page = shown(widgets.Landscape())
    page.press("beta", "Home")
    beta, (rovr, loss, arovr) = page.number("beta"), page.numbers(*METHODS)
    assert beta == 0.01
    assert (rovr, arovr) == pytest.approx((loss / (1 + 2 * beta), loss / (1 - 2 * beta)), abs=6e-4)
    unit = TwoUnit()
    rovr, forward, arovr = (page.place(*unit.optimum(weight), LANDSCAPE)
                            for weight in (beta, 0, -beta))
    assert math.dist(rovr, forward) < 4 and math.dist(arovr, forward) < 4  # of 700 pixels


@each_way
def test_past_the_border_the_border_lights(shown, width, theme):
    """If it fails, the page shows an optimum where there is none, or warns where there is one."""
    page = shown(widgets.Landscape(beta=0.49), width=width, theme=theme)
    page.press("beta", "ArrowRight")
    assert page.number("beta") == 0.5 and page.number("arovr") == 3  # at z₁ = 0, z₂ = −2
    assert not page.lit and "as long as β does not pass 0.50" in page.status
    page.press("beta", "ArrowRight")
    assert page.lit and page.number("arovr") == float("inf")
    assert "reached the border" in page.status and "AROVR is infinite" in page.label()
    assert "lit" in page.root.locator(".control:has([name=beta])").get_attribute("class")
    page.press("beta", "ArrowLeft")
    assert not page.lit and page.number("arovr") < float("inf")


def test_a_dearer_hidden_layer_moves_the_border(shown):
    """β* = γ/(1 + γ), so that a larger γ₁ makes AROVR finite. If it fails, what the chapter invites
    to try does not happen."""
    page = shown(widgets.Landscape(beta=0.6))
    mark = page.root.locator(".limit").first
    left = mark.bounding_box()["x"]
    assert page.lit
    page.slide("gamma", 0.75)
    gamma, beta = page.number("gamma"), 0.6
    assert gamma == pytest.approx(2.0, abs=0.2) and gamma / (1 + gamma) > beta
    assert not page.lit and mark.bounding_box()["x"] > left
    assert page.number("rovr") == pytest.approx(TwoUnit(gamma=gamma).rovr(beta), abs=2e-3)


def test_sweeps_step_by_step(shown):
    """The stairs of eq. (17): z2 first, then z1; each a third of the one before at β = 1/4. If it
    fails, the picture shows another method."""
    page = shown(widgets.Landscape())
    path = TwoUnit().path(-0.25, 3)
    for passes in (1, 2, 3):
        page.click("step")
        z1, z2 = path[2 * passes]
        place = f"z₁ = {z1:.2f}, z₂ = {z2:.2f}".replace("-", "−")
        assert f"after {passes} sweeps: {place}" in page.label()
    page.click("reset")
    assert page.number("passes") == 0


def test_sweeps_do_not_move_where_the_reader_wants_no_motion(shown):
    """If it fails, readers who asked for reduced motion are not shown the end at once."""
    page = shown(widgets.Landscape())
    page.click("play")
    assert page.number("passes") == 20


def test_an_overshooting_sweep_stays_in_the_picture(shown):
    """ROVR has an optimum, and the bare sweeps go round it. If it fails, the chapter's second
    experiment shows nothing."""
    page = shown(widgets.Landscape(shown="rovr", beta=0.95, gamma=0.25))
    page.click("play")
    path = TwoUnit(gamma=0.25).path(0.95, 20)
    assert abs(path[-1] - path[-3]).max() > 0.5  # no closer than at first
    assert f"z₁ = {path[-1][0]:.2f}, z₂ = {path[-1][1]:.2f}".replace("-", "−") in page.label()
    assert page.errors == []


@pytest.mark.parametrize("pull, width", [("drag", DESKTOP), ("swipe", PHONE)])
def test_the_target_can_be_dragged(shown, pull, width):
    """If it fails, the dashed line does not follow the mouse or the finger."""
    page = shown(widgets.Landscape(), width=width)
    getattr(page, pull)(page.place(2.2, 2.0, LANDSCAPE), page.place(2.2, 0.5, LANDSCAPE))
    assert page.number("y") == pytest.approx(0.5, abs=0.05)
    assert page.numbers(*METHODS) == pytest.approx(predicted(**setting(page)), abs=6e-4)


def test_the_forward_pass_can_be_dragged(shown):
    """If it fails, the square does not follow the mouse: x = z₁ where the unit is on."""
    page = shown(widgets.Landscape())
    page.drag(page.place(1.0, 1.0, LANDSCAPE), page.place(1.6, 1.0, LANDSCAPE))
    assert page.number("x") == pytest.approx(1.6, abs=0.05)


def test_a_drag_past_the_end_is_clamped_with_a_message(shown):
    """If it fails, the target is lost outside the picture, or stops without a word."""
    page = shown(widgets.Landscape())
    page.drag(page.place(2.2, 2.0, LANDSCAPE), page.place(2.2, 3.2, LANDSCAPE))
    assert page.number("y") == 3 and "y goes from −1.00 to 3.00: set to 3.00." in page.status
    page.press("y", "ArrowLeft")
    assert "set to" not in page.status


def test_a_finger_beside_the_handles_scrolls_the_page(shown):
    """If it fails, a phone cannot get past the picture."""
    page = shown(widgets.Landscape(), width=PHONE)
    page.page.evaluate("document.body.style.paddingBottom = '2000px'")
    before = page.number("x"), page.number("y")
    page.swipe(page.place(2.0, -1.0, LANDSCAPE), page.place(2.0, 2.9, LANDSCAPE))
    page.page.wait_for_function("scrollY > 0")
    assert (page.number("x"), page.number("y")) == before


def test_a_finger_on_a_handle_does_not_scroll_the_page(shown):
    """If it fails, the page runs away under the finger that drags the target."""
    page = shown(widgets.Landscape(), width=PHONE)
    page.page.evaluate("document.body.style.paddingBottom = '2000px'")
    page.swipe(page.place(2.0, 2.0, LANDSCAPE), page.place(2.0, 3.0, LANDSCAPE))
    assert page.page.evaluate("scrollY") == 0 and page.number("y") == pytest.approx(3, abs=0.1)


def test_both_landscapes(shown):
    """If it fails, the choice between U − βℓ and U + βℓ changes nothing."""
    page = shown(widgets.Landscape())
    attacked, words = page.picture(), page.label()
    page.control("shown").select_option("rovr")
    page.settle()
    assert page.picture() != attacked
    assert "U − βℓ" in words and "U + βℓ" in page.label()


# One unit


def prices(page):
    """What lnn_core says of the picture's setting."""
    activation = page.control("activation").input_value()
    unit = widgets.OneUnit(a=page.number("a"), z=page.number("z"), activation=activation)
    return [price.item() for price in unit.prices(torch.tensor(unit.z, dtype=torch.float64))]


PRICE_NAMES = ("fenchelYoung", "leastSquares")
ERRORS = ("fenchelYoungError", "leastSquaresError")


@each_way
def test_prices_are_those_of_lnn_core(shown, width, theme):
    """If it fails, a number under the picture belongs to another activation function."""
    page = shown(widgets.OneUnit(), width=width, theme=theme)
    for i, activation in enumerate(widgets.OneUnit.activation.values):
        page.control("activation").select_option(activation)
        page.slide("a", 0.3 + 0.15 * i)
        page.slide("z", 0.5 + 0.02 * i)
        assert page.numbers(*PRICE_NAMES) == pytest.approx(prices(page), abs=6e-4)
        assert page.number("fenchelYoung") >= page.number("leastSquares")


def test_a_unit_that_is_off_sends_no_error_under_least_squares(shown):
    """Silent while a < 0; beyond, both prices are the same. If it fails, the chapter's first
    experiment shows something else."""
    page = shown(widgets.OneUnit())
    assert page.numbers(*ERRORS) == [0.8, 0]
    assert page.numbers(*PRICE_NAMES) == [1.12, 0.32]  # ½z² + |a|z and ½z²
    assert "no error" in page.status
    page.slide("a", 0.7)
    a = page.number("a")
    assert a > 0 and page.number("fenchelYoung") == page.number("leastSquares")
    assert page.numbers(*ERRORS) == pytest.approx([0.8 - a] * 2, abs=1e-9)


def test_a_saturated_unit(shown):
    """tanh at a = 3, z = 0; and z > 1 is out of reach. If it fails, the chapter's second experiment
    shows something else."""
    page = shown(widgets.OneUnit(activation="tanh", z=0.0))
    page.press("a", "End")
    fenchel_young, least_squares = page.numbers(*ERRORS)
    assert abs(least_squares) < 0.011 and fenchel_young < -0.99
    assert page.number("fenchelYoung") > 2  # log cosh 3
    page.press("z", "End")
    assert page.number("fenchelYoung") == float("inf") and page.lit and "forbids" in page.status


@pytest.mark.parametrize("pull, width", [("drag", DESKTOP), ("swipe", PHONE)])
def test_the_point_on_the_graph_can_be_dragged(shown, pull, width):
    """One handle, two parameters. If it fails, (a, z) does not follow the mouse or the finger."""
    page = shown(widgets.OneUnit(), width=width)
    start, end = (page.place(a, z, GRAPH, panel=1) for a, z in ((-1.0, 0.8), (1.5, 2.0)))
    getattr(page, pull)(start, end, panel=1)
    assert page.numbers("a", "z") == pytest.approx([1.5, 2.0], abs=0.06)


def test_the_handles_of_the_prices(shown):
    """If it fails, the line at z and the diamond at a do not follow the mouse."""
    page = shown(widgets.OneUnit())
    page.drag(page.place(0.8, 2.0, PRICES), page.place(1.7, 2.0, PRICES))
    page.drag(page.place(-1.0, 0.0, PRICES), page.place(0.5, 0.0, PRICES))
    assert page.numbers("a", "z") == pytest.approx([0.5, 1.7], abs=0.06)
