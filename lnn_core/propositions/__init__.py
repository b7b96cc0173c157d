"""The claims of both papers, each as a number that must not be negative.

A statement takes a random toy instance and returns its *slack*: right-hand side minus
left-hand side of an inequality, minus the absolute difference for an equality. Every
optimum in it is global, found by the exhaustive :mod:`~lnn_core.oracle`. A claim of the second
paper, in :mod:`lnn_core.propositions.lrrn`, measures something that must not pass a limit: its slack
is the limit minus the measure. :func:`table` runs all of them on random instances; a slack below
−``TOLERANCE`` (of the second paper's, which have it in their limits: below 0) is a violation.

Sources name the place in Zach (2025); "new" marks what is not in the paper, "corrected"
what is printed differently there. :mod:`counterexamples` holds small concrete networks
for the claims that fail as printed.
"""

from . import (
    adversarial,
    alignment,
    borders,
    counterexamples,
    lrrn,
    lrrn_equivalence,
    regions,
    targeted,
    toys,
)
from .registry import CLAIMS, HOIER_ZACH, PAPERS, ZACH, Claim, Row, claims_of, table
from .statements import TOLERANCE, Statement
from .toys import Toy, draw

__all__ = ["CLAIMS", "HOIER_ZACH", "PAPERS", "TOLERANCE", "ZACH", "Claim", "Row", "Statement", "Toy",
           "adversarial", "alignment", "borders", "claims_of", "counterexamples", "draw", "lrrn",
           "lrrn_equivalence", "regions", "table", "targeted", "toys"]
