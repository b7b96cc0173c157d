"""Lifted regression/reconstruction networks (Høier and Zach, BMVC 2020)."""

from . import bounds, boxqp, implicit
from .bounds import certified_radius, gain, jacobian, layer_constants, lipschitz, refined_constants
from .boxqp import BoxQP, CoordinateDescent, QPReport, SpectralDescent
from .inference import infer
from .layers import RRLayer, feed_forward
from .model import LRRN
from .objectives import Contrastive, Unsupervised, parameter_groups

__all__ = [
    "BoxQP", "Contrastive", "CoordinateDescent", "LRRN", "QPReport", "RRLayer", "SpectralDescent",
    "Unsupervised", "bounds", "boxqp", "certified_radius", "feed_forward", "gain",
    "implicit", "infer", "jacobian", "layer_constants", "lipschitz", "parameter_groups",
    "refined_constants",
]
