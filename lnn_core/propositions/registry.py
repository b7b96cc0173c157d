"""The registry of claims, and the table of how they fare on random instances."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from ..checks import at_least, one_of

ZACH, HOIER_ZACH = "Zach (2025)", "Høier and Zach (2020)"
PAPERS = (ZACH, HOIER_ZACH)


@dataclass(frozen=True)
class Row:
    """One line of the table: how many instances, the worst slack, how many violations."""

    source: str
    claim: str
    instances: int
    worst: float
    violations: int


@dataclass(frozen=True)
class Claim(ABC):
    """A claim and where it is made; each paper's have a class of their own."""

    name: str
    source: str
    claim: str
    paper: ClassVar[str]
    #: Stands before the source where the claims of both papers are in one table.
    prefix: ClassVar[str] = ""
    #: A slack below −tolerance is a violation.
    tolerance: ClassVar[float] = 0.0

    @abstractmethod
    def worst(self, seed: int) -> float:
        """The smallest slack on the instance of a seed, on the CPU: it must be the same anywhere."""

    def row(self, instances: int, seed: int = 0) -> Row:
        """The worst of ``instances`` random instances, drawn with seed, seed + 1, …"""
        at_least("instances", instances, 1)
        worst = [self.worst(seed + i) for i in range(instances)]
        return Row(self.prefix + self.source, self.claim, instances, min(worst),
                   sum(slack < -self.tolerance for slack in worst))


#: All claims by name; the modules that make them add them.
CLAIMS: dict[str, Claim] = {}


def register(claim: Claim) -> None:
    """Add a claim; ValueError where its name is taken."""
    if claim.name in CLAIMS:
        raise ValueError(f"there are two claims named {claim.name!r}")
    CLAIMS[claim.name] = claim


def claims_of(paper: str) -> dict[str, Claim]:
    """The claims of one of the ``PAPERS``, by name."""
    one_of("paper", paper, PAPERS)
    return {name: claim for name, claim in CLAIMS.items() if claim.paper == paper}


def table(instances: int = 50, seed: int = 0) -> list[Row]:
    """Every claim of both papers on ``instances`` random instances, drawn with seed, seed + 1, …"""
    return [claim.row(instances, seed) for paper in PAPERS for claim in claims_of(paper).values()]
