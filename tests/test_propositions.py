"""Every statement of the theory on random toy networks, with global optima by the oracle.

A slack is the right-hand side of an inequality minus its left-hand side, or minus the
absolute difference for an equality; below −TOLERANCE = −1e-7 it is a violation.
"""

import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

import lnn_core as lnn
from lnn_core import oracle
from lnn_core import propositions as P
from lnn_core.propositions import adversarial, counterexamples, registry, statements, targeted, toys


@pytest.mark.parametrize("name", P.claims_of(P.ZACH))
@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1))
def test_statement_holds(name, seed):
    """If it fails, the theory, the library or the oracle is wrong."""
    assert P.CLAIMS[name].worst(seed) >= -P.TOLERANCE


def test_instances_cover_what_the_statements_are_about():
    """If it fails, the table claims too much: an activation, potential or shape is not in it."""
    drawn = [P.draw(seed) for seed in range(200)]
    assert {(toy.net.sizes, toy.net.is_chain) for toy in drawn} == {
        (sizes, edges is None) for sizes, edges in toys.SHAPES}
    assert {repr(toy.net.function(1)) for toy in drawn} == {repr(f) for f in toys.ACTIVATIONS}
    assert {repr(toy.base) for toy in drawn} == {"FenchelYoung()", "LeastSquares()"}
    assert any(isinstance(entry, torch.Tensor) for toy in drawn for entry in toy.gamma)
    assert all(0 < toy.beta * toy.kappa < 1 for toy in drawn)


def test_the_same_seed_is_the_same_instance():
    """If it fails, a row of the published table cannot be computed again."""
    one, two = P.draw(5), P.draw(5)
    assert repr(one.net) == repr(two.net) and one.gamma == two.gamma and one.beta == two.beta
    assert torch.equal(one.net.weights[0], two.net.weights[0]) and torch.equal(one.x, two.x)


def test_rows_say_where_they_are_from():
    """If it fails, a row's source and its claim are mixed up, or one of them is missing."""
    source = re.compile(r"new|abstract|(after )?(eq\.|section|[A-Z][a-z]+) \d|\(\d+\)$")
    for one in P.CLAIMS.values():
        assert source.match(one.source) and not source.match(one.claim) and len(one.claim) > 9, one


def test_table_reports_a_false_claim_as_violated(monkeypatch):
    """If it fails, the table cannot fail, and proves nothing."""
    def reversed_sandwich(toy):
        return -adversarial.sandwich(toy)

    both = {name: statements.Statement(name, "test", name, slack, {}) for name, slack in
            (("true", adversarial.sandwich), ("false", reversed_sandwich))}
    monkeypatch.setattr(registry, "CLAIMS", both)
    true, false = P.table(instances=5, seed=3)
    assert (true.instances, true.violations) == (5, 0) and true.worst >= -P.TOLERANCE
    assert false.violations == 5 and false.worst < -1e-3


# ------------------------------------------------- the generalized AROVR, by brute force


@pytest.mark.parametrize("seed", range(3))
def test_generalized_arovr_is_the_joint_maximum(seed):
    """Eq. (10) with d = ½(z − z′)ᵀQ(z − z′): simplex search over z⁻ and z* together. If it fails,
    the statements are about something else."""
    toy = P.draw(seed, shapes=toys.SHAPES[:1], activations=toys.SMOOTH, fraction=0.3,
                 bases=(lnn.LeastSquares(),))
    Q = np.array([[2.0, 0.7], [0.7, 1.0]]) * 4 * adversarial.admissible(toy, 0.5)
    schur = Q[1, 1] - Q[0, 1] ** 2 / Q[0, 0]

    def loss_to_minimise(both):
        adversary, nominal = both[:2], both[2:]
        z = [toy.x, *torch.as_tensor(nominal)[:, None, None]]
        gap = adversary - nominal
        ell = 0.5 * (adversary[1] - toy.y.item()) ** 2
        U = toy.potential(toy.net, z).item()
        return -(ell - gap @ Q @ gap / (2 * toy.beta) - U / toy.beta)

    start = np.tile(torch.cat(toy.net.activations(toy.x)[1:], 1)[0].detach().numpy(), 2)
    options = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000, "maxfev": 4000, "adaptive": True}
    found = min(minimize(loss_to_minimise, start + shift, method="Nelder-Mead", options=options).fun
                for shift in (0.0, 1.0, -1.0))
    assert adversarial.generalized(toy, schur).item() == pytest.approx(-found, rel=1e-6, abs=1e-8)


def test_learning_gamma_jointly_fails_both_ways():
    """Minimised over γ, eq. (10) becomes AROVR; maximised, it is infinite at a finite γ. If it
    fails, the counterexample is none."""
    toy = P.draw(0, fraction=0.5)
    arovr = adversarial.arovr(toy).item()
    values = [adversarial.generalized(toy, adversarial.admissible(toy, room)).item()
              for room in (1e-3, 1e-2, 1e4)]
    assert values[0] > values[1] > values[2] > arovr
    assert values[2] == pytest.approx(arovr, rel=1e-3)
    assert values[0] > 10 * arovr  # infinite without any room
    with pytest.raises(ValueError, match="must be below gamma_L"):
        adversarial.generalized(toy, toy.beta)


# ------------------------------------------------------------------ orders in β


@pytest.mark.parametrize("kind", [lnn.TargetedROVR, lnn.TargetedAROVR])
@pytest.mark.parametrize("base", toys.BASES, ids=str)
@pytest.mark.parametrize("activation", [lnn.ReLU(), lnn.Tanh()], ids=str)
def test_the_gradients_error_is_of_first_order_in_beta(activation, base, kind):
    """Proposition 4.4's limit is approached linearly: halving β halves the error. If it fails, the
    rate in the book is wrong."""
    toy = P.draw(12, shapes=toys.SHAPES[2:3], activations=(activation,), bases=(base,),
                 clearance=0.3)
    errors = targeted.gradient_errors(toy, [0.01 / 2**i / toy.kappa for i in range(4)], kind)
    ratios = [large / small for large, small in zip(errors, errors[1:])]
    assert errors[0] > 1e-6 and ratios == pytest.approx([2.0] * 3, rel=0.03)


# ----------------------------------------------- closed forms of the counterexamples


@pytest.mark.parametrize("example, expected", [
    (counterexamples.larger_alpha_can_be_easier,
     {"alpha=0.5": Fraction(1, 24), "alpha=0.75": Fraction(3, 80)}),
    (counterexamples.targeted_objective_needs_its_scale,
     {"forward loss": Fraction(1, 2), "AROVR": Fraction(5, 8), "no attack": Fraction(5, 18),
      "untargeted": Fraction(25, 72)}),
    (counterexamples.reweighting_can_be_easier,
     {"gamma=0.75": Fraction(3, 2), "gamma=1": 1, "gamma=2": Fraction(2, 3)}),
    (counterexamples.gamma_matters_for_linear_networks,
     {"gamma=1": Fraction(5, 4), "gamma=2": Fraction(9, 8)}),
    (counterexamples.tilt_moves_the_limit,
     {"Euclidean, limit": 0, "Euclidean, back-propagation": 1, "linear, limit": 0,
      "linear, back-propagation": 1}),
    (counterexamples.dropout_like_tilt_needs_adaptation,
     {"forward pass": 1, "mean gradient": Fraction(-1, 8)}),
    (counterexamples.potential_is_not_strongly_convex,
     {"smallest eigenvalue": (3 - 5**0.5) / 2, "ratio": (1 + 5**0.5) / 2}),
    (counterexamples.strong_convexity_does_not_bound_the_attack,
     {"curvature": -1, "growth": Fraction(-1, 2)}),
], ids=lambda value: getattr(value, "__name__", ""))
def test_counterexample_has_its_closed_form(example, expected):
    """If it fails, the fractions that the book quotes are not its values."""
    numbers = {key: float(value) for key, value in expected.items()}
    assert example() == pytest.approx(numbers, abs=2e-6)


def test_the_alpha_counterexample_does_not_depend_on_the_potential():
    """AROVR_{½,½} > AROVR_{¾,½} for least squares as well. If it fails, the book says too much."""
    net = counterexamples.unit_chain()
    one = torch.ones(1, 1, dtype=torch.float64)
    objectives = [lnn.TargetedAROVR(alpha, 0.5, lambda loss, target: loss(0 * one), per_alpha=False,
                                    potential=lnn.LeastSquares()) for alpha in (0.5, 0.75)]
    values = [oracle.objective(objective, net, one, one).item() for objective in objectives]
    assert values == pytest.approx([1 / 24, 3 / 80])
