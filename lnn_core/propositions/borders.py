"""Where AROVR is finite: the near border, the far border, and losses that have neither.

Both borders are values of one quotient, q(z) = U(z; x) / ½‖z_L − z_L*‖², what an adversary
pays for moving the output: close to the forward pass its least value is 1/λ_max(K(x)), far
away it is β_∞, whatever x is. :func:`least_quotient` finds it by search, without K and
without the oracle's recession.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .. import bounds, oracle
from ..convex import Identity, ReLU
from ..losses import Euclidean, Linear
from ..network import LiftedNetwork
from ..objectives import AROVR
from ..potentials import FenchelYoung, Potential
from .adversarial import arovr, rovr
from .counterexamples import ONE, ZERO
from .statements import minimum, statement
from .toys import CLASSIFIERS, Toy

HOMOGENEOUS = (Identity(), ReLU())


@statement("section 3.1, new proof", "β ≤ β′: ROVR_β′ ≤ ROVR_β and AROVR_β ≤ AROVR_β′")
def larger_beta_is_harder(toy: Toy) -> Tensor:
    """For every fixed z, ℓ − U/β does not fall as β grows, so neither does its maximum."""
    smaller = float(toy.random().uniform(0.1, 1)) * toy.beta
    return torch.cat([rovr(toy, smaller) - rovr(toy), arovr(toy) - arovr(toy, smaller)])


@statement("new", "near z*, inf q = 1/λ_max(K(x)): beyond it z* is no local maximiser",
           clearance=0.2)
def near_border(toy: Toy) -> Tensor:
    """Slack: 1 % minus the relative distance from the least quotient found next to z*."""
    size, z = 1e-4, torch.cat(toy.net.activations(toy.x)[1:], 1).detach()
    found = least_quotient(toy, lambda d: z + size * d)
    threshold = bounds.stability_threshold(toy.net, toy.x, toy.gamma, base=toy.base)
    return 0.01 - (found / threshold - 1).abs()


@statement("new", "identity, ReLU: far out inf q = β_∞, whatever x, y and biases are",
           activations=HOMOGENEOUS)
def far_border(toy: Toy) -> Tensor:
    """β_∞ by the oracle, which sees weights only. Slack: 0.1 % minus the relative distance."""
    found = least_quotient(toy, lambda d: 1e7 * d)
    return 1e-3 - (found / beta_infinity(toy.net, toy.potential) - 1).abs()


def beta_infinity(net: LiftedNetwork, potential: Potential) -> float:
    """β_∞ of a toy network: bisection on the sign of :func:`oracle.growth`."""
    loss = Euclidean(torch.zeros(1, net.sizes[-1], dtype=torch.float64))
    low, high = 0.0, potential.curvature(net.depth)
    for _ in range(40):
        middle = 0.5 * (low + high)
        grows = oracle.growth(net, potential - middle * loss) > 0
        low, high = (middle, high) if grows else (low, middle)
    return low


def least_quotient(toy: Toy, place: Callable[[Tensor], Tensor], directions: int = 4000) -> Tensor:
    """The least q(place(d)) found over random directions d, and near the best of them: (1,)."""
    sizes, random = list(toy.net.sizes[1:]), torch.Generator().manual_seed(toy.seed)
    ends = [torch.tensor([side for k, size in enumerate(sizes, 1)
                          for side in size * [toy.potential.domain(toy.net.function(k))[i]]],
                         dtype=torch.float64) for i in (0, 1)]
    target = toy.net(toy.x).detach()

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, sum(sizes), generator=random, dtype=torch.float64)

    @torch.no_grad()
    def quotient(d: Tensor) -> Tensor:
        z = place(d).clamp(*ends)
        layers = [toy.x.expand(len(z), -1), *z.split(sizes, 1)]
        move = 0.5 * (layers[-1] - target).square().sum(1)
        return torch.where(move > 0, toy.potential(toy.net, layers) / move, torch.inf)

    d = normal(directions)
    d = d / d.norm(dim=1, keepdim=True)
    for step in torch.logspace(0, -3, 25).tolist():
        best = d[quotient(d).topk(10, largest=False).indices]
        near = best[:, None] + step * normal(10, 100)
        mask = torch.rand(near.shape, generator=random, dtype=torch.float64) < 0.6
        near = torch.where(mask, near, best[:, None]).flatten(0, 1)     # some entries stay
        near = near / near.norm(dim=1, keepdim=True)
        d = torch.cat([best, near])
    return quotient(d).min()[None]


# ------------------------------------------------------- the two borders are independent


def finite_by_every_k_and_infinite(beta: float = 0.5) -> dict[str, float]:
    """β below 1/λ_max(K(x)) for *every* input x, and AROVR_β = ∞ for every input.

    Chain 1-1-1-1 with z_1 = [x]_+, z_2 = [−1 − z_1]_+, z_3 = 3z_2: the second unit is off in
    every forward pass, so K = 1 throughout. Far away it can be switched on at the price of its
    own activation: β_∞ = 1/(1 + 3²) = 1/10. ``along`` has U − βℓ at t·(0, 3, 10) for two t.
    """
    net = chain(1.0, -1.0, 3.0, biases=(0.0, -1.0, 0.0))
    x = torch.linspace(-100, 100, 2001, dtype=torch.float64)[:, None]
    energy = FenchelYoung() - beta * Euclidean(ZERO)
    along = [energy(net, [ONE, 0 * ONE, 3 * t * ONE, 10 * t * ONE]).item() for t in (1e3, 2e3)]
    return {"least near border": bounds.stability_threshold(net, x).min().item(),
            "far border": beta_infinity(net, FenchelYoung()),
            "energy at t": along[0], "at 2t": along[1]}


def infinite_by_k_and_finite(beta: float = 0.25) -> dict[str, float]:
    """β beyond 1/λ_max(K(x)) at an input, and AROVR_β finite.

    Chain 1-1-1-1 with z_1 = [x]_+, z_2 = [6 − 3z_1]_+, z_3 = z_2, at x = 1: all units are on
    and K = 1 + 1 + 9 = 11. Far away z_1 cannot be lowered, so that β_∞ = ½. At y = z_3* = 3,
    where back-propagation has the loss zero, AROVR_¼ = 7: with z_1 = 0 (for U = ½) and e_2 =
    e_3 = e, it is the maximum of ½(3 + 2e)² − 4(½ + e²), at e = 3/2.
    """
    net = chain(1.0, -3.0, 1.0, biases=(0.0, 6.0, 0.0))
    y = net(ONE).detach()
    value = oracle.objective(AROVR(beta), net, ONE, y)
    return {"near border": bounds.stability_threshold(net, ONE).item(),
            "far border": beta_infinity(net, FenchelYoung()), "AROVR": value.item()}


def chain(*weights: float, biases: tuple[float, ...]) -> LiftedNetwork:
    """The ReLU network of one unit per layer."""
    net = LiftedNetwork([1] * (len(weights) + 1), dtype=torch.float64)
    for parameters, values in ((net.weights, weights), (net.biases, biases)):
        for parameter, value in zip(parameters, values):
            parameter.data.fill_(value)
    return net


# ------------------------------------------------------------ losses of bounded slope


@statement("new, answers section 3.2", "‖∇ℓ‖ ≤ Λ: AROVR ≤ ℓ(z*) + ½βκΛ² for every β > 0",
           shapes=CLASSIFIERS)
def lipschitz_loss_is_bounded(toy: Toy) -> Tensor:
    """ℓ = ‖z_L − y‖ (Λ = 1) and log-sum-exp minus an output (Λ = √2), far beyond any border.

    A lower bound of AROVR from the exact optima for linear losses of slope Λ: for the first
    ℓ it is AROVR up to the directions tried, since ‖v‖ is the largest gᵀv over unit g.
    """
    beta, attacks = 20 * toy.beta, []
    for angle in torch.linspace(0, 2 * torch.pi, 9, dtype=torch.float64)[:-1]:
        slope = torch.stack([angle.cos(), angle.sin()])[None]
        attacks.append(minimum(toy, toy.potential, -beta * Linear(slope))[1])
    z = [torch.cat(layer) for layer in zip(*attacks)]
    price = toy.potential(toy.net, z) / beta
    slacks = []
    for loss, steepness in ((lambda z: (z - toy.y).norm(dim=1), 1.0),
                            (lambda z: z.logsumexp(1) - z[:, 0], 2**0.5)):
        bound = loss(toy.net(toy.x)) + 0.5 * beta * toy.kappa * steepness**2
        slacks.append((bound - loss(z[-1]) + price).detach())
    return torch.cat(slacks)


@statement("new", "βκ < 1: AROVR's adversary violates by s ≤ 2β√κ‖r‖/(1 − βκ)")
def adversary_stays_close(toy: Toy) -> Tensor:
    """s² = Σ_k γ_k‖e_k‖², r = z_L* − y."""
    _, z = minimum(toy, toy.potential, -toy.beta * toy.loss)
    r = (2 * toy.forward_loss).sqrt()
    limit = 2 * toy.beta * toy.kappa**0.5 * r / (1 - toy.beta * toy.kappa)
    return limit - violation(toy, z).sqrt()


def violation(toy: Toy, z: list[Tensor]) -> Tensor:
    """s² = Σ_k γ_k‖z_k − f_k(a_k)‖², shape (batch,)."""
    return sum((gamma * (z[k] - toy.net.function(k).activation(toy.net.preactivation(k, z)))
                .square()).sum(1) for k, gamma in enumerate(toy.gamma, 1)).detach()
