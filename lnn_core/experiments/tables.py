"""Tables as functions of run records: means, intervals, paired comparisons.

``±`` is the sample standard deviation over seeds (n − 1), as is usual beside "± over
seeds"; intervals are Student's t at 95 %, and so is the paired test. The paper's figures come
without their seeds: with those ours are compared by Welch's test.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scipy import stats

PAPER_SEEDS = 3
#: Zach (2025), Table 1: test accuracy in per cent, mean and ± over ``PAPER_SEEDS``, by
#: (data set, method, whether pretrained with back-propagation).
PAPER_TABLE_1: dict[tuple[str, str, bool], tuple[float, float]] = {
    ("mnist", "backprop", False): (95.60, 0.13),
    ("mnist", "arovr", False): (96.04, 0.15),
    ("mnist", "arovr_ab", False): (96.19, 0.13),
    ("mnist", "arovr_abg", False): (96.35, 0.06),
    ("mnist", "arovr", True): (95.67, 0.14),
    ("mnist", "arovr_ab", True): (96.17, 0.10),
    ("mnist", "arovr_abg", True): (96.41, 0.10),
    ("fashion-mnist", "backprop", False): (85.49, 0.09),
    ("fashion-mnist", "arovr", False): (85.63, 0.32),
    ("fashion-mnist", "arovr_ab", False): (85.78, 0.10),
    ("fashion-mnist", "arovr_abg", False): (85.98, 0.21),
    ("fashion-mnist", "arovr", True): (85.31, 0.19),
    ("fashion-mnist", "arovr_ab", True): (85.86, 0.33),
    ("fashion-mnist", "arovr_abg", True): (85.82, 0.25),
}


def best_so_far(history: dict[str, list], name: str) -> list[float]:
    """After each epoch the value of this name at the epoch that was, so far, best on validation samples.

    Args:
        history: a record's, by names as in :class:`~lnn_core.experiments.training.History`; None
            where a value was not measured.
        name: such as "test".
    """
    best, value, line = -math.inf, math.nan, []
    for validation, other in zip(history["validation"], history[name]):
        if validation is not None and validation > best:
            best, value = validation, other
        line.append(value)
    return line


@dataclass(frozen=True)
class Summary:
    """A sample of per-seed results, in the unit they came in.

    Attributes:
        values: one result per seed.

    Raises:
        ValueError: no values.
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("a summary needs at least one value; values is ()")

    @property
    def n(self) -> int:
        """How many values there are."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """The arithmetic mean of the values."""
        return math.fsum(self.values) / self.n

    @property
    def sd(self) -> float:
        """Sample standard deviation; nan for a single value."""
        if self.n < 2:
            return math.nan
        return math.sqrt(math.fsum((v - self.mean) ** 2 for v in self.values) / (self.n - 1))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the mean (Student's t); (nan, nan) for one value."""
        return self.confidence(0.95)

    def confidence(self, level: float) -> tuple[float, float]:
        """Confidence interval of the mean at this level (Student's t); (nan, nan) for one value."""
        if self.n < 2:
            return math.nan, math.nan
        half = stats.t.ppf((1 + level) / 2, self.n - 1) * self.sd / math.sqrt(self.n)
        return self.mean - half, self.mean + half

    @property
    def prediction(self) -> tuple[float, float]:
        """95 % prediction interval of one more run, mean ± t·sd·√(1 + 1/n): what a single run of
        somebody else is to be compared with. (nan, nan) for one value."""
        if self.n < 2:
            return math.nan, math.nan
        half = stats.t.ppf(0.975, self.n - 1) * self.sd * math.sqrt(1 + 1 / self.n)
        return self.mean - half, self.mean + half


@dataclass(frozen=True)
class Comparison:
    """One sample of results against another, seed by seed.

    Attributes:
        difference: the paired differences.
        probability: of improvement: the share of all pairs of seeds, equal or not, in which the
            first result is the larger one (ties count half). ½ means no difference.
    """

    difference: Summary
    probability: float

    @property
    def p(self) -> float:
        """The paired t-test's p (two-sided); nan for a single pair."""
        d = self.difference
        if d.n < 2:
            return math.nan
        if d.sd == 0:
            return float(d.mean == 0)
        return 2 * float(stats.t.sf(abs(d.mean) * math.sqrt(d.n) / d.sd, d.n - 1))

    @property
    def verdict(self) -> str:
        """Where the 95 % interval of the mean difference lies: "above" zero, "below", or neither."""
        low, high = self.difference.interval
        return "above" if low > 0 else "below" if high < 0 else "undecided"

    def within(self, margin: float) -> bool:
        """Whether the mean difference is shown to be smaller than the margin, either way.

        Two one-sided t-tests at 5 %: the 90 % interval lies inside (−margin, margin). That an
        interval holds zero shows nothing of the kind: with few seeds it always does.
        """
        low, high = self.difference.confidence(0.9)
        return -margin < low and high < margin

    def __str__(self) -> str:
        low, high = self.difference.interval
        if math.isnan(low):
            return f"{self.difference.mean:+.2f}"
        return f"{self.difference.mean:+.2f} " + _unbroken(f"({low:+.2f} … {high:+.2f})")


def compare(cell: dict[int, float], reference: dict[int, float]) -> Comparison:
    """Results by seed against others (same seed: same samples and initial weights).

    Raises:
        ValueError: the two do not have the same seeds, or none.
    """
    if not cell or cell.keys() != reference.keys():
        raise ValueError(f"seeds {sorted(cell)} and {sorted(reference)} cannot be paired")
    ours, theirs = list(cell.values()), list(reference.values())
    wins = stats.mannwhitneyu(ours, theirs).statistic
    return Comparison(Summary(tuple(cell[seed] - reference[seed] for seed in sorted(cell))),
                      float(wins) / (len(ours) * len(theirs)))


def adjusted(comparisons: Sequence[Comparison]) -> list[float]:
    """The comparisons' p, corrected for how many there are (Benjamini and Hochberg).

    Calling those below 0.05 differences keeps the expected share of false ones among them
    within 5 %. A comparison without a p (a single pair) is not counted and stays nan.
    """
    tested = [versus.p for versus in comparisons if not math.isnan(versus.p)]
    corrected = iter(stats.false_discovery_control(tested) if tested else ())
    return [math.nan if math.isnan(versus.p) else float(next(corrected))
            for versus in comparisons]


def group(records: Iterable[dict]) -> dict[tuple[str, str, bool], dict[int, float]]:
    """Test accuracies in per cent by (data set, method, pretrained) and seed.

    Runs that diverged in their first epoch, without a result, are left out.

    Raises:
        ValueError: a second record of the same cell and seed: other settings make other tables.
    """
    cells: dict[tuple[str, str, bool], dict[int, float]] = {}
    for record in records:
        config, result = record["config"], record["result"]
        if result is None:
            continue
        name = (config["dataset"], config["method"], config["pretraining"] > 0)
        cell, seed = cells.setdefault(name, {}), config["seed"]
        if seed in cell:
            raise ValueError(f"cell {name} has a second record of seed={seed}")
        cell[seed] = 100 * result["test"]
    return cells


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plus_minus(summary: Summary) -> str:
    """mean ± sd (n)."""
    spread = "" if summary.n < 2 else f" ± {summary.sd:.2f}"
    return _unbroken(f"{summary.mean:.2f}{spread} ({summary.n})")


def between(interval: tuple[float, float]) -> str:
    """low … high, or a dash for a single value."""
    return "–" if math.isnan(interval[0]) else _unbroken(f"{interval[0]:.2f} … {interval[1]:.2f}")


def _unbroken(text: str) -> str:
    """The text with no-break spaces: a narrow table keeps "96.35 ± 0.06" on one line."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def table_1(records: Iterable[dict], dataset: str, names: dict[str, str]) -> str:
    """Table 1 for one data set, one row per method: the paper's figure beside ours.

    ``names`` gives the methods' names and their order.
    """
    cells = group(records)
    reference = cells[dataset, "backprop", False]
    rows = []
    for pretrained in (False, True):
        for method, name in names.items():
            cell = cells.get((dataset, method, pretrained))
            if cell is None:
                continue
            ours = Summary(tuple(cell.values()))
            versus = None if cell is reference else compare(cell, reference)
            rows.append([
                name + (", pretrained" if pretrained else ""),
                *_beside(ours, PAPER_TABLE_1.get((dataset, method, pretrained))),
                *(["–"] * 3 if versus is None else
                  [str(versus), p_value(versus.p), f"{100 * versus.probability:.0f} %"])])
    return markdown(["method", "paper", "ours: mean ± sd (n)", "95 % interval", "paper inside?",
                     "ours − paper (p)", "minus back-prop., paired", "p",
                     "prob. of improvement"], rows)


def _beside(ours: Summary, paper: tuple[float, float] | None) -> list[str]:
    """The paper's mean ± spread, ours, the interval, whether it holds the paper's mean, and the
    difference with Welch's p, which knows that the paper's mean is uncertain as well."""
    low, high = ours.interval
    own = [plus_minus(ours), between(ours.interval)]
    if paper is None:
        return ["–", *own, "–", "–"]
    inside = "–" if math.isnan(low) else "yes" if low <= paper[0] <= high else "no"
    difference = f"{ours.mean - paper[0]:+.2f}"
    if ours.n > 1:
        p = stats.ttest_ind_from_stats(ours.mean, ours.sd, ours.n, *paper, PAPER_SEEDS,
                                       equal_var=False).pvalue
        difference += _unbroken(f" ({p_value(p)})")
    return [_unbroken(f"{paper[0]:.2f} ± {paper[1]:.2f}"), *own, inside, difference]


def p_value(p: float) -> str:
    """Three decimals, "< 0.001", or a dash where there is none."""
    return "–" if math.isnan(p) else _unbroken("< 0.001") if p < 0.001 else f"{p:.3f}"
