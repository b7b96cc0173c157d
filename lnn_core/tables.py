"""Tables as functions of run records: means, intervals, paired differences.

``±`` is the sample standard deviation over seeds (n − 1), as is usual beside "± over
seeds"; intervals are Student's t at 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scipy import stats

#: Zach (2025), Table 1: test accuracy in per cent, mean and ± over 3 seeds, by
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


@dataclass(frozen=True)
class Summary:
    """A sample of per-seed results, in the unit they came in."""

    values: tuple[float, ...]

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float:
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
        if self.n < 2:
            return math.nan, math.nan
        half = stats.t.ppf(0.975, self.n - 1) * self.sd / math.sqrt(self.n)
        return self.mean - half, self.mean + half


def group(records: Iterable[dict]) -> dict[tuple[str, str, bool], dict[int, float]]:
    """Test accuracies in per cent by (data set, method, pretrained) and seed."""
    cells: dict[tuple[str, str, bool], dict[int, float]] = {}
    for record in records:
        config = record["config"]
        cell = (config["dataset"], config["method"], config["pretraining"] > 0)
        cells.setdefault(cell, {})[config["seed"]] = 100 * record["result"]["test"]
    return cells


def paired(cell: dict[int, float], reference: dict[int, float]) -> Summary:
    """Differences to the reference, seed by seed (same samples, same initial weights).

    Raises ValueError where the two do not have the same seeds.
    """
    if cell.keys() != reference.keys():
        raise ValueError(f"seeds {sorted(cell)} and {sorted(reference)} cannot be paired")
    return Summary(tuple(cell[seed] - reference[seed] for seed in sorted(cell)))


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
    """Table 1 for one data set, a row a method: the paper's figure beside ours.

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
            ours, paper = Summary(tuple(cell.values())), PAPER_TABLE_1.get(
                (dataset, method, pretrained))
            low, high = ours.interval
            difference = "–" if cell is reference else _signed(paired(cell, reference))
            rows.append([
                name + (", pretrained" if pretrained else ""),
                "–" if paper is None else _unbroken(f"{paper[0]:.2f} ± {paper[1]:.2f}"),
                plus_minus(ours), between(ours.interval),
                "–" if paper is None or math.isnan(low)
                else "yes" if low <= paper[0] <= high else "no",
                difference])
    return markdown(["method", "paper", "ours: mean ± sd (n)", "95 % interval", "paper inside?",
                     "minus back-prop., paired"], rows)


def _signed(difference: Summary) -> str:
    low, high = difference.interval
    spread = "" if math.isnan(low) else " " + _unbroken(f"({low:+.2f} … {high:+.2f})")
    return f"{difference.mean:+.2f}{spread}"
