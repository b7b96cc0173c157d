"""A trained network 784-256-256-10 and an adversary who may change every activation in it."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from .. import style
from ..constrained import ConstrainedAROVR
from ..inference import Shooting, infer
from ..losses import Euclidean
from ..network import LiftedNetwork
from ..potentials import FenchelYoung
from .base import INK, Choice, Explorable, Slider
from .packed import Packed, from_script, unpack

_FOLDER = files(__package__)
_KINDS = [f"{digit} {kind}" for digit in range(10) for kind in ("clear", "doubtful")]
#: The images: of each digit one that is read with ease and one that is not, and two special ones.
IMAGES = {name: name.replace(" ", ", ") for name in [*_KINDS, "overconfident", "misread"]}
#: What ``draw_attack`` is called with by sliders in a notebook.
SLIDERS = {"image": list(IMAGES), "beta": (0.0, 0.6, 0.05)}
#: Inference is over when every gap is this small: the picture shows two digits.
SOLVER = Shooting(tolerance=1e-8, max_passes=200, every=True)


@cache
def _data() -> bytes:
    return from_script(_FOLDER.joinpath("real_network.data.js").read_text(encoding="ascii"))


@cache
def load() -> Packed:
    """The network, float64 and with frozen weights, and the images, as the page has them."""
    return unpack(_data())


class Attack(NamedTuple):
    """What the adversary does to one image.

    Attributes:
        before: activations [x, z_1, …, z_L] of the forward pass, each of shape (1, d_k).
        after: those of the adversary.
        beta: the weight of the loss in U − βℓ; with a budget, what ``ConstrainedAROVR`` found.
        settled: False where inference from the forward pass finds no minimum of U − βℓ; ``after``
            is ``before``. Neither tells whether AROVR is finite: with ReLUs that depends on the
            weights alone, and the minimum found is one near the forward pass.
    """

    before: list[Tensor]
    after: list[Tensor]
    beta: float
    settled: bool

    @property
    def signal(self) -> Tensor:
        """W_0ᵀe_1, shape (1, d_0): the change of the image that would help the adversary."""
        net = load().net
        error = self.after[1] - net.function(1).activation(net.preactivation(1, self.after))
        return error @ net.weight(1)


def attack(x: Tensor, label: int, beta: float) -> Attack:
    """argmin U − βℓ, AROVR's activations, for an image of shape (1, 784); β = 0: forward pass."""
    net = load().net
    before = net.activations(x)
    if beta == 0:
        return Attack(before, before, 0.0, True)
    z, report = infer(net, x, FenchelYoung() - beta * Euclidean(_target(label)), solver=SOLVER)
    settled = bool(report.gap < 1e-3)
    return Attack(before, z if settled else before, beta, settled)


def attack_within(x: Tensor, label: int, delta: float) -> Attack:
    """The same under the constraint U ≤ δ: eq. (7)."""
    objective = ConstrainedAROVR(delta, solver=SOLVER, steps=20)
    objective(load().net, x, _target(label))
    return Attack(load().net.activations(x), objective.activations,
                  objective.certificate.beta.item(), True)


def _target(label: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor([label]), 10).double()


def draw_attack(image: str = "4 doubtful", beta: float = 0.25) -> Figure:
    """The picture for one of ``IMAGES`` and one β: a plain function, for ``interact``.

    Raises:
        ValueError: an image that is not there, or a β outside [0, 1).
    """
    packed = load()
    if image not in packed.names:
        raise ValueError(f"image={image!r} must be one of {', '.join(packed.names)}")
    if not 0 <= beta < 1:
        raise ValueError(f"beta={beta} must be in [0, 1)")
    index = packed.names.index(image)
    label = packed.labels[index]
    return _draw(attack(packed.images[index:index + 1], label, beta), label)


class RealNetwork(Explorable):
    """AROVR, Zach (2025), eq. (8), or its constrained form (7), inferred in the page.

    ``image`` is one of ``IMAGES``, or "drawn", the reader's own digit, whose label is what the
    network reads. The adversary pays U/β for what it changes ("price"), or may spend U ≤ δ
    ("budget"). The network was trained by AROVR and rounded to bytes: ``book/assets``.
    """

    script = "real_network.js"

    image = Choice("4 doubtful", IMAGES | {"drawn": "your own drawing"}, "Image")
    adversary = Choice("price", {"price": "pays U/β: AROVR", "budget": "may spend U ≤ δ"},
                       "Adversary")
    beta = Slider(0.25, 0.0, 0.75, 0.005, "β, strength of the adversary", digits=3)
    delta = Slider(0.01, 1e-4, 1.0, 10**0.05, "δ, budget of the adversary", log=True, digits=4)
    drawing = traitlets.List(traitlets.Int(min=0, max=255)).tag(sync=True)
    _packed = traitlets.Bytes().tag(sync=True)  # to a kernel's page; others load the file

    @traitlets.default("_packed")
    def _read(self) -> bytes:
        return _data()

    @traitlets.validate("drawing")
    def _check_drawing(self, proposal: dict) -> list[int]:
        if len(proposal["value"]) not in (0, 784):
            raise traitlets.TraitError(f"drawing has {len(proposal['value'])} values: it must "
                                       "have 784, or none for a blank one")
        return proposal["value"]

    @classmethod
    def source(cls) -> str:
        maths = _FOLDER.joinpath("real_network.maths.js").read_text(encoding="utf-8")
        return maths + super().source()

    @property
    def net(self) -> LiftedNetwork:
        """The network that infers in the page."""
        return load().net

    @property
    def x(self) -> Tensor:
        """The image, shape (1, 784), in [0, 1]."""
        if self.image == "drawn":
            return torch.tensor([self.drawing or [0] * 784], dtype=torch.float64) / 255
        index = load().names.index(self.image)
        return load().images[index:index + 1]

    @property
    def label(self) -> int:
        """The image's digit; for a drawing, which has none, the one that the network reads."""
        if self.image == "drawn":
            return int(self.net(self.x).argmax())
        return load().labels[load().names.index(self.image)]

    def attack(self) -> Attack:
        """What the adversary does at the present parameters."""
        if self.adversary == "budget":
            return attack_within(self.x, self.label, self.delta)
        return attack(self.x, self.label, self.beta)

    def still(self) -> Figure:
        return _draw(self.attack(), self.label)

    def describe(self) -> str:
        found = self.attack()
        before, after = (int(z[-1].argmax()) for z in (found.before, found.after))
        force = f"β = {self.beta:.3f}" + ("" if found.settled else ", where it finds no optimum")
        if self.adversary == "budget":
            force = f"a budget of {self.delta:.4f}"
        return (f"The image of a {self.label}, the activations of two hidden layers of 256 units, "
                f"the ten outputs, and the signal at the image, in a trained network under an "
                f"adversary with {force}. The network reads {before}; under the adversary {after}.")


def _draw(found: Attack, label: int) -> Figure:
    """Image and signal, the hidden layers, the outputs, as in the page."""
    fig, axes = plt.subplot_mosaic([["x", "1", "out"], ["signal", "2", "out"]],
                                   figsize=(7.2, 4.2), width_ratios=[1, 1, 1.2])
    _grid(axes["x"], "x, image", found.before[0])
    _grid(axes["signal"], "W₀ᵀe₁, signal", 0.3 * found.before[0], found.signal, 0.04)
    for k in (1, 2):
        _grid(axes[str(k)], f"z{'₀₁₂'[k]}", 0.6 * found.before[k],
              found.after[k] - found.before[k], 0.12)
    _draw_outputs(axes["out"], found, label)
    if not found.settled:
        fig.suptitle(f"β = {found.beta:.2f}: inference does not settle", fontsize=11)
    return fig


def _draw_outputs(ax: Axes, found: Attack, label: int) -> None:
    digits = np.arange(10)
    ax.barh(digits - 0.18, found.before[-1][0].numpy(), 0.34, color=INK, label="z* forward")
    ax.barh(digits + 0.18, found.after[-1][0].numpy(), 0.34, color=style.METHODS["arovr"].colour,
            label="z attacked")
    ax.set(xlabel="outputs z₃", xlim=(-0.65, 1.65), ylim=(9.7, -0.7), yticks=digits)
    ax.get_yticklabels()[label].set_fontweight("bold")
    ax.grid(False)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, fontsize=9, columnspacing=1)


def _grid(ax: Axes, title: str, ink: Tensor, change: Tensor | None = None,
          half: float = 1.0) -> None:
    """Values (1, n²) as ink, and changes in colour on top: orange has risen, blue has fallen."""
    side = int(len(ink[0]) ** 0.5)
    _sheet(ax, side, "0.5", ink)
    if change is not None:
        for method, sign in (("arovr", 1), ("rovr", -1)):
            part = (sign * change).clamp_min(0)
            _sheet(ax, side, style.METHODS[method].colour, part**2 / (part**2 + half**2))
    ax.set(xticks=[], yticks=[], title=title)
    ax.title.set_fontsize(10)
    ax.spines[:].set_visible(True)
    ax.spines[:].set(alpha=0.4)
    ax.grid(False)


def _sheet(ax: Axes, side: int, colour: str, opacity: Tensor) -> None:
    """A picture in one colour, not resampled, so that it stays small."""
    pixels = np.empty((side, side, 4))
    pixels[..., :3] = to_rgb(colour)
    pixels[..., 3] = opacity.clamp(0, 1).reshape(side, side).numpy()
    ax.imshow(pixels, interpolation="none")
