"""Records: a configuration in, a JSON file out; what is there is not computed again.

A :class:`Recorded` is all that decides a computation. Its record is one file named by the hash
of the configuration and written atomically: killing a :func:`sweep` at any moment loses at most
the runs in flight. Tables and figures are functions of records.

``python -m lnn_core.records repeat RECORD.json`` computes one again and compares.
"""

from .recorded import Recorded, load, save
from .sweeping import sweep

__all__ = ["Recorded", "load", "save", "sweep"]
