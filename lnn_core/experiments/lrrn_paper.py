"""What Høier and Zach (2020) report, for the pages that put our records beside it."""

from __future__ import annotations

import math
from typing import NamedTuple

#: Table 1, mean and standard deviation of min_z E, by (row, column) as printed. The table's
#: head calls rows training sets; :func:`transposed` is what our runs say it means.
TABLE_1: dict[tuple[str, str], tuple[float, float]] = {
    ("mnist", "mnist"): (13.7, 5.1),
    ("mnist", "kmnist"): (26.4, 6.0),
    ("mnist", "fashion-mnist"): (35.9, 8.3),
    ("mnist", "mirrored"): (21.5, 6.8),
    ("mnist", "gaussian"): (48.0, 3.8),
    ("kmnist", "mnist"): (59.5, 24.1),
    ("kmnist", "kmnist"): (36.5, 12.9),
    ("kmnist", "fashion-mnist"): (52.1, 16.0),
    ("kmnist", "mirrored"): (43.8, 15.6),
    ("kmnist", "gaussian"): (78.9, 4.5),
    ("fashion-mnist", "mnist"): (55.4, 30.8),
    ("fashion-mnist", "kmnist"): (26.8, 11.5),
    ("fashion-mnist", "fashion-mnist"): (12.6, 6.7),
    ("fashion-mnist", "mirrored"): (17.4, 11.0),
    ("fashion-mnist", "gaussian"): (65.0, 3.9),
}


def transposed(table: dict[tuple[str, str], tuple[float, float]],
               ) -> dict[tuple[str, str], tuple[float, float]]:
    """Rows and columns exchanged where both are data sets; the rest stays with its row."""
    rows = {row for row, _ in table}
    return {(column, row) if column in rows else (row, column): value
            for (row, column), value in table.items()}


def readings() -> dict[str, dict[tuple[str, str], float]]:
    """The mean energies of eq. (1), with its ½, that Table 1 states, by how it is read."""
    return {f"rows are {rows} sets, {half} ½": {key: scale * mean
                                                for key, (mean, _) in table.items()}
            for rows, table in (("training", TABLE_1), ("test", transposed(TABLE_1)))
            for half, scale in (("with", 1.0), ("without", 0.5))}


def geometric_mean_ratio(ours: dict[tuple[str, str], float],
                         theirs: dict[tuple[str, str], float]) -> float:
    """exp of the mean of |log(ours/theirs)| over the cells of theirs; 1 if all are equal.

    Raises:
        KeyError: ours lacks a cell.
    """
    logs = [abs(math.log(ours[key] / value)) for key, value in theirs.items()]
    return math.exp(sum(logs) / len(logs))


class Classifier(NamedTuple):
    """Test accuracy in per cent, upper Lipschitz bound, median certified radius."""

    accuracy: float
    lipschitz: float
    radius: float


#: Section 4.2 and Figure 2's caption, 784-64-64-10.
FIGURE_2 = {"mnist": Classifier(97.2, 0.94, 0.70), "kmnist": Classifier(85.7, 0.95, 0.51),
            "fashion-mnist": Classifier(85.6, 1.07, 0.46)}
#: Section 4.2 and Figure 3's caption, {1024, 3072}-256-256-10.
FIGURE_3 = {"cifar-10-grey": Classifier(44.75, 1.0011, 0.07),
            "cifar-10-colour": Classifier(54.02, 1.007, 0.12)}
