"""Docstrings that tools can read: Google's style, on everything that is public."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted([*(ROOT / "lnn_core").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
CLASSES = {node.name: node for tree in TREES.values() for node in tree.body
           if isinstance(node, ast.ClassDef)}
#: Methods that torch and Python call, and explain.
PROTOCOL = {"forward", "extra_repr"}

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def ancestors(node: ast.ClassDef) -> list[ast.ClassDef]:
    """The base classes that this library defines, theirs included."""
    bases = [CLASSES[name] for base in node.bases
             if (name := getattr(base, "id", getattr(base, "attr", None))) in CLASSES]
    return bases + [old for base in bases for old in ancestors(base)]


def methods(node: ast.ClassDef) -> list[ast.FunctionDef]:
    return [entry for entry in node.body if isinstance(entry, ast.FunctionDef)]


def defined(tree: ast.Module):
    """(name, node, class or None) of every class, function and method."""
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            yield node.name, node, None
        if isinstance(node, ast.ClassDef):
            for method in methods(node):
                yield f"{node.name}.{method.name}", method, node


def is_public(name: str, node, owner) -> bool:
    """Whether a docstring is asked for: not of what is private, and not of an override."""
    if any(part.startswith("_") for part in name.split(".")):
        return False
    inherited = {method.name for old in ancestors(owner) for method in methods(old)} if owner else set()
    return node.name not in inherited | PROTOCOL


def parameters(node) -> set[str]:
    """What a call takes; for a class what ``__init__`` takes, or the fields of a dataclass."""
    if isinstance(node, ast.ClassDef):
        lines = [node, *ancestors(node)]
        fields = {entry.target.id for line in lines for entry in line.body
                  if isinstance(entry, ast.AnnAssign)}
        starts = [method for line in lines for method in methods(line) if method.name == "__init__"]
        return fields | (parameters(starts[0]) if starts else set())
    given = node.args
    extra = [entry for entry in (given.vararg, given.kwarg) if entry]
    return {entry.arg for entry in [*given.posonlyargs, *given.args, *given.kwonlyargs, *extra]}


def section(docstring: str, heading: str) -> list[str]:
    """The names of a section's entries: ``name: text``, four spaces in."""
    found = re.search(rf"^{heading}:\n((?:    .*\n?|\n(?=    ))+)", docstring, re.MULTILINE)
    return re.findall(r"^    (\S[^:]*):(?: |$)", found[1], re.MULTILINE) if found else []


@each_file
def test_everything_public_has_a_docstring(path):
    """If it fails, a page of the reference has a name without a word on what it is."""
    assert ast.get_docstring(TREES[path]), path
    assert [name for name, node, owner in defined(TREES[path])
            if is_public(name, node, owner) and not ast.get_docstring(node)] == []


@each_file
def test_one_dialect(path):
    """If it fails, a list of parameters is shown as running text: no tool reads two dialects."""
    other = re.compile(r"^\s*-{3,}\s*$|^[\w, ]+ : |^\s*:(?:param|returns?|raises)\b|^(?:Parameters|"
                       r"Arguments|Return|Raise):?$|^(?:Returns|Raises)$", re.MULTILINE)
    docstrings = {name: ast.get_docstring(node) or "" for name, node, _ in defined(TREES[path])}
    docstrings["the module"] = ast.get_docstring(TREES[path])
    assert {name: found[0] for name, text in docstrings.items() if (found := other.search(text))} == {}


@each_file
def test_arguments_are_parameters(path):
    """If it fails, a docstring explains an argument that nothing takes, such as one renamed."""
    wrong = {name: names for name, node, _ in defined(TREES[path])
             if (names := set(section(ast.get_docstring(node) or "", "Args")) - parameters(node))}
    assert wrong == {}


@each_file
def test_errors_are_named_one_by_one(path):
    """If it fails, ``Raises:`` has something that is not the name of one exception."""
    raised = {name: section(ast.get_docstring(node) or "", "Raises")
              for name, node, _ in defined(TREES[path])}
    assert {name: names for name, names in raised.items()
            if not all(re.fullmatch(r"[A-Z][\w.]*|[a-z][\w.]*\.[A-Z]\w*", one) for one in names)} == {}


def test_sections_are_found():
    """If it fails, the two tests above look at nothing: each would pass on any docstring."""
    text = "One.\n\nArgs:\n    a: b: c\n        d: e\n    f: g\n\nRaises:\n    ValueError: h"
    assert section(text, "Args") == ["a", "f"] and section(text, "Raises") == ["ValueError"]
    entries = [name for tree in TREES.values() for _, node, _ in defined(tree)
               for name in section(ast.get_docstring(node) or "", "Args")]
    assert len(entries) > 100
