"""Lifted regression/reconstruction networks (Høier and Zach, BMVC 2020)."""

from . import bounds, boxqp, equivalence, implicit
from ..propositions import lrrn as theory
from .bounds import certified_radius, gain, jacobian, layer_constants, lipschitz, refined_constants
from .boxqp import BoxQP, CoordinateDescent, Report, SpectralDescent
from .inference import infer
from .layers import RRLayer, feed_forward
from .model import LRRN
from .objectives import Contrastive, Unsupervised, parameter_groups

__all__ = [
    "BoxQP", "Contrastive", "CoordinateDescent", "LRRN", "RRLayer", "Report", "SpectralDescent",
    "Unsupervised", "bounds", "boxqp", "certified_radius", "equivalence", "feed_forward", "gain",
    "implicit", "infer", "jacobian", "layer_constants", "lipschitz", "parameter_groups",
    "refined_constants", "theory",
]
