"""Explorables outside the book: on pages without a theme, from right to left, and moved scripts."""

import re

import pytest
from browsing import BARE, PAGE
from colours import LEGIBLE, contrast, over
from test_widgets import CLASSES, each_class

from lnn_core import widgets

#: Paper and ink of a page that knows no theme.
BARE_PAGES = {"light": ("#ffffff", "#000000"), "dark": ("#101418", "#f0f0f0")}

#: Note what is written on canvases: the words, their colour and opacity.
SPY = """{
    const pen = CanvasRenderingContext2D.prototype, { fillText, clearRect } = pen;
    pen.clearRect = function (...box) { this.canvas.words = []; clearRect.apply(this, box); };
    pen.fillText = function (text, ...at) {
        this.canvas.words.push([text, this.fillStyle, this.globalAlpha]);
        fillText.call(this, text, ...at);
    };
}"""
#: All words of an explorable: [text, colour, opacity, backgrounds from the inside out].
WORDS = """root => {
    const behind = node => node === null ? []
        : [getComputedStyle(node).backgroundColor, ...behind(node.parentElement)];
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT), words = [];
    while (walker.nextNode()) {
        const { data, parentElement: place } = walker.currentNode;
        if (!data.trim() || place.closest("[aria-hidden], style, script")) continue;
        words.push([data.trim(), getComputedStyle(place).color, 1, behind(place)]);
    }
    for (const canvas of root.querySelectorAll("canvas"))
        words.push(...canvas.words.map(drawn => [...drawn, behind(canvas)]));
    return words;
}"""


def contrasts(page, printed=False):
    """Of every word, on the page and on its canvases: {(text, colour): contrast}.

    Printed: on white paper, since browsers leave backgrounds out.
    """
    found = {}
    for text, colour, opacity, backgrounds in page.root.evaluate(WORDS):
        paper = [1.0, 1.0, 1.0]
        for background in [] if printed else reversed(backgrounds):
            paper = over(background, paper)
        found[text, colour] = contrast(paper, over(colour, paper, opacity))
    return found


def assert_legible(page, **options):
    found = contrasts(page, **options)
    assert len(found) > 20  # words were found at all, those on canvases included
    faint = {words: round(value, 2) for words, value in found.items() if value < LEGIBLE}
    assert not faint


def emulate(page, media):
    """Show the page as on this medium, and wait until it knows: a browser tells scripts so in a
    frame, before what they asked to be called in that frame."""
    page.page.emulate_media(media=media)
    page.page.evaluate("() => new Promise(done => requestAnimationFrame(() => "
                       "requestAnimationFrame(done)))")


def past_the_border(cls):
    """Settings that light the explorable up, where there are any."""
    lit = {widgets.Landscape: {"beta": 0.9}, widgets.Sandwich: {"beta": 0.9}, widgets.OneUnit: {
        "z": -1.0}, widgets.Targets: {"alpha": 1.0, "beta": 16.0}, widgets.RealNetwork: {"beta": 0.75}}
    return cls(**lit.get(cls, {}))


@each_class
@pytest.mark.parametrize("system", ["light", "dark"])
@pytest.mark.parametrize("paper", ["light", "dark"])
def test_words_are_legible_on_pages_without_a_theme(shown, cls, paper, system):
    """If it fails, ink goes by what the reader's system prefers, and not by what it stands on."""
    background, ink = BARE_PAGES[paper]
    page = shown(past_the_border(cls), color_scheme=system, spy=SPY,
                 page=BARE.format(head="", paper=background, ink=ink, html="{html}"))
    page.page.wait_for_selector("canvas")
    assert_legible(page)
    emulate(page, "print")
    assert_legible(page, printed=True)
    emulate(page, "screen")
    assert_legible(page)
    assert page.errors == []


@each_class
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_are_legible_in_the_book(shown, cls, theme):
    """If it fails, a curve's name has its curve's colour where that is no colour for words; or a
    dark page is printed in light ink."""
    page = shown(past_the_border(cls), theme=theme, spy=SPY)
    page.page.wait_for_selector("canvas")
    assert_legible(page)
    emulate(page, "print")
    assert_legible(page, printed=True)


@pytest.mark.parametrize("declared, system, expected", [
    ("dark", "light", "rgb(20, 24, 30)"), ("light", "dark", "rgb(255, 255, 255)"),
    ("light dark", "dark", "rgb(20, 24, 30)"), ("light dark", "light", "rgb(255, 255, 255)")])
def test_follows_the_scheme_that_a_page_declares(shown, declared, system, expected):
    """If it fails, a page that says that it is dark has a white sheet in its middle."""
    head = f'<meta name="color-scheme" content="{declared}">'
    page = shown(widgets.Landscape(), color_scheme=system,
                 page=BARE.format(head=head, paper="Canvas", ink="CanvasText", html="{html}"))
    background = "element => getComputedStyle(element).backgroundColor"
    assert page.root.evaluate(background) == page.canvas().evaluate(background) == expected


# From right to left

MARKED = [(widgets.Landscape, "beta"), (widgets.Gains, "beta"), (widgets.Targets, "alpha")]
#: Where a mark on a track is, and the ends of its track, all from the left.
PLACES = """row => {
    const mark = row.querySelector(".limit").getBoundingClientRect();
    const track = row.querySelector("input").getBoundingClientRect();
    return [mark.left + mark.width / 2, track.left, track.right];
}"""
#: The left ends of an element's characters.
LEFTS = """element => Array.from(element.firstChild.data, (_, i) => {
    const one = document.createRange();
    one.setStart(element.firstChild, i);
    one.setEnd(element.firstChild, i + 1);
    return one.getBoundingClientRect().left;
})"""


@pytest.mark.parametrize("cls, name", MARKED)
@pytest.mark.parametrize("direction", ["ltr", "rtl"])
@pytest.mark.parametrize("settings", [{}, "lit"])
def test_marks_stand_where_the_thumb_would(shown, cls, name, direction, settings):
    """If it fails, a mark on a right-to-left page warns of another value than the slider's."""
    page = shown(past_the_border(cls) if settings else cls(),
                 page=PAGE.replace("<html ", f'<html dir="{direction}" '))
    at = {"beta": {widgets.Landscape: (0.5 - 0.01) / (0.95 - 0.01), widgets.Gains: 0.5},
          "alpha": {widgets.Targets: (0.5 - 0.01) / (1.0 - 0.01)}}[name][cls]
    mark, left, right = page.root.locator(f".control:has([name={name}])").evaluate(PLACES)
    assert page.control(name).evaluate("s => getComputedStyle(s).direction") == direction
    inner = (left + 8, right - 8)  # the ends of the thumb's way
    first, last = inner if direction == "ltr" else inner[::-1]
    assert mark == pytest.approx(first + at * (last - first), abs=1)


@pytest.mark.parametrize("direction", ["ltr", "rtl"])
def test_numbers_keep_their_sign_on_the_left(shown, direction):
    """If it fails, a right-to-left page writes −1 as 1−, and pictures are other than elsewhere."""
    page = shown(widgets.OneUnit(), page=PAGE.replace("<html ", f'<html dir="{direction}" '))
    lefts = page.root.locator("output[data-value=a]").evaluate(LEFTS)
    assert page.text("a") == "−1.00" and lefts == sorted(lefts)
    assert page.canvas().evaluate("canvas => getComputedStyle(canvas).direction") == "ltr"


# Scripts that have been moved

HEAD = """<!doctype html><html><head><meta charset="utf-8"><title>Moved</title>{scripts}</head>
<body>{html}</body></html>"""
#: A page that puts HTML in place by itself, and its scripts into the head, where they run.
INSERTED = """<!doctype html><html><head><meta charset="utf-8"><title>Moved</title></head><body>
<div id="place"></div><template id="kept">{html}</template><script>
    const place = document.getElementById("place");
    place.append(document.getElementById("kept").content.cloneNode(true));
    for (const script of place.querySelectorAll("script")) {{
        const copy = document.createElement("script");
        copy.textContent = script.textContent;
        script.remove();
        document.head.append(copy);
    }}
</script></body></html>"""


def parts(html):
    """The scripts of a page's HTML, and the rest."""
    scripts = re.findall("<script>.*?</script>", html, re.DOTALL)
    return "".join(scripts), re.sub("<script>.*?</script>", "", html, flags=re.DOTALL)


def assert_all_shown(page, count):
    page.page.wait_for_function("n => document.querySelectorAll('canvas').length >= n", arg=count)
    assert page.errors == []
    assert not page.page.locator("head canvas, head .lnn-explorable").count()
    assert not page.page.locator(".still").count()


@each_class
def test_scripts_may_run_from_the_head(shown, cls):
    """If it fails, a system that puts scripts elsewhere gets an error, or a picture in its head."""
    page = shown(cls(), page=INSERTED)
    assert_all_shown(page, len(page.root.locator("canvas").all()) or 1)
    slider = next(c["name"] for c in cls.controls() if "options" not in c)
    before = page.text(slider)
    page.press(slider, "End")
    assert page.text(slider) != before


def test_scripts_may_run_before_the_page_is_read(shown):
    """If it fails, scripts that stand before what they fill find nothing; or fill one place
    twice."""
    explorables = [widgets.Landscape(), widgets.Landscape(beta=0.4), widgets.Landscape()]
    scripts, html = parts("\n".join(map(widgets.Explorable.html, explorables)))
    page = shown(page=HEAD.format(scripts=scripts, html=html).replace("{", "{{").replace("}", "}}"))
    assert_all_shown(page, 3)
    betas = page.page.locator("[data-value=beta]").all_inner_texts()
    assert betas == ["0.25", "0.40", "0.25"]


def test_scripts_without_a_place_do_nothing(shown):
    """If it fails, a copy of the script alone, as a search index makes, raises or draws
    somewhere."""
    scripts = "".join(parts(cls().html())[0] for cls in CLASSES)
    page = shown(page=HEAD.format(scripts="", html=scripts).replace("{", "{{").replace("}", "}}"))
    page.page.wait_for_load_state("load")
    assert page.errors == [] and not page.page.locator("canvas").count()
