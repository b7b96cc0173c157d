"""Sections 2 and 3 of Zach (2025): ROVR, AROVR, the generalized AROVR, boundedness."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .. import bounds, oracle
from ..convex import Identity
from ..losses import Linear, Loss
from ..network import LiftedNetwork
from ..objectives import AROVR, ROVR
from ..potentials import FenchelYoung, Reweighted
from .statements import equal, exact, flat_gradient, limit, minimum, statement
from .toys import CLASSIFIERS, Toy

LINEAR = (Identity(),)


def rovr(toy: Toy, beta: float | None = None) -> Tensor:
    """ROVR_β of the toy, by default with its own β; shape (1,)."""
    return exact(toy, ROVR(toy.beta if beta is None else beta, potential=toy.potential))


def arovr(toy: Toy, beta: float | None = None) -> Tensor:
    """AROVR_β of the toy, by default with its own β; shape (1,)."""
    return exact(toy, AROVR(toy.beta if beta is None else beta, potential=toy.potential))


@statement("section 2.2", "ROVR ≤ ℓ(z*) ≤ AROVR")
def sandwich(toy: Toy) -> Tensor:
    """Both are optima over z of something that z* attains with value ℓ(z*)."""
    return torch.cat([toy.forward_loss - rovr(toy), arovr(toy) - toy.forward_loss])


@statement("new", "ℓ(z*)/(1+βκ) ≤ ROVR and AROVR ≤ ℓ(z*)/(1−βκ)")
def two_sided_bound(toy: Toy) -> Tensor:
    """:func:`bounds.two_sided`."""
    lower, upper = bounds.two_sided(toy.net, toy.x, toy.y, toy.beta, toy.gamma)
    return torch.cat([rovr(toy) - lower, upper - arovr(toy)])


@statement("new", "AROVR = ℓ(z*) + (β/2)·Σ_k (∂ℓ/∂z_k)ᵀS_k(∂ℓ/∂z_k) + O(β²)",
           fraction=0.01, clearance=0.2)
def first_order_expansion(toy: Toy) -> Tensor:
    """S_k = Γ_k⁻¹, times f_k′ for Fenchel–Young (``bounds.output_gram``). Slack: 1e-4 − error."""
    expected, z = torch.zeros(1, dtype=torch.float64), toy.net.activations(toy.x)
    for k, signal in enumerate(error_signals(toy, toy.loss), 1):
        slope = toy.net.function(k).derivative(toy.net.preactivation(k, z))
        give = slope if isinstance(toy.base, FenchelYoung) else 1.0
        expected = expected + 0.5 * (give / toy.gamma[k - 1] * signal.square()).sum(1)
    rate = limit(lambda beta: (arovr(toy, beta) - toy.forward_loss) / beta, toy.beta)
    return 1e-4 * (1 + expected) - (rate - expected).abs()


def error_signals(toy: Toy, loss: Loss) -> list[Tensor]:
    """∂ℓ/∂z_k at the forward pass, k = 1, …, L, by autograd: what back-propagation sends."""
    z = toy.net.activations(toy.x)
    return list(torch.autograd.grad(loss(z[-1]).sum(), z[1:]))


@statement("Proposition 3.3, with content", "ℓ(z*) = 0, β < 1/κ: AROVR = 0, z⁻ = z*, zero gradient")
def interpolating_network_rests(toy: Toy) -> Tensor:
    """By the two-sided bound. Squared, as energies are, where z⁻ and the gradient are compared."""
    z = [z_k.detach() for z_k in toy.net.activations(toy.x)]
    toy = toy.with_(y=z[-1])
    _, z_minus = minimum(toy, toy.potential, -toy.beta * toy.loss)
    value = oracle.objective(AROVR(toy.beta, potential=toy.potential), toy.net, toy.x, toy.y)
    moved = torch.cat([(a - b).flatten() for a, b in zip(z, z_minus)])
    slope = flat_gradient(toy, value.sum())
    return -torch.cat([value.detach().abs(), moved.square(), slope.square()])


# ------------------------------------------------------------------------- boundedness


@statement("eq. 19, extended", "β < 1/κ: U − βℓ is coercive, for every 1-strongly convex G",
           fraction=0.999)
def coercive_below_safe_beta(toy: Toy) -> Tensor:
    """The energy's least growth along any direction, :func:`oracle.growth`."""
    return torch.tensor([oracle.growth(toy.net, toy.potential - toy.beta * toy.loss)])


@statement("new, answers section 3.2", "linear ℓ: AROVR ≤ ℓ(z*) + βκ‖g‖²/2 for every β > 0")
def linear_loss_is_bounded(toy: Toy) -> Tensor:
    """U grows quadratically with the output's move, a linear loss does not."""
    beta = 20 * toy.beta
    _, upper = bounds.two_sided(toy.net, toy.x, toy.y, beta, toy.gamma, Linear)
    return upper - exact(toy, AROVR(beta, Linear, toy.potential))


@statement("new", "linear network: ∇²(U − βℓ) ≻ 0 iff β < 1/λ_max(K), and 1/κ ≤ 1/λ_max(K)",
           activations=LINEAR)
def linear_threshold(toy: Toy) -> Tensor:
    """The Hessian's smallest eigenvalue changes sign at :func:`bounds.stability_threshold`."""
    threshold = float(bounds.stability_threshold(toy.net, gamma=toy.gamma))
    below, above = (_smallest_curvature(toy, scale * threshold) for scale in (0.999, 1.001))
    return torch.tensor([below, -above, threshold - bounds.safe_beta(toy.net, toy.gamma)])


def _smallest_curvature(toy: Toy, beta: float) -> float:
    sizes, energy = list(toy.net.sizes[1:]), toy.potential - beta * toy.loss

    def value(z: Tensor) -> Tensor:
        return energy(toy.net, [toy.x, *z[None].split(sizes, 1)])[0]

    z = torch.zeros(sum(sizes), dtype=torch.float64)
    return torch.linalg.eigvalsh(torch.autograd.functional.hessian(value, z))[0].item()


@statement("new", "linear network: ROVR = ½rᵀ(I+βK)⁻¹r, AROVR = ½rᵀ(I−βK)⁻¹r", activations=LINEAR)
def reduced_form(toy: Toy) -> Tensor:
    """:func:`bounds.reduced`."""
    low, high = bounds.reduced(toy.net, toy.x, toy.y, toy.beta, toy.gamma, base=toy.base)
    return torch.cat([equal(low, rovr(toy)), equal(high, arovr(toy))])


# ------------------------------------------------------------------ generalized AROVR


def generalized(toy: Toy, weight: float) -> Tensor:
    """max over z⁻, z* of ℓ(z⁻) − (weight/2β)‖z_L⁻ − z_L*‖² − U(z*)/β, shape (1,): eq. (10).

    It is AROVR for the network with one more layer, z_{L+1} = z_L, of that γ.
    """
    net = toy.net
    taller = LiftedNetwork([*net.sizes, net.sizes[-1]], net.functions,
                           edges=[*net.edges, (net.depth, net.depth + 1)], dtype=torch.float64)
    copied = [*net.weights, torch.eye(net.sizes[-1])], [*net.biases, torch.zeros(net.sizes[-1])]
    for mine, theirs in zip((taller.weights, taller.biases), copied):
        for parameter, value in zip(mine, theirs):
            parameter.data = value.detach().double()
    potential = Reweighted((*toy.gamma, weight), toy.base)
    return oracle.objective(AROVR(toy.beta, potential=potential), taller, toy.x, toy.y).detach()


def admissible(toy: Toy, room: float) -> float:
    """A weight w for which eq. (10) is finite, β(κ + 1/w) < 1, with some room."""
    return (1 + room) * toy.beta / (1 - toy.fraction)


@statement("Proposition 3.1, eq. 12", "AROVR ≤ generalized AROVR, and less so for larger γ")
def generalized_is_harder(toy: Toy) -> Tensor:
    """d_γ = Σ_k γ_k‖z_k − z_k′‖², of which only layer L matters: weight 2λγ_L."""
    chain = [generalized(toy, admissible(toy, room)) for room in (0.1, 1.0, 10.0)] + [arovr(toy)]
    return torch.cat([harder - easier for harder, easier in zip(chain, chain[1:])])


@statement("Proposition 3.1", "AROVR ≤ generalized AROVR for a random quadratic d_γ")
def quadratic_distance_is_harder(toy: Toy) -> Tensor:
    """d_γ = ½(z − z′)ᵀQ(z − z′), minimised over the hidden units of z⁻: a Schur complement."""
    n = sum(toy.net.sizes[1:])
    A = toy.random().standard_normal((n, n))
    schur = 1 / np.linalg.inv(A @ A.T + 0.1 * np.eye(n))[-1, -1]
    scale = max(1.0, admissible(toy, 0.5) / schur)                     # λ
    return generalized(toy, scale * schur) - arovr(toy)


@statement("new, from eq. 13", "(10) with (12) is s·AROVR_{sβ}, s = w/(w−β): γ only rescales ℓ")
def elementwise_distances_rescale(toy: Toy) -> Tensor:
    """w = 2λγ_L. Minimising over γ ends at s = 1, AROVR; maximising at w = β, s = ∞."""
    weight = admissible(toy, 0.5)
    s = weight / (weight - toy.beta)
    return equal(generalized(toy, weight), s * arovr(toy, s * toy.beta))


@statement("eq. 13", "max ‖z−y‖² − (γ_L/β)‖z−z*‖² = γ_L/(γ_L−β)·‖z*−y‖² for β < γ_L only",
           shapes=(((3, 1), None),))
def one_layer(toy: Toy) -> Tensor:
    """AROVR of a single linear layer; from β = γ_L on its energy grows no longer."""
    gamma = float(toy.gamma[0])
    beta = toy.fraction * gamma
    grows = [oracle.growth(toy.net, toy.potential - b * toy.loss) for b in (gamma, 1.1 * gamma)]
    return torch.cat([equal(arovr(toy, beta), gamma / (gamma - beta) * toy.forward_loss),
                      -torch.tensor(grows)])


@statement("section 3.1, corrected", "γ ≤ γ′ implies AROVR^γ ≥ AROVR^γ′ (eq. 16)")
def smaller_gamma_is_harder(toy: Toy) -> Tensor:
    """Because U^⊙γ ≤ U^⊙γ′; Proposition 3.1 does not cover the choice (15) of d_γ."""
    factors = toy.random().uniform(1, 3, toy.net.depth)
    larger = tuple(float(factor) * entry for factor, entry in zip(factors, toy.gamma))
    return arovr(toy) - arovr(toy.with_(gamma=larger), toy.beta)


@statement("Remark 3.2, made precise", "linear network and ℓ: γ_k·e_k = β·∂ℓ/∂z_k for all γ, β",
           activations=LINEAR)
def gamma_leaves_the_error_signal(toy: Toy) -> Tensor:
    """The error signal ignores γ, but z⁻ and AROVR = ℓ(z*) + (β/2)gᵀK_γg do not."""
    beta, loss = 5 * toy.beta, Linear(toy.y)
    value, z = minimum(toy, toy.potential, -beta * loss)
    K = bounds.output_gram(toy.net, gamma=toy.gamma)[0]
    expected = loss(toy.net(toy.x)) + 0.5 * beta * (toy.y @ K * toy.y).sum(1)
    slacks = [equal(-value / beta, expected.detach())]
    for k, signal in enumerate(error_signals(toy, loss), 1):
        e = (z[k] - toy.net.preactivation(k, z)).detach()
        slacks.append(equal(toy.gamma[k - 1] * e, beta * signal))
    return torch.cat(slacks)


# ---------------------------------------------------------------- certified robustness


@statement("new", "U(z) < m²/(4κ) leaves the prediction unchanged: margins under attack",
           shapes=CLASSIFIERS)
def certified_budget(toy: Toy) -> Tensor:
    """No attack within the budget turns a margin negative, and none can: see the two parts."""
    budget = bounds.energy_budget(toy.net, toy.x, toy.gamma)
    predicted = int(toy.net(toy.x).argmax())
    slope = torch.zeros(1, 2, dtype=torch.float64)
    slope[:, predicted], slope[:, 1 - predicted] = 1.0, -1.0
    margin = Linear(slope)
    return torch.cat([_dual_margin(toy, margin, budget), _attacked_margins(toy, margin, budget)])


def _dual_margin(toy: Toy, margin: Loss, budget: Tensor) -> Tensor:
    """min margin over U ≤ δ is at least min_z {margin + U/β} − δ/β, best at β = m/(2κ)."""
    beta = margin(toy.net(toy.x)).item() / (2 * toy.kappa)
    value, _ = minimum(toy, toy.potential, beta * margin)
    return (value - budget) / beta


def _attacked_margins(toy: Toy, margin: Loss, budget: Tensor, attacks: int = 500) -> Tensor:
    """Margins of the oracle's own attacks of growing strength and of random ones, within U ≤ δ."""
    best = margin(toy.net(toy.x)).item() / (2 * toy.kappa)
    found = [minimum(toy, toy.potential, strength * best * margin)[1]
             for strength in (0.9, 1.0, 1.1, 1.5)]
    rng, z = toy.random(), [toy.x.expand(attacks, -1)]
    size = torch.as_tensor(rng.uniform(0, 1.5, (attacks, 1))) * budget.sqrt()
    for k in range(1, toy.net.depth + 1):
        G = toy.net.function(k)
        e = size * torch.as_tensor(rng.standard_normal((attacks, toy.net.sizes[k])))
        z.append((G.activation(toy.net.preactivation(k, z)) + e).clamp(G.lower, G.upper).detach())
    z = [torch.cat(layer) for layer in zip(z, *found)]
    return margin(z[-1])[toy.potential(toy.net, z) < budget]
