"""Experiments: training, runs and their records, studies, attacks, statistics.

``Run`` is one training run as a configuration; :mod:`.records` keeps what is computed from
configurations; :mod:`.studies` lists the runs behind the pages. The second paper's are in
:mod:`.lrrn_runs` and :mod:`.lrrn_studies`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .runs import METHODS, SOLVERS, Run

__all__ = ["METHODS", "SOLVERS", "Run"]


def __getattr__(name: str) -> Any:
    """What :mod:`.runs` has, on first use: training alone does without the extra ``experiments``."""
    if name in __all__:
        from . import runs

        return getattr(runs, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
