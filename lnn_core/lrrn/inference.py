"""Free and clamped activations, eq. (20).

Inference is a strictly convex quadratic program over a box (:mod:`.boxqp`): there is one
solution, no start can miss it, and the report bounds how far from it the result is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import as_targets, check_input
from ..kinds import expect
from ..network import Activations
from .boxqp import BoxQP, QPReport, Solver, chosen
from .model import LRRN


@torch.no_grad()
def infer(net: LRRN, x: Tensor, y: Tensor | None = None, *, solver: Solver | None = None,
          start: Activations | None = None) -> tuple[Activations, QPReport]:
    """argmin_z E(z; x): the free solution z*(x), or with y the clamped one, z_L = y (20).

    Args:
        net: the network.
        x: shape (batch, d_0).
        y: labels (batch,) or targets (batch, d_L) inside C_L.
        solver: ``SpectralDescent()`` (default) or ``CoordinateDescent()``, the paper's.
        start: activations to start from, such as the free ones for the clamped.

    Returns:
        [x, z_1, …, z_L] without autograd history, and a :class:`~lnn_core.lrrn.QPReport`.

    Raises:
        ValueError: x, y or start does not fit the network (before any computing).
        TypeError: an argument of another kind.
    """
    expect("net", net, LRRN, "an LRRN")
    check_input(net, x)
    target = None if y is None else clamped_target(net, x, y)
    solver, flat = chosen(solver), None
    if start is not None:
        net.check_activations("start", start, len(x))
        flat = torch.cat(start[1:], 1)
    qp = net.quadratic(x)
    if target is None:
        z, report = solver(qp, flat)
    else:
        z, report = solve_clamped(qp, target, solver, flat)
    return net.split(x, z), report


def solve_clamped(qp: BoxQP, target: Tensor, solver: Solver,
                  start: Tensor | None = None) -> tuple[Tensor, QPReport]:
    """The minimum of ``qp`` with the last entries held at ``target``; z of shape (batch, n)."""
    free = qp.g.shape[1] - target.shape[1]
    hidden = BoxQP(qp.H[:free, :free], qp.g[:, :free] - target @ qp.H[free:, :free],
                   qp.lower[:free], qp.upper[:free])
    z, report = solver(hidden, None if start is None else start[:, :free])
    return torch.cat([z, target], 1), report


def clamped_target(net: LRRN, x: Tensor, y: Tensor) -> Tensor:
    """Targets (batch, d_L), labels one-hot; ValueError where they are not in C_L."""
    target, outputs = as_targets(net, x, y), net.function(net.depth)
    outside = target[(target < outputs.lower) | (target > outputs.upper)]
    if outside.numel():
        raise ValueError(f"y holds {outside[0].item():g}, outside the output's set {outputs!r}")
    return target
