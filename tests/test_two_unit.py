"""The network of two units behind the first chapter's pictures and sliders.

The oracle is brute force: the potential as eq. (2) defines it, in NumPy, searched on a grid that
closes in on its lowest point. (Below the border of stability the energy is convex, so that it can.)
"""

import math
from functools import cache
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from lnn_core.widgets import two_unit
from lnn_core.widgets.two_unit import REACHABLE, SLIDERS, TwoUnit, draw_landscape, draw_sandwich

PICTURE = Path(__file__).resolve().parent.parent / "book" / "_static" / "landscape.webp"
ENDS = {name: (low, high) for name, (low, high, _) in SLIDERS.items() if name != "passes"}

BETAS = (0.01, 0.19, 0.3, 0.49, 0.5, 0.79, 0.8, 0.95)  # both sides of all borders
GRID = [TwoUnit(x=x, y=y, w1=w1) for x, y, w1 in product(
    (-1.0, 1.25), (-0.5, 3.0), (-2.0, -1.5, -0.5, 0.0, 1.0, 1.5))]
BIASED = TwoUnit(x=-0.4, y=0.7, w0=-1.3, w1=0.8, b0=0.2, b1=-0.5)


def energy(unit, weight, z1, z2):
    """U + weight·ℓ from G(z) = ½z² [z_1 ≥ 0] and G*(a) = ½max(a, 0)² or ½a²."""
    a1, a2 = unit.w0 * unit.x + unit.b0, unit.w1 * z1 + unit.b1
    hidden = np.where(z1 < 0, np.inf, z1**2 / 2 - z1 * a1 + max(a1, 0) ** 2 / 2)
    return hidden + (z2**2 / 2 - z2 * a2 + a2**2 / 2) + weight * (z2 - unit.y) ** 2 / 2


@cache
def brute_force(unit, weight):
    """The lowest point of the energy, and its value."""
    best, reach = np.array([500.0, 0.0]), 1000.0
    steps = np.linspace(-1, 1, 31)
    while reach > 1e-8:
        z1, z2 = np.maximum(best[0] + reach * steps, 0)[:, None], (best[1] + reach * steps)[None]
        values = energy(unit, weight, z1, z2)
        i, j = np.unravel_index(values.argmin(), values.shape)
        best, reach = np.array([z1[i, 0], z2[0, j]]), 0.7 * reach
    return best, values[i, j]


def stable_cases():
    for unit, beta in product([*GRID, BIASED], BETAS):
        yield unit, beta
        if unit.is_stable(-beta):
            yield unit, -beta


def test_landscape_is_eq_2():
    """If it fails, the contours are those of another energy."""
    z1, z2 = np.linspace(-1, 3, 21)[None, :], np.linspace(-4, 4, 21)[:, None]
    for weight in (0.0, 0.4, -0.3):
        np.testing.assert_allclose(BIASED.landscape(weight, z1, z2),
                                   energy(BIASED, weight, z1, z2), rtol=1e-12, atol=1e-12)


def test_optimum_is_the_lowest_point():
    """If it fails, the picture's main marks stand in the wrong place."""
    for unit, weight in stable_cases():
        lowest, _ = brute_force(unit, weight)
        assert unit.optimum(weight) == pytest.approx(lowest, abs=1e-6, rel=1e-6), (unit, weight)


def test_objectives_are_the_lowest_values():
    """If it fails, the sandwich is drawn with wrong numbers, or lnn.AROVR computes them wrongly."""
    for unit, weight in stable_cases():
        value = unit.rovr(weight) if weight > 0 else unit.arovr(-weight)
        expected = brute_force(unit, weight)[1] / weight
        assert value == pytest.approx(expected, abs=1e-9, rel=1e-9), (unit, weight)


def test_sandwich_and_its_bounds():
    """ROVR ≤ ℓ(z*) ≤ AROVR, within ℓ(z*)/(1 ± βκ). If it fails, the chapter's second figure refutes
    its theorem."""
    for unit, beta in product(GRID, BETAS):
        if unit.is_stable(-beta):
            lower, upper = unit.bounds(beta)
            values = np.array([lower, unit.rovr(beta), unit.loss(), unit.arovr(beta), upper])
            assert np.all(values[:-1] <= values[1:] * (1 + 1e-12)), (unit, beta, values)


def test_bounds_are_attained_while_the_unit_stays_on():
    """The exercise's claim: with the hidden unit on, both bounds are equalities. If it fails, the
    exercise asks for something false."""
    unit = TwoUnit(x=2.0, y=1.0, w1=0.5)
    for beta in (0.1, 0.4, 0.7):
        assert unit.optimum(-beta).z1 > 0
        assert (unit.rovr(beta), unit.arovr(beta)) == pytest.approx(unit.bounds(beta), rel=1e-9)


@pytest.mark.parametrize("sign", [1, -1])
def test_everything_meets_in_the_forward_pass_as_beta_vanishes(sign):
    """If it fails, a small β does not give back-propagation's loss, at back-propagation's
    activations."""
    for unit in GRID:
        assert unit.optimum(sign * 1e-7) == pytest.approx(unit.forward(), abs=1e-5)
        value = unit.rovr(1e-7) if sign > 0 else unit.arovr(1e-7)
        assert value == pytest.approx(unit.loss(), rel=1e-5)


@pytest.mark.parametrize("w1", [-2.0, -0.5, 0.0, 1.0])
def test_border_is_where_the_energy_tips_over(w1):
    """Far out along its weakest direction U − βℓ rises below the border and falls beyond it. If it
    fails, the border stands elsewhere."""
    unit = TwoUnit(x=1.0, y=0.0, w1=w1)
    for factor, rises in ((0.98, True), (1.02, False)):
        beta = factor * unit.stability_threshold
        hessian = np.array([[1 + w1**2, -w1], [-w1, 1 - beta]])
        direction = np.linalg.eigh(hessian)[1][:, 0]
        far = 1e5 * direction * (1 if direction[0] >= 0 else -1)
        near = unit.landscape(-beta, *np.array(unit.forward()))
        assert (unit.landscape(-beta, *far) > near) == rises


@pytest.mark.parametrize("weight", [0.4, -0.3])
def test_path_takes_the_steps_of_eq_17_to_the_optimum(weight):
    """The staircase in the picture: z_2, then z_1, worked out by hand for the first pass. If it
    fails, it is another method's."""
    unit, steps = TwoUnit(), TwoUnit().path(weight, passes=60)
    z2 = (1 + weight * unit.y) / (1 + weight)
    z1 = 1 + (z2 - 1)
    np.testing.assert_allclose(steps[:3], [(1, 1), (1, z2), (z1, z2)])
    assert len(steps) == 121
    np.testing.assert_allclose(steps[-1], unit.optimum(weight), atol=1e-6)


@pytest.mark.parametrize("beta", [0.5, 0.496, 0.9, 3.0])
def test_past_the_border_is_refused_with_the_bound(beta):
    """If it fails, there is a number for a maximum that does not exist."""
    message = rf"beta={beta:g} must be below 0\.99/\(1 \+ w1\^2\)=0\.495.*=0\.5 "
    with pytest.raises(ValueError, match=message):
        TwoUnit().arovr(beta)
    with pytest.raises(ValueError, match=message):
        TwoUnit().optimum(-beta)


@pytest.mark.parametrize("name", ["x", "y", "w0", "w1", "b0", "b1"])
def test_parameters_must_be_finite(name):
    """If it fails, NaN spreads into every mark of the picture without a word."""
    with pytest.raises(ValueError, match=f"{name}=nan must be finite"):
        TwoUnit(**{name: math.nan})


@pytest.mark.parametrize("beta", [0.0, -0.1, math.inf])
def test_beta_must_be_positive(beta):
    """If it fails, β ≤ 0 swaps the two panels, or divides by zero."""
    for use in (draw_landscape, TwoUnit().rovr, TwoUnit().arovr, TwoUnit().bounds):
        with pytest.raises(ValueError, match=rf"beta={beta} must be positive and finite"):
            use(beta)


# The pictures: ipywidgets hides what a callback raises, so that it has to be looked for here.


def marks(ax):
    """The coordinates of everything drawn in data coordinates, and the words of the legend."""
    points = np.concatenate([line.get_xydata() for line in ax.lines if len(line.get_xydata()) != 2])
    words = [text.get_text() for text in ax.get_legend().get_texts()]
    return points, words


def look_at(**arguments):
    """Draw, and check what must hold for every position of the sliders."""
    unit = TwoUnit(*(arguments[name] for name in ("x", "y")), w1=arguments["w1"])
    stable = arguments["beta"] < REACHABLE / (1 + arguments["w1"] ** 2)
    fig = draw_landscape(**arguments)
    for ax, value, known in zip(fig.axes, (unit.rovr, unit.arovr), (True, stable)):
        points, words = marks(ax)
        assert np.isfinite(points).all(), arguments
        assert any(f"= {unit.loss():.3f}" in word for word in words), (arguments, words)
        assert known == any("ROVR" in word for word in words), (arguments, words)
        if known:
            assert any(f"= {value(arguments['beta']):.3f}" in word for word in words)
        assert known != any("no minimum" in text.get_text() for text in ax.texts), arguments
    return fig


def test_landscape_at_every_corner_of_the_sliders():
    """If it fails, some position of the sliders gives an exception, NaN, or an AROVR that does not
    exist."""
    for corner in product(*ENDS.values()):
        look_at(**dict(zip(ENDS, corner)), passes=SLIDERS["passes"][1])


@pytest.mark.parametrize("name", SLIDERS)
def test_landscape_along_every_slider(name):
    """If it fails, one slider does so, moved away from where the page starts."""
    start = dict(zip(SLIDERS, draw_landscape.__defaults__))
    low, high, step = SLIDERS[name]
    values = [type(low)(low + i * step) for i in range(round((high - low) / step) + 1)]
    assert any(math.isclose(start[name], value) for value in values)
    for value in values[:: max(1, len(values) // 8)]:
        look_at(**start | {name: value}).canvas.draw()


@pytest.mark.parametrize("x, y, w1", [(1, 2, 1), (1, 1, 1), (-1, 3, 2), (2, 0, 0)])
def test_sandwich_is_drawn_in_order(x, y, w1):
    """If it fails, the curves of the second figure cross, or stop short of the border of
    stability."""
    ax = draw_sandwich(x=x, y=y, w1=w1).axes[0]
    curves = {line.get_label(): line.get_ydata() for line in ax.lines}
    arovr, rovr = curves[r"AROVR$_\beta$"], curves[r"ROVR$_\beta$"]
    loss = TwoUnit(x=x, y=y, w1=w1).loss()
    assert np.all(rovr <= loss + 1e-12) and np.all(arovr >= loss - 1e-12)
    assert np.isfinite(arovr).all()


def test_figures_belong_to_their_caller():
    """If it fails, pyplot keeps a figure: a notebook shows it twice and never frees it."""
    before = plt.get_fignums()
    draw_landscape()
    draw_sandwich()
    assert plt.get_fignums() == before


def test_the_front_page_shows_what_this_code_draws(tmp_path):
    """If it fails, the committed picture was drawn by other code: `python -m
    lnn_core.widgets.two_unit` makes it anew."""
    fresh = tmp_path / "fresh.webp"
    with plt.rc_context():
        two_unit.main([str(fresh)])
    committed, drawn = (np.asarray(Image.open(path).convert("RGB"), float)
                        for path in (PICTURE, fresh))
    assert committed.shape == drawn.shape
    assert np.abs(committed - drawn).mean() < 2  # of 255: room for another version's typesetting
    assert PICTURE.stat().st_size < 100_000
