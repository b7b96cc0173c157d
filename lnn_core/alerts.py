"""What inference says about stability, gathered for a warning to whoever trains."""

from __future__ import annotations

import math
import sys

from torch import Tensor

from .bounds import stability_threshold
from .inference import Report
from .network import LiftedNetwork
from .potentials import Energy, FenchelYoung, LeastSquares, innermost

#: With the default solver, inference that took at most this many passes has converged: its
#: border need not be checked.
SHORT = 10


class StabilityWarning(UserWarning):
    """Samples' energies have no minimum, or inference cannot find it and β is beyond the border.

    The latter is checked only where inference took more than ``SHORT`` passes.
    """


class Alerts:
    """What the inferences of one call say about stability."""

    def __init__(self) -> None:
        self.infinite = self.beyond = 0.0  # the largest shares of a batch

    def add(self, net: LiftedNetwork, x: Tensor, energy: Energy, report: Report) -> None:
        """Note the share without a minimum, and the share unsettled and beyond 1/λ_max(K)."""
        if report.settled:
            return
        self.infinite = max(self.infinite, int(report.infinite.sum()) / len(x))
        if report.passes > SHORT and (unsettled := ~(report.converged | report.infinite)).any():
            beyond = unsettled & _beyond_border(net, x, energy)
            self.beyond = max(self.beyond, int(beyond.sum()) / len(x))

    def text(self, beta: float) -> str | None:
        """The warning, if any; shares in steps of 10 %, so that a training run does not flood."""
        share = max(self.infinite, self.beyond)
        if not share:
            return None
        why = ("the objective is infinite there (along a direction found for one sample the energy "
               "is unbounded below, and such directions depend on the weights alone): "
               if self.infinite else "")
        return (f"beta={beta:g} is beyond the border of stability for up to "
                f"{10 * math.ceil(10 * share)} % of a batch: {why}their values are lower bounds; "
                "lower beta or raise gamma (bounds.stability_threshold)")


def _beyond_border(net: LiftedNetwork, x: Tensor, energy: Energy) -> Tensor | bool:
    """Whether no local optimum next to the forward pass is left, after ``stability_threshold``."""
    U, gamma = innermost(energy.potential)
    if not (isinstance(U, (FenchelYoung, LeastSquares)) and energy.output.is_quadratic):
        return False
    push = -1.0 * energy.output.curvature
    return stability_threshold(net, x, gamma, base=U, curvature=push) < 1


def level_of_the_caller() -> int:
    """The ``stacklevel`` at which a warning points out of this package, and out of torch's wrappers."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in ("lnn_core", "torch"):
        level, frame = level + 1, frame.f_back
    return level
