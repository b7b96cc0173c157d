"""When inference is bounded, and how far objectives and outputs can be from the forward pass.

Everything rests on one inequality. Let e_k = z_k − f_k(a_k) be the violation of layer k,
and c_k the sum, over the paths from layer k to the output, of the product of the weights'
spectral norms. Because G_k is 1-strongly convex, D_k ≥ ½‖e_k‖² (for least squares it is an
equality) and f_k is 1-Lipschitz, so that for all z

    ‖z_L − z_L*‖ ≤ Σ_k c_k‖e_k‖    and    U^⊙γ(z; x) ≥ ‖z_L − z_L*‖² / (2κ_γ),

with κ_γ = Σ_k c_k²/γ_k by Cauchy–Schwarz. It holds for every network here, chain or graph,
for both potentials. The second family of results linearises the network at its forward
pass instead, and is exact for linear networks.

γ is given as to :class:`~lnn_core.Reweighted`: None (all ones), or one positive number or
(d_k,) tensor per layer. Every function raises ValueError for a γ that is not positive or does not
fit the network, and for a network whose weights are not finite.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .checks import (
    as_targets,
    check_finite_weights,
    check_margin,
    check_network,
    own_precision,
    positive,
    prepared,
)
from .convex import Identity
from .kinds import number
from .losses import Euclidean, LossFamily, checked_family, largest, loss_of, smallest
from .network import LiftedNetwork
from .potentials import FenchelYoung, LeastSquares, Potential, Reweighted, checked_potential

Gamma = Sequence[float | Tensor] | None


@torch.no_grad()
def kappa(net: LiftedNetwork, gamma: Gamma = None) -> float:
    """κ_γ = Σ_k c_k²/γ_k with c_L = 1 and c_j = Σ_k ‖W_kj‖₂ c_k.

    For a chain with γ = 1 this is the bracket of Zach (2025), eq. 19. A layer whose γ
    differs between units counts with its smallest. ‖A‖₂ of an operator that is not a matrix is found
    by iteration from one start: all bounds by κ_γ rest on it (:meth:`.Connection.spectral_norm`).

    Proof of the module's inequality: ‖z_k − z_k*‖ ≤ ‖e_k‖ + Σ_j ‖W_kj‖‖z_j − z_j*‖, as f_k
    is 1-Lipschitz; unrolled from the output this is ‖z_L − z_L*‖ ≤ Σ_k c_k‖e_k‖, and
    Cauchy–Schwarz with weights γ_k gives ‖z_L − z_L*‖² ≤ κ_γ Σ_k γ_k‖e_k‖² ≤ 2κ_γ U^⊙γ.
    """
    net = check_network(net)
    potential = _reweighted(net, gamma)
    gain = [0.0] * net.depth + [1.0]
    for k in range(net.depth, 0, -1):
        for j, affine in net.connections_into(k):
            gain[j] += affine.spectral_norm() * gain[k]
    return sum(gain[k] ** 2 / potential.curvature(k) for k in range(1, net.depth + 1))


def safe_beta(net: LiftedNetwork, gamma: Gamma = None) -> float:
    """1/κ_γ: below it AROVR is finite for the Euclidean loss (Zach 2025, eq. 19).

    The paper states it for linear networks and γ = 1; it holds for every network with
    1-strongly convex G_k. Proof: with s² = Σ_k γ_k‖e_k‖² and r = z_L* − y the module's
    inequality gives U − βℓ ≥ ½s² − (β/2)(√κ_γ s + ‖r‖)², coercive in s when βκ_γ < 1.
    """
    return 1 / kappa(net, gamma)


@own_precision
@torch.no_grad()
def output_gram(net: LiftedNetwork, x: Tensor | None = None, gamma: Gamma = None, *,
                base: Potential | None = None) -> Tensor:
    """K = Σ_k J_k S_k J_kᵀ, shape (batch, d_L, d_L), with J_k = ∂z_L/∂z_k at the forward pass.

    S_k is the compliance of layer k, how far z_k moves under a unit push, to first order: Γ_k⁻¹ for
    ``base=LeastSquares()``, and Γ_k⁻¹·diag f_k′(a_k) for Fenchel–Young (the default), where
    G_k ties down a saturated unit. They agree, as Γ_k⁻¹, where f_k is the identity.

    Without x, which only a network without nonlinearities allows, batch is 1.

    Why K: eliminating the hidden layers of ½Σ_k e_kᵀS_k⁻¹e_k subject to Σ_k J_k e_k = u leaves
    ½uᵀK⁻¹u, the cost of moving the output by u.
    """
    net = check_network(net)
    potential = _reweighted(net, gamma, base)
    if not isinstance(potential.base, (FenchelYoung, LeastSquares)):
        raise TypeError(f"base must be FenchelYoung() or LeastSquares(); got {potential.base!r}")
    if x is None:
        for function in net.functions:
            if not isinstance(function, Identity):
                raise ValueError(f"with {function!r} in the network K depends on x: pass x")
        x = net.tensors()[0].new_zeros(1, *net.input_shape)
    net, x = prepared(net, x)
    z = net.activations(x)
    J = [x.new_zeros(len(x), net.sizes[-1], size) for size in net.sizes]
    J[-1] += torch.eye(net.sizes[-1], dtype=x.dtype, device=x.device)
    K = x.new_zeros(len(x), net.sizes[-1], net.sizes[-1])
    for k in range(net.depth, 0, -1):
        slope = net.function(k).derivative(net.preactivation(k, z))
        give = slope if isinstance(potential.base, FenchelYoung) else torch.ones_like(slope)
        K += (J[k] * (give / potential.gamma[k - 1])[:, None]) @ J[k].mT
        steps = (J[k] * slope[:, None]).flatten(0, 1)
        for j, affine in net.connections_into(k):
            J[j] += affine.transpose(steps).view_as(J[j])
    return K


@own_precision
def stability_threshold(net: LiftedNetwork, x: Tensor | None = None, gamma: Gamma = None, *,
                        base: Potential | None = None,
                        curvature: float | Tensor = 1.0) -> Tensor:
    """1/λ_max(K), shape (batch,): the near border of stability, exact for linear networks.

    Linear networks: the largest β for which AROVR is finite. U − βℓ has, after elimination of
    the hidden layers, the Hessian K⁻¹ − βI in z_L, positive definite iff βλ_max(K) < 1.
    Others: that of the network linearised at the forward pass of x. There it says where the
    *local* optimum next to the forward pass ceases to be one; whether AROVR is finite is a
    property of the weights alone, and neither border implies the other. K ⪰ Γ_L⁻¹ contains
    the paper's γ_L > β, and λ_max(K) ≤ κ_γ contains eq. 19.

    Args:
        net: as for :func:`output_gram`, like the next three.
        x: shape (batch, d_0), or a batch of samples of ``net.input_shape``.
        gamma: as for :class:`~lnn_core.Reweighted`.
        base: the potential that γ reweights.
        curvature: the loss's, where it is not 1; a number, or a tensor Q that broadcasts to
            (batch, d_L): then λ_max of K^½·diag(Q)·K^½ counts, and the border is infinite where
            that is not positive.
    """
    plain = not isinstance(curvature, Tensor) and number("curvature", curvature) == 1
    K = output_gram(net, x, gamma, base=base)
    if plain:
        return 1 / torch.linalg.eigvalsh(K)[:, -1]
    values, vectors = torch.linalg.eigh(K)
    root = vectors * values.clamp_min(0).sqrt()[:, None]
    Q = torch.as_tensor(curvature, dtype=K.dtype, device=K.device).expand(*K.shape[:2])
    largest = torch.linalg.eigvalsh(root.mT @ (Q[:, :, None] * root))[:, -1]
    return torch.where(largest > 0, 1 / largest, torch.inf)


@own_precision
@torch.no_grad()
def two_sided(net: LiftedNetwork, x: Tensor, y: Tensor, beta: float, gamma: Gamma = None,
              loss: LossFamily = Euclidean) -> tuple[Tensor, Tensor]:
    """(lower, upper), each of shape (batch,): lower ≤ ROVR_β and AROVR_β ≤ upper.

    For the Euclidean loss ℓ(z*)/(1 + βκ_γ) and ℓ(z*)/(1 − βκ_γ). For any loss whose curvature is
    between c and C with gradient r at z_L*: ℓ(z*) − ½t‖r‖²/(1 + ct) and ℓ(z*) + ½t‖r‖²/(1 − Ct) with
    t = βκ_γ. (Where they differ between outputs: sums over them.) For any Λ-Lipschitz loss also
    AROVR_β ≤ ℓ(z*) + ½tΛ², whatever β: so it is for cross-entropy, with Λ ≤ √2, and for a linear loss.

    Proof: by the module's inequality U ≥ ‖u‖²/(2κ_γ) with u = z_L − z_L*, and the maximum
    over u of ℓ(z_L* + u) − ‖u‖²/(2t), the one-layer problem (13), is an upper bound;
    likewise the minimum of ℓ(z_L* + u) + ‖u‖²/(2t). Put in ℓ(z_L*) + rᵀu + (C/2)‖u‖², or c, or
    ℓ(z_L*) + Λ‖u‖, for the loss.

    Raises:
        ValueError: Ct ≥ 1 (or −ct ≥ 1) for a loss that is not Lipschitz.
    """
    net, x = prepared(net, x)
    target, beta = as_targets(net, x, y), positive("beta", beta)
    target_loss, output = loss_of(checked_family(loss), target), net(x)
    target_loss.check(net, len(x))
    t, (least, greatest) = beta * kappa(net, gamma), target_loss.curvatures
    steepest = max(largest(greatest), -smallest(least))
    value, slope = target_loss(output), target_loss.gradient(output).square()
    lipschitz = value + 0.5 * t * target_loss.lipschitz**2  # infinite with a Euclidean part
    if not steepest * t < 1 and not lipschitz.isfinite().all():
        raise ValueError(f"beta={beta:g} must be below 1/kappa={beta / (steepest * t):g}"
                         f"{'' if steepest == 1 else ' (for a loss of this curvature)'}: "
                         "there is no bound beyond")
    lower = value - 0.5 * t * (slope / (1 + least * t)).sum(-1)
    curved = value + 0.5 * t * (slope / (1 - greatest * t)).sum(-1)
    return lower, lipschitz if not steepest * t < 1 else torch.minimum(curved, lipschitz)


@own_precision
@torch.no_grad()
def energy_budget(net: LiftedNetwork, x: Tensor, gamma: Gamma = None) -> Tensor:
    """δ = m²/(4κ_γ), shape (batch,), for the margin m between the two largest outputs.

    No activations with U^⊙γ(z; x) < δ change the prediction, however the violation is
    spread over the layers. Proof: ‖z_L − z_L*‖ ≤ √(2κ_γU) < m/√2, while to overturn a
    margin m two outputs must move by m between them, which takes a norm of m/√2.

    Raises:
        ValueError: a network with a single output.
    """
    net, x = prepared(net, x)
    return margin(net(x)).square() / (4 * kappa(net, gamma))


def margin(output: Tensor) -> Tensor:
    """The difference of the two largest outputs, shape (batch,), of outputs of shape (batch, d_L).

    Raises:
        ValueError: a single output.
    """
    check_margin(output.shape[1])
    first, second = output.topk(2, dim=1).values.unbind(1)
    return first - second


@own_precision
@torch.no_grad()
def reduced(net: LiftedNetwork, x: Tensor, y: Tensor, beta: float, gamma: Gamma = None, *,
            base: Potential | None = None) -> tuple[Tensor, Tensor]:
    """(ROVR, AROVR) of the network linearised at its forward pass, Euclidean loss: (batch,) each.

        ½rᵀ(I + βK)⁻¹r    and    ½rᵀ(I − βK)⁻¹r    with r = z_L* − y,

    and +∞ for the second where βλ_max(K) ≥ 1. Exact for linear networks, and as long as no
    activation pattern changes; expanding in β gives ℓ ∓ (β/2)rᵀKr + O(β²).

    Proof: maximise ½‖r + u‖² − ½uᵀK⁻¹u/β over the output's move u (see
    :func:`output_gram`): u = βK(I − βK)⁻¹r.
    """
    net, x = prepared(net, x)
    target, beta = as_targets(net, x, y), positive("beta", beta)
    eigenvalues, vectors = torch.linalg.eigh(output_gram(net, x, gamma, base=base))
    r = (vectors.mT @ (net(x) - target)[:, :, None]).squeeze(-1)
    rovr, arovr = (0.5 * (r.square() / (1 + sign * beta * eigenvalues)).sum(-1) for sign in (1, -1))
    return rovr, torch.where(beta * eigenvalues[:, -1] < 1, arovr, torch.inf)


def _reweighted(net: LiftedNetwork, gamma: Gamma, base: Potential | None = None) -> Reweighted:
    potential = Reweighted([1.0] * net.depth if gamma is None else gamma,
                           checked_potential(base, "base"))
    potential.check(net)
    check_finite_weights(net)
    return potential
