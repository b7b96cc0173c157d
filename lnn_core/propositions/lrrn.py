"""The statements of Høier and Zach (2020), each as a number with a limit it must not pass.

A claim draws a random instance from a seed and measures it: a Lipschitz claim gives the
largest ratio ‖z(x) − z(x′)‖ / (constant·‖x − x′‖) that it found, to be at most 1; an
equality or a limit gives an error, to be at most a small tolerance.

"new" marks what the paper does not state, "corrected" what it prints differently.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..convex import Identity, ReLU
from ..kinds import expect
from ..lrrn.bounds import (
    certified_radius,
    gain,
    jacobian,
    largest_gain,
    layer_constants,
    lipschitz,
    refined_constants,
)
from ..lrrn.inference import infer
from ..lrrn.layers import RRLayer, feed_forward
from ..lrrn.model import LRRN
from ..lrrn.objectives import Contrastive, Unsupervised
from .lrrn_toys import (
    EXACT,
    PROXES,
    choice,
    distance,
    network,
    normal,
    proximal,
    slope,
    steepest,
    strength,
    uniform,
)
from .registry import HOIER_ZACH, Claim, register


@dataclass(frozen=True)
class Measurement(Claim):
    """A claim of Høier and Zach (2020): ``measure`` must be at most ``limit``, which has all tolerance
    that there is. The slack is the limit minus the measure."""

    paper = HOIER_ZACH
    prefix = "LRRN, "
    limit: float
    measure: Callable[[torch.Generator], float]

    def __call__(self, seed: int) -> float:
        """The measure on the random instance of a seed."""
        with torch.device("cpu"):
            return self.measure(torch.Generator().manual_seed(seed))

    def worst(self, seed: int) -> float:
        """The limit minus the measure."""
        return self.limit - self(seed)


RATIO, EQUAL = 1 + 1e-7, 1e-8


def claim(source: str, text: str, limit: float = EQUAL):
    """Register a measure under its function's name."""
    def registered(measure: Callable[[torch.Generator], float]):
        register(Measurement(measure.__name__, source, text, limit, measure))
        return measure
    return registered


# --------------------------------------------------------------------------- section 3.1


@claim("(3)", "inference in one linear layer is the closed form")
def closed_form(draw):
    """How far the network's output is from that of an :class:`RRLayer`."""
    net = network(draw, depth=1, sets=(Identity(),))
    layer = RRLayer(*net.sizes, net.beta[0], dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(net.weights[0])
        layer.bias.copy_(net.biases[0])
        layer.reconstruction_bias.copy_(net.reconstruction_biases[0])
        x = normal(draw, 20, net.sizes[0])
        return distance(infer(net, x, solver=EXACT)[0][-1], layer(x))


@claim("section 3.1", "f_β is largest at 1/√β, where it is (β^½ + β^−½)/2")
def largest_value(draw):
    """By how much f_β exceeds its maximum on a grid, or misses it at 1/√β."""
    beta = strength(draw)
    sigma = torch.logspace(-4, 4, 100_001, dtype=torch.float64)
    above = float(gain(sigma, beta).max()) - largest_gain(beta)
    return max(above, abs(gain(beta**-0.5, beta) - largest_gain(beta)))


@claim("Remark 1 (corrected)", "‖A_β‖ = max_i f_β(σ_i), at the σ_i with |log(σ_i√β)| least")
def operator_norm(draw):
    """How far ‖A_β‖ is from :meth:`RRLayer.lipschitz` and from the closed form."""
    layer = RRLayer(choice(draw, range(1, 6)), choice(draw, range(1, 6)), strength(draw),
                    generator=draw, dtype=torch.float64)
    A = layer(torch.eye(layer.weight.shape[1], dtype=torch.float64)).detach().T
    sigma = torch.linalg.svdvals(layer.weight.detach())
    closest = sigma[(sigma * layer.beta**0.5).log().abs().argmin()]
    norm = torch.linalg.matrix_norm(A, 2)
    return distance(torch.stack([layer.lipschitz() * torch.ones_like(norm),
                                 gain(closest, layer.beta)]), norm.expand(2))


# --------------------------------------------------------------------------- Lipschitz bounds


def _operator_ratio(draw: torch.Generator, beta: float,
                    constant: Callable[[float], float]) -> float:
    """The worst slope found of P_{β,W,G} for random W and G, over constant(‖W‖)."""
    W = uniform(draw, 0.2, 2) * normal(draw, choice(draw, range(1, 6)), choice(draw, range(1, 6)))
    prox, norm = choice(draw, PROXES.values()), float(torch.linalg.matrix_norm(W, 2))
    return steepest(lambda x: proximal(beta, W, x, prox), W, draw) / constant(norm)


@claim("Lemma 1", "P_{β,W,G} is (β^½ + β^−½)/2-Lipschitz", RATIO)
def lemma_1(draw):
    """The steepest slope found, over the bound."""
    beta = strength(draw)
    return _operator_ratio(draw, beta, lambda norm: largest_gain(beta))


@claim("Corollary 1", "P_{1,W,G} is 1-Lipschitz", RATIO)
def corollary_1(draw):
    """The steepest slope found for β = 1."""
    return _operator_ratio(draw, 1.0, lambda norm: 1.0)


@claim("Lemma 2", "P_{0,W,G} is ‖W‖-Lipschitz", RATIO)
def lemma_2(draw):
    """The steepest slope found for β = 0, over ‖W‖."""
    return _operator_ratio(draw, 0.0, lambda norm: norm)


@claim("new", "P_{β,W,G} is f_β(min(‖W‖, 1/√β))-Lipschitz", RATIO)
def lemmas_joined(draw):
    """The steepest slope found, over the bound that uses both β and ‖W‖."""
    beta = strength(draw)
    return _operator_ratio(draw, beta, lambda norm: gain(min(norm, beta**-0.5), beta))


@claim("Theorem 1", "z_L* is Π_k ρ_k-Lipschitz, for every γ", RATIO)
def theorem_1(draw):
    """The steepest slope of the output found, over Π_k ρ_k."""
    net = network(draw)
    return slope(net, draw) / lipschitz(net)


@claim("Corollary 2", "β = (1, …, 1, 0): z_L* is ‖W_{L−1}‖-Lipschitz", RATIO)
def corollary_2(draw):
    """The steepest slope of the output found, over ‖W_{L−1}‖."""
    net = network(draw, "corollary")
    return slope(net, draw) / float(torch.linalg.matrix_norm(net.weights[-1].detach(), 2))


@claim("new", "z_L* is Lipschitz with the refined constants", RATIO)
def refined_theorem(draw):
    """The steepest slope of the output found, over the refined bound."""
    net = network(draw)
    return slope(net, draw) / lipschitz(net, refined=True)


@claim("new", "the refined constants are at most the ρ_k of (13)", RATIO)
def refined_is_smaller(draw):
    """The largest ratio of a refined constant to its ρ_k."""
    net = network(draw)
    return max(r / rho for r, rho in zip(refined_constants(net), layer_constants(net)))


@claim("section 4.2", "no change below m/(√2ρ) changes the prediction (rays of steepest descent)",
       RATIO)
def certificate(draw):
    """The largest ratio of a radius to the length of a change that turns the prediction."""
    net = network(draw, "corollary")
    x = 2 * normal(draw, 50, net.sizes[0])
    radius, label = certified_radius(net, x, solver=EXACT), net(x).detach().argmax(1)
    J, lengths = jacobian(net, x, solver=EXACT), torch.logspace(-2, 2, 40, dtype=x.dtype)
    rays = J - J[torch.arange(len(x)), label][:, None]  # one for every other output
    rays = rays / rays.norm(dim=2, keepdim=True).clamp_min(1e-300)
    attacks = x[:, None, None] + lengths[:, None, None] * rays[:, None]
    found = net(attacks.flatten(0, 2)).detach().argmax(1).view(attacks.shape[:3])
    share = radius[:, None, None] / lengths[:, None]
    return float(torch.where(found != label[:, None, None], share, 0.0).max())


# --------------------------------------------------------------------------- Remarks 2 and 3


def backpropagated(net: LRRN, x: Tensor, y: Tensor) -> list[Tensor]:
    """Output, then mean gradients in weights and biases b, of ½‖z_L − y‖² in the plain network
    z_k = projection of Wz_{k−1} + b onto C_k, by autograd."""
    z = x
    for k, (W, b) in enumerate(zip(net.weights, net.biases), 1):
        z = net.function(k).activation(torch.nn.functional.linear(z, W, b))
    loss = 0.5 * (z - y).square().sum(1).mean()
    return [z.detach(), *torch.autograd.grad(loss, [*net.weights, *net.biases])]


def contrasted(net: LRRN, x: Tensor, y: Tensor) -> list[Tensor]:
    """Output, then gradients of the contrastive loss over γ^{L−1}: the last layer counts 1."""
    value = Contrastive(EXACT)(net, x, y) / net.gamma ** (net.depth - 1)
    return [infer(net, x, solver=EXACT)[0][-1],
            *torch.autograd.grad(value, [*net.weights, *net.biases])]


def vanishing_discount(net: LRRN, x: Tensor, y: Tensor) -> list[Tensor]:
    """lim γ → 0 of :func:`contrasted` from three small γ, with an error of third order."""
    values = []
    for net.gamma in (1e-3, 5e-4, 2.5e-4):
        values.append(contrasted(net, x, y))
    return [(a - 6 * b + 8 * c) / 3 for a, b, c in zip(*values)]


def distance_to_kinks(net: LRRN, x: Tensor) -> float:
    """The smallest |pre-activation| of a layer z ≥ 0 in the plain network."""
    z, least = x, float("inf")
    for k, (W, b) in enumerate(zip(net.weights, net.biases), 1):
        a = torch.nn.functional.linear(z, W, b).detach()
        if isinstance(net.function(k), ReLU):
            least = min(least, float(a.abs().min()))
        z = net.function(k).activation(a)
    return least


@claim("Remark 2",
       "β = 0, γ → 0, off kinks: output and contrastive gradients tend to back-propagation's", 1e-4)
def feed_forward_limit(draw):
    """How far contrastive and back-propagation's outputs and gradients are apart."""
    net = network(draw, "zero", depth=choice(draw, (2, 3)), sets=(Identity(), ReLU()))
    x, y = normal(draw, 4, net.sizes[0]), normal(draw, 4, net.sizes[-1])
    while distance_to_kinks(net, x) < 0.02:  # a unit that switches at γ = 1e-3 is not in the limit
        x = normal(draw, 4, net.sizes[0])
    return distance(vanishing_discount(net, x, y), backpropagated(net, x, y))


@claim("new", "β > 0, γ → 0: linear networks tend to RR layers, loss ½‖z_L − y‖²_{I + βWWᵀ}", 1e-4)
def reconstruction_limit(draw):
    """How far outputs and gradients are from those of RR layers."""
    beta = strength(draw)
    net = network(draw, "zero", depth=2, sets=(Identity(),))
    net.beta = (beta,) * 2
    chain = feed_forward(net.sizes, beta, activation=torch.nn.Identity, dtype=torch.float64)
    for layer, W, b, c in zip(chain[::2], net.weights, net.biases, net.reconstruction_biases):
        layer.weight, layer.bias, layer.reconstruction_bias = W, b, c
    x, y = normal(draw, 4, net.sizes[0]), normal(draw, 4, net.sizes[-1])
    error = chain(x) - y
    loss = 0.5 * (error.square().sum(1) + beta * (error @ net.weights[-1]).square().sum(1)).mean()
    gradients = torch.autograd.grad(loss, [*net.weights, *net.biases])
    return distance(vanishing_discount(net, x, y), [chain(x).detach(), *gradients])


@torch.no_grad()
def undiscounted(net: LRRN) -> LRRN:
    """The network with γ = 1 and the same energy, in z′_k = γ^{(k−1)/2} z_k, for β = 0:

        W′ = γ^½ W for k ≥ 2, and b′ = γ^{(k−1)/2} b.

    Remark 2 says that (1) and (17) are equivalent in this way. Where weights reconstruct the
    scales above do not do it: layer k's regression wants z′_k = γ^{(k−1)/2} z_k, its
    reconstruction wants the factor γ^{(k−1)/2} on z_{k−1}. The two energies then differ, but
    minimisers may still agree: ``lrrn_equivalence`` says when, for L = 2.

    Raises:
        ValueError: β_k > 0 with k ≥ 2, or a set other than z ≥ 0 or all (boxes would have to scale
            too).
    """
    expect("net", net, LRRN, "an LRRN")
    if any(net.beta[1:]):
        raise ValueError(f"beta={list(net.beta)} must be 0 after the first layer: scales alone "
                         "do not absorb the discount where weights reconstruct")
    if any(not isinstance(function, (Identity, ReLU)) for function in net.functions[1:]):
        raise ValueError(f"sets {list(net.functions)} do not stay the same when activations scale")
    plain, root = copy.deepcopy(net), net.gamma**0.5
    plain.gamma = 1.0
    for k in range(1, net.depth):
        plain.weights[k].mul_(root)
        plain.biases[k].mul_(root**k)
    return plain


@claim("Remark 2 (corrected)", "β = 0: a change of scales absorbs γ")
def absorbed_discount(draw):
    """How far the two energies are apart."""
    net = network(draw, "zero", sets=(Identity(), ReLU()))
    z = [normal(draw, 10, size) for size in net.sizes]
    scaled = [z[0]] + [net.gamma ** (k / 2) * z_k for k, z_k in enumerate(z[1:])]
    return distance(undiscounted(net).energy(scaled).detach(), net.energy(z).detach())


@claim("Remark 3", "x ↦ min_z E(z; x) is convex")
def convex_in_x(draw):
    """By how much the energy exceeds its chord."""
    net, energy = network(draw), Unsupervised(EXACT)
    a, b, t = normal(draw, 50, net.sizes[0]), normal(draw, 50, net.sizes[0]), uniform(draw, 0, 1)
    with torch.no_grad():
        J_a, J_b, J = (energy(net, x, reduction="none") for x in (a, b, t * a + (1 - t) * b))
    return float((J - t * J_a - (1 - t) * J_b).max())


# --------------------------------------------------------------------------- section 4


@claim("section 4.1", "one linear layer, β = 1: no W has less energy than the leading PCA modes",
       RATIO)
def principal_components(draw):
    """The larger of two ratios: the least energy over a random W's, and 1 + the relative
    difference of the modes' own."""
    d, r = choice(draw, range(3, 7)), choice(draw, (1, 2))
    x = normal(draw, 40, d) @ normal(draw, d, d)
    spectrum, modes = torch.linalg.eigh(x.T @ x / len(x))
    net = LRRN([d, r], beta=1.0, bias=False, generator=draw, dtype=torch.float64)
    least = 0.5 * float(spectrum[:-r].sum())
    with torch.no_grad():
        random = float(Unsupervised(EXACT)(net, x))
        net.weights[0].copy_(modes[:, -r:].T)
        best = float(Unsupervised(EXACT)(net, x))
    return max(least / random, abs(best / least - 1) + 1)


@claim("section 4.2 (new)", "½‖z_L* − y‖²_S ≤ E(ẑ) − E(z*), S⁻¹ = (H⁻¹)_LL", RATIO)
def contrast_bounds_the_error(draw):
    """The largest ratio of the error to the contrastive loss."""
    net = network(draw)
    x, y = normal(draw, 20, net.sizes[0]), normal(draw, 20, net.sizes[-1])
    with torch.no_grad():
        contrast = Contrastive(EXACT)(net, x, y, reduction="none")
        error, d = infer(net, x, solver=EXACT)[0][-1] - y, net.sizes[-1]
        S = torch.linalg.inv(torch.linalg.inv(net.quadratic(x[:1]).H)[-d:, -d:])
    return float((0.5 * ((error @ S) * error).sum(1) / contrast).max())
