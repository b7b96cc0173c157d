"""The front page opens with the landscape, and the chapters with theirs, in the built book."""

import math

import pytest
from browsing import DESKTOP, PHONE, Shown

from lnn_core import widgets
from lnn_core.widgets.two_unit import TwoUnit

FRONT = "book/index.html"
WINDOW = {"x": (-0.25, 2.75), "y": (-2.25, 3.25)}
METHODS = ("rovr", "forward", "arovr")
COLOURS = "getComputedStyle(c).color, getComputedStyle(c).backgroundColor"
SHEET = "[getComputedStyle(s).color, getComputedStyle(s.closest('.text_html')).backgroundColor]"


@pytest.fixture
def opened(browser):
    """Opens a page of the book; formulas stay as they are: nothing moves under the mouse."""
    contexts = []

    def open_page(url, width=DESKTOP, **options):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **options))
        contexts[-1].route("**/mathjax/**", lambda route: route.abort())
        shown = Shown(contexts[-1].new_page())
        shown.page.goto(url, timeout=0)
        return shown

    yield open_page
    for context in contexts:
        context.close()


def predicted(page):
    """What lnn_core says of the setting that the page shows."""
    beta, unit = page.number("beta"), TwoUnit(x=page.number("x"), y=page.number("y"))
    return [unit.rovr(beta), unit.loss(), unit.arovr(beta) if beta < unit.stability_threshold else math.inf]


def test_front_page_opens_with_the_landscape(soup, site):
    """If it fails, a reader sees text only before the first section; or the code that makes the
    picture."""
    article = soup(site / FRONT).select_one("article")
    explorable = article.select_one(".lnn-explorable")
    titles = explorable.find_all_previous("h2")
    assert not [title for title in titles if title.find_parent("section")]
    assert not [code for code in article.select("pre") if "widgets" in code.text]


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_front_page_can_be_dragged(opened, address, width):
    """If it fails, the theme's styles or scripts get in the way."""
    page = opened(f"{address}/{FRONT}", width)
    page.slide("beta", 0.4)
    assert page.number("beta") > 0.25
    assert page.numbers(*METHODS) == pytest.approx(predicted(page), abs=6e-4)
    page.drag(page.place(2.2, 2.0, WINDOW), page.place(2.2, 1.5, WINDOW))
    assert page.number("y") == pytest.approx(1.5, abs=0.06)
    assert page.numbers(*METHODS) == pytest.approx(predicted(page), abs=6e-4)


def test_front_page_follows_the_switch_of_the_theme(opened, address):
    """If it fails, there is light ink on light paper after the reader has pressed the book's own
    button."""
    page, papers = opened(f"{address}/{FRONT}"), set()
    for theme in ("light", "dark"):
        page.page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        page.settle()
        ink, paper = page.canvas().evaluate(f"c => [{COLOURS}]")
        words, sheet = page.root.locator(".status").evaluate(f"s => {SHEET}")
        assert ink != paper and words == ink and sheet in (paper, "rgba(0, 0, 0, 0)")
        papers.add((paper, page.picture()))
    assert len(papers) == 2


def test_front_page_works_from_the_file_system(opened, site):
    """If it fails, a reader who opens the page that `make book` printed, without a web server,
    cannot drag anything."""
    page = opened((site / FRONT).as_uri(), PHONE)
    page.slide("beta", 0.1)
    assert page.numbers(*METHODS) == pytest.approx(predicted(page), abs=6e-4)


def test_front_page_without_scripts(opened, site):
    """If it fails, there is an empty box where scripts are switched off."""
    page = opened((site / FRONT).as_uri(), PHONE, java_script_enabled=False)
    picture = page.root.locator(".still svg")
    assert picture.bounding_box()["height"] > 100 and picture.bounding_box()["width"] <= PHONE
    assert picture.get_attribute("aria-label") == widgets.Landscape().describe()
    assert "cannot be dragged" in page.root.inner_text()


@pytest.mark.parametrize("name, explorable", [
    ("book/foundations/potentials.html", widgets.OneUnit),
    ("book/foundations/inference.html", widgets.Landscape),
    ("book/lrrn/lipschitz.html", widgets.Gains),
])
def test_chapters_have_their_explorable(opened, site, name, explorable):
    """If it fails, a chapter's explorable is lost in the build, or does not start there."""
    page = opened((site / name).as_uri())
    slider = explorable.controls()[0]["name"]
    before = page.text(slider)
    page.press(slider, "ArrowRight")
    assert page.text(slider) != before and not page.root.locator(".still").count()
