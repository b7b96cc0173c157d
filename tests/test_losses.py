"""Losses: arithmetic against explicit sums, random wrong labels against their distribution."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

import lnn_core as lnn
from lnn_core.losses import wrong_labels

SAMPLES, CLASSES = 4, 3


def tensors(seed, count):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, SAMPLES, CLASSES, generator=generator, dtype=torch.float64)


def explicit(z, euclidean, linear):
    """Σ w·½‖z − y‖² + Σ v·gᵀz for one sample after the other, in loops."""
    values = []
    for i in range(SAMPLES):
        value = 0.0
        for c in range(CLASSES):
            value += sum(w * 0.5 * (z[i, c] - y[i, c]).item() ** 2 for w, y in euclidean)
            value += sum(v * g[i, c].item() * z[i, c].item() for v, g in linear)
        values.append(value)
    return torch.tensor(values, dtype=torch.float64)


def test_the_two_losses():
    """If it fails, ℓ is not ½‖z − y‖² or gᵀz."""
    z, y, g = tensors(0, 3)
    torch.testing.assert_close(lnn.Euclidean(y)(z), explicit(z, [(1, y)], []))
    torch.testing.assert_close(lnn.Linear(g)(z), explicit(z, [], [(1, g)]))
    assert torch.equal(lnn.Loss()(z), torch.zeros(SAMPLES, dtype=torch.float64))


@given(st.floats(-2, 2), st.floats(-2, 2), st.integers(0, 99))
def test_arithmetic(a, b, seed):
    """If it fails, objectives add, scale or negate losses wrongly."""
    z, y1, y2, g1, g2 = tensors(seed, 5)
    one, two, push, pull = lnn.Euclidean(y1), lnn.Euclidean(y2), lnn.Linear(g1), lnn.Linear(g2)
    loss = a * (one - two) + b * push * 2 - pull + (-two)
    expected = explicit(z, [(a, y1), (-a - 1, y2)], [(2 * b, g1), (-1, g2)])
    torch.testing.assert_close(loss(z), expected)


@given(st.floats(-2, 2), st.floats(-2, 2), st.integers(0, 99))
def test_gradient_is_curvature_times_z_minus_pull(a, b, seed):
    """What inference uses of a loss: if it fails, z_L goes to the wrong place."""
    z, y1, y2, g = tensors(seed, 4)
    for loss in (a * lnn.Euclidean(y1) + b * lnn.Euclidean(y2) - lnn.Linear(g),
                 a * lnn.Euclidean(y1), lnn.Linear(g)):
        moving = z.clone().requires_grad_()
        expected, = torch.autograd.grad(loss(moving).sum(), moving)
        torch.testing.assert_close(loss.curvature * z - loss.pull, expected)


def test_wrong_labels_are_never_right_and_uniform():
    """If it fails, the targeted attack sometimes aims at the truth, or prefers some label."""
    labels = torch.arange(10).repeat(9000)
    others = wrong_labels(labels, 10, torch.Generator().manual_seed(0))
    assert others.dtype == labels.dtype and others.min() >= 0 and others.max() <= 9
    assert not (others == labels).any()
    for label in range(10):
        counts = torch.bincount(others[labels == label], minlength=10)
        assert chisquare(counts[torch.arange(10) != label]).pvalue > 1e-3


def test_wrong_labels_follow_the_generator_alone():
    """If it fails, runs with equal seeds are attacked differently."""
    state = torch.get_rng_state()
    labels = torch.arange(10).repeat(10)
    one, two = (wrong_labels(labels, 10, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(one, two) and torch.equal(state, torch.get_rng_state())
    assert torch.equal(wrong_labels(torch.tensor([0, 1]), 2), torch.tensor([1, 0]))


def test_targeted_attack_is_the_loss_at_a_wrong_label():
    """If it fails, ℓ⁻ is not ℓ with another one-hot target."""
    labels = torch.arange(CLASSES).repeat(20)
    target = torch.nn.functional.one_hot(labels, CLASSES).double()
    attack = lnn.Targeted(torch.Generator().manual_seed(0))
    draws = [attack(lnn.Euclidean, target) for _ in range(2)]
    for draw in draws:
        (weight, other), = draw.terms
        assert weight == 1 and draw.slope is None and other.dtype == target.dtype
        assert torch.equal(other.sum(1), torch.ones(60)) and set(other.unique().tolist()) == {0, 1}
        assert (other.argmax(1) != labels).all()
    assert not torch.equal(draws[0].terms[0][1], draws[1].terms[0][1]), "drawn once, not afresh"


def test_untargeted_attack_is_minus_the_loss():
    """If it fails, the untargeted attack pulls towards the target."""
    z, y = tensors(1, 2)
    torch.testing.assert_close(lnn.untargeted(lnn.Euclidean, y)(z), -explicit(z, [(1, y)], []))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_losses_keep_the_dtype(dtype):
    """If it fails, a float32 network computes in float64, or the reverse."""
    z, y, g = tensors(2, 3).to(dtype)
    loss = 0.25 * lnn.Euclidean(y) - lnn.Linear(g)
    assert loss(z).dtype == loss.pull.dtype == dtype


@pytest.mark.parametrize("slope, message", [
    (torch.zeros(SAMPLES, CLASSES - 1), rf"the slope has shape \({SAMPLES}, 2\), which does not broadcast to "
                                        rf"\({SAMPLES}, {CLASSES}\)"),
    (torch.zeros(SAMPLES, CLASSES, dtype=torch.float64), "the slope")])
def test_a_slope_that_does_not_fit_is_named(slope, message):
    """If it fails, the error speaks of something else than what the user gave."""
    with pytest.raises(ValueError, match=message):
        lnn.Linear(slope).check(lnn.LiftedNetwork([2, CLASSES]), SAMPLES)
