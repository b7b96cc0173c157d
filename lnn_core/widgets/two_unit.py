"""A network of two units: small enough to draw its whole energy landscape.

    x → z_1 = max(w_0·x + b_0, 0) → z_2 = w_1·z_1 + b_1, compared with a target y

Every value comes from ``lnn_core`` itself, applied to a real ``LiftedNetwork([1, 1, 1])``.
``draw_landscape`` and ``draw_sandwich`` are what the sliders of the book call: plain
functions of numbers that return a figure. ``python -m lnn_core.widgets.two_unit FILE.webp`` writes the
picture that stands on the book's front page where scripts are switched off.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor

from .. import style
from ..bounds import safe_beta, two_sided
from ..checks import positive
from ..inference import Shooting, infer, sweep
from ..losses import Euclidean
from ..network import LiftedNetwork
from ..objectives import AROVR, ROVR, BackPropagation, Objective
from ..potentials import Energy, Reweighted

#: Two units cost nothing: go on until the relative gap is at rounding.
TIGHT = Shooting(tolerance=1e-14, max_passes=3000, every=True)
#: The part of the border up to which that many passes of eq. (17) are enough.
REACHABLE = 0.99
#: The sliders of ``draw_landscape``: smallest value, largest value, step.
SLIDERS = {"beta": (0.01, 0.95, 0.01), "x": (-1.0, 2.0, 0.25), "y": (-1.0, 3.0, 0.25),
           "w1": (-2.0, 2.0, 0.5), "passes": (0, 10, 1)}


class Point(NamedTuple):
    """Activations of the two units."""

    z1: float
    z2: float


@dataclass(frozen=True)
class TwoUnit:
    """The network 1-1-1 with a ReLU in the middle, its input x and its target y.

    Its potential is U = γ D_1 + D_2, Zach (2025), eq. (14) with γ_1 = ``gamma`` and γ_2 = 1.
    Methods take a ``weight``, the number before the loss in the energy
    E(z) = U(z; x) + weight·ℓ(z_2) with ℓ(z_2) = ½(z_2 − y)²: β for ROVR, −β for AROVR,
    0 for the potential alone.

    Raises:
        ValueError: a parameter that is not finite, a gamma that is not positive; a weight for which
            E has no minimum.
    """

    x: float = 1.0
    y: float = 2.0
    w0: float = 1.0
    w1: float = 1.0
    b0: float = 0.0
    b1: float = 0.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not math.isfinite(value):
                raise ValueError(f"{field.name}={value} must be finite")
        positive("gamma", self.gamma)

    @cached_property
    def net(self) -> LiftedNetwork:
        """The network, in double precision."""
        net = LiftedNetwork([1, 1, 1], dtype=torch.float64, generator=torch.Generator())
        with torch.no_grad():
            for parameter, value in zip([*net.weights, *net.biases],
                                        [self.w0, self.w1, self.b0, self.b1]):
                parameter.fill_(value)
        return net

    @property
    def potential(self) -> Reweighted:
        """U = γ D_1 + D_2 with the Fenchel–Young divergence."""
        return Reweighted((self.gamma, 1.0))

    @property
    def stability_threshold(self) -> float:
        """β*, the border of stability: U − βℓ has a minimum for β < β* = 1/(1 + w_1²/γ).

        Here Zach (2025), eq. (19), is exact: where the hidden unit is on, the energy is a
        quadratic form whose determinant is γ − β(γ + w_1²).
        """
        return safe_beta(self.net, self.potential.gamma)

    def is_stable(self, weight: float) -> bool:
        """Whether U + weight·ℓ has a minimum, and one that sweeps of eq. (17) reach."""
        return weight > -REACHABLE * self.stability_threshold

    def energy(self, weight: float) -> Energy:
        """E = U + weight·ℓ."""
        return self.potential + weight * Euclidean(self._tensor(self.y))

    def landscape(self, weight: float, z1: np.ndarray, z2: np.ndarray) -> np.ndarray:
        """E at arrays of activations that broadcast together; +∞ where z_1 < 0."""
        z1, z2 = np.broadcast_arrays(z1, z2)
        units = [torch.tensor(z, dtype=torch.float64).reshape(-1, 1) for z in (z1, z2)]
        z = [self._tensor(self.x).expand(z1.size, 1), *units]
        with torch.no_grad():
            return self.energy(weight)(self.net, z).numpy().reshape(z1.shape)

    def forward(self) -> Point:
        """z*, the forward pass: where U = 0."""
        return self.optimum(0.0)

    def optimum(self, weight: float) -> Point:
        """argmin_z U(z; x) + weight·ℓ(z_2), by ``lnn_core.infer`` run to the end."""
        self._check(weight)
        z, _ = infer(self.net, self._tensor(self.x), self.energy(weight), solver=TIGHT)
        return Point(z[1].item(), z[2].item())

    def loss(self) -> float:
        """ℓ(z*), what back-propagation minimises."""
        return self._value(BackPropagation())

    def rovr(self, beta: float) -> float:
        """min_z ℓ(z) + U(z; x)/β ≤ ℓ(z*)."""
        return self._value(ROVR(beta, potential=self.potential, solver=TIGHT))

    def arovr(self, beta: float) -> float:
        """max_z ℓ(z) − U(z; x)/β ≥ ℓ(z*)."""
        self._check(-positive("beta", beta))
        return self._value(AROVR(beta, potential=self.potential, solver=TIGHT))

    def bounds(self, beta: float) -> tuple[float, float]:
        """ℓ(z*)/(1 + βκ) ≤ ROVR and AROVR ≤ ℓ(z*)/(1 − βκ), where κ = 1 + w_1²/γ.

        Equalities as long as the hidden unit is on both at z* and at the optimum.
        """
        lower, upper = two_sided(self.net, self._tensor(self.x), self._tensor(self.y), beta,
                                 self.potential.gamma)
        return lower.item(), upper.item()

    def path(self, weight: float, passes: int) -> np.ndarray:
        """The steps of ``passes`` sweeps of eq. (17), from z* on, shape (2·passes + 1, 2).

        A sweep moves z_2 first and z_1 second. This is the bare iteration: without the
        safeguards of ``lnn_core.Shooting`` it may overshoot, oscillate or run away.
        """
        with torch.no_grad():
            z = self.net.activations(self._tensor(self.x))
            steps = [(z[1].item(), z[2].item())]
            for _ in range(passes):
                before = z[1].item()
                sweep(self.net, self.energy(weight), z)
                steps += [(before, z[2].item()), (z[1].item(), z[2].item())]
        return np.array(steps)

    def _check(self, weight: float) -> None:
        if not self.is_stable(weight):
            kappa = "(1 + w1^2)" if self.gamma == 1 else "(1 + w1^2/gamma)"
            raise ValueError(f"beta={-weight:g} must be below {REACHABLE:g}/{kappa}="
                             f"{REACHABLE * self.stability_threshold:g}: at 1/{kappa}="
                             f"{self.stability_threshold:g} "
                             "U - beta*loss loses its minimum")

    def _value(self, objective: Objective) -> float:
        with torch.no_grad():
            return objective(self.net, self._tensor(self.x), self._tensor(self.y)).item()

    @staticmethod
    def _tensor(value: float) -> Tensor:
        return torch.full((1, 1), float(value), dtype=torch.float64)


def draw_landscape(beta: float = 0.25, x: float = 1.0, y: float = 2.0, w1: float = 1.0,
                   passes: int = 3) -> Figure:
    """Contours of U + βℓ and U − βℓ over (z_1, z_2), with z*, the optimum, and the sweeps.

    From the border of stability on, the panel of U − βℓ says so in place of an optimum.
    The window depends on x, y and w_1 only, so that what moves with β is the landscape.
    """
    unit = TwoUnit(x=x, y=y, w1=w1)
    positive("beta", beta)
    fig, axes = _figure(ncols=2, figsize=(7.6, 5.0), sharey=True)
    panels = [(beta, r"nudged: $U + \beta\ell$", "rovr", unit.rovr),
              (-beta, r"attacked: $U - \beta\ell$", "arovr", unit.arovr)]
    for ax, (weight, title, method, value) in zip(axes, panels):
        colour = style.METHODS[method].colour
        _draw_contours(ax, unit, weight, colour)
        if passes:
            ax.plot(*unit.path(weight, passes).T, color=colour, lw=1.2, label="sweeps of (17)")
        if unit.is_stable(weight):
            optimum = unit.optimum(weight)
            seen = "" if ax.viewLim.contains(*optimum) else " (outside the window)"
            ax.plot(*optimum, "o", color=colour, ms=9, mec="white",
                    label=f"{style.METHODS[method].label} = {value(beta):.3f}{seen}")
        else:
            _announce(ax, f"β = {beta:.2f}: no minimum to draw.\nPast the border of stability,\n"
                          f"1/(1 + w₁²) = {unit.stability_threshold:.2f}, AROVR = ∞", colour)
        ax.plot(*unit.forward(), "s", color=style.METHODS["backprop"].colour, ms=7,
                mec="white", label=rf"$\ell(z^*)$ = {unit.loss():.3f}")
        ax.set(title=title, xlabel="$z_1$ (hidden)")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=10)
    axes[0].set_ylabel("$z_2$ (output)")
    return fig


def draw_sandwich(x: float = 1.0, y: float = 2.0, w1: float = 1.0) -> Figure:
    """ROVR_β ≤ ℓ(z*) ≤ AROVR_β against β, up to the border, with the two-sided bounds."""
    unit = TwoUnit(x=x, y=y, w1=w1)
    betas = np.linspace(0.01, REACHABLE, 50)[:-1] * unit.stability_threshold
    fig, ax = _figure()
    lower, upper = np.transpose([unit.bounds(beta) for beta in betas])
    bound = style.METHODS["bound"].plot | {"zorder": 3}  # on top: it may coincide
    ax.plot(betas, upper, **bound)
    ax.plot(betas, lower, **bound | {"label": None})
    ax.plot(betas, [unit.arovr(beta) for beta in betas], **style.METHODS["arovr"].plot)
    ax.axhline(unit.loss(), **style.METHODS["backprop"].plot | {"label": r"$\ell(z^*)$"})
    ax.plot(betas, [unit.rovr(beta) for beta in betas], **style.METHODS["rovr"].plot)
    ax.axvline(unit.stability_threshold, color="0.6", lw=1)
    top = max(7 * unit.loss(), 1e-3)
    ax.annotate("border of stability", (unit.stability_threshold, 1.3 * unit.loss()), (-4, 0), rotation=90,
                textcoords="offset points", ha="right", va="bottom", color="0.35", fontsize=9)
    ax.set(xlabel=r"$\beta$", xlim=(0, 1.02 * unit.stability_threshold), ylim=(0, top))
    ax.legend(loc="upper left")
    return fig


def _figure(**options) -> tuple[Figure, Axes | np.ndarray]:
    """``plt.subplots``, forgotten by pyplot: who asked for the figure decides to show it."""
    fig, axes = plt.subplots(**options)
    plt.close(fig)
    return fig, axes


def _draw_contours(ax: Axes, unit: TwoUnit, weight: float, colour: str) -> None:
    """Levels at E_0 ± 0.05·k², which gives a parabola evenly spaced lines; dark is low.

    E_0 is the minimum, or where there is none the energy of the forward pass.
    """
    forward = unit.forward()
    z1 = np.linspace(0, max(2.5, forward.z1 + 1.5), 121)
    z2 = np.linspace(min(forward.z2, unit.y) - 2.2, max(forward.z2, unit.y) + 2.2, 121)
    stable = unit.is_stable(weight)
    origin = unit.landscape(weight, *np.array(unit.optimum(weight) if stable else forward))
    k = np.arange(0 if stable else -12, 17)
    levels = origin + 0.05 * k * abs(k)
    energy = unit.landscape(weight, z1[None, :], z2[:, None])
    shades = LinearSegmentedColormap.from_list("energy", [colour, "white"])
    ax.contourf(z1, z2, energy, levels=levels, cmap=shades, alpha=0.4, extend="both",
                norm=BoundaryNorm(levels, shades.N, extend="both"))
    ax.contour(z1, z2, energy, levels=levels, colors="0.5", linewidths=0.5, linestyles="solid")
    ax.axhline(unit.y, color="0.35", lw=1, ls="--")
    ax.annotate("target $y$", (z1[-1], unit.y), (-3, 3), textcoords="offset points",
                ha="right", color="0.35", fontsize=9)
    ax.axvspan(-0.3, 0, color="0.85", lw=0)
    ax.set(xlim=(-0.3, z1[-1]), ylim=(z2[0], z2[-1]))
    ax.grid(False)


def _announce(ax: Axes, text: str, colour: str) -> None:
    ax.text(0.96, 0.04, text, transform=ax.transAxes, ha="right", va="bottom", fontsize=9,
            bbox={"boxstyle": "round", "fc": "white", "ec": colour})


def main(arguments: Sequence[str]) -> None:
    """Write the front page's picture to the file named in ``arguments``."""
    if len(arguments) != 1:
        raise SystemExit("usage: python -m lnn_core.widgets.two_unit FILE.webp")
    style.use()
    draw_landscape().savefig(arguments[0], dpi=150, pil_kwargs={"quality": 80})


if __name__ == "__main__":
    main(sys.argv[1:])
