"""One table for the statements of both papers."""

from __future__ import annotations

from collections.abc import Callable

from . import lrrn as theory
from . import statements
from .statements import Row


def everything(instances: int = 50, seed: int = 0) -> list[Row]:
    """Every statement of Zach (2025) and of Høier and Zach (2020), seeds ``seed``, seed + 1, …

    The second paper's claims measure something that must not pass a limit; their slack is the
    limit minus the measure, and the limit contains the tolerance.
    """
    rows = statements.table(instances, seed)
    for claim in theory.CLAIMS.values():
        worst = [slack(claim)(seed + i) for i in range(instances)]
        rows.append(Row(f"LRRN, {claim.source}", claim.claim, instances, min(worst),
                        sum(value < 0 for value in worst)))
    return rows


def slack(claim: theory.Claim) -> Callable[[int], float]:
    """A claim of the second paper as a slack: negative where it is violated."""
    return lambda seed: claim.limit - claim(seed)

