"""Inferring activations: minimise an energy E(z) = U(z; x) + h(z_L) over z.

The energy is convex in each layer's activations, not in all of them together, so
inference goes layer by layer. ``PaperSweeps`` does so as the paper does, a fixed number
of times; the default, :class:`~lnn_core.Shooting`, never increases the energy and stops
when little is left to gain.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ..checks import finite, no_transforms, own_precision, prepared
from ..kinds import expect, expect_function
from ..network import Activations, LiftedNetwork
from ..potentials import Energy
from .compiled import CompilationWarning
from .iterate import InferenceDiverged, Iterate, Report, Solver, forward_point, without_minimum
from .shooting import Shooting
from .sweeps import PaperSweeps, sweep

__all__ = ["CompilationWarning", "InferenceDiverged", "Iterate", "PaperSweeps", "Report", "Shooting",
           "Solver", "checked_solver", "forward_point", "infer", "minimise", "sweep"]


@torch.no_grad()
def minimise(net: LiftedNetwork, x: Tensor, energy: Energy, solver: Solver | None = None,
             rows: Tensor | None = None) -> tuple[Iterate, Report]:
    """:func:`~lnn_core.infer`, with all that is known about where it ended.

    Input is not checked again. The energy may be that of these ``rows`` of x, which may
    repeat: their forward pass is computed once.
    """
    solver = solver or Shooting()
    if isinstance(solver, Shooting) and solver.compiled:
        end, report = solver.from_input(net, x, energy, rows)
    else:
        end, report = solver(net, energy, forward_point(net, x, energy, rows))
    return end, looked_over(net, energy, end, report)


def looked_over(net: LiftedNetwork, energy: Energy, end: Iterate, report: Report) -> Report:
    """The report with ``infinite`` filled in; InferenceDiverged where an energy is not finite."""
    if report.settled:
        return report
    if not math.isfinite(float(end.energy.sum())):  # of the user's own solver, or input far off
        raise InferenceDiverged("activations ran away: their energy is no longer finite; "
                                "lower beta or raise gamma")
    return replace(report, infinite=without_minimum(net, energy, report.unbounded))


@own_precision
def infer(net: LiftedNetwork, x: Tensor, energy: Energy, *,
          solver: Solver | None = None) -> tuple[Activations, Report]:
    """Activations that minimise the energy, starting from the forward pass.

    Args:
        net: the network.
        x: its input, shape (batch, d_0); in general a batch of samples of ``net.input_shape``.
        energy: what to minimise, such as ``FenchelYoung() - 0.25 * Euclidean(y)``.
        solver: default ``Shooting()``; ``PaperSweeps()`` for the paper's 20 passes.

    Returns:
        [x, z_1, …, z_L] without autograd history, and a :class:`~lnn_core.Report`.

    Raises:
        TypeError: an argument of another kind (before any computing).
        ValueError: x or the energy does not fit the network (before any computing).
        InferenceDiverged: activations that are no longer finite.
    """
    given = x
    net, x = prepared(net, x)
    no_transforms()
    expect("energy", energy, Energy, "an Energy such as FenchelYoung() - 0.25 * Euclidean(y)")
    solver = checked_solver(solver)
    energy.check(net, len(x))
    for tensor in energy.output.tensors():
        finite("the output term", tensor)
    end, report = minimise(net, x.detach(), energy, solver)
    start = given if given.ndim == 2 else given.flatten(1)
    return [start, *(z_k.to(given.dtype) for z_k in end.z[1:])], report


def checked_solver(solver: Solver | None) -> Solver | None:
    """The solver; TypeError for anything else, such as a class instead of its instance."""
    if solver is None:
        return None
    return expect_function("solver", solver, "a solver such as Shooting() or PaperSweeps()")
