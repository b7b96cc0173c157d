"""How figures look: one colour and line style per method, everywhere in the book."""

from __future__ import annotations

from dataclasses import dataclass

from .extras import extra

with extra("book"):
    import matplotlib.pyplot as plt


@dataclass(frozen=True)
class MethodStyle:
    """A method's name in figures and tables, and its (Okabe–Ito, colour-blind safe) colour."""

    label: str
    colour: str
    line: str = "-"

    @property
    def plot(self) -> dict:
        """Keyword arguments for ``Axes.plot``."""
        return {"label": self.label, "color": self.colour, "linestyle": self.line}


METHODS = {
    "backprop": MethodStyle("back-propagation", "#000000", "--"),
    "rovr": MethodStyle(r"ROVR$_\beta$", "#0072B2"),
    "arovr": MethodStyle(r"AROVR$_\beta$", "#D55E00"),
    "arovr_ab": MethodStyle(r"AROVR$_{\alpha,\beta}$", "#009E73"),
    "arovr_abg": MethodStyle(r"AROVR$^g_{\alpha,\beta}$", "#CC79A7"),
    "rovr_ab": MethodStyle(r"ROVR$_{\alpha,\beta}$", "#56B4E9"),
    "bound": MethodStyle("bound", "#E69F00", ":"),
}


def use() -> None:
    """Set matplotlib's defaults for the book: legible at the width of a phone."""
    plt.rcParams.update({
        "figure.figsize": (6.4, 3.8), "figure.dpi": 110, "figure.constrained_layout.use": True,
        "font.size": 11, "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": True, "grid.alpha": 0.25, "legend.frameon": False, "lines.linewidth": 1.8,
        "image.cmap": "cividis",
    })
