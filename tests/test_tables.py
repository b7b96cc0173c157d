"""Statistics against SciPy and NumPy; a wrong table would misreport every experiment."""

import numpy as np
import pytest
from scipy import stats

from lnn_core.experiments import tables


def record(method: str, seed: int, test: float, pretraining: int = 0) -> dict:
    return {"config": {"dataset": "mnist", "method": method, "seed": seed,
                       "pretraining": pretraining}, "result": {"test": test}}


def plain(text: str) -> str:
    """The text with ordinary spaces."""
    return text.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize("values", [(95.1, 96.2), (95.1, 96.2, 95.9, 95.4)], ids=len)
def test_summary_agrees_with_numpy_and_scipy(values):
    """From two values on. If it fails, the ± is not the sample standard deviation, or the interval not
    Student's t."""
    summary = tables.Summary(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert summary.mean == pytest.approx(np.mean(values))
    assert summary.sd == pytest.approx(np.std(values, ddof=1))
    assert summary.interval == pytest.approx((expected.low, expected.high))
    wider = (expected.high - summary.mean) * np.sqrt(len(values) + 1)
    assert summary.prediction == pytest.approx((summary.mean - wider, summary.mean + wider))


def test_one_more_run_is_less_certain_than_the_mean():
    """Simulated: the interval from n runs has to hold the next one 95 times of 100. If it fails,
    the mean's interval, which the next run leaves much more often, passes for it."""
    draws = np.random.default_rng(0).normal(3.0, 2.0, (4000, 4))
    held = {name: np.mean([low <= new <= high for *few, new in draws
                           for low, high in [getattr(tables.Summary(tuple(few)), name)]])
            for name in ("prediction", "interval")}
    assert held["prediction"] == pytest.approx(0.95, abs=0.01) and held["interval"] < 0.9
    assert np.isnan(tables.Summary((1.0,)).prediction).all()


def test_many_comparisons_are_corrected_for():
    """By hand: the i-th smallest of m p-values times m/i, made monotone from the largest down. If
    it fails, one of twenty comparisons is called a difference by chance."""
    rng = np.random.default_rng(1)
    found = [tables.compare(dict(enumerate(rng.normal(shift, 1, 5))), dict.fromkeys(range(5), 0.0))
             for shift in (3.0, 1.0, 0.5, 0.0, 0.0)]
    found.insert(2, tables.compare({0: 1.0}, {0: 0.0}))  # a single pair tests nothing
    p = sorted((one.p, place) for place, one in enumerate(found) if place != 2)
    expected, least = {}, 1.0
    for rank, (value, place) in reversed(list(enumerate(p, 1))):
        least = min(least, value * len(p) / rank)
        expected[place] = least
    corrected = tables.adjusted(found)
    assert np.isnan(corrected.pop(2)) and tables.adjusted([]) == []
    expected = [expected[place] for place in sorted(expected)]
    assert corrected == pytest.approx(expected)
    assert all(new > one.p for new, one in zip(corrected[:1], found[:1]))


def test_one_seed_claims_no_spread():
    """If it fails, a single run comes with an interval."""
    text = tables.table_1([record("backprop", 0, 0.95)], "mnist", {"backprop": "bp"})
    assert plain(text).splitlines()[-1] == (
        "| bp | 95.60 ± 0.13 | 95.00 (1) | – | – | -0.60 | – | – | – |")


def test_best_so_far_follows_validation():
    """If it fails, a curve shows an epoch that nobody would choose, or ends where nothing was measured."""
    history = {"validation": [0.5, None, 0.4, 0.6, 0.6, None], "test": [0.7, None, 0.9, 0.65, 0.8, 0.3]}
    assert tables.best_so_far(history, "test") == [0.7, 0.7, 0.7, 0.65, 0.65, 0.65]


def test_differences_are_paired_by_seed():
    """If it fails, differences do not compare equal seeds, whatever order the records come in."""
    cells = tables.group([record("backprop", 0, 0.90), record("backprop", 1, 0.80),
                          record("arovr", 1, 0.81), record("arovr", 0, 0.92)])
    versus = tables.compare(cells["mnist", "arovr", False], cells["mnist", "backprop", False])
    assert versus.difference.values == pytest.approx((2.0, 1.0))


def test_a_second_record_of_a_seed_is_refused():
    """If it fails, runs with other settings replace each other: a cell mixes them."""
    with pytest.raises(ValueError, match=r"'mnist', 'arovr', False.*seed=1"):
        tables.group([record("arovr", 0, 0.9), record("arovr", 1, 0.8), record("arovr", 1, 0.7)])


def test_runs_without_a_result_are_left_out():
    """If it fails, a run that diverged in its first epoch, and has no accuracy, ends the table."""
    nothing = record("arovr", 1, 0.0) | {"result": None}
    assert tables.group([nothing, record("arovr", 0, 0.9)]) == {("mnist", "arovr", False): {0: 90.0}}


def test_comparison_agrees_with_scipy_and_counting():
    """If it fails, p is not that of the paired t-test, or the probability does not count all pairs,
    ties half."""
    ours, theirs = [95.2, 96.1, 95.9, 96.4, 95.9], [95.1, 95.9, 96.0, 95.2, 95.5]
    versus = tables.compare(dict(enumerate(ours)), dict(enumerate(theirs)))
    assert versus.p == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert versus.probability == np.mean([(a > b) + (a == b) / 2 for a in ours for b in theirs])
    back = tables.compare(dict(enumerate(theirs)), dict(enumerate(ours)))
    assert back.p == pytest.approx(versus.p) and back.probability == 1 - versus.probability


@pytest.mark.parametrize(("shift", "verdict"), [(1.0, "above"), (-1.0, "below"), (0.0, "undecided")])
def test_verdict_is_the_side_of_the_whole_interval(shift, verdict):
    """If it fails, a difference within the noise counts as one, or a clear one is missed."""
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
    high = versus.difference.confidence(0.9)[1]
    assert not versus.within(high) and versus.within(np.nextafter(high, 1))
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
    """If it fails, identical runs divide by their spread of zero."""
    same = tables.compare({0: 95.0, 1: 96.0}, {0: 95.0, 1: 96.0})
    assert (same.p, same.probability, same.verdict) == (1.0, 0.5, "undecided")
    assert tables.compare({0: 2.0, 1: 3.0}, {0: 1.0, 1: 2.0}).p == 0.0


def test_different_seeds_cannot_be_paired():
    """If it fails, an unpaired comparison passes for a paired one."""
    with pytest.raises(ValueError, match=r"\[0\] and \[1\]"):
        tables.compare({0: 95.0}, {1: 95.0})
    with pytest.raises(ValueError, match=r"seeds \[\] and \[\] cannot be paired"):
        tables.compare({}, {})
    with pytest.raises(ValueError, match="at least one value"):
        tables.Summary(())


def test_pretrained_runs_have_rows_of_their_own():
    """If it fails, runs with and without pretraining share a cell of Table 1."""
    rows = tables.table_1(
        [record("backprop", 0, 0.9), record("arovr", 0, 0.91), record("arovr", 0, 0.92, 60)],
        "mnist", {"backprop": "bp", "arovr": "AROVR"}).splitlines()[2:]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == ["bp", "AROVR", "AROVR, pretrained"]
    assert "+2.00" in rows[2] and "95.67 ± 0.14" in plain(rows[2])


def test_a_whole_table_by_hand():
    """Each cell of two rows: values 96, 96.2 against 95, 95.4, and the paper's. If it fails, a
    column is not what its head says."""
    t = stats.t.ppf(0.975, 1)
    records = [record("backprop", 0, 0.95), record("backprop", 1, 0.954),
               record("arovr", 0, 0.96), record("arovr", 1, 0.962)]
    rows = [[cell.strip() for cell in plain(line).strip("|").split("|")] for line in
            tables.table_1(records, "mnist", {"backprop": "bp", "arovr": "AROVR"}).splitlines()]
    assert rows[1] == ["---"] * 9 and len(rows) == 4
    assert dict(zip(rows[0], rows[2])) == {
        "method": "bp", "paper": "95.60 ± 0.13", "ours: mean ± sd (n)": "95.20 ± 0.28 (2)",
        "95 % interval": f"{95.2 - 0.2 * t:.2f} … {95.2 + 0.2 * t:.2f}", "paper inside?": "yes",
        "ours − paper (p)": rows[2][5], "minus back-prop., paired": "–", "p": "–",
        "prob. of improvement": "–"}
    p = stats.ttest_rel([96, 96.2], [95, 95.4]).pvalue
    assert dict(zip(rows[0], rows[3])) == {
        "method": "AROVR", "paper": "96.04 ± 0.15", "ours: mean ± sd (n)": "96.10 ± 0.14 (2)",
        "95 % interval": f"{96.1 - 0.1 * t:.2f} … {96.1 + 0.1 * t:.2f}", "paper inside?": "yes",
        "ours − paper (p)": rows[3][5],
        "minus back-prop., paired": f"+0.90 ({0.9 - 0.1 * t:+.2f} … {0.9 + 0.1 * t:+.2f})",
        "p": f"{p:.3f}", "prob. of improvement": "100 %"}
    assert rows[3][5].startswith("+0.06 (0.") and rows[2][5].startswith("-0.40 (0.")


def test_what_the_table_leaves_open():
    """If it fails, a figure the paper lacks, a mean outside, or a tiny p is shown as another."""
    ours = tables.Summary((90.0, 90.1, 90.2))
    assert tables._beside(ours, None)[0::3] == ["–", "–"] and tables._beside(ours, None)[4] == "–"
    assert tables._beside(ours, (95.6, 0.13))[3] == "no"
    assert tables._beside(ours, (90.1, 0.13))[3] == "yes"
    assert [plain(tables.p_value(p)) for p in (float("nan"), 0.00099, 0.001, 0.25)] == [
        "–", "< 0.001", "0.001", "0.250"]


def test_the_papers_table_adds_up():
    """If it fails, a number was changed in typing: sums added from the paper by hand."""
    for dataset, mean, spread in (("mnist", 672.43, 0.81), ("fashion-mnist", 599.87, 1.49)):
        cells = [value for (name, *_), value in tables.PAPER_TABLE_1.items() if name == dataset]
        assert len(cells) == 7 and sum(m for m, _ in cells) == pytest.approx(mean)
        assert sum(sd for _, sd in cells) == pytest.approx(spread)
    assert tables.PAPER_SEEDS == 3


@pytest.mark.parametrize("cells", [({}, {}), ({0: 1.0}, {}), ({0: 1.0}, {1: 1.0})], ids=str)
def test_cells_without_common_seeds_are_refused(cells):
    """If it fails, nothing is compared with nothing, or unequal samples as if they were paired."""
    with pytest.raises(ValueError, match="cannot be paired"):
        tables.compare(*cells)
