"""The statements of the theory, each as a number that must not be negative.

A statement takes a random toy instance and returns its *slack*: right-hand side minus
left-hand side for an inequality, minus the absolute difference for an equality. All
optima in it are global, found by the exhaustive :mod:`oracle`. :func:`table` runs every
statement on random instances. Statements marked "new" are not in Zach (2025); the
corrected ones are printed differently there (see :mod:`counterexamples`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from . import bounds, oracle
from .convex import Box, Identity, ReLU
from .losses import Euclidean, Linear, Loss, untargeted
from .network import LiftedNetwork
from .objectives import AROVR, ROVR, LiftedObjective, TargetedAROVR, TargetedROVR
from .potentials import Potential, Reweighted
from .toys import CLASSIFIERS, Toy, draw

#: A slack below −TOLERANCE is a violation: what a float64 optimum may be off by, with room.
TOLERANCE = 1e-7


@dataclass(frozen=True)
class Statement:
    """A claim, where it is made, its slack, and the instances it is made for."""

    source: str
    claim: str
    slack: Callable[[Toy], Tensor]
    only: dict


@dataclass(frozen=True)
class Row:
    """One line of the table: how many instances, the worst slack, how many violations."""

    source: str
    claim: str
    instances: int
    worst: float
    violations: int


STATEMENTS: list[Statement] = []


def statement(source: str, claim: str, **only):
    """Register a slack; ``only`` restricts the instances (arguments of ``toys.draw``)."""
    def register(slack: Callable[[Toy], Tensor]) -> Callable[[Toy], Tensor]:
        STATEMENTS.append(Statement(source, claim, slack, only))
        return slack
    return register


def table(instances: int = 50, seed: int = 0) -> list[Row]:
    """Every statement on ``instances`` random toys, drawn from seed, seed + 1, …"""
    rows = []
    for s in STATEMENTS:
        slacks = [worst(s, draw(seed + i, **s.only)) for i in range(instances)]
        rows.append(Row(s.source, s.claim, instances, min(slacks),
                        sum(slack < -TOLERANCE for slack in slacks)))
    return rows


def worst(statement: Statement, toy: Toy) -> float:
    """The smallest slack of one instance."""
    return float(statement.slack(toy).min())


def exact(toy: Toy, objective: LiftedObjective) -> Tensor:
    """The objective's exact value, shape (1,)."""
    return oracle.objective(objective, toy.net, toy.x, toy.y).detach()


def minimum(toy: Toy, potential: Potential, h: Loss) -> tuple[Tensor, list[Tensor]]:
    """m(h) and its minimiser."""
    value, z = oracle.minimum(toy.net, toy.x, potential + h)
    return value.detach(), z


def difference(left: Tensor, right: Tensor) -> Tensor:
    """The slack of an equality."""
    return -(left - right).abs()


# ----------------------------------------------------------------- ROVR and AROVR


@statement("section 2.2", "ROVR ≤ ℓ(z*) ≤ AROVR")
def sandwich(toy: Toy) -> Tensor:
    """Both are optima over z of something that z* attains with value ℓ(z*)."""
    low = exact(toy, ROVR(toy.beta, potential=toy.potential))
    high = exact(toy, AROVR(toy.beta, potential=toy.potential))
    return torch.cat([toy.forward_loss - low, high - toy.forward_loss])


@statement("new", "ℓ(z*)/(1+βκ) ≤ ROVR and AROVR ≤ ℓ(z*)/(1−βκ)")
def two_sided_bound(toy: Toy) -> Tensor:
    """:func:`bounds.two_sided`."""
    lower, upper = bounds.two_sided(toy.net, toy.x, toy.y, toy.beta, toy.gamma)
    return torch.cat([exact(toy, ROVR(toy.beta, potential=toy.potential)) - lower,
                      upper - exact(toy, AROVR(toy.beta, potential=toy.potential))])


@statement("new; answers section 3.2", "linear ℓ: AROVR ≤ ℓ(z*) + βκ‖g‖²/2 for every β")
def linear_loss_is_bounded(toy: Toy) -> Tensor:
    """U ≥ ‖u‖²/(2κ) grows quadratically, a linear loss does not."""
    beta = 0.9 * min(toy.gamma_output, 20 * toy.beta)
    def family(target: Tensor) -> Loss:
        return Linear(target)
    _, upper = bounds.two_sided(toy.net, toy.x, toy.y, beta, toy.gamma, family)
    return upper - exact(toy, AROVR(beta, family, toy.potential))


@statement("eq. 19, extended", "β < 1/κ: U − βℓ is coercive, any 1-strongly convex G", fraction=0.999)
def coercive_below_safe_beta(toy: Toy) -> Tensor:
    """Least growth of the energy along any direction: :func:`oracle.growth`."""
    return torch.tensor([oracle.growth(toy.net, toy.potential - toy.beta * toy.loss)])


@statement("new", "linear network: U − βℓ is convex iff β ≤ 1/λ_max(K); 1/κ ≤ 1/λ_max(K)",
           activation=Identity())
def linear_threshold(toy: Toy) -> Tensor:
    """The Hessian's smallest eigenvalue changes sign at :func:`bounds.stability_threshold`."""
    threshold = float(bounds.stability_threshold(toy.net, gamma=toy.gamma))
    below, above = (_smallest_curvature(toy, threshold * s) for s in (0.999, 1.001))
    return torch.tensor([below, -above, threshold - bounds.safe_beta(toy.net, toy.gamma)])


def _smallest_curvature(toy: Toy, beta: float) -> float:
    sizes = list(toy.net.sizes[1:])

    def energy(z: Tensor) -> Tensor:
        return (toy.potential - beta * toy.loss)(toy.net, [toy.x, *z[None].split(sizes, 1)])[0]

    hessian = torch.autograd.functional.hessian(energy, torch.zeros(sum(sizes), dtype=torch.float64))
    return float(torch.linalg.eigvalsh(hessian)[0])


@statement("new", "linear network: ROVR = ½rᵀ(I+βK)⁻¹r, AROVR = ½rᵀ(I−βK)⁻¹r", activation=Identity())
def reduced_form(toy: Toy) -> Tensor:
    """:func:`bounds.reduced`."""
    rovr, arovr = bounds.reduced(toy.net, toy.x, toy.y, toy.beta, toy.gamma, base=toy.base)
    return torch.cat([difference(rovr, exact(toy, ROVR(toy.beta, potential=toy.potential))),
                      difference(arovr, exact(toy, AROVR(toy.beta, potential=toy.potential)))])


@statement("Proposition 3.3, with content", "ℓ(z*) = 0, β < 1/κ: AROVR = 0, z⁻ = z*, zero gradient")
def interpolating_network_rests(toy: Toy) -> Tensor:
    """A consequence of the two-sided bound."""
    z = [z_k.detach() for z_k in toy.net.activations(toy.x)]
    toy = toy.replace(y=z[-1])
    value = oracle.objective(AROVR(toy.beta, potential=toy.potential), toy.net, toy.x, toy.y).sum()
    gradient = torch.autograd.grad(value, list(toy.net.parameters()))
    _, z_minus = minimum(toy, toy.potential, -toy.beta * toy.loss)
    return -torch.cat([value.detach().abs()[None], *[(a - b).abs().flatten() for a, b in zip(z, z_minus)],
                       *[entry.abs().flatten() for entry in gradient]])


# ------------------------------------------------------------------ generalized AROVR


def generalized(toy: Toy, weight: float) -> Tensor:
    """max over z⁻, z* of ℓ(z⁻) − (weight/2β)‖z_L⁻ − z_L*‖² − U(z*)/β, shape (1,): eq. (10).

    It is AROVR for the network with one more layer, z_{L+1} = z_L, of that weight.
    """
    net = toy.net
    taller = LiftedNetwork([*net.sizes, net.sizes[-1]], net.functions, Identity(),
                           edges=[*net.edges, (net.depth, net.depth + 1)], dtype=torch.float64)
    copied = [*net.weights, torch.eye(net.sizes[-1])], [*net.biases, torch.zeros(net.sizes[-1])]
    for mine, theirs in zip((taller.weights, taller.biases), copied):
        for parameter, value in zip(mine, theirs):
            parameter.data = value.detach().double()
    potential = Reweighted((*toy.gamma, weight), toy.base)
    return oracle.objective(AROVR(toy.beta, potential=potential), taller, toy.x, toy.y).detach()


def admissible(toy: Toy, room: float) -> float:
    """A weight for which eq. (10) is finite: β(κ + 1/weight) < 1, with some room."""
    return (1 + room) * toy.beta / (1 - toy.fraction)


@statement("Proposition 3.1, eq. 12", "AROVR ≤ generalized AROVR, and less so for larger γ")
def generalized_is_harder(toy: Toy) -> Tensor:
    """d_γ = Σ_k γ_k‖z_k − z_k′‖²; only γ_L matters, with weight 2λγ_L in :func:`generalized`."""
    arovr = exact(toy, AROVR(toy.beta, potential=toy.potential))
    chain = [generalized(toy, admissible(toy, room)) for room in (0.1, 1.0, 10.0)] + [arovr]
    return torch.cat([harder - easier for harder, easier in zip(chain, chain[1:])])


@statement("Proposition 3.1", "AROVR ≤ generalized AROVR for a random quadratic d_γ")
def quadratic_distance_is_harder(toy: Toy) -> Tensor:
    """d_γ = ½(z − z′)ᵀQ(z − z′); its minimum over the hidden activations is a Schur complement."""
    n = sum(toy.net.sizes[1:])
    seed = int(toy.x.sum().abs() * 1e6)
    A = torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    Q = A @ A.T + 0.1 * torch.eye(n)
    schur = 1 / torch.linalg.inv(Q)[-1, -1]
    scale = max(1.0, 1.5 * admissible(toy, 0.0) / float(schur))       # λ
    return generalized(toy, scale * float(schur)) - exact(toy, AROVR(toy.beta, potential=toy.potential))


@statement("new, from eq. 13", "generalized AROVR with (12) = s·AROVR with β → sβ, s = w/(w − β)")
def elementwise_distances_rescale(toy: Toy) -> Tensor:
    """Eq. (13) inside (10), w = 2λγ_L: s → 1 (AROVR) as w → ∞, and s → ∞ as w → β."""
    weight = admissible(toy, 0.5)
    s = weight / (weight - toy.beta)
    return difference(generalized(toy, weight), s * exact(toy, AROVR(s * toy.beta, potential=toy.potential)))


@statement("eq. 13", "max ‖z−y‖² − (γ_L/β)‖z−z*‖² = γ_L/(γ_L−β)·‖z*−y‖² for β < γ_L only",
           shape=((3, 1), None))
def one_layer(toy: Toy) -> Tensor:
    """AROVR of one linear layer; from β = γ_L on the energy no longer grows."""
    gamma = toy.gamma_output
    beta = toy.fraction * gamma
    expected = gamma / (gamma - beta) * toy.forward_loss
    beyond = toy.potential - 1.001 * gamma * toy.loss
    return torch.cat([difference(exact(toy, AROVR(beta, potential=toy.potential)), expected),
                      torch.tensor([-oracle.growth(toy.net, beyond)])])


@statement("section 3.1", "γ ≤ γ′: AROVR with γ ≥ AROVR with γ′ (eq. 16)")
def smaller_gamma_is_harder(toy: Toy) -> Tensor:
    """U^⊙γ ≤ U^⊙γ′. (Proposition 3.1 does not give this: U^⊙γ(z; x) ≠ 0 at z⁻ = z* in general.)"""
    larger = tuple(entry * (1 + toy.x.abs().max().item()) for entry in toy.gamma)
    return (exact(toy, AROVR(toy.beta, potential=toy.potential))
            - exact(toy, AROVR(toy.beta, potential=Reweighted(larger, toy.base))))


@statement("Remark 3.2, made precise", "linear network and ℓ: γ_k·e_k = β·∂ℓ/∂z_k for every γ, β",
           activation=Identity())
def gamma_leaves_the_error_signal(toy: Toy) -> Tensor:
    """What γ does change is z⁻ itself, hence AROVR, which is ℓ + (β/2)gᵀKg."""
    beta, slope = 5 * toy.beta, Linear(toy.y)
    value, z = minimum(toy, toy.potential, -beta * slope)
    K = bounds.output_gram(toy.net, gamma=toy.gamma)
    predicted = slope(toy.net(toy.x)) + 0.5 * beta * (toy.y @ K[0] * toy.y).sum(1)
    slacks = [difference(-value / beta, predicted.detach())]
    for k, signal in enumerate(error_signals(toy, slope), 1):
        e = z[k] - toy.net.function(k).activation(toy.net.preactivation(k, z))
        slacks.append(difference(toy.gamma[k - 1] * e.detach(), beta * signal).flatten())
    return torch.cat(slacks)


def error_signals(toy: Toy, loss: Loss) -> list[Tensor]:
    """∂ℓ/∂z_k at the forward pass for k = 1, …, L, by autograd: what back-propagation sends."""
    z = [toy.x]
    for k in range(1, toy.net.depth + 1):
        z.append(toy.net.function(k).activation(toy.net.preactivation(k, z)))
        z[k].retain_grad()
    return list(torch.autograd.grad(loss(z[-1]).sum(), z[1:]))


# --------------------------------------------------------------- certified robustness


@statement("new", "U(z) < m²/(4κ): the prediction stands (dual bound, and attacks)")
def certified_budget(toy: Toy) -> Tensor:
    """min margin over U ≤ δ ≥ min_z {margin + U/β} − δ/β ≥ 0 at β = m/(2κ)."""
