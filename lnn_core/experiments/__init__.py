"""Experiments: training, runs and their records, studies, attacks, statistics.

``Run`` is one training run as a configuration; :mod:`.records` keeps what is computed from
configurations; :mod:`.studies` lists the runs behind the pages; :mod:`.lrrn` has the second
paper's runs.
"""

from .runs import METHODS, SOLVERS, Run, dataset_of

__all__ = ["METHODS", "SOLVERS", "Run", "dataset_of"]
