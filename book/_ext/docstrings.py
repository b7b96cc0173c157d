"""Docstrings as they are written here, for autodoc, which takes them for reStructuredText.

An indented block is a formula or code, as in Markdown and so in editors; reStructuredText would
take it for a quotation and join its lines, unless it is announced by ``::``. A bar is an absolute
value and not a substitution. All this happens before napoleon reads the sections (``Args:``, …),
whose entries are indented, too, but follow their heading without a blank line.

Pages list classes and functions; a module's constants are for readers of its code.
"""

import inspect
import re


def mark_blocks(lines: list[str]) -> list[str]:
    """The lines with ``::`` before each indented block, and no substitutions elsewhere."""
    marked: list[str] = []
    block = False
    for line in lines:
        indented = line.startswith("    ")
        if indented and not block and marked and not marked[-1]:
            marked += ["::", ""]
            block = True
        elif line and not indented:
            block = False
        marked.append(line if block else re.sub(r"(``.*?``)|\|", lambda found: found[1] or r"\|", line))
    return marked


def process(app, what, name, obj, options, lines: list[str]) -> None:
    """autodoc-process-docstring: change the lines in place."""
    lines[:] = mark_blocks(lines)
    if what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]  # a comment; without it napoleon takes what is before a colon for a type


def skip(app, what, name, obj, skipped, options) -> bool | None:
    """autodoc-skip-member: leave a module's constants out; None: as by default."""
    return True if what == "module" and not (inspect.isclass(obj) or inspect.isroutine(obj)) else None


def setup(app):
    app.connect("autodoc-process-docstring", process, priority=400)  # napoleon's is 500
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
