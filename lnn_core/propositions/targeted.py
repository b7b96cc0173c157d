"""Section 4 of Zach (2025): ROVR_{α,β}, AROVR_{α,β}, and both with a tilt g."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import oracle
from ..convex import Identity
from ..losses import Linear, Loss, untargeted
from ..objectives import LiftedObjective
from ..potentials import Energy, Potential
from ..targeted import Attack, TargetedAROVR, TargetedROVR
from .adversarial import arovr, rovr
from .statements import equal, exact, flat_gradient, gradient, limit, minimum, statement
from .toys import SMOOTH, Toy


def targeted_arovr(toy: Toy, alpha: float, beta: float, attack: Attack | None = None,
                   potential: Potential | None = None) -> Tensor:
    """AROVR_{α,β} without the factor 1/α, by default with the toy's attack and no tilt."""
    return exact(toy, _objective(TargetedAROVR, toy, alpha, beta, attack, potential))


def _objective(kind, toy: Toy, alpha: float, beta: float, attack: Attack | None = None,
               potential: Potential | None = None, **options) -> LiftedObjective:
    """An objective of that kind with the toy's attack and potential, and without 1/α."""
    return kind(alpha, beta, attack or (lambda loss, target: loss(toy.wrong)), per_alpha=False,
                potential=toy.potential if potential is None else potential, **options)


@statement("Proposition 4.1", "ROVR_{α,β} ≤ αℓ(z̃) ≤ AROVR_{α,β}, with a tilt")
def targeted_sandwich(toy: Toy) -> Tensor:
    """z̃ = argmin ᾱβℓ⁻ + U^g, the middle term of the proof, eq. (34)–(35)."""
    _, z = minimum(toy, toy.tilted, toy.beta * (1 - toy.alpha) * toy.attack)
    middle = toy.alpha * toy.loss(z[-1])
    low, high = (exact(toy, _objective(kind, toy, toy.alpha, toy.beta, potential=toy.tilted))
                 for kind in (TargetedROVR, TargetedAROVR))
    return torch.cat([middle - low, high - middle])


@statement("after Proposition 4.1, corrected", "ℓ⁻ = 0: AROVR_{α,β} = α·AROVR_{αβ} ≥ αℓ(z*)")
def no_attack(toy: Toy) -> Tensor:
    """Printed as AROVR and an upper bound of ℓ(z*); both hold after division by α."""
    value = targeted_arovr(toy, toy.alpha, toy.beta, lambda loss, target: Loss())
    return torch.cat([equal(value, toy.alpha * arovr(toy, toy.alpha * toy.beta)),
                      value - toy.alpha * toy.forward_loss])


@statement("after Proposition 4.1, corrected",
           "ℓ⁻ = −ℓ: AROVR_{α,β} = AROVR_β − ᾱ·AROVR_{ᾱβ} ≥ αℓ(z*)")
def untargeted_attack(toy: Toy) -> Tensor:
    """Printed as AROVR and an upper bound of ℓ(z*); the bound holds after division by α."""
    value, rest = targeted_arovr(toy, toy.alpha, toy.beta, untargeted), 1 - toy.alpha
    return torch.cat([equal(value, arovr(toy) - rest * arovr(toy, rest * toy.beta)),
                      value - toy.alpha * toy.forward_loss])


@statement("after Proposition 4.1", "ℓ⁻ = (α/ᾱ)ℓ: AROVR_{α,β} = α·ROVR_{αβ} ≤ αℓ(z*)")
def helpful_attack(toy: Toy) -> Tensor:
    """An "attack" that lowers the target loss turns the adversarial objective around."""
    ratio = toy.alpha / (1 - toy.alpha)
    value = targeted_arovr(toy, toy.alpha, toy.beta, lambda loss, target: ratio * loss(target))
    return torch.cat([equal(value, toy.alpha * rovr(toy, toy.alpha * toy.beta)),
                      toy.alpha * toy.forward_loss - value])


@statement("section 4", "α ≤ ½, Euclidean ℓ and ℓ⁻: both subproblems are coercive for every β > 0")
def targeted_is_bounded(toy: Toy) -> Tensor:
    """The paper has α < ½; at α = ½ the output term is linear, which U outgrows too."""
    outputs = [(1 - alpha) * toy.attack - weight * toy.loss
               for alpha in (0.5 * toy.alpha, 0.5) for weight in (0.0, alpha)]
    return torch.tensor([oracle.growth(toy.net, toy.tilted + 100.0 * h) for h in outputs])


@statement("Proposition 4.2", "ᾱβ = ᾱ′β′, α ≤ α′: β·AROVR_{α,β} ≤ β′·AROVR_{α′,β′}, with a tilt")
def larger_alpha_is_harder(toy: Toy) -> Tensor:
    """And how tight (39) is: the gap lies between (β′−β)ℓ(z⁻) and (β′−β)ℓ(z′⁻)."""
    rho, (u, v) = toy.beta, toy.random().uniform(0, 1, 2)
    larger = rho + u * (rho + 0.95 / toy.kappa)           # keeps ρℓ⁻ − α′β′ℓ within 1/κ
    smaller = rho + v * (larger - rho)
    values, losses = [], []
    for beta in (smaller, larger):
        alpha = 1 - rho / beta
        values.append(beta * targeted_arovr(toy, alpha, beta, potential=toy.tilted))
        _, z = minimum(toy, toy.tilted, rho * toy.attack - alpha * beta * toy.loss)
        losses.append(toy.loss(z[-1]))
    gap, (least, most) = values[1] - values[0], ((larger - smaller) * loss for loss in losses)
    return torch.cat([gap, gap - least, most - gap])


@statement("Remark 4.3, corrected", "α ≤ α′ means α/ᾱ ≤ α′/ᾱ′, and (29) holds")
def stronger_untargeted_part_is_harder(toy: Toy) -> Tensor:
    """Printed as α/(1−α) ≥ α′/(1−α′)."""
    ratios = sorted((1 + 1 / toy.fraction) * toy.random().uniform(0, 0.95, 2))
    low, high = (minimum(toy, toy.potential, toy.beta * (toy.attack - ratio * toy.loss))[0]
                 for ratio in ratios)
    return (low - high) / toy.beta


# ----------------------------------------------------------------------- the limit β → 0⁺


@statement("Proposition 4.4", "∂ROVR_{α,β}/∂θ and ∂AROVR_{α,β}/∂θ → α·dℓ(z*)/dθ as β → 0⁺",
           fraction=0.01, clearance=0.2)
def gradients_tend_to_back_propagation(toy: Toy) -> Tensor:
    """Smooth activations, and piecewise linear ones away from kinks. Slack: 1e-3 − error."""
    expected = toy.alpha * flat_gradient(toy, toy.loss(toy.net(toy.x)).sum())
    return torch.cat([_close(_limit_of_gradient(toy, kind), expected)
                      for kind in (TargetedROVR, TargetedAROVR)])


@statement("Proposition 4.4 with a tilt, corrected",
           "∂AROVR^g_{α,β}/∂θ → α·dℓ(z^g)/dθ, z^g = argmin U^g", fraction=0.01, activations=SMOOTH)
def tilted_gradients_tend_to_the_tilted_network(toy: Toy) -> Tensor:
    """Printed with z* for z^g. dℓ(z^g)/dθ by central differences. Slack: 1e-3 − error."""
    expected = toy.alpha * _tilted_loss_gradient(toy)
    actual = _limit_of_gradient(toy, TargetedAROVR, toy.tilted)
    return _close(actual, expected)


@statement("new", "linear network and ℓ: averaged over g and −g, ∂AROVR^g_{α,β}/∂θ → α·dℓ(z*)/dθ",
           fraction=0.01, activations=(Identity(),))
def tilts_average_out_in_linear_networks(toy: Toy) -> Tensor:
    """ℓ(z^g) is then affine in g: a setting where the printed claim holds, in expectation."""
    expected = toy.alpha * flat_gradient(toy, Linear(toy.y)(toy.net(toy.x)).sum())
    mirrored = toy.with_(tilt=tuple(-g for g in toy.tilt))
    both = [_limit_of_gradient(toy, TargetedAROVR, t.tilted, loss=Linear) for t in (toy, mirrored)]
    return _close((both[0] + both[1]) / 2, expected)


def gradient_errors(toy: Toy, betas: Sequence[float], kind=TargetedAROVR) -> list[float]:
    """‖∂AROVR_{α,β}/∂θ − α·dℓ(z*)/dθ‖ for each β: of order β by Proposition 4.4."""
    expected = toy.alpha * flat_gradient(toy, toy.loss(toy.net(toy.x)).sum())
    return [float((gradient(toy, _objective(kind, toy, toy.alpha, beta)) - expected).norm())
            for beta in betas]


def _limit_of_gradient(toy: Toy, kind, potential: Potential | None = None, **options) -> Tensor:
    return limit(lambda beta: gradient(
        toy, _objective(kind, toy, toy.alpha, beta, potential=potential, **options)), toy.beta)


def _close(actual: Tensor, expected: Tensor, tolerance: float = 1e-3) -> Tensor:
    return (tolerance * (1 + expected.norm()) - (actual - expected).norm())[None]


@torch.no_grad()
def _tilted_loss_gradient(toy: Toy, step: float = 1e-4) -> Tensor:
    """dℓ(z^g)/dθ, weight by weight."""
    entries = []
    for parameter in toy.net.parameters():
        flat = parameter.view(-1)
        for i in range(len(flat)):
            start, sides = flat[i].item(), []
            for flat[i] in (start + step, start - step):
                z = oracle.minimum(toy.net, toy.x, Energy(toy.tilted, Loss()))[1]
                sides.append(toy.loss(z[-1]))
            flat[i] = start
            entries.append((sides[0] - sides[1]) / (2 * step))
    return torch.cat(entries)
