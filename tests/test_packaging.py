"""The package as users install it: what an import costs, what it needs, which version it says it is."""

import importlib.metadata
import re
import runpy
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import lnn_core as lnn
from lnn_core.extras import extra

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

#: What is loaded besides torch, its packages and the standard library.
LOADED = """
import sys, torch
before = set(sys.modules)
import lnn_core
print(*{name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)
"""
#: As where the extras are not installed.
WITHOUT = "import sys; sys.modules.update(dict.fromkeys({missing}))\n"
#: What README promises of the library alone, and more.
ALONE = """
import torch, lnn_core as lnn, lnn_core.experiments.training
net = lnn.LiftedNetwork([3, 4, 2])
x, y = torch.rand(8, 3), torch.randint(2, (8,))
lnn.AROVR(beta=0.25)(net, x, y).backward()
lnn.ConstrainedAROVR(0.25)(net, x, y)
exec("from lnn_core import *")
lnn.lipschitz.bracket(net, x), lnn.lrrn.LRRN([3, 4, 2]), lnn.oracle, lnn.data.Split(x, y)
"""


def run(code):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True)


def missing():
    """The packages that the extras bring, by the names under which they are imported."""
    brought = {re.match(r"[\w-]+", requirement)[0] for extra in PROJECT["optional-dependencies"].values()
               for requirement in extra} - {PROJECT["name"]}
    found = {name for name, given in importlib.metadata.packages_distributions().items()
             if brought & set(given)}
    assert len(found) >= len(brought) > 5
    return found


def test_import_is_light():
    """If it fails, every user of the losses waits for, and has to install, plots and downloads."""
    found = run(LOADED)
    assert set(found.stdout.split()) == {"lnn_core"}, found.stderr


def test_core_does_without_the_extras():
    """If it fails, `pip install .` does not bring what training needs."""
    found = run(WITHOUT.format(missing=missing()) + ALONE)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("code, extra", [
    ("from lnn_core import data; data.load('digits')", "data"),
    ("from lnn_core.experiments import Run", "experiments"),
    ("import lnn_core; lnn_core.style", "book"),
    ("import lnn_core.widgets.two_unit", "book")])
def test_missing_extra_is_named(code, extra):
    """If it fails, a user is told of a package's absence, not of what brings it, or is told twice."""
    found = run(WITHOUT.format(missing=missing()) + code)
    last = found.stderr.strip().splitlines()[-1]
    assert last.startswith("ModuleNotFoundError") and last.count(f"pip install '.[{extra}]'") == 1


def test_a_module_of_this_library_that_is_not_there_is_no_missing_extra():
    """If it fails, an installation that lacks a file tells its user to install a package."""
    with pytest.raises(ModuleNotFoundError) as raised, extra("book"):
        import_module("lnn_core.not_there")
    assert str(raised.value) == "No module named 'lnn_core.not_there'"


def test_modules_that_load_later_are_seen():
    """If it fails, completion hides modules, `import *` breaks, or a misspelt name is no AttributeError."""
    assert set(lnn.__all__) <= set(dir(lnn))
    assert all(getattr(lnn, name) for name in lnn.__all__)
    with pytest.raises(AttributeError, match="no attribute 'stile'"):
        lnn.stile  # noqa: B018 - asking is the test


def test_versions_agree():
    """If it fails, a citation, the changelog or the package name a version that there is not."""
    cited = re.search(r"^version: (\S+)", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.M)[1]
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)[1]
    assert {cited, newest} == {lnn.__version__} and PROJECT["dynamic"] == ["version"]


def test_everything_is_pinned():
    """If it fails, `make book` installs packages that pyproject.toml asks for in any version."""
    pins = (ROOT / "requirements.txt").read_text(encoding="utf-8").lower()
    asked = [*PROJECT["dependencies"], *sum(PROJECT["optional-dependencies"].values(), [])]
    names = {re.match(r"[\w-]+", requirement)[0] for requirement in asked} - {PROJECT["name"]}
    assert {name for name in names if not re.search(rf"^{name}==", pins, re.M)} == set()


@pytest.mark.parametrize("said, status, printed", [
    ("Found {} errors in 2 files", 0, "allowed\n"),
    ("Found {fewer} errors in 1 file", 0, "lower BASELINE"),
    ("lnn_core/convex.py:1: error: of types\nFound {more} errors in 3 files", 1, "convex.py:1: error"),
    ("pyproject.toml: no such option", 1, "did not get through")])
def test_types_may_only_get_better(monkeypatch, capsys, said, status, printed):
    """If it fails, new errors of types pass `make check`, or a crash of the checker does."""
    script = runpy.run_path(str(ROOT / ".ci" / "check_types.py"))
    count = script["BASELINE"]
    output = said.format(count, fewer=count - 1, more=count + 1)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, output, ""))
    wrong = script["main"]()
    assert bool(wrong) == bool(status) and printed in (wrong or capsys.readouterr().out)
