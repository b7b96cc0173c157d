"""What a canvas shows, compared with what it should show, item by item and in the order of painting.

``check(page.painted(i), axes, [...])``: each item below says where something is in the coordinates
of the data, how it looks, and in ``find`` takes its notes (see page_stub.js) off the list.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from colours import LEGIBLE, channels, contrast
from numpy.testing import assert_allclose

from lnn_core import style

INK, PAPER = "rgb(34, 40, 50)", "rgb(255, 255, 255)"
COLOUR = {name: method.colour for name, method in style.METHODS.items()}
SIZE = (560, 350)
Points = Sequence[Sequence[float]]


@dataclass
class Axes:
    """The scale of a plot: a window of data, and the margins around it (top, right, …) in pixels."""

    x: tuple[float, float]
    y: tuple[float, float]
    margins: tuple[float, float, float, float] = (10, 12, 36, 44)
    size: tuple[float, float] = SIZE

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom, in pixels."""
        top, right, bottom, left = self.margins
        return left, top, self.size[0] - right, self.size[1] - bottom

    def pixels(self, points: Points) -> np.ndarray:
        left, top, right, bottom = self.box
        shares = (np.asarray(points, float) - [self.x[0], self.y[0]]) / [
            self.x[1] - self.x[0], self.y[1] - self.y[0]]
        return [left, bottom] + shares * [right - left, top - bottom]

    def data(self, pixels: Points) -> np.ndarray:
        left, top, right, bottom = self.box
        shares = (np.asarray(pixels, float) - [left, bottom]) / [right - left, top - bottom]
        return [self.x[0], self.y[0]] + shares * [self.x[1] - self.x[0], self.y[1] - self.y[0]]

    @property
    def clip(self) -> list[float]:
        left, top, right, bottom = self.box
        return [left, top, right - left, bottom - top]


def legible(colour: str) -> str:
    """A colour as words have it on white: with so many tenths of ink that its contrast is 4.5."""
    (front, _), (ink, _), (paper, _) = map(channels, (colour, INK, PAPER))
    for share in np.arange(11) / 10:
        rgb = np.round(255 * (np.array(front) + share * (np.array(ink) - front)))
        if contrast(rgb / 255, paper) >= LEGIBLE:
            return "rgb({:.0f}, {:.0f}, {:.0f})".format(*rgb)
    raise AssertionError("ink itself is not legible")


def near(found, expected, words="", **tolerance):
    assert_allclose(found, expected, **{"rtol": 0, "atol": 0.02} | tolerance, err_msg=str(words))


@dataclass(kw_only=True)
class Item:
    colour: str = INK
    alpha: float = 1.0

    def take(self, notes: list, what: str, **style) -> dict:
        """The next note, which must be of that kind and have this style."""
        assert notes, f"not painted: {self}"
        note = notes.pop(0)
        style = {"what": what, "colour": self.colour, "alpha": self.alpha} | style
        assert {name: note[name] for name in style} == style, self
        return note


@dataclass(kw_only=True)
class Stroked(Item):
    width: float = 1.5
    dash: tuple = ()

    def strokes(self, notes: list, axes: Axes) -> list[np.ndarray]:
        """Its lines, in pixels."""
        note = self.take(notes, "stroke", width=self.width, dash=list(self.dash), join="round",
                         clipped=axes.clip)
        return [np.array(part["points"]) for part in note["path"]]


@dataclass
class Line(Stroked):
    """Straight from point to point."""

    points: Points

    def find(self, notes, axes):
        line, = self.strokes(notes, axes)
        near(line, np.clip(axes.pixels(self.points), -1e4, 1e4), self)


@dataclass
class Curve(Stroked):
    """The graph of f, over the window or ``over``; looked at in every ``every``-th corner.

    Where f is not finite there is no line. Where it is ``free`` it may end anywhere.
    """

    f: Callable[[float], float]
    over: tuple[float, float] | None = None
    every: int = 1
    free: bool = False

    def find(self, notes, axes):
        lines = self.strokes(notes, axes)
        found = np.concatenate([axes.data(line) for line in lines])
        x = found[:: self.every, 0]
        if not self.free:
            x = np.clip(x, *(self.over or axes.x))  # beyond the end by a rounding
        y = np.array([self.f(x) for x in x])
        expected = np.clip(axes.pixels(np.stack([found[:: self.every, 0], y], 1))[:, 1], -1e4, 1e4)
        near(axes.pixels(found[:: self.every])[:, 1], expected, self)
        if self.free:
            return
        for x, end in zip(found[[0, -1], 0], self.over or axes.x):
            inwards = 1e-9 if x >= end else -1e-9
            assert abs(x - end) < 1e-9 or not math.isfinite(self.f(end + inwards)) or abs(
                axes.pixels([[x, 0]])[0, 0] - axes.pixels([[end, 0]])[0, 0]) < 8, self
        assert max(np.diff(found[:, 0])) * axes.clip[2] / (axes.x[1] - axes.x[0]) < 8, "angular"


@dataclass
class Straight(Curve):
    """A graph that is a straight line: its ends suffice."""

    def find(self, notes, axes):
        line, = self.strokes(notes, axes)
        ends = self.over or axes.x
        near(line, axes.pixels([[x, self.f(x)] for x in ends]), self)


def Horizontal(y, **style):
    """A line across the window."""
    return Straight(lambda _: y, **style)


@dataclass
class Vertical(Stroked):
    x: float

    def find(self, notes, axes):
        line, = self.strokes(notes, axes)
        near(line, axes.pixels([[self.x, y] for y in axes.y]), self)


@dataclass
class Area(Item):
    points: Points

    def find(self, notes, axes):
        part, = self.take(notes, "fill", clipped=axes.clip)["path"]
        near(part["points"], np.clip(axes.pixels(self.points), -1e4, 1e4), self)


@dataclass
class Arrow(Stroked):
    """With a head of 10 pixels, or of 0.6 of its length, at 0.45 to either side."""

    start: Sequence[float]
    end: Sequence[float]

    def find(self, notes, axes):
        shaft, *sides = self.strokes(notes, axes)
        tail, tip = axes.pixels([self.start, self.end])
        head, angle = min(10, 0.6 * math.dist(tail, tip)), math.atan2(*(tip - tail)[::-1])
        near(shaft, [tail, tip], self)
        assert len(sides) == 2
        for side, turned in zip(sides, (angle - 0.45, angle + 0.45)):
            near(side, [tip, tip - [head * math.cos(turned), head * math.sin(turned)]], self)


@dataclass
class Text(Item):
    """Words on a halo of paper; ``shift`` in pixels."""

    words: str
    at: Sequence[float]
    shift: tuple[float, float] = (0, 0)
    align: str = "left"
    bold: bool = False

    def find(self, notes, axes):
        places = dict(words=self.words, align=self.align, baseline="middle", angle=0, clipped=None,
                      font="bold 13px sans" if self.bold else "13px sans")
        self.colour = legible(self.colour)
        self.ink, self.colour = self.colour, PAPER
        halo = self.take(notes, "strokeText", width=4, **places)
        self.colour = self.ink
        written = self.take(notes, "fillText", **places)
        for note in (halo, written):
            near(note["at"], axes.pixels([self.at])[0] + self.shift, self)


SHAPES = {
    "square": [[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]],
    "triangle": [[0, -1.2], [1.1, 0.8], [-1.1, 0.8]],
    "diamond": [[0, -1.25], [1.1, 0], [0, 1.25], [-1.1, 0]],
}


@dataclass
class Mark(Item):
    """A shape at a point: at the edge and hollow where that lies outside.

    ``name`` stands on its right (``side`` 1) or left, or where there is room, ``lift`` pixels lower.
    """

    at: Sequence[float]
    shape: str = "circle"
    radius: float = 7
    name: str = ""
    side: int = 1
    lift: float = 0

    def find(self, notes, axes):
        left, top, right, bottom = axes.box
        wanted = axes.pixels([self.at])[0]
        at = np.clip(wanted, [left, top], [right, bottom])
        colour, outside = self.colour, math.dist(at, wanted) > 0.5
        for what, shade in (("fill", PAPER if outside else colour),
                            ("stroke", colour if outside else PAPER)):
            self.colour = shade
            line = {"width": 2.5 if outside else 1.5} if what == "stroke" else {}
            path = self.take(notes, what, clipped=None, dash=[], **line)["path"]
            self._outline(path, at)
        self.colour = colour
        if self.name:
            side = self._side(at, left, right)
            corner = axes.data([[left, top]])[0]
            Text(self.name, corner, align="left" if side > 0 else "right", shift=(
                at[0] - left + side * (self.radius + 6), at[1] - top + self.lift)).find(notes, axes)

    def _outline(self, path, at):
        part, = path
        if self.shape == "circle":
            near([*part["centre"], part["radius"], part["angle"]],
                 [*at, self.radius, 2 * math.pi], self)
        else:
            assert part["closed"]
            near(part["points"], at + self.radius * np.array(SHAPES[self.shape]), self)

    def _side(self, at, left, right):
        room = 7 * len(self.name) + self.radius + 6  # letters of the stub are 7 pixels wide
        if self.side > 0:
            return 1 if at[0] + room < right else -1
        return -1 if at[0] - room > left else 1


@dataclass
class Frame(Item):
    """The axes' box, their ticks {words: place} or places, and their names."""

    xlabel: str
    ylabel: str
    xticks: dict[str, float] | Sequence[float]
    yticks: dict[str, float] | Sequence[float]

    def find(self, notes, axes):
        left, top, right, bottom = axes.box
        self.alpha = 0.55
        box = self.take(notes, "strokeRect", width=1, dash=[], clipped=None)["box"]
        near(box, [left, top, right - left, bottom - top])
        self.alpha = 0.85
        common = {"font": "12px sans", "clipped": None}
        for words, x in self._named(self.xticks):
            note = self.take(notes, "fillText", words=words, align="center", baseline="top",
                             angle=0, **common)
            near(note["at"], [axes.pixels([[x, 0]])[0, 0], bottom + 4], words)
        for words, y in self._named(self.yticks):
            note = self.take(notes, "fillText", words=words, align="right", baseline="middle",
                             angle=0, **common)
            near(note["at"], [left - 6, axes.pixels([[0, y]])[0, 1]], words)
        note = self.take(notes, "fillText", words=self.xlabel, align="center", baseline="bottom",
                         angle=0, **common)
        near(note["at"], [(left + right) / 2, axes.size[1] - 2])
        note = self.take(notes, "fillText", words=self.ylabel, align="center", baseline="middle",
                         **common)
        near([*note["at"], note["angle"]], [12, (top + bottom) / 2, -math.pi / 2])

    @staticmethod
    def _named(ticks):
        return ticks.items() if isinstance(ticks, dict) else [
            (f"{round(tick, 9):g}".replace("-", "−"), tick) for tick in ticks]


@dataclass
class Contours(Stroked):
    """Lines where f takes each of the levels that lie between its least and greatest value."""

    f: Callable[[np.ndarray, np.ndarray], np.ndarray]
    levels: Sequence[float]
    window: tuple[tuple[float, float], tuple[float, float]]
    n: int
    width: float = field(default=0.8, kw_only=True)
    alpha: float = field(default=0.4, kw_only=True)

    def find(self, notes, axes):
        lines = np.array(self.strokes(notes, axes))
        ends = axes.data(lines.reshape(-1, 2))
        (x0, x1), (y0, y1) = self.window
        cell = (x1 - x0) / (self.n - 1), (y1 - y0) / (self.n - 1)
        # an end lies on an edge of the grid, and there between two values on a straight line
        cells = (ends - [x0, y0]) / cell
        low = np.floor(cells + 1e-9)
        share = cells - low
        assert (abs(share).min(1) < 1e-6).all(), "not on the grid"
        corner = [x0, y0] + low * cell
        along = np.where(abs(share) < 1e-6, 0, 1)
        first, second = self.f(*corner.T), self.f(*(corner + along * cell).T)
        found = first + share.max(1) * (second - first)
        levels = np.array(sorted(self.levels))
        gaps = abs(found[:, None] - levels)
        scale = np.ptp(levels)
        near(gaps.min(1), np.zeros(len(found)), self, atol=1e-6 * scale)
        assert (found[::2] - found[1::2]).max() < 1e-6 * scale
        x, y = np.meshgrid(np.linspace(x0, x1, self.n), np.linspace(y0, y1, self.n))
        heights = self.f(x, y)
        inside = levels[(levels > heights.min()) & (levels < heights.max())]
        assert set(np.unique(gaps.argmin(1))) == {*np.searchsorted(levels, inside)}, "levels"


@dataclass
class Shade(Item):
    """A colour, as opaque as ``opacity`` of x and y says, in n × n pixels over a window."""

    opacity: Callable[[np.ndarray, np.ndarray], np.ndarray]
    window: tuple[tuple[float, float], tuple[float, float]]
    n: int
    smooth: bool = True

    def find(self, notes, axes):
        (x0, x1), (y0, y1) = self.window
        colour, self.colour = self.colour, None
        note = self.take(notes, "image", clipped=axes.clip, smooth=self.smooth)
        corners = axes.pixels([[x0, y1], [x1, y0]])
        near(note["box"], [*corners[0], *(corners[1] - corners[0])])
        pixels = np.reshape(note["pixels"], (-1, 4))
        assert len(pixels) == self.n**2
        x, y = np.meshgrid(np.linspace(x0, x1, self.n), np.linspace(y1, y0, self.n))
        opacity = np.clip(np.nan_to_num(self.opacity(x, y), nan=0.0), 0, 1).ravel()
        near(pixels[:, 3], 255 * opacity, "opacity", atol=0.5 + 1e-6)
        assert (pixels[:, :3] == np.round(255 * np.array(channels(colour)[0]))).all()


def check(notes: list, axes: Axes, items: Sequence[Item]) -> None:
    """AssertionError unless the canvas was emptied, and shows these items and nothing else."""
    notes = list(notes)
    assert notes.pop(0) == {"what": "clear", "box": [0, 0, *axes.size], "scale": 1}
    for item in items:
        item.find(notes, axes)
    assert notes == [], "painted, but not expected"
