"""Remark 2 for two layers: which networks (17) are networks (1), by minimisers."""

import math

import numpy as np
import pytest
import torch
from lrrn_reference import reference
from scipy.optimize import least_squares

import lnn_core as lnn
from lnn_core import lrrn
from lnn_core.propositions import lrrn_equivalence

#: A network (17) that an earlier edition of the book "proved" not to be one of (1).
ONE_OUTPUT = [[0.8], [-0.6]], [[1.0, 1.5]]


def small(weights, gamma, beta=1.0, bias=False, activation=None):
    W0, W1 = (torch.tensor(W, dtype=torch.float64) for W in weights)
    net = lrrn.LRRN([W0.shape[1], len(W0), len(W1)], activation, beta=beta, gamma=gamma,
                    dtype=torch.float64)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        net.weights[0].copy_(W0), net.weights[1].copy_(W1)
        for part in (*net.biases, *net.reconstruction_biases):
            part.normal_(0, 0.5 * bias, generator=g)
    return net


@pytest.mark.parametrize("gamma", [0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("bias", [False, True])
def test_one_output_has_a_twin_without_discount(gamma, bias):
    """41 inputs, SciPy's minimisers. If it fails, the book's example for Remark 2 is wrong."""
    net = small(ONE_OUTPUT, gamma, bias=bias)
    plain, d, T = lrrn_equivalence.without_discount(net)
    assert plain.gamma == 1 and plain.beta == net.beta
    x = torch.linspace(-3, 3, 41, dtype=torch.float64)[:, None]
    scaled = reference(net, x) * torch.tensor([d, d, T.item()], dtype=torch.float64)
    torch.testing.assert_close(reference(plain, x), scaled, atol=1e-12, rtol=0)
    assert (scaled[:, :2] == 0).any() and (scaled[:, :2] > 0).any()      # both kinds of unit


@pytest.mark.parametrize("beta", [1.0, [0.0, 0.5], [2.0, 3.0]])
@pytest.mark.parametrize("activation", [lnn.ReLU(), lnn.Identity()], ids=str)
def test_several_outputs_need_a_matrix(beta, activation):
    """Minimisers by SciPy; T is one matrix for all inputs. If it fails, part (a) is wrong."""
    draw = torch.Generator().manual_seed(3)
    weights = torch.randn(4, 3, generator=draw).tolist(), torch.randn(2, 4, generator=draw).tolist()
    net = small(weights, 0.4, beta, bias=True, activation=activation)
    plain, d, T = lrrn_equivalence.without_discount(net)
    x = 2 * torch.randn(30, 3, generator=draw, dtype=torch.float64)
    old, new = reference(net, x), reference(plain, x)
    torch.testing.assert_close(new, torch.cat([d * old[:, :4], old[:, 4:] @ T.T], 1),
                               atol=1e-9, rtol=0)
    assert torch.linalg.eigvalsh(T).min() > 0
    assert T[0, 1].abs() > 1e-3                                          # not a scale


def test_an_output_that_hears_nothing():
    """W_1 has a row, and with it a singular value, of exactly zero: T leaves d there. If it fails,
    0/0 spreads from one dead output to all of them."""
    net = small(([[0.8], [-0.6]], [[1.0, 1.5], [0.0, 0.0]]), 0.5, bias=True)
    plain, d, T = lrrn_equivalence.without_discount(net)
    x = torch.linspace(-3, 3, 5, dtype=torch.float64)[:, None]
    old, new = reference(net, x), reference(plain, x)
    torch.testing.assert_close(new, torch.cat([d * old[:, :2], old[:, 2:] @ T.T], 1),
                               atol=1e-9, rtol=0)
    assert T[1].tolist() == pytest.approx([0, d])


def test_without_a_discount_nothing_changes():
    """γ = 1: the same weights. If it fails, the wrong root of the quadratic is taken."""
    net = small(ONE_OUTPUT, 1.0)
    plain, d, T = lrrn_equivalence.without_discount(net)
    assert d == 1 and T.item() == pytest.approx(1)
    for new, old in zip(plain.weights, net.weights):
        torch.testing.assert_close(new, old)


def test_the_root_by_hand():
    """β = 1, γ = ½: h(ρ′) = ⅔h(1) = −⅔ at ρ′ = 2 or ⅓, so |Tu_2|/|Tu_1| = f(√2) = 2√2/3. If it
    fails, the scales solve another equation."""
    one = torch.ones(1, dtype=torch.float64)
    assert lrrn_equivalence.height(one, 1.0).item() == -1
    assert lrrn_equivalence.height(3 * one, 1.0).item() == 0
    assert lrrn_equivalence.same_height(one, 2 / 3, 1.0).item() == pytest.approx(2)
    assert lrrn_equivalence.same_height(0.99999999 * one, 2 / 3, 1.0).item() == pytest.approx(1 / 3)
    T = lrrn_equivalence.without_discount(lrrn_equivalence.scales_are_not_enough(0.5))[2]
    first, second = (T @ torch.tensor([[1.0, 1], [1, -1]]).double()).norm(dim=0)
    assert (second / first).item() == pytest.approx(2 * math.sqrt(2) / 3)


@pytest.mark.parametrize("gamma", [0.1, 0.5, 0.9])
def test_how_far_directions_scale_apart(monkeypatch, gamma):
    """With h(ρ) = ρ − 4ρ/(1 + ρ): the larger root of h(ρ) = −2γ/(1 + γ), by hand, then f(√ρ). If it
    fails, the table of statements has another number than |Tu_2|/|Tu_1|."""
    monkeypatch.setattr(lrrn_equivalence, "uniform", lambda *_: gamma)
    c = 2 * gamma / (1 + gamma)
    rho = (3 - c + math.sqrt((3 - c) ** 2 - 4 * c)) / 2
    assert lrrn_equivalence.output_directions_scale_apart(None) == pytest.approx(
        2 * math.sqrt(rho) / (1 + rho), rel=1e-9)


@pytest.mark.parametrize("first", [0.0, 1.0])
def test_scales_do_not_do_it_for_two_outputs(first):
    """A search over all W_1′, scales D and T, and the factor c, with W_0′ = cD⁻¹W_0 (forced).

    The two conditions are DS′D = cS and M′D = TM. If it fails, part (b) is wrong; with any
    matrix T in place of scales the same search must succeed, or it is too weak to say so.
    """
    net = lrrn_equivalence.scales_are_not_enough(0.5, first)
    assert best_fit(net, first, matrix=False) > 1e-4
    assert best_fit(net, first, matrix=True) < 1e-20


def best_fit(net, first, matrix, starts=12):
    W0, W1 = (W.detach().numpy() for W in net.weights)

    def conditions(W0, W1, gamma):
        inverse = np.linalg.inv(np.eye(2) + W1 @ W1.T)
        Q = W1.T @ W1 - 4 * W1.T @ inverse @ W1
        return (1 + gamma) * np.eye(4) + first * W0 @ W0.T + gamma * Q, 2 * inverse @ W1

    S, M = conditions(W0, W1, net.gamma)

    def difference(p):
        V, D, c = p[:8].reshape(2, 4), np.exp(p[8:12]), np.exp(p[12])
        T = p[13:17].reshape(2, 2) if matrix else np.diag(p[13:15])      # the inverse of T
        S1, M1 = conditions(c * W0 / D[:, None], V, 1.0)
        return np.concatenate([(D[:, None] * S1 * D / c - S)[np.triu_indices(4)],
                               (T @ M1 * D - M).ravel()])

    draw = np.random.default_rng(0)
    costs = []
    for _ in range(starts):
        p = np.concatenate([draw.normal(size=8), 0.3 * draw.normal(size=5), np.eye(2).ravel()
                            if matrix else np.ones(2)])
        costs.append(least_squares(difference, p, xtol=1e-15, ftol=1e-15, gtol=1e-15,
                                   max_nfev=2000).cost)
    return min(costs)


@pytest.mark.parametrize("options, message", [
    ({"sizes": [2, 3, 3, 1]}, "net has 3 layers; this is for 2"),
    ({"gamma": 1.5}, "gamma=1.5 must be at most 1"),
    ({"beta": [1, 0]}, "beta_2 must be positive"),
    ({"activation": lnn.Box(0, 1)}, "does not stay the same when it scales"),
    ({"output": lnn.ReLU()}, "must be all of space"),
])
def test_networks_without_an_answer(options, message):
    """If it fails, a network comes back that is not the one that was asked for."""
    options = {"sizes": [2, 3, 1], "beta": 1.0, "gamma": 0.5} | options
    with pytest.raises(ValueError, match=message):
        lrrn_equivalence.without_discount(lrrn.LRRN(options.pop("sizes"), **options))
