"""What γ does: the picture's mathematics against lnn_core, and its use in a browser."""

import numpy as np
import pytest
import torch
from browsing import DESKTOP, PHONE, each_way
from javascript import Script

from lnn_core import widgets
from lnn_core.losses import Euclidean

AGREE = {"rel": 1e-9, "abs": 1e-9}
PLANE = {"x": (-0.25, 2.75), "y": (-1.25, 3.25)}  # the left picture's window


@pytest.fixture(scope="module")
def js():
    return Script(widgets.Anisotropy)


def cases(count=80):
    """Random settings between the sliders' steps: units on, off, and to be switched."""
    rng = np.random.default_rng(0)
    yield widgets.Anisotropy()
    yield widgets.Anisotropy(x=0.0)
    yield widgets.Anisotropy(y=1.0)  # the forward pass is right
    for _ in range(count):
        yield widgets.Anisotropy(
            gamma=16 ** rng.uniform(-1, 1), delta=0.0125 * 32 ** rng.uniform(0, 1),
            x=rng.uniform(-1, 2), w=rng.uniform(0.25, 1.5), y=rng.uniform(-1, 3))


def activations(widget, z):
    """[x, z_1, z_2] as lnn_core wants them, and the network."""
    return [torch.tensor([[value]], dtype=torch.float64) for value in (widget.x, *z)]


def test_region_is_the_sublevel_set(js):
    """If it fails, the coloured area is another set: its edge has energy δ, and its inside less."""
    for widget in cases():
        points = np.array(js("region(p)", p=widget.state()))
        assert (points[:, 0] >= 0).all()
        energy = widget.unit.landscape(0.0, *points.T)
        assert energy == pytest.approx(np.full(len(points), widget.delta), **AGREE), widget
        centre = np.mean([points.min(0), points.max(0)], axis=0)
        inside = widget.unit.landscape(0.0, *(0.98 * points + 0.02 * centre).T)
        assert (inside < widget.delta).all(), widget


def test_worst_point_is_the_worst(js):
    """If it fails, a point of the region, tried on a dense grid, has a greater loss; or lnn_core
    finds one."""
    for i, widget in enumerate(cases()):
        s, delta = js("solve(p)", p=widget.state()), widget.delta
        energy = widget.unit.landscape(0.0, *np.array(s["worst"]["z"]))
        assert energy == pytest.approx(delta, **AGREE)
        z1 = np.linspace(0, 4, 20001)
        room = delta - widget.unit.landscape(0.0, z1, widget.w * z1)  # left for the output
        step = np.sqrt(2 * room[room >= 0])
        ends = np.concatenate([widget.w * z1[room >= 0] + sign * step for sign in (1, -1)])
        best = (0.5 * (ends - widget.y) ** 2).max()
        assert best * (1 - 1e-5) <= s["worst"]["loss"] * (1 + 1e-12)
        assert s["worst"]["loss"] <= best * (1 + 1e-4) + 1e-9, widget
        if i % 10 == 0:
            assert s["worst"]["loss"] == pytest.approx(widget.worst()[1], rel=1e-4), widget


def test_price_makes_the_worst_point_stationary(js):
    """AROVR's β at this point. If it fails, U − βℓ has a slope there, and not against the wall z₁ =
    0."""
    for widget in cases():
        worst = js("solve(p).worst", p=widget.state())
        assert worst["beta"] > 0
        x, *z = activations(widget, worst["z"])
        z = [part.requires_grad_() for part in z]
        loss = Euclidean(torch.tensor([[widget.y]], dtype=torch.float64))
        energy = (widget.unit.potential - worst["beta"] * loss)(widget.unit.net, [x, *z]).sum()
        first, second = (slope.item() for slope in torch.autograd.grad(energy, z))
        assert second == pytest.approx(0, abs=1e-9)
        assert first > -1e-9 if worst["z"][0] == 0 else first == pytest.approx(0, abs=1e-9), widget


def test_what_reaches_each_unit_is_what_lnn_core_says(js):
    """If it fails, deviations, error signals or energies of the right picture are another
    layer's."""
    for widget in cases():
        s, unit = js("solve(p)", p=widget.state()), widget.unit
        net, U, z = unit.net, unit.potential, activations(widget, s["worst"]["z"])
        energies = U.layer_values(net, z)[:, 0] / widget.delta
        assert s["worst"]["energy"] == pytest.approx(energies.tolist(), **AGREE)
        for k in (1, 2):
            a, f = net.preactivation(k, z), net.function(k)
            deviation = (z[k] - f.activation(a)).item()
            signal = U.error(k, f, z[k], a).item() / s["worst"]["beta"]
            assert s["worst"]["deviation"][k - 1] == pytest.approx(deviation, **AGREE)
            assert s["worst"]["signal"][k - 1] == pytest.approx(signal, rel=1e-9, abs=1e-8), widget


def test_dashes_are_back_propagation(js):
    """If it fails, the lifted signals are compared with something else than ∂ℓ/∂a_k by autograd."""
    for widget in cases():
        s, net = js("solve(p)", p=widget.state()), widget.unit.net
        if widget.x == 0:
            continue
        x, y = (torch.tensor([[value]], dtype=torch.float64) for value in (widget.x, widget.y))
        slopes = torch.autograd.grad(Euclidean(y)(net(x)).sum(), net.biases)
        assert s["backprop"] == pytest.approx([slope.item() for slope in slopes], **AGREE)
        assert s["loss"] == pytest.approx(widget.unit.loss(), **AGREE)


# In a browser


def choose(page, name):
    page.control("shown").select_option(name)
    page.settle()


@each_way
def test_sliding_gives_what_lnn_core_predicts(shown, width, theme):
    """If it fails, the numbers under the picture are not those of the library."""
    page = shown(widgets.Anisotropy(), width=width, theme=theme)
    for name, share in (("delta", 0.8), ("x", 0.5), ("w", 0.3), ("y", 0.2), ("gamma", 0.6)):
        before = page.picture()
        page.slide(name, share)
        names = ("gamma", "delta", "x", "w", "y")
        widget = widgets.Anisotropy(**{name: page.number(name) for name in names})
        _, worst = widget.worst()
        assert page.number("loss") == pytest.approx(widget.unit.loss(), abs=6e-4)
        assert page.number("worst") == pytest.approx(worst, rel=0.02)  # γ is shown rounded
        assert page.picture() != before


def test_energy_goes_where_it_is_cheap(shown):
    """If it fails, the shares are not as 1/γ₁ to 1/γ₂ when w = 1: the chapter's first
    experiment."""
    page = shown(widgets.Anisotropy(shown="energy"))
    for key, gamma in (("ArrowRight", 2 ** -1.75), ("End", 16.0)):
        page.press("gamma", key)
        assert page.number("hidden") == pytest.approx(1 / (1 + gamma), abs=6e-4)
        assert page.number("hidden") + page.number("output") == pytest.approx(1, abs=2e-3)
    assert "narrow in z₁" in page.status


def test_gamma_leaves_the_ratio_of_the_signals_alone(shown):
    """If it fails, γ acts as a learning rate: deviations change with it, the signals' ratio must
    not."""
    page = shown(widgets.Anisotropy(w=0.75, shown="signal"))
    deviations = []
    for _ in range(4):
        hidden, output = page.numbers("hidden", "output")
        assert hidden / output == pytest.approx(0.75, abs=2e-3)
        choose(page, "deviation")
        deviations.append(page.number("hidden"))
        choose(page, "signal")
        page.press("gamma", *["ArrowRight"] * 8)
    assert deviations[0] > 20 * deviations[-1]


def test_a_soft_unit_that_is_off_wakes_up(shown):
    """If it fails, it passes no signal on where back-propagation passes none: the chapter's second
    experiment."""
    page = shown(widgets.Anisotropy(gamma=1.0, x=-0.5, y=-1.0, shown="signal"))
    assert page.number("hidden") == 0 and "stays off" in page.status
    page.slide("gamma", 0.25)
    assert page.number("gamma") < 0.2**0.5 / 0.5  # w·e/γ > |x| with e = √(2δ)
    assert page.number("hidden") > 0.2 and "woken" in page.status
    assert "back-propagation sends 0.000 and 1.000" in page.label(1)


@pytest.mark.parametrize("pull, width", [("drag", DESKTOP), ("swipe", PHONE)])
def test_target_and_forward_pass_can_be_dragged(shown, pull, width):
    """If it fails, the dashed line and the square do not follow the mouse or the finger."""
    page = shown(widgets.Anisotropy(), width=width)
    getattr(page, pull)(page.place(2.4, 2.0, PLANE), page.place(2.4, -0.5, PLANE))
    assert page.number("y") == pytest.approx(-0.5, abs=0.06)
    worst = page.number("worst")
    assert worst > page.number("loss") and "z₂ = 2.00" in page.label()  # now it pushes up
    getattr(page, pull)(page.place(1.0, 1.0, PLANE), page.place(1.5, 1.0, PLANE))
    assert page.number("x") == pytest.approx(1.5, abs=0.06)
