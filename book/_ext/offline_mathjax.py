"""Sphinx extension: serve MathJax from the book itself, so that no page asks another server for it.

The package ``sphinx-mathjax-offline`` carries all of MathJax 3.2.2. Only what a page of this book
can ask for is copied: the TeX-to-HTML component, its fonts, its TeX extensions, and what the
formulas' context menu loads to have them spoken (in English).
"""

from importlib.util import find_spec
from pathlib import Path
from shutil import copy2, copytree

from sphinx.application import Sphinx

PARTS = (
    "tex-chtml.js",
    "output/chtml/fonts/woff-v2",
    "input/tex/extensions",
    "input/mml.js",
    "a11y",
    "sre/mathmaps/base.json",
    "sre/mathmaps/en.json",
)


def copy_mathjax(app: Sphinx) -> None:
    """Copy ``PARTS`` into the built pages' ``_static/mathjax``."""
    package = Path(find_spec("sphinx-mathjax-offline").origin).parent
    for part in PARTS:
        source, target = (
            package / "static/mathjax" / part,
            Path(app.outdir) / "_static/mathjax" / part,
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            copytree(source, target, dirs_exist_ok=True)
        else:
            copy2(source, target)


def setup(app: Sphinx) -> dict[str, bool]:
    """Have the files copied whenever the book is built."""
    app.config.mathjax_path = "mathjax/tex-chtml.js"
    app.connect("builder-inited", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
