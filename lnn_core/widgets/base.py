"""What all explorables have in common: parameters, a Jupyter widget, and a page without a kernel.

An explorable is a small Python class (its parameters, its still picture) and a small JavaScript
module of the same name (its mathematics, its drawing). Both are shown by the same renderer:
in Jupyter as an ``anywidget.AnyWidget``, whose parameters are traits that the kernel can read,
set and observe; in a static page as plain HTML that carries the script and needs nothing else.
Where scripts are switched off, a still picture stands in its place.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import warnings
from collections.abc import Callable
from html import escape
from importlib.resources import files
from numbers import Integral, Real
from typing import Any

import anywidget
import matplotlib.pyplot as plt
import traitlets
from matplotlib.figure import Figure

from .. import style

_FOLDER = files(__package__)
_SHARED = ("plot.js", "runtime.js")
#: The colour of text and lines in still pictures: replaced by that of the page.
INK = "#010203"


class Slider(traitlets.TraitType):
    """A number in [low, high], moved by a slider.

    A value outside is set to the nearest end, with a warning; one that is not a finite
    number is refused. The slider's places are ``low + i·step``; with ``log=True`` they are
    ``low·step^i``, and ``step`` is a factor. An ``integer`` slider holds integers.

    Raises:
        ValueError: start outside [low, high], or a range that the steps do not fill.
    """

    def __init__(self, start: float, low: float, high: float, step: float, label: str, *,
                 log: bool = False, digits: int = 2, integer: bool = False):
        steps = math.log(high / low) / math.log(step) if log else (high - low) / step
        if not low <= start <= high:
            raise ValueError(f"start={start} must lie in [{low}, {high}]")
        if abs(steps - round(steps)) > 1e-6:
            raise ValueError(f"from {low} to {high} there are {steps:g} steps of {step}")
        self.low, self.high, self.integer = low, high, integer
        self.control = {"label": label, "min": low, "max": high, "step": step, "log": log,
                        "digits": 0 if integer else digits}
        super().__init__(start)
        self.tag(sync=True)

    def validate(self, obj: traitlets.HasTraits, value: Any) -> float | int:
        """The admitted value; TraitError where it is not a finite real number."""
        kind = "an integer" if self.integer else "a finite number"
        known = Integral if self.integer else Real
        if isinstance(value, bool) or not isinstance(value, known) or not math.isfinite(value):
            raise traitlets.TraitError(f"{self.name}={value!r} must be {kind}")
        admitted = min(max(value, self.low), self.high)
        if admitted != value:
            warnings.warn(f"{self.name}={value:g} is outside [{self.low:g}, {self.high:g}]: "
                          f"set to {admitted:g}", stacklevel=2)
        return int(admitted) if self.integer else float(admitted)


class Choice(traitlets.Enum):
    """One of a few names, each with the words that the reader sees."""

    def __init__(self, start: str, options: dict[str, str], label: str):
        super().__init__(list(options), default_value=start)
        self.control = {"label": label, "options": list(options), "labels": list(options.values())}
        self.tag(sync=True)


class Explorable(anywidget.AnyWidget):
    """A picture to be dragged, in Jupyter and in a page without a kernel.

    A subclass names its ``script``, declares ``Slider`` and ``Choice`` traits in the order in
    which they shall appear, and says how to draw the still picture and what it shows.
    Other traits tagged ``sync=True`` reach the script, too: they must be fit for JSON.
    """

    script: str
    _css = _FOLDER.joinpath("runtime.css").read_text(encoding="utf-8")

    def __init_subclass__(cls, **options: Any) -> None:
        if "script" in vars(cls):  # not so in the class that anywidget derives for an instance
            render = "export default { render: view => mount(view, explorable) };\n"
            cls._esm = cls.source() + render
        super().__init_subclass__(**options)

    @classmethod
    def controls(cls) -> list[dict]:
        """What the script is told about each slider and choice, in the order of declaration."""
        traits = [(name, trait) for base in reversed(cls.__mro__)
                  for name, trait in vars(base).items() if isinstance(trait, (Slider, Choice))]
        return [{"name": name, "start": trait.default_value, **trait.control,
                 "symbol": trait.control["label"].partition(",")[0]} for name, trait in traits]

    @classmethod
    def source(cls) -> str:
        """The whole script without its last line, which differs between Jupyter and a page."""
        colours = {name: None if method.colour == "#000000" else method.colour
                   for name, method in style.METHODS.items()}
        texts = [_FOLDER.joinpath(name).read_text(encoding="utf-8")
                 for name in (*_SHARED, cls.script)]
        return "\n".join([f"const COLOURS = {_json(colours)};",
                          f"const CONTROLS = {_json(cls.controls())};", *texts])

    def still(self) -> Figure:
        """The picture for readers without scripts, at the present parameters."""
        raise NotImplementedError

    def describe(self) -> str:
        """What the still picture shows: its alternative text."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """The values of the traits that the explorable declares and the script can read."""
        inherited = Explorable.class_traits()
        return {name: getattr(self, name) for name in sorted(self.class_trait_names(sync=True))
                if name not in inherited and not name.startswith("_")}

    def html(self) -> str:
        """The explorable as it stands in a page: no kernel, no request, the same text each time."""
        still, state = _svg(self.still, self.describe()), _json(self.state())
        name = hashlib.sha256(f"{self.script} {state}".encode()).hexdigest()[:12]
        return (f"<style>{self._css}</style>\n"
                f'<div data-explorable="{name}">'
                f'<div class="lnn-explorable"><div class="still">\n{still}</div>\n'
                "<p>With scripts switched off, this picture cannot be dragged.</p></div></div>\n"
                f'<script>\n(() => {{\n"use strict";\n{self.source()}\n'
                f'showInPage("{name}", {state}, explorable);\n'
                "})();\n</script>")

    def __repr__(self) -> str:
        values = ", ".join(f"{control['name']}={getattr(self, control['name'])!r}"
                           for control in self.controls())
        return f"{type(self).__name__}({values})"

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**options)
        return data | {"text/plain": repr(self), "text/html": self.html()}, metadata


def _json(value: Any) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("</", "<\\/")


def _svg(draw: Callable[[], Figure], description: str) -> str:
    """A figure as SVG to be put into HTML: the same bytes each time, in the page's colours."""
    buffer = io.StringIO()
    with plt.rc_context():
        plt.rcdefaults()
        style.use()
        plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "lnn_core",
                             "font.sans-serif": ["DejaVu Sans"]} | dict.fromkeys(
            ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK))
        figure = draw()
        plt.close(figure)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg"):]
    for part in ("metadata", "style"):  # the style would hold for the whole page
        text = re.sub(f"<{part}.*?</{part}>", "", text, flags=re.DOTALL)
    text = re.sub(r"<[^>]*>", lambda tag: re.sub(r"-?\d+\.\d+", _one_decimal, tag[0]), text)
    unused = set(re.findall(r' id="([^"]+)"', text)) - set(re.findall(r'#([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda name: "" if name[1] in unused else name[0], text)
    text = re.sub(r"\s+", " ", text).replace(INK, "currentColor")
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" ', 1)


def _one_decimal(number: re.Match) -> str:
    return f"{round(float(number[0]), 1) + 0.0:.1f}"  # never -0.0
