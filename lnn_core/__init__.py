"""Lifted neural networks: potentials, inference, and the objectives that train on them."""

__version__ = "0.2.0"

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import bounds
from .alerts import StabilityWarning
from .constrained import Certificate, ConstrainedAROVR
from .convex import Box, ConvexFunction, Identity, LeakyReLU, ReLU
from .generalized import ElementWise, GeneralizedAROVR, PotentialDistance
from .inference import InferenceDiverged, PaperSweeps, Report, Shooting, infer
from .lift import lift
from .losses import CrossEntropy, Euclidean, Linear, Loss, Targeted, untargeted
from .network import LiftedNetwork
from .objectives import AROVR, ROVR, BackPropagation, Objective
from .potentials import Energy, FenchelYoung, LeastSquares, Potential, Reweighted, Tilted
from .smooth import Sigmoid, Softplus, Tanh
from .targeted import TargetedAROVR, TargetedROVR
from .tilts import DropoutTilt, GaussianTilt

if TYPE_CHECKING:
    from . import data, lipschitz, lrrn, oracle
    from . import style as style

__all__ = [
    "AROVR", "BackPropagation", "Box", "Certificate", "ConstrainedAROVR", "ConvexFunction",
    "CrossEntropy", "DropoutTilt", "ElementWise", "Energy", "Euclidean", "FenchelYoung", "GaussianTilt",
    "GeneralizedAROVR", "Identity", "InferenceDiverged", "LeakyReLU", "LeastSquares", "LiftedNetwork",
    "Linear", "Loss", "Objective", "PaperSweeps", "Potential", "PotentialDistance", "ROVR",
    "ReLU", "Report", "Reweighted", "Shooting", "Sigmoid", "Softplus", "StabilityWarning", "Tanh", "Targeted",
    "TargetedAROVR", "TargetedROVR", "Tilted", "bounds", "data", "infer", "lift", "lipschitz", "lrrn",
    "oracle", "untargeted",
]

#: Modules that a loss does without; each is loaded where it is first asked for.
_LATER = frozenset({"data", "lipschitz", "lrrn", "oracle"})
#: Not listed, as whoever lists names also looks at them, and it needs the extra ``book``.
_UNLISTED = frozenset({"style"})


def __getattr__(name: str) -> Any:
    """``lnn_core.style`` and the like, on first use; what is imported then is an attribute."""
    if name in _LATER | _UNLISTED:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
