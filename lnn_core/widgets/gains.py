"""How far a lifted regression/reconstruction network stretches, whatever its weights."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .. import lrrn, style
from ..convex import Identity
from .base import INK, Explorable, Slider


class Gains(Explorable):
    """f_β(σ), the singular values of the layers and Theorem 1 of Høier and Zach (2020).

    A layer with the singular value sσ_i, s being ``scale``, stretches that direction by
    f_β(sσ_i) = (1 + β)sσ_i / (1 + βs²σ_i²), at most by (β^½ + β^−½)/2 (Lemma 1); a plain
    linear layer stretches it by sσ_i. The right picture has the same for ``depth`` layers with
    the same symmetric weight: singular directions line up, so that a plain network attains the
    product of its norms, and LRRN layers without feedback the product of their own.
    """

    script = "gains.js"

    beta = Slider(1.0, 0.0625, 16.0, 2**0.25, "β, strength of the reconstruction", log=True)
    scale = Slider(1.0, 0.125, 8.0, 2**0.25, "s, scale of all weights", log=True)
    sigma1 = Slider(2.0, 0.125, 8.0, 2**0.25, "σ₁, singular value", log=True)
    sigma2 = Slider(2**-0.5, 0.125, 8.0, 2**0.25, "σ₂, singular value", log=True)
    sigma3 = Slider(0.25, 0.125, 8.0, 2**0.25, "σ₃, singular value", log=True)
    depth = Slider(3, 1, 5, 1, "L, layers", integer=True)

    @property
    def singular_values(self) -> Tensor:
        """sσ_1, sσ_2, sσ_3, in the order of the sliders."""
        sigma = (self.sigma1, self.sigma2, self.sigma3)
        return self.scale * torch.tensor(sigma, dtype=torch.float64)

    @property
    def net(self) -> lrrn.LRRN:
        """The network of the right picture: linear, W = Q diag(sσ) Qᵀ with a random rotation Q."""
        draw = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        Q = torch.linalg.qr(draw)[0]
        net = lrrn.LRRN([3] * (self.depth + 1), Identity(), beta=self.beta, bias=False,
                        generator=torch.Generator(), dtype=torch.float64)
        with torch.no_grad():
            for W in net.weights:
                W.copy_(Q @ self.singular_values.diag() @ Q.T)
        return net

    @torch.no_grad()
    def stretch(self) -> tuple[float, float, float]:
        """The norms of x ↦ z_L* and of the plain network's map, and Theorem 1's bound between.

        Without constraints the minimiser solves a linear system, so that its map is a matrix.
        """
        net = self.net
        system = net.quadratic(torch.eye(3, dtype=torch.float64))
        z = torch.linalg.solve(system.H, system.g.T)
        plain = math.prod(float(torch.linalg.matrix_norm(W, 2)) for W in net.weights)
        return float(torch.linalg.matrix_norm(z[-3:], 2)), lrrn.lipschitz(net), plain

    def still(self) -> Figure:
        fig, (left, right) = plt.subplots(1, 2, figsize=(6.4, 3.4))
        self._draw_layer(left)
        self._draw_network(right)
        for ax in (left, right):
            ax.set(xscale="log", yscale="log")
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_major_formatter("{x:g}")
            ax.minorticks_off()
            ax.grid(False)
        fig.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        return fig

    def _draw_layer(self, ax: Axes) -> None:
        colour, values = style.METHODS["rovr"].colour, self.singular_values
        sigma = np.geomspace(1 / 64, 64, 61)
        ax.plot(sigma[[0, -1]], sigma[[0, -1]], "--", color=INK, label="plain")
        ax.plot(sigma, lrrn.gain(sigma, self.beta), color=colour, label="LRRN")
        ax.axhline(lrrn.bounds.largest_gain(self.beta), ls=":", lw=2.2,
                   color=style.METHODS["bound"].colour, label="bound")
        ax.plot(values, values, "s", color=INK, ms=4)
        ax.plot(values, lrrn.gain(values, self.beta), "o", color=colour)
        ax.set(xlabel="sσ, singular value", ylabel="stretch of a layer")

    def _draw_network(self, ax: Axes) -> None:
        scales = np.geomspace(1 / 8, 8, 25)
        rows = [Gains(**self.state() | {"scale": scale}).stretch() for scale in scales]
        slope, bound, plain = np.transpose(rows)
        ax.plot(scales, plain, "--", color=INK)
        ax.plot(scales, slope, color=style.METHODS["rovr"].colour)
        ax.plot(scales, bound, ":", lw=2.2, color=style.METHODS["bound"].colour)
        ax.axvline(self.scale, color=INK, lw=1, ls=":")
        ax.set(xlabel="s, scale of all weights", ylabel=f"stretch of {self.depth} layers",
               ylim=(1e-2, 1e3))

    def describe(self) -> str:
        slope, bound, plain = self.stretch()
        values = ", ".join(f"{value:.2f}" for value in self.singular_values)
        return (f"Left: f against the singular values of a layer, for β = {self.beta:.2f}; it is "
                f"never above {lrrn.bounds.largest_gain(self.beta):.3f}. The layer has the "
                f"singular values {values}. Right: {self.depth} such layers against the scale s "
                f"of their weights. At s = {self.scale:.2f} they stretch by {slope:.3f}, at most "
                f"{bound:.3f}; plain layers by {plain:.3f}.")
