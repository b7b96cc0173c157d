"""Statistics against SciPy and NumPy; a wrong table would misreport every experiment."""

import numpy as np
import pytest
from scipy import stats

from lnn_core import tables


def record(method: str, seed: int, test: float, pretraining: int = 0) -> dict:
    return {"config": {"dataset": "mnist", "method": method, "seed": seed,
                       "pretraining": pretraining}, "result": {"test": test}}


def plain(text: str) -> str:
    """The text with ordinary spaces."""
    return text.replace("\N{NO-BREAK SPACE}", " ")


def test_summary_agrees_with_numpy_and_scipy():
    """The ± is the sample standard deviation and the interval Student's t."""
    values = (95.1, 96.2, 95.9, 95.4)
    summary = tables.Summary(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert summary.mean == pytest.approx(np.mean(values))
    assert summary.sd == pytest.approx(np.std(values, ddof=1))
    assert summary.interval == pytest.approx((expected.low, expected.high))


def test_one_seed_claims_no_spread():
    """A single run must not come with an interval."""
    text = tables.table_1([record("backprop", 0, 0.95)], "mnist", {"backprop": "bp"})
    assert "95.00 (1) | – | –" in plain(text)


def test_differences_are_paired_by_seed():
    """Differences must compare equal seeds, whatever order the records come in."""
    cells = tables.group([record("backprop", 0, 0.90), record("backprop", 1, 0.80),
                          record("arovr", 1, 0.81), record("arovr", 0, 0.92)])
    difference = tables.paired(cells["mnist", "arovr", False], cells["mnist", "backprop", False])
    assert difference.values == pytest.approx((2.0, 1.0))


def test_different_seeds_cannot_be_paired():
    """An unpaired comparison must not pass for a paired one."""
    with pytest.raises(ValueError, match=r"\[0\] and \[1\]"):
        tables.paired({0: 95.0}, {1: 95.0})


def test_pretrained_runs_have_rows_of_their_own():
    """Runs with and without pretraining are different cells of Table 1."""
    rows = tables.table_1(
        [record("backprop", 0, 0.9), record("arovr", 0, 0.91), record("arovr", 0, 0.92, 60)],
        "mnist", {"backprop": "bp", "arovr": "AROVR"}).splitlines()[2:]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == ["bp", "AROVR", "AROVR, pretrained"]
    assert "+2.00" in rows[2] and "95.67 ± 0.14" in plain(rows[2])
