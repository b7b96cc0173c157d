"""Is the inside robust? How little flips a prediction when it happens within the network.

No measure here depends on how hidden ReLU units are scaled (see :mod:`lnn_core.gauge`): lengths, energies
and coarse weights are taken in the balanced gauge, where all rescalings of a network are one network, and
factors on activations are invariant by themselves, since D z ⊙ (1 + n) = D(z ⊙ (1 + n)).

The least change of its kind that flips a prediction lies between a certified lower bound and the change
that an attack found; ``linearised`` is what it would be if no activation pattern changed, and bounds
nothing: an estimate.

The certified end of :func:`jointly` is m²/(4κ), although :class:`~lnn_core.ConstrainedAROVR` brackets the
largest loss within a budget, from which the least budget would follow. Its upper bound rests on weak
duality, and so on inference having found a global minimum, which no solver here promises for a network
(``oracle.Exhaustive`` does, for toys). For a linear loss its multiplier β is the t of the attack, so that a
bisection over budgets around its own over β would find nothing that one over t does not.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .. import lipschitz
from ..bounds import energy_budget, margin, output_gram
from ..checks import at_least, check_margin, check_network, positive, prepared
from ..data import Split, one_hot
from ..gauge import balanced, chain
from ..inference import Shooting, minimise
from ..losses import Euclidean, Linear, home
from ..network import LiftedNetwork
from ..potentials import FenchelYoung
from ..quantisation import dequantise, quantise
from .datasets import dataset_of
from .records import Recorded
from .runs import Run
from .training import BLOCK, History, accuracy, seeded_generator

#: Standard deviations of factors, probabilities of deletion, and bits per weight that records are about.
NOISE, DELETED, BITS = (0.5, 1.0), (0.25, 0.5), (4, 3, 2)
#: Attacks on a layer, by their names in ``attacks.ATTACKS``.
ATTACKS = ("deepfool", "fast_minimum_norm")
#: Where hidden layers are attacked there is no box: so many median lengths away no attack gets to its border.
FAR = 1000.0
#: Of the attack on all layers: closer to the optimum than a training step needs.
SOLVER = Shooting(1e-4, 100, every=True)


class Flips(NamedTuple):
    """certified ≤ the least change that flips a prediction ≤ attack; linearised may be anywhere.

    One value per sample, shape (batch,); infinite where nothing that was tried flips it.
    """

    certified: Tensor
    linearised: Tensor
    attack: Tensor


def above(net: LiftedNetwork, k: int) -> LiftedNetwork:
    """The part of a chain that maps z_k to z_L, a copy, for k = 0, …, L − 1."""
    net = check_network(net)
    at_least("k", k, 0, net.depth - 1)
    return chain(net.weights[k:], net.biases and net.biases[k:], net.functions[k:])


@torch.no_grad()
def alone(net: LiftedNetwork, x: Tensor, k: int, box: tuple[float, float] | None = None) -> Flips:
    """‖e‖/‖z_k‖ of the least e that flips the prediction if z_k + e takes the place of z_k, and no other
    layer is touched. In the balanced gauge, float64.

    * certified: m/(√2ρ), with the margin m between the two largest outputs and the certified Lipschitz
      constant ρ of the part above z_k (:func:`lnn_core.lipschitz.certified`).
    * linearised: min_j (z_i − z_j)/‖∇(z_i − z_j)‖ of the predicted i and its rivals j, with the gradients
      in z_k. Exact for k = L − 1 and a linear output.
    * attack: the shortest that ``ATTACKS`` find, each moved back to the border
      (:func:`lnn_core.experiments.attacks.minimal_perturbations`).

    Args:
        net: a chain whose hidden layers are ReLU, leaky ReLU or the identity.
        x: shape (batch, d_0).
        k: the layer, 0 (the input) to L − 1.
        box: z_k + e stays within these bounds in an attack; None for none.

    Raises:
        ValueError: k out of range, a single output, another network; x that does not fit, or lies outside
            the box.
    """
    net, x = _gauged(net, x)
    upper, z = above(net, k), net.activations(x)[k]
    if box is not None and not (box[0] <= z.min() and z.max() <= box[1]):
        raise ValueError(f"layer {k} lies in [{float(z.min()):g}, {float(z.max()):g}], not within {box}")
    linearised = _linearised(upper, z)
    found = Flips(margin(upper(z)) / (math.sqrt(2) * lipschitz.certified(upper)), linearised,
                  _attacked(upper, z, linearised, box))
    return Flips(*(length / torch.linalg.vector_norm(z, dim=1) for length in found))


def _linearised(net: LiftedNetwork, x: Tensor) -> Tensor:
    """min_j (z_i − z_j)/‖∂(z_i − z_j)/∂x‖, (batch,), for the outputs of a chain."""
    z = net.activations(x)
    J = torch.eye(net.sizes[-1], dtype=x.dtype, device=x.device).expand(len(x), -1, -1)
    for k in range(net.depth, 0, -1):
        J = (J * net.function(k).derivative(net.preactivation(k, z))[:, None]) @ net.weight(k)
    first = z[-1].argmax(1, keepdim=True)
    gaps = z[-1].gather(1, first) - z[-1]
    own = J.gather(1, first[:, :, None].expand(-1, 1, J.shape[2]))
    return (gaps / torch.linalg.vector_norm(own - J, dim=2)).scatter(1, first, torch.inf).amin(1)


def _attacked(net: LiftedNetwork, x: Tensor, lengths: Tensor, box: tuple[float, float] | None) -> Tensor:
    """The least ‖e‖ that attacks find, (batch,), for e of about these lengths."""
    from . import attacks  # foolbox takes a second to import

    # Attacks take steps of fixed lengths, made for lengths of about 1. They see float32, which is faster.
    known = lengths[lengths.isfinite() & (lengths > 0)]
    unit = known.median() if len(known) else lengths.new_ones(())
    judge = chain([net.weight(1) * unit, *net.weights[1:]], net.biases, net.functions)
    reach = float((x / unit).abs().amax()) + FAR
    # What is within the box stays within it: bounds are divided and rounded as x is.
    low, high = (-reach, reach) if box is None else (x.new_tensor(box) / unit).float().tolist()
    with torch.enable_grad():
        found = attacks.minimal_perturbations(copy.deepcopy(judge).float(), (x / unit).float(), ATTACKS,
                                              bounds=(low, high), judge=judge)
    return found.amin(0) * unit


@torch.no_grad()
def jointly(net: LiftedNetwork, x: Tensor, rivals: int = 3, steps: int = 14) -> Flips:
    """The least U(z; x) of activations with another prediction, whichever layers deviate.

    U is that of Fenchel–Young divergences, in the balanced gauge, float64.

    * certified: m²/(4κ), :func:`lnn_core.bounds.energy_budget`.
    * linearised: min_j m_j²/(2q_j) with m_j = z_i − z_j, q_j = (e_j − e_i)ᵀK(e_j − e_i) and K of
      :func:`lnn_core.bounds.output_gram`: what it costs the linearised network to move its output by u
      is ½uᵀK⁻¹u. Exact for linear networks.
    * attack: U where inference with the loss t·(z_i − z_j) first flips the prediction, by bisection over t
      from t = m_j/q_j, the linearised network's. The least over the rivals j.

    Args:
        net: a chain whose hidden layers are ReLU, leaky ReLU or the identity.
        x: shape (batch, d_0).
        rivals: how many j are attacked, those with the least linearised U.
        steps: values of t tried.

    Raises:
        ValueError: rivals or steps below 1, a single output, another network, x that does not fit.
    """
    at_least("steps", steps, 1)
    net, x = _gauged(net, x)
    out, K = net(x), output_gram(net, x)
    first = out.argmax(1, keepdim=True)
    m = out.gather(1, first) - out
    diagonal, row = K.diagonal(dim1=1, dim2=2), K.gather(1, first[:, :, None].expand(-1, 1, K.shape[2]))[:, 0]
    q = diagonal.gather(1, first) + diagonal - 2 * row
    costs = (m.square() / (2 * q)).scatter(1, first, torch.inf)
    chosen = costs.topk(min(at_least("rivals", rivals, 1), out.shape[1] - 1), largest=False).indices
    rows = torch.arange(len(x), device=x.device).repeat_interleave(chosen.shape[1])
    slope = torch.zeros_like(out).scatter(1, first, 1.0)[rows].scatter(1, chosen.view(-1, 1), -1.0)
    t = (m / q).gather(1, chosen).flatten()
    found = _first_flip(net, x, rows, slope, t.where(t.isfinite(), 0.0), steps)
    return Flips(energy_budget(net, x), costs.amin(1), found.view_as(chosen).amin(1))


def _first_flip(net: LiftedNetwork, x: Tensor, rows: Tensor, slope: Tensor, t: Tensor, steps: int) -> Tensor:
    """The least U at which inference with t·slopeᵀz_L changes the prediction, for each of the rows."""
    net, U, predicted = net.fixed(), FenchelYoung(), net(x).argmax(1)[rows]
    low, high, best = torch.zeros_like(t), torch.full_like(t, torch.inf), torch.full_like(t, torch.inf)
    for _ in range(steps):
        end, _ = minimise(net, x, U + Linear(t[:, None] * slope), SOLVER, rows)
        flips = end.z[-1].argmax(1) != predicted
        best = torch.where(flips, torch.minimum(best, U(net, end.z, end.a)), best)
        low, high = torch.where(flips, low, t), torch.where(flips, t, high)
        t = torch.where(high.isfinite(), (low + high) / 2, 2 * t)
    return best


@torch.no_grad()
def squared_activations(net: LiftedNetwork, x: Tensor) -> Tensor:
    """Σ_{k≥1} ‖z_k‖², shape (batch,), of the forward pass in the balanced gauge.

    U ≥ ½Σ_k‖e_k‖² for violations e_k, so that √(2U/Σ_k‖z_k‖²) is how large they can be beside the
    activations. U itself grows with the square of the margins, which methods with other targets teach.
    """
    net, x = _gauged(net, x)
    return torch.cat(net.activations(x)[1:], 1).square().sum(1)


def _gauged(net: LiftedNetwork, x: Tensor) -> tuple[LiftedNetwork, Tensor]:
    """Both in float64, the network in the balanced gauge."""
    net, x = prepared(net, x)
    check_margin(net.sizes[-1])
    return balanced(net.fixed(torch.float64)), x.detach().double()


#: Random factors for activations of one hidden layer, of their shape.
Factors = Callable[[Tensor], Tensor]


def noise(sd: float, generator: torch.Generator) -> Factors:
    """Factors 1 + N(0, sd²), independent for every unit of every sample."""
    positive("sd", sd)
    return lambda z: 1 + sd * torch.randn(z.shape, generator=generator, device=home(generator)).to(z)


def deletion(probability: float, generator: torch.Generator) -> Factors:
    """Factors 0 with this probability, else 1, independent for every unit of every sample."""
    if not 0 < probability < 1:
        raise ValueError(f"probability={probability} must be between 0 and 1")
    return lambda z: (torch.rand(z.shape, generator=generator, device=home(generator)) >= probability).to(z)


@torch.no_grad()
def disturbed_accuracy(net: LiftedNetwork, split: Split, factors: Factors, draws: int = 4) -> float:
    """The accuracy where all hidden activations are multiplied by random factors, a mean over draws.

    Each draw is of the whole forward pass: what a layer gets has been disturbed before.

    Args:
        net: a chain.
        split: samples and their labels.
        factors: what draws them, such as ``noise(0.5, generator)``.
        draws: how many for each sample.
    """
    net, images = prepared(net, split.x)
    at_least("draws", draws, 1)
    right = 0
    for x, y in zip(images.split(BLOCK), split.y.split(BLOCK)):
        a = net.connection(0)(x)  # the same in all draws
        for _ in range(draws):
            last = a
            for k in range(1, net.depth):
                z = net.function(k).activation(last)
                last = net.connection(k)(z * factors(z))
            right += int((net.function(net.depth).activation(last).argmax(1) == y).sum())
    return right / (draws * len(split.y))


@torch.no_grad()
def quantised(net: LiftedNetwork, bits: int) -> LiftedNetwork:
    """The network in the balanced gauge with weights rounded to so many bits; biases stay as they are.

    W_ij ≈ s·n_ij for integers |n_ij| ≤ n_max = 2^(bits−1) − 1, with one scale s = max|W|/n_max per matrix.

    Args:
        net: a chain whose hidden layers are ReLU, leaky ReLU or the identity.
        bits: 2 to 8.
    """
    most, net = 2 ** (at_least("bits", bits, 2, 8) - 1) - 1, balanced(net)
    rounded = []
    for W in net.weights:
        scale = (W.abs().amax() / most).expand(len(W))
        scale = scale.masked_fill(scale == 0, 1.0)
        rounded.append(dequantise(quantise(W, scale), scale))
    return chain(rounded, net.biases, net.functions)


def measures(net: LiftedNetwork, split: Split, images: int, seed: int) -> dict:
    """All measures of a network, as records keep them.

    ``test``, the accuracy; ``images``, how many are looked at one by one: the first of those that are
    classified correctly; medians over them, and in ``closest`` the smallest quotient of attack and
    certificate, which right certificates keep at 1 or above: ``layers`` of :func:`alone` for k = 0, …,
    L − 1, the input within [0, 1]; ``energy`` of :func:`jointly`, and ``joint``, √(2U/Σ_k‖z_k‖²); then
    accuracies: ``noise`` for each of ``NOISE``, ``deletion`` for ``DELETED``, ``quantised`` for ``BITS``.

    Args:
        net: a chain with ReLU.
        split: images in [0, 1] and their labels.
        images: the most to be looked at one by one.
        seed: of the noise and the deletions.
    """
    right = torch.cat([net(x).argmax(1) == y for x, y in zip(split.x.split(BLOCK), split.y.split(BLOCK))])
    x = split.x[right.nonzero()[:images, 0]]
    layers = [_medians(alone(net, x, k, None if k else (0.0, 1.0))) for k in range(net.depth)]
    energy, squares = jointly(net, x), squared_activations(net, x)
    generator = seeded_generator(seed, "disturbances")
    return {"test": accuracy(net, split), "images": len(x),
            "layers": {name: [layer[name] for layer in layers] for name in layers[0]},
            "energy": _medians(energy),
            "joint": _medians(Flips(*((2 * U / squares).sqrt() for U in energy))),
            "noise": [disturbed_accuracy(net, split, noise(sd, generator)) for sd in NOISE],
            "deletion": [disturbed_accuracy(net, split, deletion(p, generator)) for p in DELETED],
            "quantised": [accuracy(quantised(net, bits), split) for bits in BITS]}


def _medians(found: Flips) -> dict[str, float | None]:
    """By name, and ``closest``; None for what JSON cannot hold."""
    numbers = {name: values.median() for name, values in found._asdict().items()}
    numbers["closest"] = (found.attack / found.certified).amin()
    return {name: float(number) if number.isfinite() else None for name, number in numbers.items()}


@torch.no_grad()
def mean_loss(net: LiftedNetwork, split: Split) -> float:
    """The mean of ½‖z_L − y‖² at forward passes."""
    blocks = zip(split.x.split(BLOCK), split.y.split(BLOCK))
    return sum(float(Euclidean(one_hot(y, net.sizes[-1]).to(x))(net(x)).sum())
               for x, y in blocks) / len(split.y)


@dataclass(frozen=True)
class InternalRobustness(Recorded):
    """A network of Table 1, and how robust its inside is.

    The record is that of its :class:`~lnn_core.experiments.runs.Run`, and :func:`measures` of two networks,
    with their ``epoch`` and ``loss``, the mean ½‖z_L − y‖² on training samples: ``best``, the epoch that
    validation chooses, and ``matched``, the first one with a loss of at most ``level``, so that who learns
    slowly is not taken for robust. None where there is no such epoch.

    Args:
        dataset: see :class:`~lnn_core.experiments.runs.Run`, as for all settings but the last two.
        images: the most test images that are looked at one by one.
        level: of the loss at which networks are compared.
    """

    kind = "InternalRobustness"
    dataset: str = "mnist"
    seed: int = 0
    method: str = "arovr"
    beta: float | None = 0.25
    alpha: float | None = 0.49
    tilt_sd: float | None = 1 / 16
    samples: int = 5000
    hidden: tuple[int, ...] = (256, 256)
    batch: int = 50
    epochs: int = 300
    patience: int | None = 30
    learning_rate: float = 2e-4
    control: str | None = None
    strength: float | None = None
    images: int = 500
    level: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("images", self.images, 1)
        positive("level", self.level)
        run = self.run  # ValueErrors of all other settings
        for name in ("beta", "alpha", "tilt_sd"):  # None where the method has none
            object.__setattr__(self, name, getattr(run, name))

    @property
    def run(self) -> Run:
        """The training run."""
        return Run(**{name: value for name, value in vars(self).items() if name not in ("images", "level")})

    @property
    def cost(self) -> float:
        """About how many images are used."""
        return self.samples * self.epochs + 1000 * self.images

    def prepare(self) -> None:
        """Load the data."""
        self.run.prepare()

    def execute(self) -> dict:
        """Train, and measure the two networks."""
        run, dataset, kept = self.run, dataset_of(self.dataset), {}
        train = dataset.subset(self.samples, self.seed)

        def watch(net: LiftedNetwork, so_far: History) -> None:
            epoch = len(so_far.validation)
            if so_far.best_epoch == epoch:
                kept["best"] = epoch, copy.deepcopy(net.state_dict())
            if "matched" not in kept and mean_loss(net, train) <= self.level:
                kept["matched"] = epoch, copy.deepcopy(net.state_dict())

        found = run.execute(watch) | {"best": None, "matched": None}
        for name, (epoch, state) in kept.items():
            net = run.network(dataset.dim)
            net.load_state_dict(state)
            found[name] = {"epoch": epoch, "loss": mean_loss(net, train),
                           **measures(net, dataset.test, self.images, self.seed)}
        return found
