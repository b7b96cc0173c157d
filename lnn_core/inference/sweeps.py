"""The paper's procedure as we read it: a fixed number of passes of eq. (17) from the output down.

Zach (2025), section 5, says "block coordinate descent" and "20 backward passes", and prints no
update; (17) is its one formula for a layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import at_least
from ..kinds import MOST, number
from ..network import Activations, LiftedNetwork
from ..potentials import Energy
from .iterate import InferenceDiverged, Iterate, Report, residual, scale


def sweep(net: LiftedNetwork, energy: Energy, z: Activations,
          a: list[Tensor | None] | None = None, step: Tensor | float = 1.0) -> Tensor:
    """One backward pass of eq. (17) over z_L, …, z_1, in place.

        z_k ← argmin over z of  D_k(z, a_k) − zᵀ Σ_{k′>k} W_k′kᵀ e_k′   [+ h(z) for k = L]

    For the Fenchel–Young potential this is z_k = f_k(a_k + (1/γ_k) Σ γ_k′ W_k′kᵀ
    (z_k′ − f_k′(a_k′))).

    Args:
        net: the network.
        energy: E(z) = U(z; x) + h(z_L).
        z: [x, z_1, …, z_L], changed in place.
        a: pre-activations a_k, kept between passes: what a pass did not change is not computed
            again. Changed in place, too; None where there is nothing to keep.
        step: a number or shape (batch, 1); below 1 goes only that part of the way.

    Returns:
        ‖Δz‖/step, shape (batch,).
    """
    a = [None] * (net.depth + 1) if a is None else a
    errors: list[Tensor | None] = [None] * (net.depth + 1)
    wanted = 0.0
    for k in range(net.depth, 0, -1):
        for child in net.children_of(k):
            # In a chain the child's a is still the one it was updated with; where a skip
            # connection fed it a new z since, it is computed afresh.
            a[child] = net.preactivation(child, z) if a[child] is None else a[child]
            errors[child] = energy.potential.error(child, net.function(child), z[child], a[child])
        a[k] = net.preactivation(k, z) if a[k] is None else a[k]
        signal = net.feedback(k, errors)
        answer = (energy.output_prox(net, a[k]) if signal is None
                  else energy.potential.prox(k, net.function(k), a[k], signal))
        change = answer - z[k]
        wanted = wanted + change.square().sum(-1)
        z[k] = z[k] + step * change
        for child in net.children_of(k):
            a[child] = None
    return wanted.sqrt()


@dataclass(frozen=True)
class PaperSweeps:
    """The procedure of Zach (2025), section 5, as we read it: ``passes`` full steps of (17).

    Args:
        passes: how many backward passes.
        tolerance: the relative gap within which ``Report.converged`` is True; it stops nothing.

    Raises:
        ValueError: fewer than one pass, or a tolerance that is negative.
    """

    passes: int = 20
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        at_least("passes", self.passes, 1, MOST)
        if not number("tolerance", self.tolerance) >= 0:
            raise ValueError(f"tolerance={self.tolerance} must not be negative")

    def __call__(self, net: LiftedNetwork, energy: Energy,
                 start: Iterate) -> tuple[Iterate, Report]:
        """Where the passes end, and a report; InferenceDiverged if that is not finite."""
        z, a = list(start.z), list(start.a)
        for _ in range(self.passes):
            sweep(net, energy, z, a)
        end = Iterate.of(net, energy, z, a)
        lost = ~torch.isfinite(end.energy)
        if lost.any():
            raise InferenceDiverged(f"activations of {int(lost.sum())} of {len(lost)} samples ran "
                                    f"away within {self.passes} passes: lower beta or raise gamma")
        gap = 0.5 * residual(net, energy, end).square() / scale(start, end)
        return end, Report(self.passes, gap, gap <= self.tolerance, torch.zeros_like(lost))
