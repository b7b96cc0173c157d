"""Inferring activations: minimise an energy E(z) = U(z; x) + h(z_L) over z.

The energy is convex in each layer's activations, not in all of them together, so
inference goes layer by layer. ``paper_sweeps`` does so as the paper does, a fixed number
of times; the default, :class:`~lnn_core.Shooting`, never increases the energy and stops
when little is left to gain.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import check_input
from .network import Activations, LiftedNetwork
from .points import InferenceDiverged, Point, Report, Solver
from .potentials import Energy
from .shooting import Shooting
from .sweeps import PaperSweeps, paper_sweeps, sweep

__all__ = ["InferenceDiverged", "PaperSweeps", "Report", "Shooting", "infer", "minimise",
           "paper_sweeps", "sweep"]


@torch.no_grad()
def minimise(net: LiftedNetwork, x: Tensor, energy: Energy, solver: Solver | None = None,
             rows: Tensor | None = None) -> tuple[Point, Report]:
    """:func:`infer`, with all that is known about where it ended.

    Input is not checked again. The energy may be that of these ``rows`` of x, which may
    repeat: their forward pass is computed once.
    """
    energy.check(net)
    z, a = [x], [None]
    for k in range(1, net.depth + 1):
        a.append(net.preactivation(k, z))
        z.append(net.function(k).activation(a[k]))
    if rows is not None:
        z, a = ([None if v is None else v[rows] for v in values] for values in (z, a))
    start = Point(z, a, [None] + [0.0] * net.depth, energy.potential.forward_value(z)
                  + energy.output(z[-1]))
    return (solver or Shooting())(net, energy, start)


def infer(net: LiftedNetwork, x: Tensor, energy: Energy, *,
          solver: Solver | None = None) -> tuple[Activations, Report]:
    """Activations that minimise the energy, starting from the forward pass.

    Parameters
    ----------
    net, x : the network and its input, shape (batch, d_0).
    energy : what to minimise, such as ``FenchelYoung() - 0.25 * Euclidean(y)``.
    solver : default ``Shooting()``; ``paper_sweeps()`` for the paper's 20 passes.

    Returns
    -------
    z, report : [x, z_1, …, z_L] without autograd history, and a :class:`Report`.

    Raises
    ------
    ValueError : x or the energy does not fit the network (before any computing).
    InferenceDiverged : activations that are no longer finite.
    """
    check_input(net, x)
    end, report = minimise(net, x, energy, solver)
    return end.z, report
