"""The energy landscape of the network of two units: all of inference in one picture."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from .. import style
from .base import INK, Choice, Explorable, Slider
from .two_unit import TwoUnit


class Landscape(Explorable):
    """Contours of U ± βℓ over (z_1, z_2), the three objectives, and the sweeps of eq. (17).

    The network is x → z_1 = max(x, 0) → z_2 = z_1, the loss ½(z_2 − y)², and the potential
    U = γ D_1 + D_2 with γ = γ_1/γ_2. ``shown`` is the method whose energy is drawn and
    swept: "arovr" (U − βℓ) or "rovr" (U + βℓ).
    """

    script = "landscape.js"

    beta = Slider(0.25, 0.01, 0.95, 0.01, "β, strength of the loss")
    gamma = Slider(1.0, 0.25, 4.0, 2**0.125, "γ₁/γ₂, weight of the hidden layer", log=True)
    x = Slider(1.0, -1.0, 2.5, 0.05, "x, input")
    y = Slider(2.0, -1.0, 3.0, 0.05, "y, target")
    passes = Slider(0, 0, 20, 1, "n, sweeps of inference", integer=True)
    shown = Choice("arovr", {"arovr": "U − βℓ, attacked", "rovr": "U + βℓ, nudged"}, "Landscape")

    @property
    def unit(self) -> TwoUnit:
        """The network, its target and its γ, to compute with."""
        return TwoUnit(x=self.x, y=self.y, gamma=self.gamma)

    @property
    def weight(self) -> float:
        """The number before ℓ in the energy shown."""
        return self.beta if self.shown == "rovr" else -self.beta

    def still(self) -> Figure:
        unit, weight = self.unit, self.weight
        colour, stable = style.METHODS[self.shown].colour, unit.is_stable(weight)
        z1, z2 = np.linspace(0, 2.75, 34), np.linspace(-2.25, 3.25, 34)
        lowest = unit.optimum(weight) if stable else unit.forward()
        origin = unit.landscape(weight, *np.array(lowest))
        k = np.arange(1 if stable else -8, 10)
        fig, ax = plt.subplots(figsize=(6.4, 3.8))
        ax.contour(z1, z2, unit.landscape(weight, z1[None, :], z2[:, None]),
                   levels=origin + 0.15 * k * abs(k), colors=colour, linewidths=0.8,
                   linestyles="solid")
        ax.axhline(self.y, color=INK, lw=1, ls="--", label="target y")
        ax.plot(*unit.forward(), "s", color=INK, label="forward pass z*")
        for method, marker, sign in (("rovr", "^", 1), ("arovr", "o", -1)):
            if unit.is_stable(sign * self.beta):
                ax.plot(*unit.optimum(sign * self.beta), marker, color=style.METHODS[method].colour,
                        ms=8, label=method.upper())
        ax.set(xlabel="z₁, hidden unit", ylabel="z₂, output", xlim=(0, 2.75), ylim=(-2.25, 3.25))
        ax.grid(False)
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        return fig

    def describe(self) -> str:
        unit, energy = self.unit, "U − βℓ" if self.shown == "arovr" else "U + βℓ"
        arovr = ("infinite" if self.beta > unit.stability_threshold
                 else "not computed, this close to the border")
        if unit.is_stable(-self.beta):
            arovr = f"{unit.arovr(self.beta):.3f}"
        return (f"Contours of {energy} over the hidden activation z₁ and the output z₂, for "
                f"β = {self.beta:.2f}, x = {self.x:.2f}, y = {self.y:.2f}. ROVR, "
                f"{unit.rovr(self.beta):.3f}, is at most the loss of the forward pass, "
                f"{unit.loss():.3f}; AROVR, whose optimum lies on the side away from the target, "
                f"is {arovr}.")
