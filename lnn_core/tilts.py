"""Random tilts g for AROVR^g_{α,β} (Zach 2025, eq. 31): one g per call, that is per mini-batch."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from .checks import check_network, number, positive
from .kinds import expect_generator
from .losses import home
from .network import LiftedNetwork
from .potentials import Potential, Tilted, checked_potential


class Tilt(ABC):
    """Draws g_k for every layer and returns U + gᵀz.

    Args:
        output: whether z_L is tilted too.
        generator: the source of the tilts (default: torch's global one).
    """

    def __init__(self, *, output: bool = True, generator: torch.Generator | None = None):
        self.output, self.generator = output, expect_generator("generator", generator)

    @abstractmethod
    def draw(self, size: int) -> Tensor:
        """g for one layer, shape (size,)."""

    def __call__(self, net: LiftedNetwork, potential: Potential) -> Tilted:
        net, potential = check_network(net), checked_potential(potential)
        weight = net.tensors()[0]
        g = [self.draw(size).to(weight) for size in net.sizes[1:]]
        return Tilted(g if self.output else [*g[:-1], None], potential)


class GaussianTilt(Tilt):
    """g ~ N(0, sd²) element-wise.

    The paper prints N(0, 1/16) without saying whether 1/16 is the variance; ``sd=1/16``
    is the reading that reproduces its ordering of methods, ``sd=1/4`` the other one.

    Args:
        sd: the standard deviation, positive.
        options: ``output`` and ``generator`` of :class:`~lnn_core.tilts.Tilt`.
    """

    def __init__(self, sd: float, **options):
        super().__init__(**options)
        self.sd = positive("sd", sd)

    def draw(self, size):
        return self.sd * torch.randn(size, generator=self.generator, device=home(self.generator))

    def __repr__(self):
        return f"GaussianTilt(sd={self.sd:g})"


class DropoutTilt(Tilt):
    """g drawn from {0, M}: with M large a unit with g = M is switched off (eq. 31).

    Only hidden layers are tilted by default.

    Args:
        rate: the probability of M, in [0, 1).
        M: the tilt that switches a unit off, positive.
        output: whether z_L is tilted too.
        options: ``generator`` of :class:`~lnn_core.tilts.Tilt`.

    Raises:
        ValueError: a rate outside [0, 1), or M that is not positive.
    """

    def __init__(self, rate: float, M: float = 100.0, *, output: bool = False, **options):
        super().__init__(output=output, **options)
        if not 0 <= number("rate", rate) < 1:
            raise ValueError(f"rate={rate} must be in [0, 1)")
        self.rate, self.M = float(rate), positive("M", M)

    def draw(self, size):
        drawn = torch.rand(size, generator=self.generator, device=home(self.generator))
        return self.M * (drawn < self.rate).float()

    def __repr__(self):
        return f"DropoutTilt(rate={self.rate:g}, M={self.M:g})"
