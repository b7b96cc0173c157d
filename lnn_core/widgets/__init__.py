"""Explorables: pictures to be dragged, in Jupyter and in a page without a kernel.

    from lnn_core import widgets
    widgets.Landscape(beta=0.3)
"""

from .base import Explorable
from .landscape import Landscape
from .one_unit import OneUnit

__all__ = ["Explorable", "Landscape", "OneUnit"]
