"""The picture on the front page, as a reader drags it in a browser."""

import math
from functools import cache

import pytest
from test_pages import (  # noqa: F401 - fixtures
    CHAPTERS,
    DESKTOP,
    PHONE,
    address,
    browser,
    build,
    each_width,
    site,
    soup,
)

from lnn_core.explore import TwoUnit

FRONT = "book/index.html"
METHODS = ("rovr", "forward", "arovr")


@pytest.fixture(scope="module")
def window(browser):  # noqa: F811
    """A browser window of a width, the same one for the same settings; formulas stay as they are."""

    @cache
    def window(width, **options):
        settings = {"reduced_motion": "reduce", "viewport": {"width": width, "height": 900}}
        context = browser.new_context(**settings | options)
        context.route("**/mathjax/**", lambda route: route.abort())  # nothing moves under the mouse
        return context

    return window


@pytest.fixture
def opened(window, address):  # noqa: F811
    """Opens the front page in a tab of its own."""
    pages = []

    def open_page(url=f"{address}/{FRONT}", width=DESKTOP, **options):
        pages.append(window(width, **options).new_page())
        pages[-1].goto(url, timeout=120_000)
        return pages[-1]

    yield open_page
    for page in pages:
        page.close()


def slider(page, name):
    return page.locator(f"#landscape input[name={name}]")


def position(page):
    """Where the sliders stand."""
    return {name: float(slider(page, name).input_value()) for name in ("beta", "x", "y")}


def readout(page):
    """The three numbers under the picture."""
    texts = [page.locator(f"#landscape [data-value={name}]").inner_text() for name in METHODS]
    return [math.inf if text == "∞" else float(text) for text in texts]


def predicted(page):
    """What lnn_core says those numbers are."""
    at = position(page)
    unit = TwoUnit(x=at["x"], y=at["y"])
    arovr = unit.arovr(at["beta"]) if unit.is_stable(-at["beta"]) else math.inf
    return [unit.rovr(at["beta"]), unit.loss(), arovr]


def drag(page, name, by):
    """Take the slider's handle and move it by a part of the slider's length."""
    handle = slider(page, name)
    handle.scroll_into_view_if_needed()
    low, high = (float(handle.get_attribute(end)) for end in ("min", "max"))
    share = (position(page)[name] - low) / (high - low)
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] * share, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + by * box["width"], y, steps=4)
    page.mouse.up()


@each_width
@pytest.mark.parametrize("name, by", [("beta", 0.2), ("x", -0.5), ("y", -0.4)])
def test_dragging_gives_what_lnn_core_predicts(opened, width, name, by):
    """The sliders do nothing, or the numbers are not those of the library."""
    page = opened(width=width)
    before, was = readout(page), position(page)[name]
    drag(page, name, by)
    assert (position(page)[name] - was) * by > 0
    assert readout(page) != before
    assert readout(page) == pytest.approx(predicted(page), abs=6e-4)


def test_a_stronger_attack_widens_the_sandwich(opened):
    """What the page invites to see: ROVR falls and AROVR rises with β, the loss stays."""
    page = opened()
    low = readout(page)
    drag(page, "beta", 0.2)
    high = readout(page)
    assert high[0] < low[0] and high[1] == low[1] and high[2] > low[2]


def test_sliders_answer_to_the_keyboard(opened):
    """A reader without a mouse could not move anything."""
    page = opened()
    slider(page, "beta").press("ArrowRight")
    assert position(page)["beta"] == pytest.approx(0.26)
    assert readout(page) == pytest.approx(predicted(page), abs=6e-4)


@pytest.mark.parametrize("keys", ["End", "Home"])
def test_no_nan_at_the_ends_of_the_sliders(opened, keys):
    """Past the border of stability, or where everything coincides, the picture breaks."""
    page = opened()
    for name in ("x", "y", "beta"):
        slider(page, name).press(keys)
    at, text = position(page), page.locator("#landscape").inner_text()
    assert "NaN" not in text + page.locator("#landscape canvas").get_attribute("aria-label")
    assert readout(page) == pytest.approx(predicted(page), abs=6e-4)
    assert ("falls without end" in text) == (at["beta"] >= 0.5)


def test_picture_says_what_it_shows(opened):
    """A reader who cannot see it hears neither the sliders' positions nor the values."""
    page = opened()
    canvas = page.locator("#landscape canvas")
    assert canvas.get_attribute("role") == "img"
    drag(page, "beta", 0.1)
    label = canvas.get_attribute("aria-label")
    beta, (rovr, loss, arovr) = position(page)["beta"], readout(page)
    for words in (f"β = {beta:.2f}", f"ROVR = {rovr:.3f}", f"= {loss:.3f}", f"AROVR = {arovr:.3f}"):
        assert words in label


PAINTED = "document.querySelector('#landscape canvas').toDataURL()"


def test_picture_follows_sliders_landscape_and_theme(opened):
    """The canvas stays empty, or as it was when the page was opened."""
    page = opened()
    pictures = [page.evaluate(PAINTED)]
    drag(page, "beta", 0.2)
    pictures.append(page.evaluate(PAINTED))
    page.get_by_label("nudged").check()
    pictures.append(page.evaluate(PAINTED))
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_function(f"before => {PAINTED} !== before", arg=pictures[-1])
    assert len(set(pictures)) == len(pictures)


def test_animation_ends_where_the_sliders_start(opened):
    """β grows by itself once; the page must then rest where a still page begins."""
    moving, still = opened(reduced_motion="no-preference"), opened()
    assert position(still)["beta"] == 0.25
    moving.wait_for_function("document.querySelector('#landscape input').value === '0.25'")
    assert readout(moving) == readout(still)


def test_animation_gives_way_to_the_reader(opened):
    """A slider that is pulled out of the reader's hand."""
    page = opened(reduced_motion="no-preference")
    slider(page, "beta").press("Home")
    page.wait_for_timeout(300)
    assert position(page)["beta"] == 0.01


def test_works_from_the_file_system(opened, site):  # noqa: F811
    """A reader who opens the page that `make book` printed has no web server."""
    page = opened((site / FRONT).as_uri(), PHONE)
    drag(page, "beta", -0.2)
    assert readout(page) == pytest.approx(predicted(page), abs=6e-4)


def test_without_scripts_there_is_a_picture(opened):
    """An empty box where scripts are switched off."""
    page = opened(java_script_enabled=False)
    image = page.locator("#landscape img")
    assert "cannot be dragged" in page.locator("#landscape p").inner_text()
    assert "AROVR" in image.get_attribute("alt")
    assert image.bounding_box()["height"] > 100
    assert page.request.get(f"{page.url.rpartition('book/')[0]}_static/landscape.webp").ok


@pytest.mark.parametrize("name", [name for name in CHAPTERS if name != FRONT])
def test_script_is_loaded_on_the_front_page_only(site, soup, name):  # noqa: F811
    """On any other page it would find no place for its picture, and fail."""
    assert not soup(site / name).select("[src*=landscape], [href*='landscape.css']")
