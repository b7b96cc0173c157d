"""The examples at the head of the reference's pages do what they show."""

import doctest
import re
from pathlib import Path
from types import ModuleType

import pytest

import lnn_core as lnn

API = Path(__file__).resolve().parent.parent / "book" / "api"
PAGES = sorted(API.glob("*.md"))


def examples_of(page: str) -> str:
    """The text of the page's ``pycon`` blocks."""
    return "\n".join(re.findall(r"^```pycon\n(.*?)^```", page, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_example_runs(path):
    """If it fails, the first thing a researcher copies from a page of the reference is wrong."""
    example = doctest.DocTestParser().get_doctest(examples_of(path.read_text(encoding="utf-8")), {},
                                                  path.name, str(path), 0)
    report: list[str] = []
    failed, tried = doctest.DocTestRunner(verbose=False).run(example, out=report.append)
    assert tried > 3 and not failed, "".join(report)


def test_wrong_examples_are_noticed():
    """If it fails, the test above passes whatever a page shows."""
    page = "```pycon\n>>> 1 + 1\n3\n```\n"
    example = doctest.DocTestParser().get_doctest(examples_of(page), {}, "page", None, 0)
    assert doctest.DocTestRunner(verbose=False).run(example, out=lambda text: None).failed == 1


def test_every_public_name_is_in_the_reference():
    """If it fails, something that ``import lnn_core`` offers is on no page."""
    pages = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
    shown = set(re.findall(r"^\.\. auto(?:class|function|exception):: (?:\w+\.)*(\w+)$", pages, re.MULTILINE))
    names = {name for name in lnn.__all__ if not isinstance(getattr(lnn, name), ModuleType)}
    assert names and names <= shown
