"""The published records come from this code: the first epochs of some, run again."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from lnn_core.experiments import Run, execute, load

RECORDS = Path(__file__).parents[1] / "book" / "records" / "table1"
PUBLISHED = [Run(dataset="mnist", method="backprop"), Run(dataset="mnist", method="arovr"),
             Run(dataset="fashion-mnist", method="arovr_abg")]


@pytest.mark.skipif("LNN_DATA" not in os.environ, reason="needs the images: set LNN_DATA")
@pytest.mark.parametrize("run", PUBLISHED, ids=lambda run: f"{run.dataset}-{run.method}")
def test_records_have_not_drifted(run):
    """If it fails, the published table is no longer what the committed code computes.

    Not to the last digit: another processor sums in another order.
    """
    epochs = 2
    published = load(run, RECORDS)["history"]
    again = execute(replace(run, epochs=epochs))["history"]
    assert again["objective"] == pytest.approx(published["objective"][:epochs], rel=1e-3)
    for accuracy in ("train", "validation", "test"):
        assert again[accuracy] == pytest.approx(published[accuracy][:epochs], abs=5e-3)
