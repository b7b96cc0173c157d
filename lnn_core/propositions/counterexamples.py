"""Small concrete networks for which a claim of Zach (2025) fails as it is printed.

Each function returns the numbers that show it, computed with the oracle; the tests hold
the closed forms. None of this touches the paper's method: where a corrected claim exists
it is among the statements of :func:`lnn_core.propositions.table`.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from .. import oracle
from ..convex import ConvexFunction, Identity, ReLU
from ..losses import Euclidean, Linear, Loss, untargeted
from ..network import LiftedNetwork
from ..objectives import AROVR, LossFamily
from ..potentials import FenchelYoung, Potential, Reweighted, Tilted
from ..targeted import TargetedAROVR

ONE, ZERO = (torch.full((1, 1), value, dtype=torch.float64, device="cpu") for value in (1.0, 0.0))


def unit_chain(activation: ConvexFunction | None = None, sizes=(1, 1, 1)) -> LiftedNetwork:
    """A chain with all weights one and no biases: z_k = 1 for x = 1, and κ = L."""
    net = LiftedNetwork(sizes, activation or ReLU(), bias=False, dtype=torch.float64)
    for weight in net.weights:
        weight.data.fill_(1.0)
    return net


def _exact(objective, net: LiftedNetwork, y: Tensor) -> float:
    return oracle.objective(objective, net, ONE, y).item()


def larger_alpha_can_be_easier() -> dict[str, float]:
    """AROVR_{α,β} ≤ AROVR_{α′,β} for α ≤ α′ fails (Remark 4.3 says so, without an example).

    The chain 1-1-1 with x = y = 1 interpolates; the attack aims at y⁻ = 0, β = ½. Then
    AROVR_{½,β} = 1/24 > 3/80 = AROVR_{¾,β}. The reason: AROVR_{α,β} ≥ αℓ(z̃), and z̃ leaves
    the interpolating z* only as far as the weight ᾱ of the attack drives it.
    """
    net = unit_chain()
    return {f"alpha={alpha}": _exact(
        TargetedAROVR(alpha, 0.5, lambda loss, target: loss(ZERO), per_alpha=False), net, ONE)
        for alpha in (0.5, 0.75)}


def targeted_objective_needs_its_scale() -> dict[str, float]:
    """For ℓ⁻ = 0 and ℓ⁻ = −ℓ, AROVR_{α,β} is neither AROVR_β nor an upper bound of ℓ(z*).

    The first example after Proposition 4.1 says that it is both. What bounds ℓ(z*) is
    (1/α)·AROVR_{α,β}. Chain 1-1-1, x = 1, y = 0, α = ½, β = 1/10: ℓ(z*) = ½ and AROVR_β =
    5/8, but 5/18 without attack and 25/72 with ℓ⁻ = −ℓ.
    """
    net = unit_chain()
    attacks = {"no attack": lambda loss, target: Loss(), "untargeted": untargeted}
    values = {name: _exact(TargetedAROVR(0.5, 0.1, attack, per_alpha=False), net, ZERO)
              for name, attack in attacks.items()}
    return {"forward loss": Euclidean(ZERO)(net(ONE)).item(),
            "AROVR": _exact(AROVR(0.1), net, ZERO), **values}


def reweighting_can_be_easier() -> dict[str, float]:
    """With γ = 2 the reweighted AROVR (16) is below AROVR, against Proposition 3.1.

    The choice (15), d_γ(z⁻, z*) = U^⊙γ(z⁻; x), is not zero at z⁻ = z* unless z* is the
    forward pass, so the proposition does not apply to it. What holds is that (16) falls as
    γ grows, and is harder than AROVR for γ ≤ 1. Chain 1-1-1, x = 1, y = 0, β = ¼.
    """
    net = unit_chain()
    return {f"gamma={gamma:g}": _exact(AROVR(0.25, potential=Reweighted([gamma] * 2)), net, ZERO)
            for gamma in (0.75, 1.0, 2.0)}


def gamma_matters_for_linear_networks() -> dict[str, float]:
    """AROVR's gradient depends on γ although the network and the loss are linear.

    Against the letter of Remark 3.2: the error signals γ_k·e_k do not depend on γ, but the
    activations z_{k−1} that they are multiplied with do. Linear chain 1-1-1 of unit
    weights, x = 1, ℓ(z) = z_2, β = ¼: AROVR = w_0w_1 + (β/2)(1/γ_2 + w_1²/γ_1), so its
    derivative in w_1 is 1 + β/γ_1, where back-propagation has 1.
    """
    slopes = {}
    for gamma in (1.0, 2.0):
        net = unit_chain(Identity())
        AROVR(0.25, Linear, Reweighted([gamma] * 2), oracle.Exhaustive())(net, ONE, ONE).backward()
        slopes[f"gamma={gamma:g}"] = net.weight(2).grad.item()
    return slopes


def tilt_moves_the_limit() -> dict[str, float]:
    """A tilt changes the limit β → 0⁺ of the gradient even where ∇²U is constant.

    The end of the paper's proof of Proposition 4.4 keeps z* for the limit of z⁺ and z⁻, but
    with a tilt both tend to z^g = argmin U + gᵀz: the limit trains the tilted network, with
    gradient α·dℓ(z^g)/dθ. Linear chain 1-1-1 of unit weights, x = 1, g = (0, ½), hence
    z_2^g = w_0w_1 − ½(1 + w_1²) = 0. Both of its limits vanish where back-propagation has 1:
    d/dw_0 of ℓ = ½z_2² (the tilt has removed the error), and d/dw_1 of ℓ = z_2.
    """
    net, limits = unit_chain(Identity()), {}
    tilt = Tilted([None, 0.5 * ONE[0]])
    for name, k, loss, y in (("Euclidean", 1, Euclidean, ZERO), ("linear", 2, Linear, ONE)):
        limits[f"{name}, limit"] = _small_beta_gradient(net, k, tilt, loss, y)
        slope, = torch.autograd.grad(loss(y)(net(ONE)).sum(), net.weight(k))
        limits[f"{name}, back-propagation"] = slope.item()
    return limits


def dropout_like_tilt_needs_adaptation() -> dict[str, float]:
    """With g drawn from {0, M}, perfect weights are not a stationary point of (31) as β → 0⁺.

    Section 4 says that, unlike for dropout, no adaptation at test time is needed. Network
    1-2-1, ReLU, x = 1, first weights 1, second weights ½: z_L* = 1 = y. A unit with g = M
    is off, and z^g_L = n/2 with n units on. Over the four masks the output weight's
    gradient is on average −1/8: training would raise the weights to ⅔, for which the
    network without tilt puts out 4/3.
    """
    net = unit_chain(sizes=(1, 2, 1))
    net.weight(2).data.fill_(0.5)
    masks = [torch.tensor(mask, dtype=torch.float64) for mask in product((0.0, 100.0), repeat=2)]
    slopes = [_small_beta_gradient(net, 2, Tilted([g, None]), Euclidean, ONE) for g in masks]
    return {"forward pass": net(ONE).item(), "mean gradient": sum(slopes) / len(slopes)}


def _small_beta_gradient(net: LiftedNetwork, k: int, potential: Potential, loss: LossFamily,
                         y: Tensor, beta: float = 1e-6) -> float:
    """(1/α)·∂AROVR^g_{α,β} in the first weight into layer k, at a β close to zero."""
    objective = TargetedAROVR(0.5, beta, lambda loss, target: loss(ONE), loss=loss,
                              potential=potential, solver=oracle.Exhaustive())
    gradient, = torch.autograd.grad(objective(net, ONE, y), net.weight(k))
    return gradient.flatten()[0].item()


def potential_is_not_strongly_convex() -> dict[str, float]:
    """{U ≤ δ} is not within √(2δ) of z* unless no layer feeds another (below eq. 7).

    ∇²U = (I − W)ᵀ(I − W) of a linear network has determinant one, so its smallest eigenvalue
    is below one as soon as W ≠ 0: U is 1-strongly convex only for W = 0. Chain 1-1-1 of unit
    weights: the smallest eigenvalue is (3 − √5)/2. ``ratio`` is ‖z − z*‖/√(2U) at z* plus the
    eigenvector: above one, outside the ball; √(2κδ) bounds the output's part of it.
    """
    net = unit_chain(Identity())

    def U(z: Tensor) -> Tensor:
        return FenchelYoung()(net, [ONE, z[:1, None], z[1:, None]]).sum()

    z_star = torch.ones(2, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(torch.autograd.functional.hessian(U, z_star))
    ratio = (2 * U(z_star + vectors[:, 0])) ** -0.5
    return {"smallest eigenvalue": values[0].item(), "ratio": ratio.item()}


def strong_convexity_does_not_bound_the_attack() -> dict[str, float]:
    """α < ½ and 1-strongly convex ℓ, ℓ⁻ do not make ᾱℓ⁻ − αℓ convex (below eq. 27).

    True for Euclidean losses, which curve equally. ℓ(z) = 4·½‖z − y‖² is 1-strongly convex
    too, and at α = 0.4 leaves a curvature 0.6 − 1.6 = −1: one linear layer with β = 2 has
    1 − 2 = −1, so that the energy falls like −½t².
    """
    net = unit_chain(Identity(), sizes=(1, 1))
    output = 0.6 * Euclidean(ZERO) - 0.4 * (4.0 * Euclidean(ONE))
    return {"curvature": output.curvature,
            "growth": oracle.growth(net, FenchelYoung() + 2.0 * output)}
