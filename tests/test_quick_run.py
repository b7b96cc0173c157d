"""`make book` where there are no data: the quick runs have to say so on their pages.

Their networks are trained on one batch per epoch here: what is tested is what the pages say of the
data, and that they get to their end, whatever they find.
"""

import os
from pathlib import Path

import nbformat
import papermill
import pytest

BOOK = Path(__file__).parents[1] / "book"

#: Python runs this when it starts, in the notebook and in the processes that compute runs.
HURRY = """
from lnn_core.experiments import lrrn_runs, training
whole = training.train_epoch

def first_batch(net, objective, train, optimizer, batch, *rest, **options):
    train = type(train)(train.x[:batch], train.y[:batch])
    return whole(net, objective, train, optimizer, batch, *rest, **options)

training.train_epoch = lrrn_runs.train_epoch = first_batch
"""


@pytest.mark.parametrize(("study", "missing"), [
    ("reproduction/table1", "mnist"), ("reproduction/figure1", "fashion-mnist"),
    ("reproduction/sensitivity", "mnist"), ("lrrn/reconstruction", "mnist"),
    ("lrrn/classification", "mnist"), ("lrrn/two_ways", "mnist")])
def test_page_without_data_carries_a_notice(tmp_path, monkeypatch, study, missing):
    """If it fails, results on scikit-learn's digits pass for results on real images."""
    monkeypatch.delenv("LNN_DATA", raising=False)
    monkeypatch.setenv("LNN_CACHE", str(tmp_path / "cache"))
    for scheme in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(scheme, "http://127.0.0.1:9")  # nobody listens: no download succeeds
    (tmp_path / "sitecustomize.py").write_text(HURRY)
    path = filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    page = tmp_path / "quick.ipynb"
    papermill.execute_notebook(BOOK / f"{study}.ipynb", page, cwd=tmp_path,
                               parameters={"profile": "quick", "records": "records"},
                               progress_bar=False)
    outputs = [output for cell in nbformat.read(page, as_version=4).cells
               for output in cell.get("outputs", [])]
    markdown = "\n".join(output.get("data", {}).get("text/markdown", "") for output in outputs)
    printed = "".join(output.get("text", "") for output in outputs)
    assert "**Notice.**" in markdown and missing in markdown.lower()
    assert f"**{missing}" not in markdown and f"\n{missing}" not in printed
    assert list((tmp_path / "records").glob("*.json"))
