"""The set {U ≤ δ} that an adversary moves in: prices and budgets, the input, units of measure."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from .. import bounds
from ..inference import sweep
from ..losses import Linear
from ..network import Activations
from ..objectives import AROVR
from ..potentials import FenchelYoung
from .adversarial import LINEAR, admissible, arovr, generalized
from .borders import HOMOGENEOUS, violation
from .statements import equal, gradient, minimum, statement
from .toys import CLASSIFIERS, SHAPES, Toy

CHAINS = tuple(shape for shape in SHAPES if shape[1] is None)


def attacked(toy: Toy, fractions: tuple[float, ...] = (0.2, 0.5, 0.9)) -> list[Activations]:
    """AROVR's maximisers at these fractions of 1/κ, which spend more and more energy."""
    return [minimum(toy, toy.potential, -fraction / toy.kappa * toy.loss)[1]
            for fraction in fractions]


@statement("section 2.2, eq. 7", "ℓ(z) ≤ AROVR_β + U(z)/β; equal at z⁻; U(z⁻) rises with β")
def every_price_bounds_every_budget(toy: Toy) -> Tensor:
    """So max ℓ over U ≤ δ is at most AROVR_β + δ/β, for every β and δ."""
    others, (_, z) = attacked(toy), minimum(toy, toy.potential, -toy.beta * toy.loss)
    spent = torch.cat([toy.potential(toy.net, other) for other in others])
    losses = torch.cat([toy.loss(other[-1]) for other in others])
    value = arovr(toy)
    return torch.cat([value + spent / toy.beta - losses, spent.diff(),
                      equal(value + toy.potential(toy.net, z) / toy.beta,
                            toy.loss(z[-1]))]).detach()


@statement("after eq. 7, corrected", "U(z) ≤ δ: Σ_k γ_k‖e_k‖² ≤ 2δ and ‖z_L − z_L*‖² ≤ 2κδ")
def region_is_a_ball_in_the_errors(toy: Toy) -> Tensor:
    """Printed as a ball around z*, for a U that is 1-strongly convex in z."""
    slacks = []
    for z in attacked(toy):
        U, move = toy.potential(toy.net, z), (z[-1] - toy.net(toy.x)).square().sum(1)
        slacks += [2 * U - violation(toy, z), 2 * toy.kappa * U - move]
    return torch.cat(slacks).detach()


@statement("abstract, made precise", "ℓ(z*(x + ξ)) ≤ AROVR_β(x) + ½ξᵀW_0ᵀΓ_1W_0ξ/β for every ξ",
           shapes=CHAINS)
def input_perturbations_are_covered(toy: Toy) -> Tensor:
    """The first layer can imitate a moved input."""
    xi = _random_inputs(toy)
    price = 0.5 * (toy.gamma[0] * (xi @ toy.net.weight(1).T).square()).sum(1) / toy.beta
    return (arovr(toy) + price - toy.loss(toy.net(toy.x + xi))).detach()


@statement("new", "γ = 1: ‖ξ‖ < m/(√(2κ)‖W_0‖) leaves the prediction unchanged", shapes=CLASSIFIERS)
def input_radius(toy: Toy) -> Tensor:
    """The margins of inputs within the radius."""
    norm = torch.linalg.matrix_norm(toy.net.weight(1), 2)
    radius = (2 * bounds.energy_budget(toy.net, toy.x)).sqrt() / norm
    xi = _random_inputs(toy)
    xi = radius * xi / xi.norm(dim=1, keepdim=True)
    predicted = int(toy.net(toy.x).argmax())
    outputs = toy.net(toy.x + xi)
    return (outputs[:, predicted] - outputs[:, 1 - predicted]).detach()


def _random_inputs(toy: Toy, samples: int = 300) -> Tensor:
    size = np.exp(toy.random().uniform(-3, 2, (samples, 1)))
    return torch.as_tensor(size * toy.random().standard_normal((samples, toy.net.sizes[0])))


# -------------------------------------------------------------------------- the weights γ


@statement("new", "AROVR^γ′ ≥ AROVR^γ − Σ_k (γ′_k − γ_k)D_k(z⁻)/β: convex in γ, with slope −D_k/β")
def energy_is_the_slope_in_gamma(toy: Toy) -> Tensor:
    """AROVR is a maximum of functions that are affine in γ. γ′ ≥ γ keeps it finite."""
    factors = torch.as_tensor(toy.random().uniform(1, 1.5, toy.net.depth))
    larger = toy.with_(gamma=tuple(f * g for f, g in zip(factors, toy.gamma)))
    _, z = minimum(toy, toy.potential, -toy.beta * toy.loss)
    shares = toy.potential.layer_values(toy.net, z).flatten()
    fall = ((factors - 1) * shares).sum() / toy.beta
    return (arovr(larger, toy.beta) - arovr(toy) + fall).detach()


@statement("new", "identity, ReLU: hidden units × s, weights above ÷ s: U is that of γ ÷ s²",
           activations=HOMOGENEOUS)
def rescaling_units_is_reweighting(toy: Toy) -> Tensor:
    """AROVR^γ(θ) = AROVR(θ̃) with s = √γ in hidden layers: U, κ and borders change with units."""
    toy = toy.with_(gamma=(*toy.gamma[:-1], 1.0))
    rescaled = copy.deepcopy(toy.net)
    s = [torch.ones(toy.net.sizes[0], dtype=torch.float64)]
    s += [torch.as_tensor(g, dtype=torch.float64).sqrt() * torch.ones(size, dtype=torch.float64)
          for g, size in zip(toy.gamma, toy.net.sizes[1:])]
    with torch.no_grad():
        for (j, k), new, old in zip(toy.net.edges, rescaled.weights, toy.net.weights):
            new.copy_(s[k][:, None] * old / s[j])
        for k, (new, old) in enumerate(zip(rescaled.biases, toy.net.biases), 1):
            new.copy_(s[k] * old)
    there = toy.with_(net=rescaled, gamma=(1.0,) * toy.net.depth)
    x = _random_inputs(toy)
    return torch.cat([equal(arovr(toy), arovr(there, toy.beta)),
                      equal(toy.net(x), rescaled(x)).detach()])


@statement("new", "identity, ReLU, Fenchel–Young: ⟨W_in, ∂⟩ + ⟨b, ∂⟩ − ⟨W_out, ∂⟩ of AROVR is "
           "−2γ_kD_k/β", activations=HOMOGENEOUS, bases=(FenchelYoung(),))
def hidden_units_drift(toy: Toy) -> Tensor:
    """Gradient flow of AROVR inflates hidden layers, in proportion to the energy spent there.

    With least squares the minimum can be at a kink a_k = 0, where U has no slope in the weights.
    """
    slopes = gradient(toy, AROVR(toy.beta, potential=toy.potential))
    parts = slopes.split([p.numel() for p in toy.net.parameters()])
    products = {id(p): (p.flatten() * part).sum() for p, part in zip(toy.net.parameters(), parts)}
    weights, biases = ([products[id(p)] for p in group] for group in (toy.net.weights, toy.net.biases))
    _, z = minimum(toy, toy.potential, -toy.beta * toy.loss)
    shares = toy.potential.layer_values(toy.net, z).flatten()
    balance = [sum(w for (_, child), w in zip(toy.net.edges, weights) if child == k) + biases[k - 1]
               - sum(w for (j, _), w in zip(toy.net.edges, weights) if j == k)
               for k in range(1, toy.net.depth)]
    return equal(torch.stack(balance), -2 * shares[:-1] / toy.beta).detach()


@statement("new", "linear network, quadratic d: (10) is ½rᵀ(I − βK_d)⁻¹r, K_d = K + [Q⁻¹]_LL/λ",
           activations=LINEAR)
def compliances_add(toy: Toy) -> Tensor:
    """One output: [Q⁻¹]_LL/λ is one over the weight of the layer on top."""
    weight = admissible(toy, float(toy.random().uniform(0.1, 2)))
    K = bounds.output_gram(toy.net, gamma=toy.gamma)[0, 0, 0] + 1 / weight
    return equal(generalized(toy, weight), toy.forward_loss / (1 - toy.beta * K))


@statement("new", "linear network and ℓ: ½(ROVR + AROVR) = ℓ(z*) for every γ and β",
           activations=LINEAR)
def linear_average_is_the_loss(toy: Toy) -> Tensor:
    """The terms of order β cancel, and there are no others."""
    plus, minus = (minimum(toy, toy.potential, sign * toy.beta * Linear(toy.y))[0]
                   for sign in (1, -1))
    return equal((plus - minus) / (2 * toy.beta), Linear(toy.y)(toy.net(toy.x)).detach())


# ------------------------------------------------------------------------------- passes


@statement("eq. 17", "AROVR's z⁻ satisfies (17) in hidden layers and γ_L(z_L − a_L) = β(z_L − y)",
           bases=(FenchelYoung(),))
def optimum_satisfies_equation_17(toy: Toy) -> Tensor:
    """Squared, as energies are: z⁻ is known to about the root of the oracle's precision."""
    _, z = minimum(toy, toy.potential, -toy.beta * toy.loss)
    a = [None] + [toy.net.preactivation(k, z) for k in range(1, toy.net.depth + 1)]
    errors = [None] + [g * (z[k] - toy.net.function(k).activation(a[k]))
                       for k, g in enumerate(toy.gamma, 1)]
    slacks = [(errors[-1] - toy.beta * (z[-1] - toy.y)).square()]
    for k in range(1, toy.net.depth):
        p = sum(errors[child] @ toy.net.weight(child, k) for child in toy.net.children_of(k))
        slacks.append((z[k] - toy.net.function(k).activation(a[k] + p / toy.gamma[k - 1])).square())
    return -torch.cat([s.flatten() for s in slacks]).detach()


@statement("new", "a step tΔ of (17) lowers U by ½γ_kt(2 − t(1 + γ_k+1‖W_k‖²/γ_k))‖Δ‖² or more",
           shapes=CHAINS, bases=(FenchelYoung(),))
def damped_steps_descend(toy: Toy) -> Tensor:
    """At random activations. γ by layer; a layer of several γ would need its own norm."""
    toy = toy.with_(gamma=tuple(float(torch.as_tensor(g).mean()) for g in toy.gamma))
    random, net, slacks = toy.random(), toy.net, []
    z = [toy.x.expand(100, -1)]
    for k in range(1, net.depth + 1):
        low, high = toy.potential.domain(net.function(k))
        draw = torch.as_tensor(2 * random.standard_normal((100, net.sizes[k])))
        z.append(draw.clamp(0.99 * low, 0.99 * high))
    with torch.no_grad():
        for k in range(1, net.depth):
            G, ratio = net.function(k), toy.gamma[k] / toy.gamma[k - 1]
            e = z[k + 1] - net.function(k + 1).activation(net.preactivation(k + 1, z))
            step = G.activation(net.preactivation(k, z) + ratio * e @ net.weight(k + 1)) - z[k]
            t = torch.as_tensor(random.uniform(0, 1, (100, 1)))
            moved = [*z[:k], z[k] + t * step, *z[k + 1:]]
            norm = torch.linalg.matrix_norm(net.weight(k + 1), 2)
            gain = 0.5 * t * (2 - t * (1 + ratio * norm**2)) * step.square().sum(1, keepdim=True)
            fall = toy.potential(net, z) - toy.potential(net, moved)
            slacks.append(fall - toy.gamma[k - 1] * gain[:, 0])
    return torch.cat(slacks) if slacks else torch.zeros(1)


@statement("new", "linear chain, γ = 1: passes of (17) converge iff β < 1/λ_max(K)",
           shapes=CHAINS, activations=LINEAR, bases=(FenchelYoung(),))
def linear_sweeps_stop_at_the_border(toy: Toy) -> Tensor:
    """At 0.9 of the border to the minimum (of the oracle), halfway from it to β = 1 away."""
    toy = toy.with_(gamma=(1.0,) * toy.net.depth)
    threshold = bounds.stability_threshold(toy.net).item()
    below, above = toy.with_(fraction=0.9 * threshold * toy.kappa), 0.5 * (threshold + 1)
    _, best = minimum(below, below.potential, -below.beta * toy.loss)
    left, apart = _after_sweeps(below, below.beta, best, 400), _after_sweeps(below, above, best, 60)
    return torch.stack([1e-6 - left, apart - 1e6])


@statement("new", "U alone: L passes of (17) from anywhere end on the forward pass", shapes=CHAINS)
def sweeps_find_the_forward_pass(toy: Toy) -> Tensor:
    """Each pass lets a layer copy what the layers below were."""
    z = [z_k.detach() for z_k in toy.net.activations(toy.x)]
    return -_after_sweeps(toy, 0.0, z, toy.net.depth)[None]


@torch.no_grad()
def _after_sweeps(toy: Toy, beta: float, goal: Activations, passes: int) -> Tensor:
    """The largest distance of an activation from the goal, from a random start."""
    z = [toy.x]
    for k, size in enumerate(toy.net.sizes[1:], 1):
        low, high = toy.potential.domain(toy.net.function(k))
        start = torch.as_tensor(toy.random().standard_normal((1, size)))
        z.append(start.clamp(0.9 * low, 0.9 * high))
    for _ in range(passes):
        sweep(toy.net, toy.potential - beta * toy.loss, z)
    return torch.cat([(a - b).flatten() for a, b in zip(z, goal)]).abs().max()
