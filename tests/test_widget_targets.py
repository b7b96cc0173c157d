"""The targets of a targeted perturbation: their mathematics, and their use in a browser."""

import math
import re

import numpy as np
import pytest
import torch
from browsing import DESKTOP, PHONE, each_way
from javascript import Script

from lnn_core import widgets

AGREE = {"rel": 1e-9, "abs": 1e-9}
TERMS = ("alone", "against", "along")
SHOWN = ("rovr", "loss", "arovr")


@pytest.fixture(scope="module")
def js():
    return Script(widgets.Targets)


def cases(count=60):
    """Random settings between the sliders' steps, and α = ½, α = 1, y = y⁻."""
    rng = np.random.default_rng(0)
    yield from (widgets.Targets(alpha=alpha) for alpha in (0.01, 0.25, 0.49, 0.5, 0.51, 1.0))
    yield widgets.Targets(y1=1.2, y2=0.6)
    for _ in range(count):
        y1, y2, wrong1, wrong2 = rng.uniform(-2, 2, 4)
        yield widgets.Targets(alpha=rng.uniform(0.01, 1), beta=16 ** rng.uniform(-1, 1), y1=y1,
                              y2=y2, wrong1=wrong1, wrong2=wrong2)


def test_inferred_outputs_and_objectives_are_those_of_lnn_core(js):
    """If it fails, a mark or a number belongs to another subproblem, or is a saddle point."""
    for widget in cases():
        s, (rovr, arovr) = js("solve(p)", p=widget.state()), widget.objectives()
        outputs = {name: widget.output(name) for name in TERMS}
        slack = abs(1 + widget.beta * s["against"]["q"])  # 0 on the border
        for name, z in outputs.items():
            scale = AGREE if name != "against" else {"rel": 1e-9, "abs": 1e-9 / slack}
            assert s[name]["z"] == (None if z is None else pytest.approx(list(z), **scale)), widget
        right = widget.targets[0][0].numpy()
        assert s["loss"] == pytest.approx(0.5 * sum((outputs["alone"] - right) ** 2), **AGREE)
        assert s["rovr"] == pytest.approx(rovr, **AGREE), widget
        assert s["arovr"] == pytest.approx(arovr, rel=1e-9, abs=1e-9 / slack), widget
        assert s["rovr"] <= s["loss"] + 1e-9 and s["loss"] <= s["arovr"] + 1e-9


def test_targets_complete_the_square(js):
    """Eq. (27). If it fails, h − ½q‖z − target‖² depends on z; or h is not linear without a
    target."""
    z = torch.randn(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for widget in cases():
        s = js("solve(p)", p=widget.state())
        for name in TERMS:
            q, target, h = s[name]["q"], s[name]["target"], widget.term(name)(z)
            if target is None:
                assert q == 0 and widget.alpha == {"against": 0.5, "alone": 1}[name]
                rest = h + z @ torch.tensor(s[name]["pull"], dtype=z.dtype)
            else:
                rest = h - 0.5 * q * (z - torch.tensor(target, dtype=z.dtype)).square().sum(1)
            assert rest.std() < 1e-9 * (1 + abs(rest[0])), (widget, name)


def test_heights_are_those_of_the_output_term(js):
    """If it fails, the contours, or the profiles along the line, are those of another function."""
    for widget in cases(20):
        p, (y, wrong) = widget.state(), widget.targets
        for name in TERMS:
            heights = js("[[1, 2], [-1.5, 0.3]].map(subproblem(p, name).h)", p=p, name=name)
            places = torch.tensor([[1, 2], [-1.5, 0.3]], dtype=torch.float64)
            assert heights == pytest.approx(widget.term(name)(places).tolist(), **AGREE)
            shares, size = (-0.7, 0.0, 0.4, 1.0, 2.3), (y - wrong).square().sum().item()
            profile = js("shares.map(t => profile(p.alpha, name, t))", p=p, name=name,
                         shares=shares)
            line = widget.term(name)(torch.cat([y + t * (wrong - y) for t in shares]))
            assert np.multiply(profile, size) == pytest.approx(line.tolist(), **AGREE)


def test_border_of_beta(js):
    """If it fails, the mark on β's slider stands where the output is gone already, or is still
    there."""
    for alpha in (0.55, 0.8, 1.0):
        border = js("border({ alpha })", alpha=alpha)
        below, above = (widgets.Targets(alpha=alpha, beta=border * share)
                        for share in (0.999, 1.001))
        assert below.output("against") is not None and above.output("against") is None
        assert js("solve(p).against.z", p=above.state()) is None
    assert js("border({ alpha })", alpha=0.5) == math.inf


# In a browser


def setting(page):
    names = ("alpha", "beta", "y1", "y2", "wrong1", "wrong2")
    return widgets.Targets(**{name: page.number(name) for name in names})


def plane(page):
    """The left picture's window, in which circles are round."""
    box = page.canvas().bounding_box()
    half = 3 * (box["height"] - 46) / (box["width"] - 56)
    return {"x": (-3, 3), "y": (-half, half)}


def against(page):
    """The output inferred against the loss, as the picture says it in words."""
    words = re.search(r"\((\S+), (\S+)\) against the loss", page.label().replace("−", "-"))
    return [float(word) for word in words.groups()]


@each_way
def test_sliding_gives_what_lnn_core_predicts(shown, width, theme):
    """If it fails, the numbers under the picture are not those of the library, or not in order."""
    page = shown(widgets.Targets(), width=width, theme=theme)
    for name, share in (("alpha", 0.4), ("wrong2", 0.8), ("y1", 0.6), ("beta", 0.5)):
        before = page.numbers(*SHOWN), page.picture()
        page.slide(name, share)
        widget = setting(page)
        (rovr, arovr), (y, _) = widget.objectives(), widget.targets
        loss = 0.5 * sum((widget.output("alone") - y[0].numpy()) ** 2)
        assert page.numbers(*SHOWN) == pytest.approx([rovr, loss, arovr], abs=6e-3)
        assert (page.numbers(*SHOWN), page.picture()) != before
        assert page.numbers(*SHOWN) == sorted(page.numbers(*SHOWN))


def test_the_target_passes_through_infinity_and_the_output_does_not(shown):
    """If it fails, z⁻ jumps with the target around α = ½, where it hardly moves: the chapter's
    first experiment."""
    page = shown(widgets.Targets(alpha=0.48))
    words, outputs, slopes = [], [], []
    for _ in range(5):
        words.append(page.label())
        outputs.append(against(page))
        slopes.append(page.label(1))
        page.press("alpha", "ArrowRight")
    for label, place in zip(words, ("attracts", "attracts", "at infinity", "repels", "repels")):
        assert re.search(rf"Against the loss the target is [^;]*{place}", label)
    assert np.abs(np.diff(outputs, axis=0)).max() < 0.12
    assert "a valley" in slopes[0] and "a straight slope" in slopes[2] and "a hill" in slopes[4]
    assert "beyond y, and repels" in page.status


def test_above_one_half_beta_has_a_border(shown):
    """If it fails, some β is unsafe below ½, or β ≥ 1.25 safe at α = 0.9: the chapter's second
    experiment."""
    page = shown(widgets.Targets())
    border = page.root.locator(".control:has([name=beta]) .limit")
    page.press("beta", "End")
    assert not page.lit and page.number("arovr") < math.inf and not border.is_visible()
    target = page.label().replace("−", "-")
    t = [float(x) for x in re.search(r"the target is \((\S+), (\S+)\)", target).groups()]
    assert math.dist(against(page), t) < 0.35  # the strongest attack comes close to its target
    page.slide("alpha", 0.9)
    assert page.lit and page.number("arovr") == math.inf and border.is_visible()
    while page.number("beta") > 1.2:
        page.press("beta", "ArrowLeft")
    assert not page.lit and page.number("arovr") < math.inf


def test_at_the_end_of_alpha_there_is_no_attack(shown):
    """If it fails, α = 1 does not give ROVR and AROVR, ½‖y‖²/(1 ± β), whatever y⁻."""
    page = shown(widgets.Targets(beta=0.5))
    page.press("alpha", "End")
    loss = 0.5 * (1 + 1.5**2)
    assert page.numbers(*SHOWN) == pytest.approx([loss / 1.5, loss, loss / 0.5], abs=1e-3)
    page.slide("wrong1", 0.1)
    assert page.numbers(*SHOWN) == pytest.approx([loss / 1.5, loss, loss / 0.5], abs=1e-3)


@pytest.mark.parametrize("pull, width", [("drag", DESKTOP), ("swipe", PHONE)])
def test_both_targets_can_be_dragged(shown, pull, width):
    """If it fails, a star does not follow the mouse or the finger, or takes the other one along."""
    page = shown(widgets.Targets(), width=width)
    window = plane(page)
    getattr(page, pull)(page.place(-1, 1.5, window), page.place(-1.7, -0.8, window))
    assert page.numbers("y1", "y2") == pytest.approx([-1.7, -0.8], abs=0.08)
    getattr(page, pull)(page.place(1.2, 0.6, window), page.place(0.4, 1.4, window))
    assert page.numbers("wrong1", "wrong2") == pytest.approx([0.4, 1.4], abs=0.08)
    assert page.numbers("y1", "y2") == pytest.approx([-1.7, -0.8], abs=0.08)


def test_three_landscapes(shown):
    """If it fails, the choice of the subproblem changes nothing, or the numbers."""
    page = shown(widgets.Targets())
    pictures, numbers = {page.picture()}, page.numbers(*SHOWN)
    for name in ("along", "alone"):
        page.control("shown").select_option(name)
        page.settle()
        pictures.add(page.picture())
        assert page.numbers(*SHOWN) == numbers
    assert len(pictures) == 3
