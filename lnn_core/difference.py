"""Differences of two minima: what ROVR, AROVR and their targeted variants are, and their gradients.

Functions of tensors, without an autograd graph, so that ``torch.compile`` can make one graph of a
training step.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import envelope
from .inference.iterate import Iterate
from .inference.passes import FirstPass, first_pass_from_input
from .losses import Loss
from .network import LiftedNetwork
from .potentials import Energy, Potential


class Difference(NamedTuple):
    """factor·(m(h + change) − m(h)) with m(h) = min_z U(z; x) + h(z_L).

    Attributes:
        U: the potential.
        h: None for no loss: then m(h) is 0 unless U is tilted (eq. 6).
        change: what is added to h.
        factor: such as 1/β.
    """

    U: Potential
    h: Loss | None
    change: Loss
    factor: float

    @property
    def copies(self) -> int:
        """How many minima there are to find."""
        return 1 if self.h is None and self.U.minimum_is_zero else 2

    def check(self, net: LiftedNetwork, samples: int) -> None:
        """ValueError where the losses or U do not fit the network and a batch of this size."""
        for output in ([self.change] if self.copies == 1 else [self._h, self._h + self.change]):
            Energy(self.U, output).check(net, samples)

    @property
    def _h(self) -> Loss:
        return Loss() if self.h is None else self.h

    def energy(self, x: Tensor) -> tuple[Energy, Tensor | None]:
        """What to minimise, and for which rows of x: two minima are those of a batch of twice the size."""
        if self.copies == 1:
            return Energy(self.U, self.change), None
        h = self._h
        rows = torch.arange(len(x), device=x.device).repeat(2)
        second = torch.cat([x.new_zeros(len(x), 1), x.new_ones(len(x), 1)])
        return Energy(self.U.take(rows), h.take(rows) + self.change.take(rows).times(second)), rows

    def of(self, minima: Tensor) -> Tensor:
        """The values, (batch,), from the minima, (copies, batch)."""
        return self.factor * (minima[0] if self.copies == 1 else minima[1] - minima[0])

    def slopes(self, minima: Tensor) -> Tensor:
        """The derivatives of the values' mean in all minima, shape (copies, batch)."""
        samples = len(minima) // self.copies
        slope = self.factor / samples
        if self.copies == 1:
            return minima.new_tensor(slope).expand(1, samples)
        return minima.new_tensor([[-slope], [slope]]).expand(2, samples)


def value_and_gradients(net: LiftedNetwork, x: Tensor, difference: Difference,
                        end: Iterate) -> tuple[Tensor, list[Tensor | None]]:
    """The mean of the values at these minima, and its gradients in ``net.tensors()``."""
    return (difference.of(end.energy.view(difference.copies, -1)).mean(),
            envelope.gradients(net, x, end, difference.slopes(end.energy)))


def first_value_and_gradients(
        net: LiftedNetwork, x: Tensor,
        difference: Difference) -> tuple[Iterate, FirstPass, Tensor, list[Tensor | None]]:
    """A whole training step that needs no second pass, but for the optimizer: what is compiled."""
    start, first = first_pass_from_input(net, x, *difference.energy(x))
    return start, first, *value_and_gradients(net, x, difference, first.trial.iterate)
