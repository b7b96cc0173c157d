"""One unit: the least-squares price and the Fenchel–Young divergence of an activation."""

from __future__ import annotations

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from .. import style
from ..convex import Box, ConvexFunction, Identity, ReLU
from ..smooth import Tanh
from .base import INK, Choice, Explorable, Slider

#: The convex function behind each choice of ``OneUnit.activation``.
FUNCTIONS: dict[str, ConvexFunction] = {
    "identity": Identity(), "relu": ReLU(), "box": Box(0, 1), "tanh": Tanh()}


class OneUnit(Explorable):
    """½(z − f(a))² and D(z‖a), Zach (2025), eqs. (1) and (2), against z; D as an area.

    The left picture has both prices of an activation z, given the pre-activation a. In the
    right one D(z‖a) is the area between the point (a, z) and the graph of f.
    """

    script = "one_unit.js"

    a = Slider(-1.0, -3.0, 3.0, 0.05, "a, pre-activation")
    z = Slider(0.8, -2.0, 3.0, 0.05, "z, activation")
    activation = Choice("relu", {"identity": "identity", "relu": "ReLU", "box": "box [0, 1]",
                                 "tanh": "tanh"}, "Activation function f")

    @property
    def function(self) -> ConvexFunction:
        """The convex function G whose activation is chosen."""
        return FUNCTIONS[self.activation]

    def prices(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """D(z‖a) and ½(z − f(a))² at this a, element by element."""
        a = torch.full_like(z, self.a)
        return (self.function.divergence(z, a),
                0.5 * (z - self.function.activation(a)).square())

    def still(self) -> Figure:
        z = torch.arange(-44, 65, dtype=torch.float64) / 20  # 0, where the domain may end, exactly
        divergence, squares = self.prices(z)
        fig, ax = plt.subplots(figsize=(6.4, 3.6))
        blue, red = (style.METHODS[method].colour for method in ("rovr", "arovr"))
        ax.plot(z, divergence.where(divergence.isfinite(), torch.nan), color=blue,
                label="Fenchel–Young D(z‖a)")
        ax.plot(z, squares, "--", color=red, label="least squares ½(z − f(a))²")
        fa = self.function.activation(torch.tensor(self.a, dtype=torch.float64))
        ax.plot(fa, 0, "s", color=INK, label="z = f(a)")
        ax.set(xlabel="activation z", ylabel="price", ylim=(-0.3, 4.2),
               title=f"a = {self.a:.2f}, {self.activation}")
        ax.grid(False)
        ax.legend()
        return fig

    def describe(self) -> str:
        divergence, squares = (price.item() for price in
                               self.prices(torch.tensor(self.z, dtype=torch.float64)))
        return ("The Fenchel–Young divergence and the least-squares price against the activation "
                f"z, for a = {self.a:.2f} and the activation function {self.activation}. Both are "
                f"zero at z = f(a). At z = {self.z:.2f} they are {divergence:.3f} and "
                f"{squares:.3f}.")
