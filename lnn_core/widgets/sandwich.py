"""ROVR ≤ ℓ ≤ AROVR against β, between two bounds, and where bound and objective end."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from .. import bounds, oracle, style
from ..convex import ConvexFunction, Identity, ReLU
from ..network import LiftedNetwork
from ..objectives import AROVR, ROVR, LiftedObjective
from ..potentials import Reweighted
from .base import INK, Choice, Explorable, Slider

#: The convex function behind each choice of ``Sandwich.activation``.
FUNCTIONS: dict[str, ConvexFunction] = {"relu": ReLU(), "identity": Identity()}
ONE = torch.ones(1, 1, dtype=torch.float64)


class Sandwich(Explorable):
    """The two-sided bounds ℓ/(1 ± βκ) around ROVR and AROVR, Zach (2025), eqs. (6), (8), (19).

    The network has two hidden units, a_1 = 1 and a_2 = ``a``, and the output z_1 + ``w``·z_2.
    The target is the forward pass less one, so that ℓ(z*) = ½. The hidden layer has the
    weight γ_1 = ``gamma``, and γ_2 = 1. The right picture has the reason for the left one:
    ROVR and AROVR are the lowest and the highest point of ℓ ± U/β.
    """

    script = "sandwich.js"

    beta = Slider(0.25, 0.01, 0.95, 0.01, "β, strength of the loss")
    w = Slider(-1.0, -2.0, 2.0, 0.05, "w, output weight of unit 2")
    gamma = Slider(1.0, 0.25, 4.0, 2**0.125, "γ₁/γ₂, weight of the hidden layer", log=True)
    a = Slider(-0.5, -1.5, 1.5, 0.05, "a, pre-activation of unit 2")
    activation = Choice("relu", {"relu": "ReLU", "identity": "identity"}, "Hidden units")

    @property
    def net(self) -> LiftedNetwork:
        """The network, in double precision; its input is 1."""
        net = LiftedNetwork([1, 2, 1], FUNCTIONS[self.activation], dtype=torch.float64,
                            generator=torch.Generator())
        with torch.no_grad():
            net.weight(1).copy_(torch.tensor([[1.0], [self.a]], dtype=torch.float64))
            net.weight(2).copy_(torch.tensor([[1.0, self.w]], dtype=torch.float64))
            for bias in net.biases:
                bias.zero_()
        return net

    @property
    def potential(self) -> Reweighted:
        """U = γ D_1 + D_2 with the Fenchel–Young divergence."""
        return Reweighted((self.gamma, 1.0))

    @property
    def target(self) -> Tensor:
        """y = z_L* − 1, shape (1, 1)."""
        return self.net(ONE).detach() - 1

    def objectives(self, beta: float) -> tuple[float, float]:
        """ROVR and AROVR at this β, by exhaustive search; +∞ where AROVR has no maximum."""
        def exact(kind: type[LiftedObjective]) -> float:
            objective = kind(beta, potential=self.potential)
            return oracle.objective(objective, self.net, ONE, self.target).item()

        try:
            return exact(ROVR), exact(AROVR)
        except oracle.Unbounded:
            return exact(ROVR), np.inf

    def bounds(self, beta: float) -> tuple[float, float]:
        """ℓ/(1 + βκ) and ℓ/(1 − βκ); the second is +∞ where there is no bound."""
        kappa = bounds.kappa(self.net, self.potential.gamma)
        return 0.5 / (1 + beta * kappa), 0.5 / (1 - beta * kappa) if beta * kappa < 1 else np.inf

    def still(self) -> Figure:
        betas = np.linspace(0.01, 0.95, 25)
        rovr, arovr = np.transpose([self.objectives(beta) for beta in betas])
        lower, upper = np.transpose([self.bounds(beta) for beta in betas])
        fig, ax = plt.subplots(figsize=(6.4, 3.6))
        ax.plot(betas, arovr, color=style.METHODS["arovr"].colour, label="AROVR")
        ax.plot(betas, rovr, color=style.METHODS["rovr"].colour, label="ROVR")
        for values, label in ((upper, "ℓ/(1 ± βκ)"), (lower, None)):
            ax.plot(betas, values, ":", color=style.METHODS["bound"].colour, lw=2.2, label=label)
        ax.axhline(0.5, color=INK, ls="--", label="ℓ(z*)")
        ax.axvline(bounds.safe_beta(self.net, self.potential.gamma), color=INK, lw=1, ls=":",
                   label="1/κ")
        ax.set(xlabel="β", ylabel="objective", xlim=(0, 1), ylim=(0, 2.25))
        ax.grid(False)
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        return fig

    def describe(self) -> str:
        rovr, arovr = self.objectives(self.beta)
        lower, upper = self.bounds(self.beta)
        return (f"ROVR, the loss ½ and AROVR against β for a network of two hidden units. At "
                f"β = {self.beta:.2f}: lower bound {lower:.3f}, ROVR {rovr:.3f}, AROVR "
                f"{_words(arovr)}, upper bound {_words(upper)}. The upper bound ends at "
                f"1/κ = {bounds.safe_beta(self.net, self.potential.gamma):.3f}.")


def _words(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "infinite"
