"""Controls: back-propagation with what may do as well as an adversary.

Noise, other targets, dropout, weight decay and attacked inputs, each with one strength. A gain of
a method of the papers that one of them has, too, is not the adversary's doing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..losses import LossFamily, home, loss_of, wrong_labels
from ..network import LiftedNetwork
from ..objectives import BackPropagation, Objective


class Disturbed(Objective):
    """ℓ at a forward pass with a disturbance in each layer.

    Args:
        strength: of the disturbance.
        loss: a function of the targets that returns a Loss.
        generator: draws the disturbances.
    """

    def __init__(self, strength: float, loss: LossFamily, generator: torch.Generator):
        super().__init__(loss)
        self.strength, self.generator = strength, generator

    def value(self, net, x, target):
        loss, z = loss_of(self.loss, target), [x]
        loss.check(net, len(x))
        for k in range(1, net.depth + 1):
            z.append(self.layer(net, k, net.preactivation(k, z)))
        return loss(z[-1])

    @abstractmethod
    def layer(self, net: LiftedNetwork, k: int, a: Tensor) -> Tensor:
        """The activations, (batch, d_k), for pre-activations of this shape."""

    def _draw(self, draw: Callable[..., Tensor], shape: tuple[int, ...], like: Tensor) -> Tensor:
        return draw(shape, generator=self.generator, device=home(self.generator)).to(like)


class BatchNoise(Disturbed):
    """z_k = f_k(a_k + g_k), g_k ~ N(0, strength²) shared by a mini-batch, in all layers: what
    :class:`~lnn_core.tilts.GaussianTilt` adds, without an adversary."""

    def layer(self, net, k, a):
        return net.function(k).activation(a + self.strength * self._draw(torch.randn, a.shape[1:], a))


class SampleNoise(Disturbed):
    """z_k = f_k(a_k + g_k), g_k ~ N(0, strength²) for each sample, in hidden layers."""

    def layer(self, net, k, a):
        if k < net.depth:
            a = a + self.strength * self._draw(torch.randn, a.shape, a)
        return net.function(k).activation(a)


class Dropout(Disturbed):
    """Hidden units are 0 with probability ``strength``, for each sample, and 1/(1 − strength) times as
    large otherwise."""

    def layer(self, net, k, a):
        z = net.function(k).activation(a)
        if k == net.depth:
            return z
        return z * (self._draw(torch.rand, z.shape, z) >= self.strength) / (1 - self.strength)


class Decay(BackPropagation):
    """ℓ + ½·strength·Σ‖W‖²; biases are free."""

    def __init__(self, strength: float, loss: LossFamily, generator: torch.Generator):
        super().__init__(loss)
        self.strength = strength

    def value(self, net, x, target):
        squares = sum(tensor.square().sum() for tensor in net.tensors() if tensor.ndim > 1)
        return super().value(net, x, target) + 0.5 * self.strength * squares


class AttackedInputs(BackPropagation):
    """ℓ at inputs that an attack moved by at most ``strength`` (Euclidean norm) within [0, 1]: the
    adversarial training of Madry et al. (2017).
    """

    def __init__(self, strength: float, loss: LossFamily, generator: torch.Generator):
        super().__init__(loss)
        self.strength = strength

    def value(self, net, x, target):
        from .attacks import greatest_loss  # foolbox takes a second to import

        return super().value(net, greatest_loss(net, loss_of(self.loss, target), x, self.strength), target)


def smoothed(loss: LossFamily, share: float, target: Tensor):
    """Label smoothing: ℓ for the target (1 − s)·y + s/C (Szegedy et al., 2016)."""
    return loss((1 - share) * target + share / target.shape[1])


def away(loss: LossFamily, share: float, generator: torch.Generator, target: Tensor):
    """ℓ for the target (1 + s)·y − s·y⁻ with a random wrong y⁻.

    What AROVR_{α,β} does with the Euclidean loss where the output layer alone answers the attack:
    with s = βᾱ it moves z_L to z̃ = (z_L + s·y⁻)/(1 + s), and ‖z̃ − y‖ is the distance of z_L to
    this target, divided by 1 + s. The sign is that of a *negative* smoothing.
    """
    wrong = wrong_labels(target.argmax(1), target.shape[1], generator)
    other = torch.nn.functional.one_hot(wrong, target.shape[1]).to(target)
    return loss((1 + share) * target - share * other)


def _smoothing(strength: float, loss: LossFamily, generator: torch.Generator) -> Objective:
    return BackPropagation(partial(smoothed, loss, strength))


def _away(strength: float, loss: LossFamily, generator: torch.Generator) -> Objective:
    return BackPropagation(partial(away, loss, strength, generator))


#: By name: a function of the strength, the loss and a generator that makes the objective.
CONTROLS: dict[str, Callable[[float, LossFamily, torch.Generator], Objective]] = {
    "batch noise": BatchNoise,
    "sample noise": SampleNoise,
    "dropout": Dropout,
    "weight decay": Decay,
    "label smoothing": _smoothing,
    "away from a wrong label": _away,
    "attacked inputs": AttackedInputs,
}
