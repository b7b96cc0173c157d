"""`make`: when the environment is made again, and what relative folders mean. Nothing is installed:
a stand-in takes the place of Python, and notes what it is asked for."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="needs make")

#: Answers like Python as far as the Makefile asks; `-m venv FOLDER` makes one with itself in it.
STAND_IN = """#!/usr/bin/env bash
echo "$@" >>"$LOG"
if [[ "$*" == "-m venv"* ]]; then
  mkdir -p "$3/bin"
  cp "$0" "$3/bin/python"
fi
"""
#: What a reader's shell has: under `make test`, make passes its own options on.
ENVIRONMENT = {name: value for name, value in os.environ.items()
               if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "LNN_DATA", "LNN_CACHE")}
#: Prints the variables that recipes see.
SHOW = 'show: ; @echo "$$LNN_DATA|$$LNN_CACHE"'


@pytest.fixture
def checkout(tmp_path):
    """A folder, with a space in its name, as `make` sees the repository; a function that makes
    the target `environment` there and tells whether .venv was made anew."""
    here = tmp_path / "a checkout"
    here.mkdir()
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, here)
    python = tmp_path / "python"
    python.write_text(STAND_IN)
    python.chmod(python.stat().st_mode | stat.S_IXUSR)

    def make(folder=here):
        log = tmp_path / "log"
        log.unlink(missing_ok=True)
        subprocess.run(["make", f"PYTHON={python}", "environment"], cwd=folder, check=True,
                       env={**ENVIRONMENT, "LOG": str(log)}, capture_output=True)
        asked = log.read_text()
        made = "-m venv .venv" in asked
        assert made == ("pip install" in asked) == ("--editable ." in asked)
        return made

    make.here = here
    return make


def test_environment_is_made_once(checkout):
    """If it fails, every call sets up everything again, or none does."""
    assert [checkout(), checkout(), checkout()] == [True, False, False]


@pytest.mark.parametrize("name", ["requirements.txt", "pyproject.toml"])
def test_dates_mean_nothing_and_contents_do(checkout, name):
    """If it fails, a file from the future sets everything up each time, or new pins are ignored."""
    checkout()
    file = checkout.here / name
    for when in (4e9, 1e9):
        os.utime(file, (when, when))
        assert not checkout()
    file.write_text(file.read_text() + "\n# another\n")
    assert [checkout(), checkout()] == [True, False]


def test_copied_checkout_gets_its_own_environment(checkout, tmp_path):
    """If it fails, a copy runs the original's code: .venv's scripts name the place it was made."""
    checkout()
    copy = tmp_path / "copy"
    shutil.copytree(checkout.here, copy)
    assert [checkout(copy), checkout(copy), checkout()] == [True, False, False]


def test_linked_environment_is_left_to_its_owner(checkout, tmp_path):
    """If it fails, a checkout empties the environment of another that it is linked to."""
    checkout()
    other = tmp_path / "other"
    shutil.copytree(checkout.here, other, ignore=shutil.ignore_patterns(".venv"))
    (other / ".venv").symlink_to(checkout.here / ".venv")
    assert checkout(other) and not (other / ".venv").is_symlink()
    assert not checkout(), "the original is still whole"


def broken(python):
    python.unlink()
    python.symlink_to("/nowhere/python")


def failing(python):
    python.write_text("#!/bin/false\n")


@pytest.mark.parametrize("damage", [broken, Path.unlink, failing])
def test_environment_whose_python_is_gone_is_made_again(checkout, damage):
    """If it fails, an upgrade of the system's Python leaves "Error 127"."""
    checkout()
    damage(checkout.here / ".venv" / "bin" / "python")
    assert [checkout(), checkout()] == [True, False]


def test_interrupted_environment_is_made_again(checkout):
    """If it fails, half an environment passes for a whole one."""
    checkout()
    (checkout.here / ".venv" / ".ready").unlink()
    assert [checkout(), checkout()] == [True, False]


@pytest.mark.parametrize("given, seen", [
    ("data", "{here}/data"), ("../my data", "{here}/../my data"), ("/all/my data", "/all/my data"),
    ("~/data", "~/data"), ("", "")])
@pytest.mark.parametrize("by", ["environment", "command line"])
def test_relative_folders_are_meant_from_the_checkout(checkout, given, seen, by):
    """If it fails, LNN_DATA=data is looked for where the notebooks are: digits in its place."""
    variables = {"LNN_DATA": given, "LNN_CACHE": given}
    arguments = ([f"{name}={value}" for name, value in variables.items()]
                 if by == "command line" else [])
    shown = subprocess.run(["make", "--eval", SHOW, "show", *arguments], cwd=checkout.here,
                           env=ENVIRONMENT | ({} if arguments else variables), check=True,
                           text=True, capture_output=True).stdout.strip()
    seen = seen.format(here=checkout.here)
    assert shown == f"{seen}|{seen}"
