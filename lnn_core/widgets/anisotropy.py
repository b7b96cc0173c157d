"""What γ does to the region of cheap activations and to the signals that reach each layer."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from .. import style
from ..constrained import ConstrainedAROVR
from .base import INK, Choice, Explorable, Slider
from .two_unit import Point, TwoUnit


class Anisotropy(Explorable):
    """The set {U^⊙γ ≤ δ}, its worst point, and what reaches each unit: Zach (2025), (14)–(17).

    The network is x → z_1 = max(x, 0) → z_2 = ``w``·z_1, the loss ½(z_2 − y)², the potential
    γ D_1 + D_2 with γ = γ_1/γ_2. The second picture has, against γ, the deviation
    z_k − f_k(a_k) of either unit, its error signal γ_k(z_k − f_k(a_k))/β, or its share of δ.
    """

    script = "anisotropy.js"

    gamma = Slider(0.25, 0.0625, 16.0, 2**0.25, "γ₁/γ₂, weight of the hidden unit", log=True)
    delta = Slider(0.1, 0.0125, 0.4, 2**0.25, "δ, energy allowed", log=True, digits=3)
    x = Slider(1.0, -1.0, 2.0, 0.05, "x, input")
    w = Slider(1.0, 0.25, 1.5, 0.05, "w, weight of the output")
    y = Slider(2.0, -1.0, 3.0, 0.05, "y, target")
    shown = Choice("deviation", {"deviation": "deviation |z − f(a)|",
                                 "signal": "error signal γ|z − f(a)|/β",
                                 "energy": "share of the energy"}, "Of either unit")

    @property
    def unit(self) -> TwoUnit:
        """The network, its target and its γ, to compute with."""
        return TwoUnit(x=self.x, y=self.y, w1=self.w, gamma=self.gamma)

    def worst(self) -> tuple[Point, float]:
        """The activations of the greatest loss within the energy δ, and that loss."""
        unit, attack = self.unit, ConstrainedAROVR(self.delta, potential=self.unit.potential)
        x, y = (torch.full((1, 1), value, dtype=torch.float64) for value in (self.x, self.y))
        loss = attack(unit.net, x, y).item()
        return Point(*(z.item() for z in attack.activations[1:])), loss

    def still(self) -> Figure:
        z1, z2 = np.linspace(0, 2.75, 45), np.linspace(-1.25, 3.25, 60)
        (worst, _), unit = self.worst(), self.unit
        colour = style.METHODS["arovr"].colour
        fig, ax = plt.subplots(figsize=(6.4, 3.8))
        for gamma, line in ((self.gamma, "-"), (1.0, ":")):
            even = TwoUnit(x=self.x, y=self.y, w1=self.w, gamma=gamma)
            ax.contour(z1, z2, even.landscape(0.0, z1[None, :], z2[:, None]), levels=[self.delta],
                       colors=colour if line == "-" else INK, linestyles=line)
            ax.plot([], [], line, color=colour if line == "-" else INK,
                    label=f"U = δ, γ₁/γ₂ = {gamma:.2f}")
        ax.axhline(self.y, color=INK, lw=1, ls="--", label="target y")
        ax.plot(*unit.forward(), "s", color=INK, label="forward pass")
        ax.plot(*worst, "o", color=colour, label="worst point")
        ax.set(xlabel="z₁, hidden unit", ylabel="z₂, output", xlim=(-0.25, 2.75),
               ylim=(-1.25, 3.25))
        ax.grid(False)
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        return fig

    def describe(self) -> str:
        (worst, loss), unit = self.worst(), self.unit
        return (f"The region of hidden activations z₁ and outputs z₂ with energy at most "
                f"{self.delta:.3f}, for γ₁/γ₂ = {self.gamma:.2f}, and the same for equal weights. "
                f"The forward pass has the loss {unit.loss():.3f}; the worst point of the region, "
                f"z₁ = {worst.z1:.2f}, z₂ = {worst.z2:.2f}, has {loss:.3f}.")
