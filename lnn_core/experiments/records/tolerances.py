"""How far what is found again may be from what was recorded.

The same code on the same processor finds the same, to the last digit. Another processor sums in
another order; training amplifies that, epoch by epoch, until the two networks read a few images
differently. So every kind of number has a tolerance, and all of them are here. None is so wide
that a result of the book could hide in it: accuracies have less than the smallest gain over
back-propagation that the pages on Table 1 and on open choices call one (a test computes it).
Single runs on another processor can differ by more (``benchmarks/processors.py``): the tolerance
decides about one run, the pages' conclusions rest on means over seeds.

What is compared is the mean distance between two curves (of one number: its distance), not the
largest: an effect is a shift that lasts, while single epochs scatter.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np


class Tolerance(NamedTuple):
    """The largest mean distance of two findings that agree, as a number or, where ``relative``,
    as a share of the mean recorded size."""

    size: float
    relative: bool = True

    def allows(self, old: np.ndarray, new: np.ndarray, factor: float) -> bool:
        """Whether finite values agree, with a tolerance ``factor`` times as large."""
        allowed = factor * self.size * (np.abs(old).mean() if self.relative else 1.0)
        return bool(np.abs(new - old).mean() <= allowed)

    def __str__(self) -> str:
        return f"allowed {self.size:g}" + " of the recorded size" * self.relative


#: Accuracies: 14 of 10,000 images.
ACCURACY = Tolerance(14e-4, relative=False)
#: The share of 200 attacked images that are classified correctly: one image is 0.005.
ATTACKED = Tolerance(5e-3, relative=False)
#: Norms and bounds of trained weights, radii, energies, filters: smooth functions of the weights.
SMOOTH = Tolerance(1e-2)
#: The mean objective, which ends at a hundredth of where it starts: what is left of it scatters.
OBJECTIVE = Tolerance(2e-2)
#: The largest Jacobian found by hill climbing, and lengths found by attacks: a search that starts
#: a rounding error away can end at another local optimum.
SEARCH = Tolerance(5e-2)
#: Medians at the epoch that validation chooses: a rounding error decides between nearly equal epochs, and
#: what is measured inside moves as training goes on, certificates and energies (squares) the most. At the
#: epoch of equal training loss it moves by less.
CHOSEN = Tolerance(9e-2)
#: Accuracies under noise, and of coarse weights (which two bits decide): of the network of that epoch.
DISTURBED, COARSE = Tolerance(1e-2, relative=False), Tolerance(2e-2, relative=False)

#: What decides, by "kind.name", the first pattern that fits. None: only its presence counts, as a
#: rounding error decides between nearly equal epochs, or it says how inference went about it.
JUDGED: tuple[tuple[str, Tolerance | None], ...] = (
    ("*.best_epoch", None), ("*.passes", None), ("*.gap", None), ("*.converged", None),
    ("*.unbounded", None), ("*.largest_gradient", None), ("*.diverged", None),
    ("*.objective", OBJECTIVE), ("*.gradient", OBJECTIVE),
    ("InternalRobustness.*.epoch", None), ("InternalRobustness.best.loss", None),
    ("InternalRobustness.matched.loss", OBJECTIVE),
    ("InternalRobustness.*.noise", DISTURBED), ("InternalRobustness.*.deletion", DISTURBED),
    ("InternalRobustness.*.quantised", COARSE),
    ("InternalRobustness.best.*.*", CHOSEN), ("InternalRobustness.matched.*.*", SEARCH),
    ("Reconstruction.*", SMOOTH),
    ("*.train", ACCURACY), ("*.validation", ACCURACY), ("*.test", ACCURACY),
    ("*.result.certified", ACCURACY), ("*.attacks.correct", ATTACKED),
    ("*.lower", SEARCH), ("*.attacks.distance.*", SEARCH), ("*.attack", SEARCH),
    ("*.closest", SEARCH),
    ("*", SMOOTH),
)
#: Curves with an entry per epoch: where training stops early, it may do so some epochs sooner or
#: later, and what both have is compared.
EPOCHS = ("*.history.*", "*.lipschitz.*")


def tolerance(name: str) -> Tolerance | None:
    """What decides about the finding "kind.name"; None where only its presence counts."""
    return next(found for pattern, found in JUDGED if fnmatchcase(name, pattern))


def by_epoch(name: str) -> bool:
    """Whether the finding "kind.name" is a curve over epochs."""
    return any(fnmatchcase(name, pattern) for pattern in EPOCHS)
