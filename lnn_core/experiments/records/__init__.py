"""Records: a configuration in, a JSON file out; what is there is not computed again.

A :class:`~lnn_core.experiments.records.recorded.Recorded` is all that decides a computation.
Its record is one file named by the hash of the configuration and written atomically: killing a
:func:`~lnn_core.experiments.records.parallel.run_all` at any moment loses at most the runs in
flight. A digest in it tells whether what was found has been changed since. Tables and figures
are functions of records.

``python -m lnn_core.experiments.records repeat RECORD.json`` computes one again and compares.
"""

from .files import save
from .parallel import run_all
from .recorded import Recorded, load

__all__ = ["Recorded", "load", "save", "run_all"]
