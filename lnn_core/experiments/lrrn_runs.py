"""The experiments of Høier and Zach (2020) as recorded runs; :mod:`.lrrn_studies` lists them.

The paper names sizes, data sets and results, trains by stochastic gradient descent and infers
by coordinate descent; here it is Adam and :class:`~lnn_core.lrrn.SpectralDescent`. The paper
leaves open the number of epochs (but for CIFAR-10), batch size, learning rate, initial weights,
weight decay and how pretraining is done (its supplement is not public): the defaults below are
ours, and a page that shows a number says so.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import quantisation
from ..checks import at_least, one_of, positive
from ..convex import Identity, ReLU
from ..data import Dataset, Split
from ..kinds import expect
from ..losses import home
from ..lrrn.bounds import certified_radius, jacobian, lipschitz
from ..lrrn.boxqp import SpectralDescent
from ..lrrn.model import LRRN
from ..lrrn.objectives import Contrastive, EnergyLoss, Unsupervised, parameter_groups
from .datasets import CIFAR, dataset_of
from .records import Recorded
from .training import BLOCK, accuracy, seeded_generator, train_epoch

#: Data sets of 28×28 images, in the order of the paper's Table 1.
DATASETS = ("mnist", "kmnist", "fashion-mnist")
ACTIVATIONS = {"identity": Identity, "relu": ReLU}
#: Where certified accuracy is recorded.
RADII = tuple(i / 10 for i in range(21))
#: Validation images at which the largest Jacobian is searched.
LOOKED_AT = 500
#: For radii in float32; what is left of the way after 100 passes is taken off the radius.
_CLOSE = SpectralDescent(1e-5, max_passes=100)
_EXACT = SpectralDescent(1e-8)  # in float64


@dataclass(frozen=True)
class Training(Recorded):
    """What both kinds of run share.

    Args:
        samples: training samples, drawn with the seed; None takes all.
        init: see :class:`~lnn_core.lrrn.LRRN`.
    """

    dataset: str = "mnist"
    seed: int = 0
    samples: int | None = None
    batch: int = 100
    epochs: int = 15
    learning_rate: float = 1e-3
    init: str = "normal"

    def __post_init__(self) -> None:
        super().__post_init__()
        # digits: for trying things out
        one_of("dataset", self.dataset, (*DATASETS, *CIFAR, "digits"))
        for name, least in (("seed", 0), ("batch", 1), ("epochs", 1)):
            at_least(name, getattr(self, name), least)
        if self.samples is not None:
            at_least("samples", self.samples, 1)
        positive("learning_rate", self.learning_rate)

    def prepare(self) -> None:
        """Load the data."""
        dataset_of(self.dataset, partial=True)

    def _train_split(self) -> Split:
        dataset = dataset_of(self.dataset, partial=True)
        return dataset.train if self.samples is None else dataset.subset(self.samples, self.seed)

    def _source(self) -> dict:
        dataset = dataset_of(self.dataset, partial=True)
        return {"source": dataset.source, "notice": dataset.notice}


def _train(net: LRRN, loss: EnergyLoss, train: Split, groups: list[dict], run: Training,
           epochs: int, measure: Callable[[], dict[str, float]]) -> dict[str, list[float]]:
    """Adam for this many epochs; after each, the epoch's means and what ``measure`` returns."""
    optimizer = torch.optim.Adam(groups, lr=run.learning_rate, fused=True)
    order, history = seeded_generator(run.seed, f"batches of {type(loss).__name__}"), defaultdict(list)
    for _ in range(epochs):
        done = train_epoch(net, loss, train, optimizer, run.batch, order)
        for name, value in {**done._asdict(), **measure()}.items():
            history[name].append(value)
    return dict(history)


@dataclass(frozen=True)
class Classification(Training):
    """Contrastive training (21) of a classifier: Figures 2 and 3 and section 4.2's numbers.

    The record's ``history`` has one list for each quantity: ``objective`` (the loss) and what
    else ``training.Epoch`` names (``gap`` in units of the energy), accuracies ``train``,
    ``validation`` and ``test``, the Lipschitz bound ``lipschitz`` (Theorem 1) and ``refined``
    (ours), and ``radius``, the median over test images of the radius that the former
    certifies. ``result`` describes the epoch with the best validation accuracy (the first of
    equals): its place in the history; ``lower``, the largest ‖∂z_L*/∂x‖₂ over validation
    images; ``certified``, the share of test images classified correctly and with a radius above
    each of ``RADII``; and, where images are attacked, ``attack``, the median length of the
    smallest change that was found, and ``closest``, the smallest quotient of such a length and its
    radius, which the certificate says is never below 1. ``attacks`` has all of those lengths.

    Args:
        decay: weight decay on W_{L−1} alone, Adam's L2 term (no measure of a decay under SGD). It
            sets the balance of accuracy and Lipschitz constant.
        pretraining: epochs of the unsupervised loss (18) before, on all layers jointly. (The output
            layer, free and without reconstruction, learns nothing from it.)
        attacked: how many test images, the first ones, are attacked at the best epoch.
    """

    kind = "Classification"
    hidden: tuple[int, ...] = (64, 64)
    decay: float = 5e-3
    pretraining: int | None = None
    attacked: int | None = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("pretraining", "attacked"):
            if getattr(self, name) is not None:
                at_least(name, getattr(self, name), 1)
        parameter_groups(self.network(1), self.decay)  # ValueErrors of settings: now

    @property
    def cost(self) -> float:
        """About how many images are used, in units of an MNIST image in training."""
        images = self.samples or {"kmnist": 6e3, "digits": 1e3}.get(self.dataset, 5e4)
        return images * (self.epochs + (self.pretraining or 0) / 3) + 300 * (self.attacked or 0)

    def network(self, inputs: int) -> LRRN:
        """The network with this seed's initial weights; β as in Corollary 2."""
        return LRRN([inputs, *self.hidden, Dataset.classes], init=self.init,
                    generator=seeded_generator(self.seed, "weights"))

    def execute(self) -> dict:
        """Pretrain, train, and look closely at the epoch that validation chooses."""
        dataset, train = dataset_of(self.dataset, partial=True), self._train_split()
        net, kept = self.network(dataset.dim), {"validation": -1.0}
        before = self.pretraining and _train(
            net, Unsupervised(), train, [{"params": net.parameters()}], self, self.pretraining,
            dict)

        def measure() -> dict[str, float]:
            found = {name: accuracy(net, split) for name, split in (
                ("train", train), ("validation", dataset.validation), ("test", dataset.test))}
            found |= {"lipschitz": lipschitz(net), "refined": lipschitz(net, refined=True),
                      "radius": float(radii(net, dataset.test.x).median())}
            if found["validation"] > kept["validation"]:
                kept.update(found, weights=copy.deepcopy(net.state_dict()))
            return found

        history = _train(net, Contrastive(), train, parameter_groups(net, self.decay), self,
                         self.epochs, measure)
        net.load_state_dict(kept.pop("weights"))
        result = {"best_epoch": history["validation"].index(kept["validation"]) + 1, **kept,
                  **_closely(net, dataset)}
        attacks = self.attacked and attack(net, dataset.test, self.attacked)
        if attacks:
            result |= attacks.pop("summary")
        return {"result": result, "history": history, "pretraining": before or None,
                "attacks": attacks or None, "data": self._source()}


def _closely(net: LRRN, dataset: Dataset) -> dict:
    """What is measured at the best epoch only: ``lower`` and ``certified``."""
    x, y = dataset.test
    with torch.no_grad():
        right = net(x).argmax(1) == y
    slopes = jacobian(exact(net), dataset.validation.x[:LOOKED_AT].double(), solver=_EXACT)
    return {"lower": float(torch.linalg.matrix_norm(slopes, 2).max()),
            "certified": certified_accuracy(right, radii(net, x))}


def radii(net: LRRN, x: Tensor) -> Tensor:
    """Certified radii of many samples, shape (n,)."""
    return torch.cat([certified_radius(net, part, solver=_CLOSE) for part in x.split(BLOCK)])


def exact(net: LRRN) -> LRRN:
    """A copy in float64 that infers to a relative error of 1e-8."""
    expect("net", net, LRRN, "an LRRN")
    copied = copy.deepcopy(net).double()
    copied.solver = _EXACT
    return copied


def certified_accuracy(right: Tensor, radius: Tensor) -> list[float]:
    """For each of ``RADII``, the share of images classified correctly and with a larger radius."""
    return [int((right & (radius > r)).sum()) / len(right) for r in RADII]


def attack(net: LRRN, split: Split, images: int) -> dict:
    """The first images' certified radii and attacks: see :func:`.attacks.evaluate_attacks`.

    Attacks see the network as it is; their success is judged by its :func:`exact` copy.
    """
    from . import attacks  # foolbox takes a second to import; most of a book needs none

    judge, first = exact(net), Split(split.x[:images], split.y[:images])
    radius = certified_radius(judge, first.x.double(), solver=_EXACT)
    return attacks.evaluate_attacks(net, judge, first, radius)


@dataclass(frozen=True)
class Reconstruction(Training):
    """Unsupervised training (18): the filters of Figure 1 and a row's energies of Table 1.

    β = 1 in all layers, and all are constrained alike. The record's ``history`` has the mean
    energy of training (``objective``) and ``validation`` images; ``result`` has ``mean`` and
    ``sd`` of min_z E(z; x), eq. (1), over the 10,000 test images of each of ``DATASETS``,
    over the run's own ``mirrored`` left to right, and over as many samples of a ``gaussian``
    with the mean and variance of each pixel over the training images (not clipped);
    ``filters`` holds W_0 for :func:`filters`.

    Args:
        bias: False trains without the biases b and c; None with them.
    """

    kind = "Reconstruction"
    activation: str = "relu"
    hidden: tuple[int, ...] = (32, 32)
    bias: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("activation", self.activation, ACTIVATIONS)
        self.network(1)  # ValueErrors of settings: now

    def network(self, inputs: int) -> LRRN:
        """The network with this seed's initial weights."""
        constraint = ACTIVATIONS[self.activation]
        return LRRN([inputs, *self.hidden], constraint(), constraint(), beta=1.0,
                    bias=self.bias is not False, init=self.init,
                    generator=seeded_generator(self.seed, "weights"))

    def prepare(self) -> None:
        """Load the data, those for comparison too."""
        for name in self._compared():
            dataset_of(name, partial=True)

    def _compared(self) -> tuple[str, ...]:
        return DATASETS if self.dataset in DATASETS else (self.dataset,)

    def execute(self) -> dict:
        """Train, then measure energies of images seen, unseen and of other kinds."""
        dataset, train = dataset_of(self.dataset, partial=True), self._train_split()
        net = self.network(dataset.dim)
        groups, held_out = [{"params": net.parameters()}], dataset.validation.x
        history = _train(net, Unsupervised(), train, groups, self, self.epochs,
                         lambda: {"validation": float(energies(net, held_out).mean())})
        images = {name: dataset_of(name, partial=True).test.x for name in self._compared()}
        images["mirrored"] = mirrored(dataset.test.x)
        images["gaussian"] = gaussian(train.x, len(dataset.test.x), seeded_generator(self.seed, "gaussian"))
        found = {name: energies(net, x) for name, x in images.items()}
        return {"result": {name: {"mean": float(e.mean()), "sd": float(e.std())}
                           for name, e in found.items()},
                "history": history, "filters": quantisation.to_json(net.weights[0]), "data": self._source()}


@torch.no_grad()
def energies(net: LRRN, x: Tensor) -> Tensor:
    """min_z E(z; x) of eq. (1), with its factor ½, shape (batch,), float64."""
    return Unsupervised(SpectralDescent(1e-4))(net, x, reduction="none").double()


def mirrored(x: Tensor) -> Tensor:
    """Square images (n, side²), left and right exchanged."""
    side = round(x.shape[1] ** 0.5)
    return x.view(len(x), side, side).flip(2).flatten(1)


def gaussian(x: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """n samples of the Gaussian with each pixel's mean and variance in x, pixels independent."""
    noise = torch.randn(n, x.shape[1], generator=generator, device=home(generator))
    return x.mean(0) + x.std(0) * noise.to(x)


def filters(record: dict) -> Tensor:
    """W_0 of a :class:`Reconstruction`'s record, (d_1, d_0), within 1/254 of each row's largest."""
    return quantisation.from_json(record["filters"])
