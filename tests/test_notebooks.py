"""The committed notebooks: complete, clean, and executed from top to bottom.

nbval treats every notebook as a test of its own: it runs it again and compares the outputs. What
is checked here is what nbval does not look at.
"""

import ast
import re

import nbformat
import pytest
from execute import BOOK, QUICK, WIDGET_VIEW, committed_notebooks, execute, strip
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook, new_output
from nbval.plugin import get_sanitize_patterns

NOTEBOOKS = committed_notebooks()
MAKEFILE = (BOOK.parent / "Makefile").read_text(encoding="utf-8")
STUDIES = [BOOK / f"{study}.ipynb"
           for study in re.search(r"^STUDIES := (.*)$", MAKEFILE, re.MULTILINE)[1].split()]
REPRODUCTIONS = {*STUDIES, *(path for path in NOTEBOOKS if path.parent.name == "reproduction")}


def name_of(path) -> str:
    return path.relative_to(BOOK.parent).with_suffix("").as_posix()


each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)


def code_cells(path):
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]


def text_of(output) -> str:
    data = output.get("data", {})
    texts = [str(value) for kind, value in data.items() if kind.startswith("text/")]
    return "\n".join([output.get("text", ""), *texts])


def test_every_page_is_in_the_table_of_contents():
    """If it fails, a chapter is never built, and no reader ever sees it."""
    toc = (BOOK.parent / "_toc.yml").read_text(encoding="utf-8")
    pages = {name_of(path) for path in [*NOTEBOOKS, *BOOK.rglob("*.md")] if QUICK not in path.parents}
    quick = {name_of(QUICK / study.name) for study in STUDIES}
    assert set(re.findall(r"(?:file|root): (\S+)", toc)) == pages | quick


@each_notebook
def test_executed_from_top_to_bottom(path):
    """If it fails, outputs are of cells that ran in another order, or not at all."""
    counts = [cell.execution_count for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))


@each_notebook
def test_no_cell_failed(path):
    """If it fails, a page shows the traceback of a broken cell."""
    outputs = [output for cell in code_cells(path) for output in cell.outputs]
    assert [output.ename for output in outputs if output.output_type == "error"] == []


@each_notebook
def test_names_no_path_of_a_machine(path):
    """If it fails, a warning or a repr names somebody's home folder, and differs on every other
    machine."""
    outputs = "\n".join(text_of(output) for cell in code_cells(path) for output in cell.outputs)
    assert re.findall(r"(?:/tmp|/home|/root|/Users)/\S+", outputs) == []


@each_notebook
def test_holds_nothing_volatile(path):
    """If it fails, left-overs of one run (a widget's model, papermill's clock) make every commit a
    new file."""
    notebook = nbformat.read(path, as_version=4)
    assert not {"widgets", "papermill"} & set(notebook.metadata)
    for cell in notebook.cells:
        assert not {"execution", "papermill"} & set(cell.metadata), cell.source
        assert "injected-parameters" not in cell.metadata.get("tags", []), cell.source
        for output in cell.get("outputs", []):
            assert WIDGET_VIEW not in output.get("data", {}), cell.source


@each_notebook
def test_every_figure_has_an_alternative_text(path):
    """If it fails, a screen reader speaks a figure's file name, which is a hash."""
    for cell in code_cells(path):
        kinds = [kind for output in cell.outputs for kind in output.get("data", {})]
        if any(kind.startswith("image/") for kind in kinds):
            text = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert text.strip(), cell.source


def asserts(source) -> bool:
    """Whether some statement of the cell is an assertion."""
    return any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(source)))


@each_notebook
def test_what_is_not_compared_is_asserted(path):
    """If it fails, a number that differs between processors may say anything, and nobody is told.

    Cells whose output the page does not show (sliders for a kernel) have nothing to assert.
    """
    for cell in code_cells(path):
        tags = cell.metadata.get("tags", [])
        if "nbval-ignore-output" in tags and "remove-output" not in tags:
            assert asserts(cell.source), cell.source
            assert re.search(r"^# Not compared: \S", cell.source, re.MULTILINE), cell.source


@each_notebook
def test_only_printed_numbers_are_not_compared(path):
    """If it fails, more is exempt from comparison than what differs: a cell that does not run, that
    prints no number, or whose table or widget should be in a cell of its own."""
    for cell in code_cells(path):
        tags = cell.metadata.get("tags", [])
        assert not {"nbval-skip", "nbval-raises-exception"} & set(tags), cell.source
        assert "NBVAL_" not in cell.source.upper().replace("-", "_")
        if "nbval-ignore-output" in tags and "remove-output" not in tags:
            assert {output.output_type for output in cell.outputs} == {"stream"}, cell.source
            assert re.search(r"\d", text_of(cell.outputs[0])), cell.source


@pytest.mark.parametrize(("one", "other", "same"), [
    ("circle r=1", "circle r=2", True), ("1.120 and 0.320.", "1.120 and 0.330.", False)])
def test_still_pictures_are_compared_by_their_words(one, other, same):
    """If it fails, the last digit of a curve's point fails a page, or a wrong number passes."""
    patterns = get_sanitize_patterns((BOOK.parent / "tests" / "nbval_sanitize.cfg").read_text())

    def sanitized(change):
        html = ('<div><svg role="img" aria-label="They are 1.120 and 0.320."> <path/> <circle r=1/>'
                "</svg></div>").replace(one, change)
        for pattern, replacement in patterns:
            html = re.sub(pattern, replacement, html)
        return html

    assert (sanitized(one) == sanitized(other)) == same


@pytest.mark.parametrize("path", sorted(REPRODUCTIONS), ids=name_of)
def test_reproduction_notebooks_have_one_parameters_cell(path):
    """If it fails, papermill, which goes by the tag `parameters`, cannot choose the profile."""
    tags = [tag for cell in code_cells(path) for tag in cell.metadata.get("tags", [])]
    assert tags.count("parameters") == 1


def test_strip_keeps_results_and_drops_the_rest():
    """If it fails, `make notebooks` either loses outputs or commits a clock."""
    output = new_output("display_data", {WIDGET_VIEW: {"model_id": "1f"}, "text/plain": "slider"})
    clock = {"execution": {"iopub.status.busy": "12:00"}, "tags": ["parameters"]}
    python = {"name": "python", "version": "3.1"}
    notebook = new_notebook(
        cells=[new_code_cell("f()", outputs=[output], metadata=clock)],
        metadata={"widgets": {}, "papermill": {}, "language_info": python},
    )
    strip(notebook)
    assert notebook.metadata == {"language_info": {"name": "python"}}
    assert notebook.cells[0].metadata == {"tags": ["parameters"]}
    assert notebook.cells[0].outputs[0].data == {"text/plain": "slider"}


def test_a_failing_notebook_is_left_alone(tmp_path):
    """If it fails, a broken cell overwrites the outputs that the page shows."""
    path = tmp_path / "broken.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("print(1)"), new_code_cell("1 / 0")]), path)
    before = path.read_bytes()
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        execute(path)
    assert path.read_bytes() == before
