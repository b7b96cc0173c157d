"""The built pages as a reader meets them: on a phone and on a desktop, with no network.

The book is built once, from the committed sources, into a temporary folder. The page of the quick
run is written by `make book` on each machine; here the notebook that it is a run of stands in for
it. The checks that need a browser are skipped where there is none; LNN_CHROMIUM names one that is
not on PATH.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import Browser, BrowserContext, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
TOC = (ROOT / "_toc.yml").read_text(encoding="utf-8")
CHAPTERS = [f"{name}.html" for name in re.findall(r"(?:file|root): (\S+)", TOC)]
PAGES = [*CHAPTERS, "search.html", "genindex.html"]
DESKTOP, PHONE = 1280, 390

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("LNN_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
QUIET_CHROMIUM = (  # asks for nothing by itself; works in containers and as root
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-sync",
    "--no-first-run",
    "--no-sandbox",
)

LEFT_OVER = (
    r"\{[a-z:]+\}`",  # a role
    r"\$\$|\$[^$\n]+\$|\\begin\{|\\tag\{",  # a formula
    r"<Figure size|<IPython\.|\[<matplotlib|interactive\(children=",  # a repr
)

each_page = pytest.mark.parametrize("name", PAGES)
each_chapter = pytest.mark.parametrize("name", CHAPTERS)
each_width = pytest.mark.parametrize("width", [DESKTOP, PHONE])


# The book, built once


@pytest.fixture(scope="module")
def build(tmp_path_factory) -> tuple[subprocess.CompletedProcess, Path]:
    """The finished build, by the command that `make book` uses, and the folder of its pages."""
    source = tmp_path_factory.mktemp("source")
    machines_own = shutil.ignore_patterns("quick*", ".ipynb_checkpoints", "__pycache__")
    shutil.copytree(ROOT / "book", source / "book", ignore=machines_own)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy2(ROOT / name, source)
    (source / "book" / "quick").mkdir()
    for study in re.findall(r"book/quick/(\S+)", (ROOT / "_toc.yml").read_text(encoding="utf-8")):
        original, = (source / "book").glob(f"*/{study}.ipynb")
        shutil.copy2(original, source / "book" / "quick")
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    command = [jupyter_book, "build", "--all", "-W", "-n", "--keep-going", source]
    finished = subprocess.run(command, capture_output=True, text=True)
    return finished, source / "_build" / "html"


@pytest.fixture(scope="module")
def site(build) -> Path:
    """The folder of the built pages."""
    return build[1]


@pytest.fixture(scope="module")
def soup(site):
    """Parses a built page, each file once."""
    return cache(lambda path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser"))


# What can be seen without a browser


def test_build_gives_no_warning(build):
    """A reference to nothing, a number no notebook glues, an unknown citation, a label twice."""
    finished, _ = build
    assert finished.returncode == 0, finished.stderr


def test_front_page_leads_to_the_book(site, soup):
    """The one path that `make book` prints must show something."""
    refresh = soup(site / "index.html").find("meta", {"http-equiv": re.compile("refresh", re.I)})
    assert (site / refresh["content"].partition("url=")[2]).is_file()


@each_page
def test_links_resolve(site, soup, name):
    """A link inside the book to a page, a section, an equation or a file that is not there."""
    broken = []
    for element in soup(site / name).select("a[href], img[src], script[src], link[href]"):
        url = element.get("href") or element.get("src")
        if urlsplit(url).scheme or url == "#":
            continue
        path, fragment = urldefrag(url)
        target = (site / name).parent / unquote(urlsplit(path).path) if path else site / name
        if not target.is_file() or (fragment and not soup(target).find(id=unquote(fragment))):
            broken.append(url)
    assert broken == []


@each_chapter
def test_images_have_an_alternative_text(site, soup, name):
    """Without one Sphinx writes the file's name, a hash, and a screen reader spells it out."""
    texts = [image.get("alt", "") for image in soup(site / name).select("article img")]
    hashes = re.compile(r"[0-9a-f]{32}|_images/")
    assert [text for text in texts if not text.strip() or hashes.search(text)] == []


@each_chapter
def test_nothing_is_left_as_markup_or_repr(site, soup, name):
    """A role that was not understood, or Python's name for a figure or slider in its place."""
    article = BeautifulSoup(str(soup(site / name).select_one("article")), "html.parser")
    for element in article.select("pre, code, script, style, .math"):
        element.decompose()
    found = re.findall("|".join(LEFT_OVER), article.get_text())
    assert found == []


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
def browser() -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("no Chromium on PATH and LNN_CHROMIUM is not set: pages are not opened")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET_CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def windows(browser) -> dict[int, BrowserContext]:
    """One window a width; a page is a tab in it, so that what pages share is loaded once."""
    sizes = [{"width": width, "height": 900} for width in (DESKTOP, PHONE)]
    return {size["width"]: browser.new_context(viewport=size) for size in sizes}


@pytest.fixture(scope="module")
def address(site) -> Iterator[str]:
    """Serves the site on a free port of this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # one connection for many files

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


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


@pytest.fixture(scope="module")
def visit(windows, address):
    """Opens a page of the served book at a width, each pair once."""
    return cache(lambda name, width: look(windows[width], f"{address}/{name}"))


@each_width
@each_page
def test_console_is_clean(visit, name, width):
    """A script that fails on load: a missing file, a name declared twice, an exception."""
    assert visit(name, width).errors == []


@each_width
@each_page
def test_no_request_leaves_the_machine(visit, address, name, width):
    """Something from another server: the page would break offline and report its readers."""
    own = (f"{address}/", "data:", "blob:")
    assert [url for url in visit(name, width).requests if not url.startswith(own)] == []


@each_width
@each_chapter
def test_formulas_are_rendered(visit, name, width):
    """Readers would see TeX, or an error message, or the second half of a formula."""
    seen = visit(name, width)
    assert (seen.rendered, seen.failed, seen.unreachable) == (seen.formulas, [], 0)


@each_width
@each_page
def test_page_does_not_scroll_sideways(visit, name, width):
    """Tables, code and formulas wider than the window have to scroll in their own boxes."""
    assert visit(name, width).overflow <= 0


def test_formulas_can_be_spoken(browser, address, visit):
    """A reader who cannot see switches on MathJax's explorer: its files must be in the book."""
    name = next(name for name in CHAPTERS if visit(name, DESKTOP).formulas)
    page = browser.new_page()
    failed = []
    page.on("response", lambda response: None if response.ok else failed.append(response.url))
    page.add_init_script("""localStorage["MathJax-Menu-Settings"] = '{"explorer": true}'""")
    page.goto(f"{address}/{name}")
    assert page.locator("mjx-container[aria-label]").first.get_attribute("aria-label")
    assert failed == []


@each_chapter
def test_page_works_from_the_file_system(windows, site, name):
    """A reader who opens the front page that `make book` printed has no web server."""
    seen = look(windows[DESKTOP], (site / name).as_uri())
    own = ("file:", "data:", "blob:")
    assert seen.errors == []
    assert [url for url in seen.requests if not url.startswith(own)] == []
    assert (seen.rendered, seen.failed) == (seen.formulas, [])
