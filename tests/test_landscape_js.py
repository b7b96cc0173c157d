"""The mathematics of the front page's picture, which exists a second time in JavaScript.

landscape.js solves the two-unit network in closed form, piece by piece; lnn_core infers it with
sweeps of eq. (17). Neither knows of the other, so that each is the other's oracle.
"""

import json
import math
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import quickjs

from lnn_core import style
from lnn_core.explore import TwoUnit

SCRIPT = Path(__file__).resolve().parent.parent / "book" / "_static" / "landscape.js"
AGREE = {"rel": 1e-9, "abs": 1e-9}


class Script:
    """landscape.js in a JavaScript engine without a page."""

    def __init__(self):
        self.context = quickjs.Context()
        self.context.eval(SCRIPT.read_text(encoding="utf-8"))

    def __call__(self, expression, **names):
        """The expression's value by way of JSON, in which Infinity is null."""
        constants = "".join(f"const {name} = {json.dumps(value)};" for name, value in names.items())
        text = f"(() => {{ {constants} return JSON.stringify({expression}); }})()"
        return json.loads(self.context.eval(text))


@pytest.fixture(scope="module")
def js():
    return Script()


def setting(unit, beta):
    """A TwoUnit as landscape.js wants it."""
    names = ("x", "y", "w0", "w1", "b0", "b1")
    return {name: getattr(unit, name) for name in names} | {"beta": beta}


@pytest.fixture(scope="module")
def slider_cases(js):
    """Networks and β over the sliders of the page: both ends, the start, and points between."""
    ranges = {name: np.append(np.linspace(s["min"], s["max"], 4), s["start"]).tolist()
              for name, s in js("SLIDERS").items()}
    weights = js("WEIGHTS")
    return [(TwoUnit(x=x, y=y, **weights), beta)
            for beta, x, y in product(ranges["beta"], ranges["x"], ranges["y"])]


def random_cases():
    """Networks the page does not show, whatever their weights and biases."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        x, y, w0, w1, b0, b1 = rng.normal(0, 1.2, 6)
        unit = TwoUnit(x=x, y=y, w0=w0, w1=w1, b0=b0, b1=b1)
        yield unit, rng.uniform(0.02, 0.9) * unit.border


def check(js, unit, beta):
    """Everything that the picture shows for one setting."""
    solution = js("twoUnit.solve(p)", p=setting(unit, beta))
    assert solution["forward"]["z"] == pytest.approx(list(unit.forward()), **AGREE)
    assert solution["forward"]["value"] == pytest.approx(unit.loss(), **AGREE)
    assert solution["rovr"]["z"] == pytest.approx(list(unit.optimum(beta)), **AGREE)
    assert solution["rovr"]["value"] == pytest.approx(unit.rovr(beta), **AGREE)
    if unit.is_stable(-beta):
        assert solution["arovr"]["z"] == pytest.approx(list(unit.optimum(-beta)), **AGREE)
        assert solution["arovr"]["value"] == pytest.approx(unit.arovr(beta), **AGREE)
    elif beta >= unit.border:
        assert solution["arovr"] == {"z": None, "value": None}


def test_agrees_with_lnn_core_over_the_sliders(js, slider_cases):
    """A mark or a number of the front page would be wrong."""
    for unit, beta in slider_cases:
        check(js, unit, beta)


def test_agrees_with_lnn_core_on_other_networks(js):
    """The same functions, used for other weights, would be wrong."""
    for unit, beta in random_cases():
        check(js, unit, beta)


def test_energy_and_border_agree(js):
    """The contours, or the remark about the border, would belong to another network."""
    for unit, beta in random_cases():
        z1, z2 = np.array([[-0.1, 0.0, 0.7, 2.0], [1.0, -2.0, 0.3, 3.0]])
        for weight in (beta, -beta):
            values = js("a.map((z1, i) => twoUnit.energy(p, weight, z1, b[i]))",
                        p=setting(unit, beta), weight=weight, a=z1.tolist(), b=z2.tolist())
            values = [math.inf if value is None else value for value in values]
            assert values == pytest.approx(unit.landscape(weight, z1, z2), **AGREE)
        assert js("twoUnit.border(p)", p=setting(unit, beta)) == pytest.approx(unit.border, **AGREE)


def test_no_number_is_ever_nan(js, slider_cases):
    """JSON turns NaN into null, which only a missing AROVR may be."""
    for unit, beta in slider_cases:
        solution = js("twoUnit.solve(p)", p=setting(unit, beta))
        known = [solution["forward"], solution["rovr"]]
        known += [solution["arovr"]] if beta < unit.border else []
        assert all(None not in (*method["z"], method["value"]) for method in known), (unit, beta)
        words = js("describe(p, twoUnit.solve(p))", p=setting(unit, beta))
        assert not re.search("NaN|undefined|null|-0.00", words), words


def test_contour_of_a_circle(js):
    """Lines in the picture would lie beside the level that they stand for."""
    n, radius = 41, 13.0
    squares = [(i % n - 20) ** 2 + (i // n - 20) ** 2 for i in range(n * n)]
    segments = js("contour(values, n, level)", values=squares, n=n, level=radius**2)
    ends = np.array(segments).reshape(-1, 2) - 20
    assert np.hypot(*ends.T) == pytest.approx(np.full(len(ends), radius), abs=0.02)
    pieces = np.hypot(*(ends[1::2] - ends[::2]).T)
    assert pieces.sum() == pytest.approx(2 * math.pi * radius, rel=0.01)


def test_contour_where_there_is_none(js):
    """A level above or below everything must draw nothing."""
    values = list(range(9))
    assert js("[-1, 9].map(level => contour(values, 3, level))", values=values) == [[], []]


def test_colours_are_those_of_the_book(js):
    """A method would change its colour between the front page and the chapters."""
    colours = {name: method["colour"] for name, method in js("METHODS").items()}
    assert colours == {"rovr": style.METHODS["rovr"].colour, "forward": "currentColor",
                       "arovr": style.METHODS["arovr"].colour}
