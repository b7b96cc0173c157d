"""Explorables: pictures to be dragged, in Jupyter and in a page without a kernel.

    from lnn_core import widgets
    widgets.Landscape(beta=0.3)
"""

from ..extras import extra

with extra("book"):
    from .anisotropy import Anisotropy
    from .base import Explorable
    from .gains import Gains
    from .landscape import Landscape
    from .one_unit import OneUnit
    from .real_network import RealNetwork
    from .sandwich import Sandwich
    from .targets import Targets

__all__ = ["Anisotropy", "Explorable", "Gains", "Landscape", "OneUnit", "RealNetwork", "Sandwich",
           "Targets"]
