"""Run the committed notebooks again, in place, and keep nothing that changes from run to run.

``python book/execute.py`` runs all of them (``make notebooks``); with file names, only those.
A notebook that fails is left as it was.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

BOOK = Path(__file__).resolve().parent
QUICK = BOOK / "quick"  # this machine's own numbers: never committed

VOLATILE_NOTEBOOK_METADATA = ("papermill", "widgets")
VOLATILE_CELL_METADATA = ("ExecuteTime", "collapsed", "execution", "papermill", "scrolled")
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"  # names a model of a kernel that is gone


def committed_notebooks() -> list[Path]:
    """Every notebook of the book but the quick runs and editors' checkpoints, in a fixed order."""
    found = sorted(BOOK.rglob("*.ipynb"))
    return [path for path in found if QUICK not in path.parents and ".ipynb_checkpoints" not in path.parts]


def strip(notebook: NotebookNode) -> NotebookNode:
    """Remove time stamps, widget models and versions from ``notebook`` itself, and return it.

    Two runs of the same code then give the same file, so that a difference in version control is
    a difference in a result.
    """
    for key in VOLATILE_NOTEBOOK_METADATA:
        notebook.metadata.pop(key, None)
    notebook.metadata.get("language_info", {}).pop("version", None)
    for cell in notebook.cells:
        for key in VOLATILE_CELL_METADATA:
            cell.metadata.pop(key, None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET_VIEW, None)
    return notebook


def execute(path: Path) -> None:
    """Run the notebook in its own folder and replace the file by the stripped result.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed; the file is left unchanged.
    """
    notebook = nbformat.read(path, as_version=4)
    folder = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=folder,
                   coalesce_streams=True).execute()  # or prints split wherever a buffer was full
    nbformat.write(strip(notebook), path)


def main() -> None:
    """Execute the notebooks named on the command line, or all that are committed."""
    for path in map(Path, sys.argv[1:] or committed_notebooks()):
        print(f"==> Running {path}", flush=True)
        execute(path.resolve())


if __name__ == "__main__":
    main()
