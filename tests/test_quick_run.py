"""`make book` where there are no data: the quick run has to say so on its page."""

import os
from pathlib import Path

import nbformat
import papermill

NOTEBOOK = Path(__file__).parents[1] / "book" / "reproduction" / "table1.ipynb"


def test_page_without_data_carries_a_notice(tmp_path, monkeypatch):
    """If it fails, results on scikit-learn's digits pass for results on MNIST."""
    monkeypatch.delenv("LNN_DATA", raising=False)
    monkeypatch.setenv("LNN_CACHE", str(tmp_path / "cache"))
    for scheme in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(scheme, "http://127.0.0.1:9")  # nobody listens: no download succeeds
    page = tmp_path / "quick.ipynb"
    papermill.execute_notebook(NOTEBOOK, page, {"profile": "quick"}, cwd=tmp_path,
                               progress_bar=False)
    outputs = [output for cell in nbformat.read(page, as_version=4).cells
               for output in cell.get("outputs", [])]
    shown = "\n".join(output.get("data", {}).get("text/markdown", "") for output in outputs)
    assert "**Notice.**" in shown and "mnist" in shown.lower()
    assert "**digits**" in shown and "**mnist**" not in shown
    assert len(os.listdir(tmp_path / "quick_records")) == 14
