"""Lifted neural networks: potentials, inference, and the objectives that train on them."""

from . import data, style, tables
from .convex import Box, ConvexFunction, Identity, ReLU, Tanh
from .inference import InferenceDiverged, PaperSweeps, Report, Sweeps, infer, paper_sweeps
from .losses import Euclidean, Linear, Loss, Targeted, untargeted
from .network import LiftedNetwork
from .objectives import AROVR, ROVR, BackPropagation, Objective, TargetedAROVR, TargetedROVR
from .potentials import Energy, FenchelYoung, LeastSquares, Potential, Reweighted, Tilted
from .tilts import DropoutTilt, GaussianTilt

__all__ = [
    "AROVR", "BackPropagation", "Box", "ConvexFunction", "DropoutTilt", "Energy", "Euclidean",
    "FenchelYoung", "GaussianTilt", "Identity", "InferenceDiverged", "LeastSquares",
    "LiftedNetwork", "Linear", "Loss", "Objective", "PaperSweeps", "Potential", "ROVR", "ReLU", "Report",
    "Reweighted", "Sweeps", "Tanh", "Targeted", "TargetedAROVR", "TargetedROVR", "Tilted",
    "data", "infer", "paper_sweeps", "style", "tables", "untargeted",
]
__version__ = "0.1.0"
