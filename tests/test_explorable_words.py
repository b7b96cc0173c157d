"""What the explorables say: sentences, numbers, marks on the sliders, pictures in words.

The numbers are computed here, by lnn_core; the words are those that a reader meets.
"""

import math
import re
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pytest
import torch
from drawing import COLOUR
from javascript import Page
from test_drawing import reached, sandwich_border, scalar

from lnn_core import bounds, lrrn, oracle, widgets
from lnn_core.losses import Euclidean

BLUE, RED, YELLOW = COLOUR["rovr"], COLOUR["arovr"], COLOUR["bound"]


def n(value, digits=2):
    """A number as it is written: with a true minus, ∞, and – where there is none."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞" if value > 0 else "−∞"
    rounded = Decimal(float(value)).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    return f"{rounded + 0 if rounded else abs(rounded)}".replace("-", "−")


def place(control, value):
    """Where on its track a slider has a value: with half a thumb, 8 pixels, at either end."""
    low, high, step = control["min"], control["max"], control["step"]
    value = min(max(value, low), high)
    at, last = ((math.log(v / low) / math.log(step) if control["log"] else (v - low) / step)
                for v in (value, high))
    return at / round(last)


def says(widget, labels, status, lit, readouts, marks=(), page=None):
    """Check all words. ``readouts``: (label, value, note, colour), or what stands between;
    ``marks``: {slider: (value, words, lit)}."""
    page = page or Page(widget)
    assert [page.label(i) for i in range(len(labels))] == labels
    assert page.status == [status, lit]
    written = [item if isinstance(item, str) else [*item[:3], item[3] or "inherit"]
               for item in readouts]
    assert page.readouts == written
    for control in widget.controls():
        if "options" in control:
            continue
        where, words, on = page.mark(control["name"])
        assert page.text(control["name"]) == n(getattr(widget, control["name"]), control["digits"])
        if control["name"] not in marks:
            assert (where, words, on) == (None, "", False)
            continue
        value, expected, lights = marks[control["name"]]
        assert (words, on) == (expected, lights)
        if math.isfinite(value):
            found = re.fullmatch(r"calc\(8px \+ (\S+) \* \(100% - 16px\)\)", where)
            assert found and float(found[1]) == pytest.approx(place(control, value), abs=1e-9)
        else:
            assert where is None


@pytest.mark.parametrize("p", [
    {}, {"beta": 0.49, "passes": 3}, {"beta": 0.5}, {"beta": 0.5, "y": 0.5}, {"beta": 0.51},
    {"shown": "rovr", "gamma": 2.0, "x": -0.4, "y": -0.7, "passes": 20}])
def test_landscape(p):
    """If it fails, readers hear or read another number or border than the picture shows."""
    widget = widgets.Landscape(**p)
    unit, beta, border = widget.unit, widget.beta, widget.unit.stability_threshold
    infinite = beta > border or beta == border and widget.x > widget.y
    finite = not infinite and beta < border
    values = {"ROVR": (unit.rovr(beta), unit.optimum(beta)), "ℓ(z*)": (unit.loss(), unit.forward()),
              "AROVR": (unit.arovr(beta), unit.optimum(-beta)) if finite else
              (math.inf, None) if infinite else (3.0, (0, -2))}  # on the border, worked out by hand
    places = "; ".join(f"{name} is infinite: there is no optimum" if z is None else
                       f"{name} = {n(v, 3)} at z₁ = {n(z[0])}, z₂ = {n(z[1])}"
                       for name, (v, z) in values.items())
    z1, z2 = unit.path(widget.weight, widget.passes)[-1]
    energy = "U + βℓ" if widget.shown == "rovr" else "U − βℓ"
    label = (f"Contours of {energy} over z₁ and z₂ for β = {n(beta)}, γ₁/γ₂ = {n(widget.gamma)}, "
             f"x = {n(widget.x)}, y = {n(widget.y)}. {places}. Inference after {widget.passes} "
             f"sweeps: z₁ = {n(z1)}, z₂ = {n(z2)}.")
    status = (f"β has reached the border of stability, {n(border)}: U − βℓ falls without end, "
              "AROVR is infinite." if infinite else "The attack has an optimum as long as β does "
              f"not pass {n(border)}, the border of stability.")
    says(widget, [label], status, infinite, [
        ["▲ ROVR", n(values["ROVR"][0], 3), "nudged", BLUE], "≤",
        ["■ ℓ(z*)", n(values["ℓ(z*)"][0], 3), "forward pass", None], "≤",
        ["● AROVR", n(values["AROVR"][0], 3), "attacked", RED],
    ], {"beta": (border, "border of stability", infinite)})


ONE_UNIT = {
    "forbidden": "f never takes this value: Fenchel–Young forbids it, least squares does not.",
    "same": "z = f(a): both prices are zero, and no error is sent.",
    "flat": "f is flat at a: least squares sends no error down, and the unit cannot learn. "
            "Fenchel–Young sends z − f(a).",
    "else": "Fenchel–Young is never the cheaper one. Its price is the shaded area."}


@pytest.mark.parametrize("p, case", [
    ({}, "flat"), ({"a": 1.3}, "else"), ({"a": 1.3, "z": 1.3}, "same"), ({"z": -0.5}, "forbidden"),
    ({"activation": "tanh", "a": 2.1, "z": 1.05}, "forbidden"),
    ({"activation": "tanh", "a": 2.1, "z": -0.95}, "else"),
    ({"activation": "box", "a": 1.2, "z": 0.3}, "flat"),
    ({"activation": "box", "a": 0.7, "z": 1.0}, "else"),
    ({"activation": "box", "a": 0.7, "z": 1.05}, "forbidden"),
    ({"activation": "identity", "a": -0.7, "z": 1.05}, "else")])
def test_one_unit(p, case):
    """If it fails, a price or an error is another one, or the sentence is about another case."""
    widget = widgets.OneUnit(**p)
    a, z, G = widget.a, widget.z, widget.function
    fa = scalar(G.activation)(a)
    slope = {"identity": 1.0, "relu": float(a > 0), "box": float(0 < a < 1),
             "tanh": 1 - math.tanh(a) ** 2}[widget.activation]
    divergence, squares = (v.item() for v in widget.prices(torch.tensor(z, dtype=torch.float64)))
    error, allowed = (z - fa, True) if math.isfinite(divergence) else (math.nan, False)
    says(widget, [
        f"Two prices of the activation z, for a = {n(a)} and f(a) = {n(fa)}. At z = {n(z)} "
        f"Fenchel–Young asks {n(divergence, 3)}, least squares {n(squares, 3)}.",
        f"Graph of the activation function {widget.activation}, with the point a = {n(a)}, "
        f"z = {n(z)}. " + (f"The area between it and the graph is {n(divergence, 3)}." if allowed
                           else "It is out of reach."),
    ], ONE_UNIT[case], case == "forbidden", [
        ["■ f(a)", n(fa, 3), "forward pass", None],
        ["● Fenchel–Young", n(divergence, 3), "price", BLUE],
        ["−∂/∂a", n(error, 3), "error it sends", None],
        ["● least squares", n(squares, 3), "price", RED],
        ["−∂/∂a", n(slope * (z - fa), 3), "error it sends", None]])


REGION = {"woken": "The hidden unit is off and has been woken: it passes a signal on, which "
                   "back-propagation does not.",
          "off": "The hidden unit is off and stays off: like back-propagation, it passes no signal "
                 "on.",
          "switched": "The adversary has switched the hidden unit off: the region ends at z₁ = 0."}
RATIO = " Deviations and energies follow γ; the ratio of the two error signals is w, whatever γ."
REGION |= {"equal": "The weights are equal." + RATIO,
           "soft": "The hidden unit is soft: the region is long where z₂ follows z₁." + RATIO,
           "stiff": "The hidden unit is stiff: the region is narrow in z₁." + RATIO}


@pytest.mark.parametrize("p, case", [
    ({}, "soft"), ({"gamma": 1.0, "shown": "energy"}, "equal"), ({"gamma": 4.0}, "stiff"),
    ({"x": -0.5, "gamma": 4.0, "shown": "signal"}, "off"),
    ({"x": -0.3, "y": -1.0, "gamma": 0.0625, "delta": 0.4, "shown": "signal"}, "woken"),
    ({"x": 0.3, "y": -1.0, "gamma": 0.0625, "delta": 0.4}, "soft"),
    ({"x": 0.3, "y": 3.0, "gamma": 0.0625, "delta": 0.4, "w": 0.25}, "soft"),
    ({"x": 0.2, "y": 2.9, "gamma": 0.5, "shown": "signal", "w": 1.5}, "soft")])
def test_anisotropy(p, case):
    """If it fails, what reaches a unit is another number, or the sentence is about another case."""
    widget = widgets.Anisotropy(**p)
    (z1, z2), quantities = reached(widget)
    if widget.x > 0 and z1 < 1e-6:
        case = "switched"
    loss, worst = widget.unit.loss(), 0.5 * (z2 - widget.y) ** 2
    error = abs(widget.w * max(widget.x, 0) - widget.y)
    pair = " and ".join(n(v, 3) for v in quantities[widget.shown])
    words = {"deviation": "deviation |z − f(a)|", "signal": "error signal γ|z − f(a)|/β",
             "energy": "share of the energy"}[widget.shown]
    sent = f"; back-propagation sends {n(widget.w * error if widget.x > 0 else 0, 3)} and {n(error, 3)}"
    f1, f2 = widget.unit.forward()
    says(widget, [
        f"The region of all z₁, z₂ of energy at most {n(widget.delta, 3)}, for γ₁/γ₂ = "
        f"{n(widget.gamma)}, and dashed that for equal weights. Forward pass z₁ = {n(f1)}, "
        f"z₂ = {n(f2)}, loss {n(loss, 3)}; worst point z₁ = {n(z1)}, z₂ = {n(z2)}, loss "
        f"{n(worst, 3)}.",
        f"Against γ₁/γ₂: {words} of the hidden unit and of the output. Now {pair}"
        f"{sent if widget.shown == 'signal' else ''}.",
    ], REGION[case], False, [
        ["■ ℓ(z*)", n(loss, 3), "forward pass", None], "≤",
        ["● worst ℓ", n(worst, 3), "in the region", RED],
        ["▲ hidden unit", n(quantities[widget.shown][0], 3), "z₁", COLOUR["arovr_abg"]],
        ["● output", n(quantities[widget.shown][1], 3), "z₂", COLOUR["arovr_ab"]]])


GAINS = {
    "equal": "A singular value is at the peak, and Theorem 1 is an equality: no weights stretch "
             "further.",
    "layers": "A singular value is at the peak: without feedback the layers reach the bound. With "
              "it, upper layers hold the lower ones back.",
    "past": "All singular values are past the peak: larger weights flatten the LRRN, steepen the "
            "plain one.",
    "small": "Where σ is below 1, f is above the diagonal: the LRRN stretches further than the "
             "plain network.",
    "else": "f rises to its peak at 1/√β and falls again: no singular value gets above the dotted "
            "line."}


@pytest.mark.parametrize("p, case", [
    ({}, "else"), ({"sigma2": 1.0}, "equal"), ({"beta": 4.0, "sigma1": 0.5}, "layers"),
    ({"beta": 4.0, "sigma1": 0.5, "depth": 1}, "equal"), ({"scale": 8.0}, "past"),
    ({"scale": 2.0, "beta": 16.0}, "else"), ({"scale": 8.0, "sigma3": 0.125}, "equal"),
    ({"scale": 0.25}, "small"), ({"beta": 16.0, "sigma3": 0.55, "sigma1": 0.84, "depth": 2}, "past"),
    ({"beta": 16.0, "sigma3": 0.45, "sigma1": 0.84, "depth": 2}, "small"),
    ({"beta": 0.25, "sigma1": 2.5, "sigma2": 3.0, "sigma3": 4.0, "depth": 1}, "past"),
    ({"beta": 16.0, "sigma3": 0.42, "depth": 2, "sigma1": 1.4}, "small"),
    ({"beta": 16.0, "sigma3": 0.42, "depth": 2, "sigma1": 1.5}, "else")])
def test_gains(p, case):
    """If it fails, a stretch is another number, or the sentence is about another case."""
    widget = widgets.Gains(**p)
    beta, L, sigma = widget.beta, widget.depth, widget.singular_values
    slope, bound, plain = widget.stretch()
    layers, peak = lrrn.gain(sigma, beta), lrrn.bounds.largest_gain(beta)

    def words(value):
        return n(value, 3 if value < 1000 else 0)

    def listed(values):
        return ", ".join(words(v.item()) for v in values)

    says(widget, [
        f"The function f against the singular value, for β = {n(beta)}: it rises to {words(peak)} "
        f"and falls again; a plain layer follows the diagonal. The singular values {listed(sigma)} "
        f"become {listed(layers)}.",
        f"Stretch against the scale of all weights, for L = {L}. At s = {n(widget.scale)} the LRRN "
        f"stretches by {words(slope)}; Theorem 1 allows {words(bound)} at any scale. The plain "
        f"network stretches by {words(plain)}.",
    ], GAINS[case], False, [
        ["● LRRN", n(slope, 3), "stretch", BLUE], "≤",
        ["no feedback", n(layers.max().item() ** L, 3), "highest dotᴸ", None], "≤",
        ["◆ bound", n(bound, 3), "Theorem 1", YELLOW], ["■ plain", words(plain), "stretch", None],
    ], {"beta": (1.0, "1: never expands", False)})


SANDWICH = {
    "infinite": "β has reached the border: a push pays for itself, and AROVR is infinite.",
    "past": "β is past 1/κ, where the upper bound ends. AROVR is still finite: far out, the two "
            "units cannot both help the push.",
    "linear": "A linear network: the bounds, the reduced formula and the objectives are the same.",
    "exact": "At AROVR's optimum no unit has switched: the reduced formula (thin dashes) is exact."}
SANDWICH |= {unit: f"At AROVR's optimum unit {unit} has switched: AROVR has left the reduced "
                   "formula (thin dashes), but not the bound." for unit in ("1", "2", "1 and unit 2")}


@pytest.mark.parametrize("p, case", [
    ({}, "exact"), ({"w": 1.0, "beta": 0.3}, "2"), ({"beta": 0.4}, "past"), ({"beta": 0.6}, "infinite"),
    ({"activation": "identity", "w": 0.5, "beta": 0.2}, "linear"),
    ({"activation": "identity", "w": 0.5, "beta": 0.9}, "infinite"),
    ({"gamma": 0.5, "a": 1.0, "w": -0.8, "beta": 0.22}, "2"),
    ({"gamma": 0.5, "a": 1.0, "w": -0.3, "beta": 0.2}, "exact"),
    ({"gamma": 4.0, "a": 0.1, "w": -1.0, "beta": 0.3}, "2")])
def test_sandwich(p, case):
    """If it fails, an objective or a bound is another number, or the sentence about another
    case."""
    widget = widgets.Sandwich(**p)
    beta, kappa = widget.beta, bounds.kappa(widget.net, widget.potential.gamma)
    (rovr, arovr), (lower, upper) = widget.objectives(beta), widget.bounds(beta)
    border, finite = sandwich_border(widget), math.isfinite(arovr)
    u, switched = optima_of(widget)
    assert case in ("infinite", "past", "linear") or switched == [int(d) for d in case if d in "12"]

    def words(value):
        return n(value, 3) if math.isfinite(value) else "infinite"

    says(widget, [
        f"ROVR, the loss and AROVR against β, between the two bounds. At β = {n(beta)}: ROVR is "
        f"{n(rovr, 3)}, the loss of the forward pass 0.500, AROVR {words(arovr)}; the bounds are "
        f"{n(lower, 3)} and {words(upper)}. The upper bound ends at 1/κ = {n(1 / kappa, 3)}, AROVR "
        f"at its border {n(border, 3)}.",
        f"Against the move u of the output: the loss ℓ, the curve ℓ + U/β, whose lowest point, at "
        f"u = {n(u['rovr'])}, is ROVR, and the curve ℓ − U/β; "
        + (f"its highest point, at u = {n(u['arovr'])}, is AROVR." if finite else
           "it has no highest point: AROVR is infinite."),
    ], SANDWICH[case], not finite, [
        ["◆ ℓ/(1 + βκ)", n(lower, 3), "lower bound", YELLOW], "≤",
        ["▲ ROVR", n(rovr, 3), "nudged", BLUE], "≤",
        ["■ ℓ(z*)", "0.500", "forward pass", None], "≤",
        ["● AROVR", n(arovr, 3), "attacked", RED], "≤",
        ["◆ ℓ/(1 − βκ)", n(upper, 3), "upper bound", YELLOW],
    ], {"beta": (border, "border of stability", not finite)})


def optima_of(widget):
    """The moves of the output at ROVR's and AROVR's optimum, and which units AROVR switches."""
    one, moves, switched = torch.ones(1, 1, dtype=torch.float64), {}, []
    for name, weight in (("rovr", widget.beta), ("arovr", -widget.beta)):
        try:
            _, z = oracle.minimum(widget.net, one, widget.potential + weight * Euclidean(widget.target))
        except oracle.Unbounded:
            continue
        moves[name] = (z[2] - widget.target).item() - 1
        on = (z[1][0] > 0).tolist()
        switched = [i + 1 for i, a in enumerate((1.0, widget.a)) if (a > 0) != on[i]]
    return moves, switched


TARGETS = {
    "run": "β has reached the border: repulsion beats the potential, the output runs away, and AROVR "
           "is infinite.",
    "attracts": "α is below ½: the attack has a target, on the line beyond y⁻. For no β does the "
                "output go farther than that.",
    "none": "α = ½: the squares cancel. The attack is a constant force along the line, without a "
            "target. Every β is still allowed.",
    "repels": "α is above ½: the target has come back on the other side, beyond y, and repels. The "
              "outputs hardly notice, but β has a border now."}


@pytest.mark.parametrize("p, case", [
    ({}, "attracts"), ({"alpha": 0.5, "beta": 16.0, "shown": "alone"}, "none"),
    ({"alpha": 0.8, "beta": 1.0, "shown": "along"}, "repels"), ({"alpha": 0.8, "beta": 2.0}, "run"),
    ({"alpha": 0.75, "beta": 2.0, "y1": -0.9}, "run"), ({"alpha": 1.0, "beta": 0.5, "y1": 0.3}, "repels")])
def test_targets(p, case):
    """If it fails, a target or an output is another point, or the sentence is about another
    case."""
    widget = widgets.Targets(**p)
    alpha, q = widget.alpha, round(1 - 2 * widget.alpha, 12)
    y, wrong = (target[0].numpy() for target in widget.targets)
    rovr, arovr = widget.objectives()
    outputs = {name: widget.output(name) for name in ("alone", "against", "along")}

    def pair(z):
        return "none" if z is None else f"({n(z[0])}, {n(z[1])})"

    at = "at infinity"
    if q:
        at = f"{pair(((1 - alpha) * wrong - alpha * y) / q)} and {'attracts' if q > 0 else 'repels'}"
    terms = {"alone": "attack alone, ᾱℓ⁻", "against": "against the loss, ᾱℓ⁻ − αℓ",
             "along": "along with the loss, ᾱℓ⁻ + αℓ"}
    inferred = "; ".join(f"{pair(outputs[name])} {words}" for name, words in terms.items())
    shape = "a straight slope"
    if q:
        shape = (f"{'a valley' if q > 0 else 'a hill'}, its turning point at "
                 f"{n((1 - alpha) / q)}")
    border = 1 / (2 * alpha - 1) if alpha > 0.5 else math.inf
    loss = 0.5 * sum((outputs["alone"] - y) ** 2)
    says(widget, [
        f"The plane of outputs with the forward pass at the origin, y = {pair(y)} and y⁻ = "
        f"{pair(wrong)}, for α = {n(alpha)} and β = {n(widget.beta)}. Against the loss the target "
        f"is {at}; along with the loss it is {pair((1 - alpha) * wrong + alpha * y)}. Inferred "
        f"outputs: {inferred}.",
        "The three output terms along the line through y (at 0) and y⁻ (at 1). Those of the attack "
        f"alone and along with the loss are valleys, lowest at 1 and at {n(1 - alpha)}. That "
        f"against the loss is {shape}.",
    ], TARGETS[case], case == "run", [
        ["▲ ROVR/α", n(rovr, 3), "along with the loss", COLOUR["rovr_ab"]], "≤",
        ["◆ ℓ(z⁺)", n(loss, 3), "loss under attack", None], "≤",
        ["● AROVR/α", n(arovr, 3), "against the loss", COLOUR["arovr_ab"]],
        ["■ ℓ(z*)", n(0.5 * y @ y, 3), "forward pass", None],
    ], {"alpha": (0.5, "½: no target", False),
        "beta": (border, "border of stability" if np.isfinite(border) else "", case == "run")})
