"""What several test files share: how Hypothesis runs, the built book, and a browser.

Tests that need a browser are skipped where there is none; LNN_CHROMIUM names one that is not on
PATH.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from browsing import DESKTOP, PAGE, Shown
from bs4 import BeautifulSoup
from filelock import FileLock
from hypothesis import settings
from playwright.sync_api import sync_playwright

import lnn_core as lnn

ROOT = Path(__file__).resolve().parent.parent

# The same instances every time, and no limit that a busy machine could miss.
settings.register_profile("suite", deadline=None, derandomize=True, database=None,
                          max_examples=50, report_multiple_bugs=False)
settings.load_profile("suite")

#: What `make test-fast` leaves out: tests that build the book or drive a browser (by
#: their fixtures), and files that start many processes, train, go through all notebooks or records, or draw
#: every explorable. What remains takes some 200 seconds of one core.
SLOW_FIXTURES = {"browser", "build"}
SLOW_FILES = {"test_benchmarks.py", "test_drift.py", "test_mutants.py", "test_notebooks.py",
              "test_quick_run.py", "test_real_network.py", "test_real_network_page.py", "test_scale_out.py",
              "test_stills.py", "test_widgets.py"}


def pytest_configure(config):  # here, as mutants are tested without pyproject.toml
    config.addinivalue_line("markers", "slow: left out by `make test-fast`")


def pytest_collection_modifyitems(items):
    for item in items:
        if SLOW_FIXTURES & set(getattr(item, "fixturenames", ())) or item.path.name in SLOW_FILES:
            item.add_marker("slow")


# What is computed, and what must not be


@pytest.fixture
def idle(monkeypatch):
    """Fails the test where a network computes anything, inference included."""
    def never(*_, **__):
        pytest.fail("computed before checking")

    for method in ("activations", "forward", "preactivation"):
        monkeypatch.setattr(lnn.LiftedNetwork, method, never)


@pytest.fixture
def replace(monkeypatch):
    """replace(module, name=value, …) for the test's time."""
    def put(module, **values):
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    return put


# The book, built once


def build_book(folder: Path) -> None:
    """Build the committed sources in a folder, by the command that `make book` uses.

    The pages of the quick runs are written by `make book` on each machine; here the notebooks that
    they are runs of stand in for them.
    """
    shutil.copytree(ROOT / "book", folder / "book", ignore=shutil.ignore_patterns(
        "quick*", ".ipynb_checkpoints", "__pycache__"))
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy2(ROOT / name, folder)
    (folder / "book" / "quick").mkdir()
    for study in re.findall(r"book/quick/(\S+)", (ROOT / "_toc.yml").read_text(encoding="utf-8")):
        original, = (folder / "book").glob(f"*/{study}.ipynb")
        shutil.copy2(original, folder / "book" / "quick")
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    command = [jupyter_book, "build", "--all", "-W", "-n", "--keep-going", folder]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # the reference is of this checkout's docstrings
    finished = subprocess.run(command, capture_output=True, text=True, env=environment)
    (folder / "build.json").write_text(json.dumps([finished.returncode, finished.stderr]))


@pytest.fixture(scope="session")
def build(tmp_path_factory) -> tuple[int, str, Path]:
    """Exit code of the build, what it complained of, and the folder of its pages.

    One build serves all processes of a run: pytest-xdist gives each a folder in a shared one.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    source = folder / "source"
    with FileLock(folder / "source.lock"):
        if not source.exists():
            build_book(source)
    return *json.loads((source / "build.json").read_text()), source / "_build" / "html"


@pytest.fixture(scope="session")
def site(build) -> Path:
    """The folder of the built pages."""
    return build[-1]


@pytest.fixture(scope="session")
def soup(site):
    """Parses a built page, each file once."""
    return cache(lambda path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser"))


@pytest.fixture(scope="module")
def address(site):
    """Serves the site on a free port of this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # one connection for many files

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


# A browser

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


# Not for the session: the event loop that comes with it would be in the way of those of notebooks.
@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        pytest.skip("no Chromium on PATH and LNN_CHROMIUM is not set: pages are not opened")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET_CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def shown(browser, tmp_path_factory):
    """Opens explorables, each in a tab of its own."""
    folder, pages = tmp_path_factory.mktemp("explorables"), []
    (folder / "_static").mkdir()
    for path in (ROOT / "lnn_core" / "widgets").glob("*.data.js"):
        shutil.copy2(path, folder / "_static")

    @cache
    def window(width, options):
        settings = {"reduced_motion": "reduce", "viewport": {"width": width, "height": 900},
                    "has_touch": True}
        context = browser.new_context(**settings | dict(options))
        context.set_default_timeout(120_000)  # a busy machine takes its time
        return context

    def show(*explorables, width=DESKTOP, theme="light", page=PAGE, spy="", **options):
        """``page``: a text with a place for {html}; ``spy``: a script to be run before the page's."""
        path = folder / f"{len(pages)}.html"
        html = "\n".join(explorable.html() for explorable in explorables)
        path.write_text(page.format(theme=theme, html=html), encoding="utf-8")
        if pages:
            pages[-1].close()
        pages.append(window(width, tuple(sorted(options.items()))).new_page())
        pages[-1].add_init_script(spy)
        explorable = Shown(pages[-1])
        pages[-1].goto(path.as_uri())
        return explorable

    return show
