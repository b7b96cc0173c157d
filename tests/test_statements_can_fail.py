"""For each statement on borders, regions, alignment and Remark 2: a falsehood it must notice.

A control replaces one ingredient of the statement (a constant, an optimum, a unit of measure)
by a wrong one. A statement that held all the same would say nothing.
"""

import pytest
import torch

import lnn_core as lnn
from lnn_core import propositions as P
from lnn_core.propositions import alignment, borders, lrrn_equivalence, regions, registry, statements
from lnn_core.propositions.toys import Toy


def scaled(function, factor):
    """The function with its result multiplied."""
    return lambda *args, **kwargs: factor * function(*args, **kwargs)


def stay_at_home(toy, potential, h):
    """An "optimum" that is the forward pass."""
    return None, [z_k.detach() for z_k in toy.net.activations(toy.x)]


def with_sign(sign):
    """Optima for the output term times −sign: a helper in place of an adversary."""
    return lambda toy, potential, h: statements.minimum(toy, potential, sign * h)


def without_gamma(toy, beta=None):
    return arovr(toy.with_(gamma=(1.0,) * toy.net.depth), toy.beta if beta is None else beta)


def forward_loss(toy, beta=None):
    return toy.forward_loss


def half_as_steep(g, potential):
    return lnn.Tilted([0.5 * g_k for g_k in g], potential)


arovr, per_alpha, signals = regions.arovr, alignment.per_alpha, alignment.error_signals
after_sweeps = regions._after_sweeps
matrix_norm, threshold = torch.linalg.matrix_norm, lnn.bounds.stability_threshold
kappa = Toy.kappa.func

CONTROLS = {
    "larger_beta_is_harder": (borders, "arovr", borders.rovr),
    "near_border": (lnn.bounds, "stability_threshold", scaled(threshold, 1.05)),
    "far_border": (borders, "beta_infinity", scaled(borders.beta_infinity, 1.01)),
    "lipschitz_loss_is_bounded": (Toy, "kappa", property(lambda toy: 0.5 * kappa(toy))),
    "adversary_stays_close": (borders, "violation", scaled(borders.violation, 9.0)),
    "every_price_bounds_every_budget": (regions, "arovr", scaled(regions.arovr, 0.99)),
    "region_is_a_ball_in_the_errors": (regions, "violation", scaled(regions.violation, 1.5)),
    "input_perturbations_are_covered": (regions, "arovr", forward_loss),
    "input_radius": (lnn.bounds, "energy_budget", scaled(lnn.bounds.energy_budget, 9.0)),
    "energy_is_the_slope_in_gamma": (regions, "minimum", stay_at_home),
    "rescaling_units_is_reweighting": (regions, "arovr", without_gamma),
    "hidden_units_drift": (regions, "gradient", scaled(regions.gradient, 1.1)),
    "compliances_add": (regions, "generalized",
                        lambda toy, weight: borders.arovr(toy)),
    "linear_average_is_the_loss": (regions, "Linear", lnn.Euclidean),
    "optimum_satisfies_equation_17": (regions, "minimum", with_sign(-1.0)),
    "damped_steps_descend": (torch.linalg, "matrix_norm", scaled(matrix_norm, 0.5)),
    "linear_sweeps_stop_at_the_border": (lnn.bounds, "stability_threshold", scaled(threshold, 0.3)),
    "sweeps_find_the_forward_pass": (
        regions, "_after_sweeps",
        lambda toy, beta, z, passes: after_sweeps(toy, beta, z, passes - 1)),
    "upper_bound_iff_aligned": (alignment, "per_alpha",
                                lambda toy, a, b: a * per_alpha(toy, a, b)),
    "attacks_raise_the_loss_inside_a_ball": (alignment, "minimum", with_sign(0.1)),
    "larger_alpha_is_harder_per_alpha": (alignment, "per_alpha",
                                         lambda toy, a, b: per_alpha(toy, a, b) / a),
    "bounded_for_small_alpha": (alignment, "per_alpha",
                                lambda toy, a, b: per_alpha(toy, a, b) / a),
    "bounded_at_one_half": (alignment, "per_alpha", scaled(per_alpha, 3.0)),
    "targeted_expansion": (alignment, "error_signals",
                           lambda toy, loss: [1.1 * s for s in signals(toy, loss)]),
    "tilts_penalise_weights": (alignment, "Tilted", half_as_steep),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_statement_notices_a_falsehood(name, monkeypatch):
    """If it fails, the statement holds whatever the theory says: its row proves nothing."""
    statement = P.CLAIMS[name]
    monkeypatch.setattr(*CONTROLS[name])
    assert any(statement.worst(seed) < -P.TOLERANCE for seed in range(40))


def test_every_statement_of_these_modules_has_a_control():
    """If it fails, a statement was added that nobody has seen fail."""
    modules = {module.__name__ for module in (alignment, borders, regions)}
    assert set(CONTROLS) == {name for name, statement in P.claims_of(P.ZACH).items()
                             if statement.slack.__module__ in modules}


@pytest.mark.parametrize("name, attribute, falsehood", [
    ("two_layers_without_discount", "same_height", lambda rho, factor, beta: rho),
    ("one_output_without_discount", "height", lambda rho, beta: rho),
    ("output_directions_scale_apart", "without_discount",
     lambda net: (net, 1.0, torch.eye(2, dtype=torch.float64)))])
def test_claim_notices_a_falsehood(name, attribute, falsehood, monkeypatch):
    """If it fails, the claim about Remark 2 holds whatever the construction does."""
    claim = P.CLAIMS[name]
    monkeypatch.setattr(lrrn_equivalence, attribute, falsehood)
    assert any(claim(seed) > claim.limit for seed in range(10))


def test_a_claim_over_its_limit_counts_as_a_violation(monkeypatch):
    """If it fails, the one table of both papers hides what the second paper gets wrong."""
    few = {name: P.lrrn.Measurement(name, "Lemma", name, limit, lambda draw: 1.0)
           for name, limit in (("fine", 1.0), ("broken", 0.5))}
    monkeypatch.setattr(registry, "CLAIMS", few)
    fine, broken = P.table(instances=3)
    assert (fine.source, fine.worst, fine.violations) == ("LRRN, Lemma", 0.0, 0)
    assert (broken.instances, broken.worst, broken.violations) == (3, -0.5, 3)


# ------------------------------------------------- the two borders, by closed forms


def test_every_k_says_fine_and_arovr_is_infinite():
    """If it fails, the book's example that the far border is not the near one is wrong."""
    found = borders.finite_by_every_k_and_infinite(beta=0.5)
    assert found["least near border"] == 1 and found["far border"] == pytest.approx(0.1)
    for t, name in ((1e3, "energy at t"), (2e3, "at 2t")):
        # U at (0, 3t, 10t), x = 1: ½ + (½(3t)² + 3t) + ½t²; the loss is ½(10t)².
        assert found[name] == pytest.approx(0.5 + 4.5 * t**2 + 3 * t + 0.5 * t**2 - 25 * t**2)


def test_k_says_infinite_and_arovr_is_seven():
    """If it fails, "beyond the near border the value is infinite" might be true after all."""
    found = borders.infinite_by_k_and_finite(beta=0.25)
    assert found == {"near border": pytest.approx(1 / 11), "far border": pytest.approx(0.5),
                     "AROVR": pytest.approx(7.0)}


@pytest.mark.parametrize("w", [0.5, 2.0, -3.0])
def test_far_border_of_one_hidden_unit(w):
    """1/(1 + w²): the unit can always be raised. If it fails, β_∞ is another number."""
    net = borders.chain(1.0, w, biases=(0.3, -0.2))
    assert borders.beta_infinity(net, lnn.FenchelYoung()) == pytest.approx(1 / (1 + w**2))
