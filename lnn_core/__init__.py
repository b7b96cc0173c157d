"""Lifted neural networks: potentials, inference, and the objectives that train on them."""

__version__ = "0.1.0"

from . import bounds, data, lipschitz, lrrn, oracle, style
from .constrained import Certificate, ConstrainedAROVR
from .convex import Box, ConvexFunction, Identity, ReLU, Tanh
from .generalized import ElementWise, GeneralizedAROVR, PotentialDistance
from .inference import InferenceDiverged, PaperSweeps, Report, Shooting, infer
from .losses import Euclidean, Linear, Loss, Targeted, untargeted
from .network import LiftedNetwork
from .objectives import (
    AROVR, ROVR, BackPropagation, Objective, StabilityWarning, TargetedAROVR, TargetedROVR,
)
from .potentials import Energy, FenchelYoung, LeastSquares, Potential, Reweighted, Tilted
from .tilts import DropoutTilt, GaussianTilt

__all__ = [
    "AROVR", "BackPropagation", "Box", "Certificate", "ConstrainedAROVR", "ConvexFunction",
    "DropoutTilt", "ElementWise", "Energy", "Euclidean", "FenchelYoung", "GaussianTilt",
    "GeneralizedAROVR", "Identity", "InferenceDiverged", "LeastSquares", "LiftedNetwork",
    "Linear", "Loss", "Objective", "PaperSweeps", "Potential", "PotentialDistance", "ROVR",
    "ReLU", "Report", "Reweighted", "Shooting", "StabilityWarning", "Tanh", "Targeted",
    "TargetedAROVR", "TargetedROVR", "Tilted", "bounds", "data", "infer", "lipschitz", "lrrn",
    "oracle", "style", "untargeted",
]
