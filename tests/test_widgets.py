"""Explorables: what each of them promises, and their mathematics, which exists twice.

The JavaScript of an explorable solves in closed form what lnn_core computes for any network;
neither knows of the other, so that each is the other's oracle. test_explorables.py looks at the
same pictures in a browser.
"""

import math
import re
import subprocess
import sys
from itertools import product
from pathlib import Path
from unittest.mock import Mock
from zipfile import ZipFile

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
import traitlets
from bs4 import BeautifulSoup
from execute import committed_notebooks
from javascript import Script

from lnn_core import style, widgets
from lnn_core.oracle import minimum
from lnn_core.widgets.base import Slider
from lnn_core.widgets.two_unit import TwoUnit

ROOT = Path(__file__).resolve().parent.parent
CLASSES = [getattr(widgets, name) for name in widgets.__all__ if name != "Explorable"]
AGREE = {"rel": 1e-9, "abs": 1e-9}
NO_WORD = r"NaN|undefined|null|Infinity|\[object|[−-]0\.0+(?!\d)"

each_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


def positions(control, inner=0):
    """Both ends of a slider, the start and some places between; or all options."""
    if "options" in control:
        return control["options"]
    low, high, shares = control["min"], control["max"], np.linspace(0, 1, inner + 2)
    spread = low * (high / low) ** shares if control["log"] else low + (high - low) * shares
    values = dict.fromkeys([*spread.tolist(), control["start"]])
    return [round(value) for value in values] if control["step"] == 1 else list(values)


def settings(cls, inner=0, limit=400):
    """Settings of all controls: every corner, or an even selection where there are too many."""
    names = [control["name"] for control in cls.controls()]
    every = list(product(*(positions(control, inner) for control in cls.controls())))
    return [dict(zip(names, values)) for values in every[:: max(1, len(every) // limit)]]


# What holds for every explorable


@each_class
def test_shows_the_same_each_time(cls):
    """If it fails, a notebook that is run again differs, and strict nbval fails."""
    first, second = cls(), cls()
    assert first.html() == second.html()
    assert repr(first) == repr(second) == repr(eval(repr(first), vars(widgets)))
    assert first.model_id not in first.html()


@each_class
def test_showing_leaves_no_trace(cls):
    """If it fails, a chapter's random numbers or figures change with a picture that stands before
    them."""
    plt.rcParams["font.size"] = 17
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), plt.get_fignums()
    cls().html()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert plt.get_fignums() == before[2] and plt.rcParams["font.size"] == 17
    plt.rcdefaults()


@each_class
def test_page_carries_all_it_needs(cls):
    """If it fails, something is fetched from elsewhere, or the script ends where it should not."""
    html = cls().html()
    assert html.count("<script>") == html.count("</script>") == 1
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", html))
    assert all(address.startswith("http://www.w3.org/") for address in addresses)
    assert not re.search(r"\bimport\b[^;\n]*from|\bimport\(|@import|\bfetch\(", html)


@each_class
@pytest.mark.parametrize("which", [0, -1])
def test_picture_for_readers_without_scripts(cls, which):
    """If it fails, they get an empty box, a picture without words, or one that weighs more than the
    text around it."""
    soup = BeautifulSoup(cls(**settings(cls)[which]).html(), "html.parser")
    picture = soup.select_one(".still svg")
    assert len(str(picture)) < 30_000
    assert picture["role"] == "img" and len(picture["aria-label"]) > 80
    assert not re.search(r"\bnan\b|NaN|-0\.0\b", str(picture))
    assert not picture.select("style")
    assert "cannot be dragged" in soup.select_one(".lnn-explorable p").text


@each_class
def test_jupyter_gets_a_widget_and_a_page_html(cls):
    """If it fails, a live notebook shows a picture that the kernel does not hear."""
    data, _ = cls()._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert data["text/html"] == cls().html() and data["text/plain"] == repr(cls())
    assert cls._esm.startswith(cls.source()) and "export default" in cls._esm


@each_class
def test_what_the_reader_drags_reaches_the_kernel(cls):
    """If it fails, Jupyter's message about a slider is lost, so that Python computes with the old
    value."""
    widget, last = cls(), settings(cls)[-1]
    seen = {}
    widget.observe(lambda change: seen.update({change["name"]: change["new"]}), names=list(last))
    start = widget.state()
    message = {"method": "update", "state": last, "buffer_paths": []}
    widget._handle_msg({"content": {"data": message}, "buffers": []})
    assert widget.state() == start | last
    assert seen == {name: value for name, value in last.items() if value != start[name]}


@each_class
def test_what_the_kernel_sets_reaches_the_reader(cls):
    """If it fails, `widget.beta = 0.4` in a cell does not move the slider."""
    widget = cls()
    widget.comm = Mock()
    for name, value in settings(cls)[-1].items():
        if getattr(widget, name) != value:
            setattr(widget, name, value)
            data = widget.comm.send.call_args.kwargs["data"]
            assert (data["method"], data["state"]) == ("update", {name: value})


def sliders(cls):
    return [control for control in cls.controls() if "options" not in control]


@each_class
def test_values_out_of_range_are_clamped_with_a_message(cls):
    """If it fails, there is a picture for parameters that it was not made for; or a silent change
    of what was asked."""
    for control in sliders(cls):
        name = control["name"]
        for wanted, end in ((control["max"] + 7, "max"), (control["min"] - 7, "min")):
            message = f"{name}={wanted:g} is outside .*: set to {control[end]:g}"
            with pytest.warns(UserWarning, match=message):
                assert getattr(cls(**{name: wanted}), name) == control[end]


@each_class
@pytest.mark.parametrize("wrong", [math.nan, math.inf, "1", None, True])
def test_what_is_no_number_is_refused(cls, wrong):
    """If it fails, NaN spreads into every line of the picture."""
    for control in sliders(cls):
        with pytest.raises(traitlets.TraitError, match=f"{control['name']}={wrong!r} must be a"):
            cls(**{control["name"]: wrong})


@each_class
def test_unknown_choice_is_refused(cls):
    """If it fails, a misspelt method shows nothing."""
    for control in cls.controls():
        if "options" in control:
            with pytest.raises(traitlets.TraitError, match=control["options"][0]):
                cls(**{control["name"]: "nonsense"})


def test_integers_stay_integers():
    """If it fails, there are two and a half sweeps."""
    with pytest.raises(traitlets.TraitError, match=r"passes=2\.5 must be an integer"):
        widgets.Landscape(passes=2.5)
    assert repr(widgets.Landscape(passes=np.int64(3)).passes) == "3"


@pytest.mark.parametrize("arguments, message", [
    ((2.0, 0.0, 1.0, 0.1), r"start=2.0 must lie in \[0.0, 1.0\]"),
    ((0.5, 0.0, 1.0, 0.3), r"from 0.0 to 1.0 there are 3.33333 steps of 0.3"),
])
def test_slider_whose_range_does_not_fit(arguments, message):
    """If it fails, a slider never reaches its end."""
    with pytest.raises(ValueError, match=message):
        Slider(*arguments, "x, a number")


@each_class
def test_labels_are_unique_and_named(cls):
    """If it fails, a screen reader calls two sliders the same."""
    labels = [control["label"] for control in cls.controls()]
    assert len(set(labels)) == len(labels) and all(labels)


# The scripts


@pytest.fixture(scope="module")
def scripts():
    return {cls: Script(cls) for cls in CLASSES}


@pytest.fixture(scope="module")
def js(scripts):
    """The functions that all scripts share."""
    return scripts[widgets.Landscape]


@each_class
def test_no_nan_or_gap_in_words_and_numbers(cls, scripts):
    """If it fails, a reader sees or hears `NaN` or `undefined` at some corner of the sliders."""
    script = scripts[cls]
    if script("Boolean(explorable.setup)"):
        pytest.skip("needs data of its own: tested beside its mathematics")
    for p in settings(cls):
        words = script("""(() => {
            const s = explorable.solve(p);
            const pictures = explorable.panels.map(panel => panel.describe(p, s));
            const list = explorable.readouts(p, s).filter(item => typeof item !== "string");
            return {
                words: [...pictures, explorable.status(p, s).text].join(" "),
                values: list.map(item => item.value),
                shown: list.map(item => number(item.value, item.digits ?? 3)),
            };
        })()""", p=p)
        assert not re.search(NO_WORD, words["words"]), (p, words)
        assert all(isinstance(value, (int, float)) for value in words["values"]), (p, words)
        assert not re.search("NaN|undefined", " ".join(words["shown"])), (p, words)


@each_class
def test_page_admits_what_python_admits(cls, scripts):
    """If it fails, Jupyter clamps a value that the page does not, or the other way round."""
    wanted = [-1e9, -0.3, 0.123, 0.5, 1.0, 7.0, 1e9]
    for control in cls.controls():
        admit = [scripts[cls]("admit(CONTROLS.find(c => c.name === name), wanted)",
                              name=control["name"], wanted=value) for value in [*wanted, None]]
        assert admit[-1]["value"] == control["start"] and admit[-1]["message"]
        for value, admitted in zip(wanted, admit):
            if "options" not in control:
                expected = min(max(value, control["min"]), control["max"])
                assert admitted["value"] == expected
                assert bool(admitted["message"]) == (expected != value)


@each_class
def test_every_place_of_a_slider_is_its_value(cls, scripts):
    """If it fails, a thumb jumps when it is let go, or never reaches an end."""
    for control in sliders(cls):
        found = scripts[cls]("""(() => {
            const c = CONTROLS.find(c => c.name === name), places = range(steps(c) + 1);
            const values = places.map(i => valueAt(c, i));
            return { values, back: values.map(value => place(c, value)),
                     snapped: values.map(value => snap(c, value)) };
        })()""", name=control["name"])
        values = np.array(found["values"])
        assert values[[0, -1]] == pytest.approx([control["min"], control["max"]], rel=1e-12)
        assert (np.diff(values) > 0).all()
        assert found["back"] == pytest.approx(range(len(values)), abs=1e-6)
        assert found["snapped"] == pytest.approx(values, rel=1e-12)


@each_class
def test_colours_are_those_of_the_book(cls, scripts):
    """If it fails, a method changes its colour between a chapter's figures and its explorable."""
    for name, method in style.METHODS.items():
        expected = None if method.colour == "#000000" else method.colour
        assert scripts[cls]("COLOURS[name]", name=name) == expected


@pytest.mark.parametrize("value, digits, words", [
    ("1.005", 1, "1.0"), ("-0.001", 2, "0.00"), ("-2.5", 1, "−2.5"), ("Infinity", 2, "∞"),
    ("-Infinity", 2, "−∞"), ("NaN", 2, "–"), ("12345", 0, "12345")])
def test_numbers_as_readers_see_them(js, value, digits, words):
    """If it fails, a page shows `NaN`, `Infinity` or `-0.00`."""
    assert js(f"number({value}, digits)", digits=digits) == words


@pytest.mark.parametrize("low, high", [(-0.25, 2.75), (0, 1), (-1000, 3), (1e-6, 3e-6)])
def test_ticks_are_round_and_inside(js, low, high):
    """If it fails, axes have odd numbers, none, or so many that they overlap."""
    ticks = np.array(js("ticks(low, high, 5)", low=low, high=high))
    steps = np.diff(ticks)
    mantissa = steps[0] / 10 ** math.floor(math.log10(steps[0] * 1.0001))
    assert 2 <= len(ticks) <= 11 and steps == pytest.approx(np.full(len(steps), steps[0]))
    assert round(mantissa, 6) in (1, 2, 5)
    assert low - 1e-9 * steps[0] <= ticks[0] and ticks[-1] <= high + 1e-9 * steps[0]


def test_contour_of_a_circle(js):
    """If it fails, lines in the picture lie beside the level that they stand for."""
    n, radius = 41, 13.0
    window = {"x": [-20, 20], "y": [-20, 20]}
    segments = js("contours(sample((x, y) => x * x + y * y, window, n), n, levels)", window=window,
                  n=n, levels=[radius**2])
    ends = np.array(segments).reshape(-1, 2) - 20
    assert np.hypot(*ends.T) == pytest.approx(np.full(len(ends), radius), abs=0.02)
    pieces = np.hypot(*(ends[1::2] - ends[::2]).T)
    assert pieces.sum() == pytest.approx(2 * math.pi * radius, rel=0.01)


def test_contours_of_a_plane_are_straight(js):
    """Several levels in one cell, and levels that nothing reaches. If it fails, lines are bent or
    made up."""
    window = {"x": [0, 1], "y": [0, 1]}
    segments = js("contours(sample((x, y) => x + 10 * y, window, 2), 2, [-1, 2, 5, 8, 12])",
                  window=window)
    for x0, y0, x1, y1 in segments:
        assert x0 + 10 * (1 - y0) == pytest.approx(x1 + 10 * (1 - y1))
    assert sorted(round(x + 10 * (1 - y)) for x, y, _, _ in segments) == [2, 5, 8]


def test_no_contour_where_the_function_is_infinite(js):
    """If it fails, there is a line along the edge of the domain, where there is no level."""
    window = {"x": [-1, 1], "y": [-1, 1]}
    segments = js("contours(sample((x, y) => x < 0 ? Infinity : x, window, 21), 21, [0.5])",
                  window=window)
    assert {x for x0, _, x1, _ in segments for x in (round(x0, 6), round(x1, 6))} == {15.0}


# One unit


def one_unit_cases():
    """Pre-activations and activations over the sliders, and at the ends of each range."""
    rng = np.random.default_rng(0)
    for activation in widgets.OneUnit.activation.values:
        pairs = rng.uniform([-3, -2], [3, 3], (60, 2)).tolist()
        for a, z in [*pairs, [-1.0, 0.0], [0.0, 0.0], [2.0, 1.0], [1.0, 1.0], [0.4, -1.0]]:
            yield widgets.OneUnit(a=a, z=z, activation=activation)


def test_one_unit_agrees_with_lnn_core(scripts):
    """If it fails, a curve or a number of the picture belongs to another function."""
    for unit in one_unit_cases():
        s = scripts[widgets.OneUnit]("solve(p)", p=unit.state())
        G, z = unit.function, torch.tensor(unit.z, dtype=torch.float64)
        a = torch.tensor(unit.a, dtype=torch.float64, requires_grad=True)
        divergence, squares = G.divergence(z, a), 0.5 * (z - G.activation(a)) ** 2
        assert s["fa"] == pytest.approx(G.activation(a).item(), **AGREE)
        assert s["fenchelYoung"]["price"] == pytest.approx(divergence.item(), **AGREE)
        assert s["leastSquares"]["price"] == pytest.approx(squares.item(), **AGREE)
        assert s["allowed"] == math.isfinite(divergence.item())
        for price, name in ((divergence, "fenchelYoung"), (squares, "leastSquares")):
            if s["allowed"] or name == "leastSquares":
                error = -torch.autograd.grad(price, a)[0].item()
                assert s[name]["error"] == pytest.approx(error, **AGREE), (unit, name)
        assert unit.prices(z)[0].item() == divergence.item()


def test_shaded_area_is_the_divergence(scripts):
    """If it fails, D(z‖a) is not the area between the point and the graph of f, as the second
    picture claims."""
    for unit in one_unit_cases():
        divergence = unit.prices(torch.tensor(unit.z, dtype=torch.float64))[0].item()
        if abs(unit.z) > 0.99 and unit.activation == "tanh" or not math.isfinite(divergence):
            continue  # the corner is far away, or there is none
        corners = scripts[widgets.OneUnit]("areaUnderDivergence(p, 800)", p=unit.state())
        x, y = np.transpose(corners)
        area = 0.5 * abs(x @ np.roll(y, -1) - y @ np.roll(x, -1))
        assert area == pytest.approx(divergence, rel=1e-3, abs=1e-6), unit


# The landscape


def landscape_cases():
    """Settings over all sliders, and random ones between their steps."""
    rng = np.random.default_rng(0)
    yield from (widgets.Landscape(**p) for p in settings(widgets.Landscape, inner=1, limit=120))
    for _ in range(100):
        yield widgets.Landscape(beta=rng.uniform(0.01, 0.95), gamma=4 ** rng.uniform(-1, 1),
                                x=rng.uniform(-1, 2.5), y=rng.uniform(-1, 3))


def best(unit, weight):
    """argmin and min of U + weight·ℓ by exhaustive search over the hidden unit's two states."""
    x = torch.full((1, 1), unit.x, dtype=torch.float64)
    value, z = minimum(unit.net, x, unit.energy(weight))
    return [z[1].item(), z[2].item()], value.item()


def test_landscape_agrees_with_lnn_core(scripts):
    """If it fails, a mark or a number of the front page is wrong."""
    for widget in landscape_cases():
        s = scripts[widgets.Landscape]("solve(p)", p=widget.state())
        unit, beta = widget.unit, widget.beta
        assert s["forward"]["z"] == pytest.approx(list(unit.forward()), **AGREE)
        assert s["forward"]["value"] == pytest.approx(unit.loss(), **AGREE)
        assert s["border"] == pytest.approx(unit.stability_threshold, **AGREE)
        for method, weight in (("rovr", beta), ("arovr", -beta)):
            if weight < -unit.stability_threshold:
                assert s[method] == {"z": None, "value": math.inf}
            elif weight > -0.999 * unit.stability_threshold:
                z, value = best(unit, weight)
                scale = {"rel": 1e-9, "abs": 1e-9 / (1 + weight / unit.stability_threshold)}
                assert s[method]["z"] == pytest.approx(z, **scale), widget
                assert s[method]["value"] == pytest.approx(value / weight, **scale), widget


def test_on_the_border_itself_the_landscape_shows_the_limit(scripts):
    """If it fails, AROVR is called infinite where it is not. It grows with β, and as a supremum of
    functions that are continuous in β it has on the border the value that it tends to."""
    cases = list(product((-0.5, 0.0, 1.0), (-1.0, 1.0, 2.0), (0.25, 1.0, 2.0, 4.0)))
    for x, y, gamma in cases:
        unit = TwoUnit(x=x, y=y, gamma=gamma)
        p = widgets.Landscape(x=x, y=y, gamma=gamma).state() | {"beta": unit.stability_threshold}
        s = scripts[widgets.Landscape]("solve(p)", p=p)
        z, value = best(unit, -unit.stability_threshold * (1 - 1e-6))
        if (limit := -value / unit.stability_threshold) > 1e3:
            assert s["arovr"]["value"] == math.inf and s["arovr"]["z"] is None
        else:
            assert s["arovr"]["value"] == pytest.approx(limit, abs=1e-4), (x, y, gamma)
            if x != y:
                assert s["arovr"]["z"] == pytest.approx(z, abs=1e-4)


def test_alternative_text_near_the_border():
    """If it fails, readers without scripts are told that AROVR is infinite where it is only hard to
    find."""
    words = {beta: widgets.Landscape(beta=beta).describe() for beta in (0.49, 0.5, 0.51)}
    assert f"is {TwoUnit().arovr(0.49):.3f}." in words[0.49]
    assert "is not computed, this close to the border." in words[0.5]
    assert "is infinite." in words[0.51]


def test_objectives_are_those_of_lnn_core(scripts):
    """If it fails, the search above and lnn.AROVR disagree: the page shows another objective."""
    for widget in list(landscape_cases())[::40]:
        s = scripts[widgets.Landscape]("solve(p)", p=widget.state())
        unit, beta = widget.unit, widget.beta
        assert s["rovr"]["value"] == pytest.approx(unit.rovr(beta), rel=1e-7, abs=1e-7)
        if beta < 0.9 * unit.stability_threshold:
            assert s["arovr"]["value"] == pytest.approx(unit.arovr(beta), rel=1e-7, abs=1e-7)


def test_energy_agrees_with_lnn_core(scripts):
    """If it fails, the contours are those of another energy."""
    z1, z2 = np.array([[-0.1, 0.0, 0.7, 2.0], [1.0, -2.0, 0.3, 3.0]])
    for widget in list(landscape_cases())[::7]:
        values = scripts[widgets.Landscape](
            "a.map((z1, i) => twoUnit.energy(p, weight, z1, b[i]))",
            p=widget.state(), weight=widget.weight, a=z1.tolist(), b=z2.tolist())
        assert values == pytest.approx(widget.unit.landscape(widget.weight, z1, z2), **AGREE)


def test_sweeps_are_those_of_eq_17(scripts):
    """If it fails, the stairs in the picture are not what `lnn.infer` does."""
    for widget in list(landscape_cases())[::3]:
        widget.passes = 6
        path = scripts[widgets.Landscape]("solve(p).path", p=widget.state())
        np.testing.assert_allclose(path, widget.unit.path(widget.weight, 6), rtol=1e-9, atol=1e-9)


def test_escape_is_where_the_energy_falls_without_end(scripts):
    """If it fails, the arrow past the border points to a place where the energy rises."""
    for gamma, factor in product((0.25, 1.0, 2.0), (1.02, 1.2)):
        unit = TwoUnit(gamma=gamma)
        beta = factor * unit.stability_threshold
        p = {"gamma": gamma, "beta": beta}
        direction = np.array(scripts[widgets.Landscape]("escape(p)", p=p))
        near, far = (unit.landscape(-beta, *(unit.forward() + t * direction)) for t in (1e4, 1e5))
        assert far < near < 0 and (direction > 0).all()
        assert direction == pytest.approx(steepest(gamma, beta))


def steepest(gamma, beta):
    """The eigenvector of U − βℓ's Hessian for its smallest eigenvalue, by numpy."""
    vector = np.linalg.eigh(np.array([[gamma + 1, -1], [-1, 1 - beta]]))[1][:, 0]
    return vector * np.sign(vector[0])


# What is published


def test_explorables_weigh_little():
    """If it fails, a page with explorables adds more than 0.3 MB."""
    heavy = {}
    for path in committed_notebooks():
        outputs = [output for cell in nbformat.read(path, as_version=4).cells
                   for output in cell.get("outputs", [])]
        html = [output.get("data", {}).get("text/html", "") for output in outputs]
        heavy[path.name] = sum(len(text.encode()) for text in html if "lnn-explorable" in text)
    assert max(heavy.values()) < 300_000, heavy
    assert heavy["index.ipynb"] > 0


def test_scripts_are_part_of_the_package(tmp_path):
    """If it fails, `pip install lnn_core` leaves the explorables without their scripts."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "lnn_core").symlink_to(ROOT / "lnn_core")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index",
               "--no-build-isolation", "--disable-pip-version-check", "--wheel-dir",
               tmp_path / "out", tmp_path]
    subprocess.run(command, check=True, capture_output=True, text=True)
    [wheel] = (tmp_path / "out").glob("*.whl")
    shipped = {Path(name).name for name in ZipFile(wheel).namelist() if "/widgets/" in name}
    folder = Path(widgets.__file__).parent
    assert {path.name for path in folder.iterdir() if path.is_file()} <= shipped
