"""Sphinx extension: put the data that explorables load, ``*.data.js``, beside the pages.

They belong to ``lnn_core.widgets``, which needs them without a book, too.
"""

from importlib.util import find_spec
from pathlib import Path
from shutil import copy2

from sphinx.application import Sphinx


def copy_data(app: Sphinx) -> None:
    """Copy the files into the built pages' ``_static``."""
    target = Path(app.outdir) / "_static"
    target.mkdir(parents=True, exist_ok=True)
    for source in (Path(find_spec("lnn_core").origin).parent / "widgets").glob("*.data.js"):
        copy2(source, target)


def setup(app: Sphinx) -> dict[str, bool]:
    """Have the files copied whenever the book is built."""
    app.connect("builder-inited", copy_data)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
