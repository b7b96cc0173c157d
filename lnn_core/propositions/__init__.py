"""The statements of the theory, each as a number that must not be negative.

A statement takes a random toy instance and returns its *slack*: right-hand side minus
left-hand side of an inequality, minus the absolute difference for an equality. Every
optimum in it is global, found by the exhaustive :mod:`~lnn_core.oracle`. :func:`table`
runs all of them on random instances; a slack below −``TOLERANCE`` is a violation.
:func:`everything` adds the claims of the second paper, from :mod:`lnn_core.propositions.lrrn`.

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
from .registry import everything
from .statements import STATEMENTS, TOLERANCE, Row, Statement, table
from .toys import Toy, draw

__all__ = ["STATEMENTS", "TOLERANCE", "Row", "Statement", "Toy", "adversarial", "alignment",
           "borders", "counterexamples", "draw", "everything", "lrrn", "lrrn_equivalence",
           "regions", "table", "targeted", "toys"]
