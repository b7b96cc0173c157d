"""The built pages as a reader meets them: on a phone and on a desktop, with no network.

A page is one test of its markup and one in a browser; what is wrong with it is reported together,
by name of the check.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from browsing import DESKTOP, PHONE
from bs4 import BeautifulSoup
from playwright.sync_api import BrowserContext

ROOT = Path(__file__).resolve().parent.parent
TOC = (ROOT / "_toc.yml").read_text(encoding="utf-8")
CHAPTERS = [f"{name}.html" for name in re.findall(r"(?:file|root): (\S+)", TOC)]
PAGES = [*CHAPTERS, "search.html", "genindex.html"]

LEFT_OVER = (
    r"\{[a-z:]+\}`",  # a role
    r"\$\$|\$[^$\n]+\$|\\begin\{|\\tag\{",  # a formula
    r"<Figure size|<IPython\.|\[<matplotlib|interactive\(children=",  # a repr
)

each_page = pytest.mark.parametrize("name", PAGES)


def report(**checks) -> dict:
    """The checks that found something, and what they found."""
    return {name: found for name, found in checks.items() if found}


# What can be seen without a browser


def test_build_gives_no_warning(build):
    """If it fails, something refers to nothing, cites nothing, or bears a label that is taken; or
    a page prints a number that no notebook glues."""
    code, complaints, _ = build
    assert code == 0, complaints


def test_front_page_leads_to_the_book(site, soup):
    """If it fails, the one path that `make book` prints shows nothing."""
    refresh = soup(site / "index.html").find("meta", {"http-equiv": re.compile("refresh", re.I)})
    assert (site / refresh["content"].partition("url=")[2]).is_file()


def broken_links(site, soup, page):
    """Links inside the book to a page, a section, an equation or a file that is not there."""
    broken = []
    for element in soup(page).select("a[href], img[src], script[src], link[href]"):
        url = element.get("href") or element.get("src")
        if urlsplit(url).scheme or url == "#":
            continue
        path, fragment = urldefrag(url)
        target = page.parent / unquote(urlsplit(path).path) if path else page
        if not target.is_file() or (fragment and not soup(target).find(id=unquote(fragment))):
            broken.append(url)
    return broken


def unspoken_images(article):
    """Texts of images that say nothing: without one Sphinx writes the file's name, a hash."""
    texts = [image.get("alt", "") for image in article.select("img")]
    hashes = re.compile(r"[0-9a-f]{32}|_images/")
    return [text for text in texts if not text.strip() or hashes.search(text)]


def left_over(article):
    """A role that was not understood, or Python's name for a figure or slider in its place."""
    article = BeautifulSoup(str(article), "html.parser")
    for element in article.select("pre, code, script, style, .math"):
        element.decompose()
    return re.findall("|".join(LEFT_OVER), article.get_text())


@each_page
def test_markup(site, soup, name):
    """If it fails, links lead nowhere, a screen reader spells out an image's file name, or markup
    that was not understood stands in the text."""
    article = soup(site / name).select_one("article") if name in CHAPTERS else None
    assert report(broken_links=broken_links(site, soup, site / name),
                  unspoken_images=article and unspoken_images(article),
                  left_over=article and left_over(article)) == {}


# What takes a browser


@dataclass(frozen=True)
class Visit:
    """What one opening of a page showed."""

    errors: list[str]  # console errors and uncaught exceptions
    requests: list[str]  # every address asked for
    formulas: int  # in the page's source
    rendered: int  # by MathJax
    failed: list[str]  # MathJax's complaints
    unreachable: int  # formulas that begin left of where their box can be scrolled to
    overflow: int  # pixels by which the page is wider than the window

    def faults(self, origin: str, chapter: bool) -> dict:
        """What is wrong with a page from ``origin``; only chapters have formulas."""
        own = (origin, "data:", "blob:")
        return report(
            errors=self.errors,
            foreign=[url for url in self.requests if not url.startswith(own)],
            failed_formulas=chapter and self.failed,
            unrendered_formulas=chapter and self.formulas - self.rendered,
            unreachable_formulas=chapter and self.unreachable,
            overflow=max(0, self.overflow))


LOOK = """async () => {
    if (window.MathJax) await MathJax.startup.promise;
    await document.fonts.ready;
    const all = selector => [...document.querySelectorAll(selector)];
    const left = element => element.getBoundingClientRect().left;
    return {
        formulas: all("span.math, div.math").length,
        rendered: all("mjx-container").length,
        failed: all("mjx-merror").map(e => e.dataset.mjxError || e.textContent),
        unreachable: all("div.math").filter(
            box => left(box.firstElementChild) < left(box) - box.scrollLeft - 1).length,
        overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    };
}"""


@pytest.fixture(scope="module")
def windows(browser) -> dict[int, BrowserContext]:
    """One window per width; a page is a tab in it, so that what pages share is loaded once."""
    sizes = [{"width": width, "height": 900} for width in (DESKTOP, PHONE)]
    return {size["width"]: browser.new_context(viewport=size) for size in sizes}


def look(window: BrowserContext, url: str) -> Visit:
    """Open ``url`` in a new tab and report what it showed."""
    errors, requests = [], []
    page = window.new_page()
    page.on("console", lambda event: errors.append(event.text) if event.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.on("websocket", lambda socket: requests.append(socket.url))
    page.goto(url, timeout=0)  # a busy machine takes its time
    seen = page.evaluate(LOOK)
    page.close()
    return Visit(errors, requests, **seen)


@each_page
def test_in_a_browser(windows, address, site, name):
    """From a server on a desktop, from the file system on a phone. If it fails, a script fails, the
    page reports its readers to another server and breaks offline, they see TeX or half a formula,
    or they have to scroll sideways."""
    served, chapter = f"{address}/", name in CHAPTERS
    desktop = look(windows[DESKTOP], served + name)
    phone = look(windows[PHONE], (site / name).as_uri())
    assert report(desktop=desktop.faults(served, chapter),
                  phone=phone.faults("file:", chapter)) == {}


def test_formulas_can_be_spoken(browser, address, soup, site):
    """If it fails, a reader who cannot see, and switches on MathJax's explorer, hears nothing: its
    files are not in the book."""
    name = next(name for name in CHAPTERS if soup(site / name).select("span.math, div.math"))
    page = browser.new_page()
    failed = []
    page.on("response", lambda response: None if response.ok else failed.append(response.url))
    page.add_init_script("""localStorage["MathJax-Menu-Settings"] = '{"explorer": true}'""")
    page.goto(f"{address}/{name}")
    assert page.locator("mjx-container[aria-label]").first.get_attribute("aria-label")
    assert failed == []
