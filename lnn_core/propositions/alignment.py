"""When a targeted attack raises the loss, how large its objective gets, and tilts on average."""

from __future__ import annotations

import torch
from torch import Tensor

from ..potentials import FenchelYoung, Tilted
from ..targeted import TargetedROVR
from .adversarial import LINEAR, error_signals
from .regions import CHAINS
from .statements import equal, exact, limit, minimum, statement
from .targeted import _objective, targeted_arovr
from .toys import Toy


def per_alpha(toy: Toy, alpha: float, beta: float) -> Tensor:
    """(1/α)·AROVR_{α,β}, shape (1,): what training uses."""
    return targeted_arovr(toy, alpha, beta) / alpha


@statement("section 4, made precise",
           "ℓ(z*) ≤ (1/α)AROVR_{α,β} for all α at one ρ = ᾱβ iff ℓ(z*) ≤ ℓ(z̃)")
def upper_bound_iff_aligned(toy: Toy) -> Tensor:
    """If: at three α. Only if: at a small α, where the chord is close to the tangent."""
    rho, target = toy.beta, toy.forward_loss
    _, z = minimum(toy, toy.potential, rho * toy.attack)
    raised = (toy.loss(z[-1]) - target).detach()
    if raised >= 0:
        strengths = [u * (rho + 0.9 / toy.kappa) for u in (0.1, 0.5, 1.0)]      # s = αβ
        return torch.cat([per_alpha(toy, s / (rho + s), rho + s) - target for s in strengths])
    s = 1e-4 * float(-raised) * toy.beta
    return target - per_alpha(toy, s / (rho + s), rho + s)


@statement("new", "one linear layer: the attack raises ℓ iff z* is in a ball through y⁻",
           shapes=(((2, 1), None), ((2, 2), None), ((2, 3), None)), activations=LINEAR)
def attacks_raise_the_loss_inside_a_ball(toy: Toy) -> Tensor:
    """Around y + (y⁻ − y)/(2 + ρ), of radius ‖y⁻ − y‖(1 + ρ)/(2 + ρ).

    The attack's change of the loss has the sign of the depth inside the ball.
    """
    toy = toy.with_(gamma=(1.0,), base=FenchelYoung())
    rho, span, forward = 5 * toy.fraction, toy.wrong - toy.y, toy.net(toy.x).detach()
    _, z = minimum(toy, toy.potential, rho * toy.attack)
    inside = (1 + rho) / (2 + rho) * span.norm() - (forward - toy.y - span / (2 + rho)).norm()
    return (toy.loss(z[-1]) - toy.forward_loss) * inside.sign()


@statement("new", "ᾱβ = ᾱ′β′, α ≤ α′: (1/α)AROVR_{α,β} ≤ (1/α′)AROVR_{α′,β′}, ROVR the other way")
def larger_alpha_is_harder_per_alpha(toy: Toy) -> Tensor:
    """Chords of one concave curve; no sign of ℓ is needed, unlike in Proposition 4.2."""
    rho, (u, v) = toy.beta, toy.random().uniform(0.05, 1, 2)
    values = []
    for share in (u * v, v):                              # s = αβ, within 1/κ of ρℓ⁻
        s = share * (rho + 0.95 / toy.kappa)
        alpha, beta = s / (rho + s), rho + s
        low = exact(toy, _objective(TargetedROVR, toy, alpha, beta)) / alpha
        values.append((low, per_alpha(toy, alpha, beta)))
    (low, high), (lower, higher) = values
    return torch.cat([higher - high, low - lower])


@statement("new", "α < ½: (1/α)AROVR_{α,β} ≤ (ᾱ/α)ℓ⁻(z*) + ½ᾱ‖y − y⁻‖²/(1 − 2α) for every β")
def bounded_for_small_alpha(toy: Toy) -> Tensor:
    """The bound does not depend on β. α from the toy, halved."""
    alpha = 0.5 * toy.alpha
    gap = (toy.y - toy.wrong).square().sum(1)
    bound = (1 - alpha) / alpha * toy.attack(toy.net(toy.x)) + (1 - alpha) * gap / (2 - 4 * alpha)
    return torch.cat([bound - per_alpha(toy, alpha, scale * toy.beta)
                      for scale in (1, 100)]).detach()


@statement("new", "α = ½: (1/α)AROVR_{α,β} ≤ ℓ(z*) + ¼βκ‖y − y⁻‖² for every β")
def bounded_at_one_half(toy: Toy) -> Tensor:
    """The output term is linear: a case of the bound for losses of bounded slope."""
    gap = (toy.y - toy.wrong).square().sum(1)
    return torch.cat([toy.forward_loss + 0.25 * beta * toy.kappa * gap - per_alpha(toy, 0.5, beta)
                      for beta in (toy.beta, 20 * toy.beta)])


@statement("new", "(1/α)AROVR_{α,β} = ℓ + β(½α⟨ℓ′, ℓ′⟩ − ᾱ⟨ℓ⁻′, ℓ′⟩) + O(β²), ⟨·,·⟩ = Σ_k ·ᵀS_k·",
           fraction=0.01, clearance=0.2)
def targeted_expansion(toy: Toy) -> Tensor:
    """Back-propagated errors of loss and attack, S_k as in AROVR's. Slack: 1e-4 − error."""
    z, pairs = toy.net.activations(toy.x), []
    for k, (own, other) in enumerate(zip(error_signals(toy, toy.loss),
                                         error_signals(toy, toy.attack)), 1):
        slope = toy.net.function(k).derivative(toy.net.preactivation(k, z))
        S = (slope if isinstance(toy.base, FenchelYoung) else 1.0) / toy.gamma[k - 1]
        pairs.append([(S * own * own).sum(1), (S * other * own).sum(1)])
    own, other = (sum(part) for part in zip(*pairs))
    expected = 0.5 * toy.alpha * own - (1 - toy.alpha) * other
    rate = limit(lambda b: (per_alpha(toy, toy.alpha, b) - toy.forward_loss) / b, toy.beta)
    return (1e-4 * (1 + own + other.abs()) - (rate - expected).abs()).detach()


@statement("new", "linear network, tilts of covariance σ²I: E ℓ(z^g) = ℓ(z*) + ½σ²Σ_j‖(H⁻¹)_Lj‖²",
           shapes=CHAINS, activations=LINEAR)
def tilts_penalise_weights(toy: Toy) -> Tensor:
    """The 2n tilts ±σ√n in one unit each; (H⁻¹)_Lj = Σ_{k≤j} J_kJ_jkᵀ by products of weights."""
    toy, sigma = toy.with_(gamma=(1.0,) * toy.net.depth), toy.fraction
    sizes, L = list(toy.net.sizes[1:]), toy.net.depth
    J = {(j, j): torch.eye(toy.net.sizes[j], dtype=torch.float64) for j in range(1, L + 1)}
    for k in range(1, L + 1):
        for j in range(k + 1, L + 1):
            J[j, k] = toy.net.weight(j).detach() @ J[j - 1, k]
    penalty = sum(sum(J[L, k] @ J[j, k].T for k in range(1, j + 1)).square().sum()
                  for j in range(1, L + 1))
    units = torch.eye(sum(sizes), dtype=torch.float64)
    losses = []
    for g in sigma * len(units) ** 0.5 * torch.cat([units, -units]):
        tilted = Tilted(list(g.split(sizes)), toy.potential)
        losses.append(toy.loss(minimum(toy, tilted, 0.0 * toy.loss)[1][-1]))
    return equal(torch.cat(losses).mean(), toy.forward_loss + 0.5 * sigma**2 * penalty).detach()
