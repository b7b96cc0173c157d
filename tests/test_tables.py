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
    versus = tables.compare(cells["mnist", "arovr", False], cells["mnist", "backprop", False])
    assert versus.difference.values == pytest.approx((2.0, 1.0))


def test_a_second_record_of_a_seed_is_refused():
    """Runs with other settings must not replace each other: a cell would mix them."""
    with pytest.raises(ValueError, match=r"'mnist', 'arovr', False.*seed=1"):
        tables.group([record("arovr", 0, 0.9), record("arovr", 1, 0.8), record("arovr", 1, 0.7)])


def test_runs_without_a_result_are_left_out():
    """A run that diverged in its first epoch has no accuracy; it must not end the table."""
    nothing = record("arovr", 1, 0.0) | {"result": None}
    assert tables.group([nothing, record("arovr", 0, 0.9)]) == {("mnist", "arovr", False): {0: 90.0}}


def test_comparison_agrees_with_scipy_and_counting():
    """p is that of the paired t-test; the probability counts all pairs, ties half."""
    ours, theirs = [95.2, 96.1, 95.9, 96.4, 95.9], [95.1, 95.9, 96.0, 95.2, 95.5]
    versus = tables.compare(dict(enumerate(ours)), dict(enumerate(theirs)))
    assert versus.p == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert versus.probability == np.mean([(a > b) + (a == b) / 2 for a in ours for b in theirs])
    back = tables.compare(dict(enumerate(theirs)), dict(enumerate(ours)))
    assert back.p == pytest.approx(versus.p) and back.probability == 1 - versus.probability


@pytest.mark.parametrize(("shift", "verdict"), [(1.0, "above"), (-1.0, "below"), (0.0, "undecided")])
def test_verdict_is_the_side_of_the_whole_interval(shift, verdict):
    """A difference within the noise must not count as one, nor a clear one be missed."""
    noise = [0.1, -0.1, 0.05, -0.05]
    versus = tables.compare({i: shift + v for i, v in enumerate(noise)}, dict.fromkeys(range(4), 0.0))
    assert versus.verdict == verdict


def test_alike_is_what_two_one_sided_tests_say():
    """If it fails, methods count as alike because there are too few seeds to tell them apart."""
    noise = [0.1, -0.1, 0.05, -0.02, 0.03]
    versus = tables.compare(dict(enumerate(noise)), dict.fromkeys(range(5), 0.0))
    for margin in (0.02, 0.05, 0.08, 0.1, 0.2):
        sides = [stats.ttest_1samp(noise, -margin, alternative="greater").pvalue,
                 stats.ttest_1samp(noise, margin, alternative="less").pvalue]
        assert versus.within(margin) == (max(sides) < 0.05)
    assert versus.within(0.2) and not versus.within(0.02)
    assert not tables.compare({0: 1.0}, {0: 1.0}).within(100.0)  # one seed shows nothing


def test_the_papers_mean_is_uncertain_too():
    """If it fails, "differs from the paper" ignores that the paper has three seeds."""
    ours = [95.9, 96.1, 96.2, 96.0]
    text = plain(tables.table_1([record("backprop", i, v / 100) for i, v in enumerate(ours)],
                                "mnist", {"backprop": "bp"}))
    theirs = [95.47, 95.6, 95.73]  # three numbers with the paper's 95.60 ± 0.13
    assert (np.mean(theirs), np.std(theirs, ddof=1)) == pytest.approx((95.6, 0.13))
    p = stats.ttest_ind(ours, theirs, equal_var=False).pvalue
    assert f"+0.45 ({p:.3f})" in text


def test_equal_results_are_no_difference():
    """Identical runs must not divide by their spread of zero."""
    same = tables.compare({0: 95.0, 1: 96.0}, {0: 95.0, 1: 96.0})
    assert (same.p, same.probability, same.verdict) == (1.0, 0.5, "undecided")
    assert tables.compare({0: 2.0, 1: 3.0}, {0: 1.0, 1: 2.0}).p == 0.0


def test_different_seeds_cannot_be_paired():
    """An unpaired comparison must not pass for a paired one."""
    with pytest.raises(ValueError, match=r"\[0\] and \[1\]"):
        tables.compare({0: 95.0}, {1: 95.0})
    with pytest.raises(ValueError, match=r"seeds \[\] and \[\] cannot be paired"):
        tables.compare({}, {})


def test_pretrained_runs_have_rows_of_their_own():
    """Runs with and without pretraining are different cells of Table 1."""
    rows = tables.table_1(
        [record("backprop", 0, 0.9), record("arovr", 0, 0.91), record("arovr", 0, 0.92, 60)],
        "mnist", {"backprop": "bp", "arovr": "AROVR"}).splitlines()[2:]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == ["bp", "AROVR", "AROVR, pretrained"]
    assert "+2.00" in rows[2] and "95.67 ± 0.14" in plain(rows[2])
