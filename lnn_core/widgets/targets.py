"""What a targeted perturbation pulls the output towards, and what happens at α = ½."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .. import oracle, style
from ..losses import Euclidean, Loss
from ..network import LiftedNetwork
from ..potentials import FenchelYoung
from ..targeted import TargetedAROVR, TargetedROVR
from .base import INK, Choice, Explorable, Slider

#: The network's input, and its forward pass.
ORIGIN = torch.zeros(1, 2, dtype=torch.float64)


class Targets(Explorable):
    """The effective targets of ROVR_{α,β} and AROVR_{α,β}, Zach (2025), eqs. (25)–(27), (32).

    The plane has the targets y and y⁻, the output term of one subproblem as a landscape, and
    the outputs that a network of one linear layer infers; its forward pass is the origin.
    The second picture is completing the square, along the line through y and y⁻.
    """

    script = "targets.js"

    alpha = Slider(0.25, 0.01, 1.0, 0.01, "α, weight of the loss")
    beta = Slider(2.0, 0.0625, 16.0, 2**0.25, "β, strength of both", log=True)
    y1 = Slider(-1.0, -2.0, 2.0, 0.05, "y₁, target, first output")
    y2 = Slider(1.5, -2.0, 2.0, 0.05, "y₂, target, second output")
    wrong1 = Slider(1.2, -2.0, 2.0, 0.05, "y⁻₁, wrong target, first output")
    wrong2 = Slider(0.6, -2.0, 2.0, 0.05, "y⁻₂, wrong target, second output")
    shown = Choice("against", {"against": "against the loss, ᾱℓ⁻ − αℓ",
                               "along": "along with the loss, ᾱℓ⁻ + αℓ",
                               "alone": "attack alone, ᾱℓ⁻"}, "Landscape")

    @property
    def net(self) -> LiftedNetwork:
        """One linear layer that passes its two inputs on."""
        net = LiftedNetwork([2, 2], bias=False, dtype=torch.float64, generator=torch.Generator())
        with torch.no_grad():
            net.weight(1).copy_(torch.eye(2))
        return net

    @property
    def targets(self) -> tuple[Tensor, Tensor]:
        """y and y⁻, shape (1, 2) each."""
        pairs = (self.y1, self.y2), (self.wrong1, self.wrong2)
        return tuple(torch.tensor([pair], dtype=torch.float64) for pair in pairs)

    def term(self, name: str) -> Loss:
        """The output term h of the subproblem of that name (see ``shown``)."""
        right, wrong = (Euclidean(target) for target in self.targets)
        attack, loss = (1 - self.alpha) * wrong, self.alpha * right
        return {"alone": attack, "against": attack - loss, "along": attack + loss}[name]

    def output(self, name: str) -> np.ndarray | None:
        """argmin_z h + U/β for that subproblem, shape (2,); None where there is none."""
        try:
            energy = FenchelYoung() + self.beta * self.term(name)
            return oracle.minimum(self.net, ORIGIN, energy)[1][-1][0].detach().numpy()
        except oracle.Unbounded:
            return None

    def objectives(self) -> tuple[float, float]:
        """ROVR_{α,β}/α and AROVR_{α,β}/α; +∞ where the second has no optimum."""
        right, wrong = self.targets
        rovr, arovr = (kind(self.alpha, self.beta, lambda loss, y: loss(wrong))
                       for kind in (TargetedROVR, TargetedAROVR))
        low = oracle.objective(rovr, self.net, ORIGIN, right).item()
        if self.output("against") is None:
            return low, np.inf
        return low, oracle.objective(arovr, self.net, ORIGIN, right).item()

    def still(self) -> Figure:
        right, wrong = (target[0].numpy() for target in self.targets)
        x, y = np.linspace(-3, 3, 25), np.linspace(-2, 2, 25)
        plane = torch.as_tensor(np.stack(np.meshgrid(x, y), -1).reshape(-1, 2))
        fig, ax = plt.subplots(figsize=(6.4, 3.6))
        colours = {"alone": INK, "against": style.METHODS["arovr_ab"].colour,
                   "along": style.METHODS["rovr_ab"].colour}
        ax.contour(x, y, self.term(self.shown)(plane).reshape(25, 25).numpy(), levels=9,
                   colors=colours[self.shown], linewidths=0.7, linestyles="solid")
        if (right != wrong).any():
            ax.axline(right, wrong, color=INK, lw=0.8)
        for point, name in ((right, "y"), (wrong, "y⁻")):
            ax.plot(*point, "*", color=INK, ms=11)
            ax.annotate(name, point, (6, 5), textcoords="offset points")
        ax.plot(0, 0, "s", color=INK, label="forward pass")
        words = type(self).shown.control
        for name, marker in (("alone", "D"), ("against", "o"), ("along", "^")):
            found = self.output(name)
            if found is not None:
                label = words["labels"][words["options"].index(name)].partition(",")[0]
                ax.plot(*found, marker, color=colours[name], label=label)
        ax.set(xlabel="first output", ylabel="second output", xlim=(-3, 3), ylim=(-2, 2),
               aspect="equal")
        ax.grid(False)
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        return fig

    def describe(self) -> str:
        q, (rovr, arovr) = 1 - 2 * self.alpha, self.objectives()
        right, wrong = (target[0].numpy() for target in self.targets)
        place = "at infinity"
        if abs(q) > 1e-9:
            target = ((1 - self.alpha) * wrong - self.alpha * right) / q
            place = f"({target[0]:.2f}, {target[1]:.2f}) and {'attracts' if q > 0 else 'repels'}"
        return (f"The plane of outputs with the right target y, the wrong target y⁻ and the "
                f"forward pass at the origin, for α = {self.alpha:.2f} and β = {self.beta:.2f}. The "
                f"effective target of the attack against the loss is {place}. ROVR/α is "
                f"{rovr:.3f}, AROVR/α is {f'{arovr:.3f}' if np.isfinite(arovr) else 'infinite'}.")
