"""Robust by training: lifted networks measured as the LRRNs of :class:`~lnn_core.lrrn.LRRN` are.

Sizes, data and the optimizer's settings are those of
:class:`~lnn_core.experiments.lrrn_runs.Classification`, the record of a network that is robust by
construction; so are the names of what is measured, so that a page can put both in one table.
Initial weights are U(−1/√fan-in, 1/√fan-in), as in the book's other runs of these methods: with
the N(0, 1/fan-in) of an LRRN, AROVR starts beyond its near border of stability at β = ½.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import lipschitz
from ..bounds import margin
from ..checks import at_least, check_network, positive, prepared
from ..data import Split
from ..network import LiftedNetwork
from .datasets import dataset_of
from .lrrn_runs import LOOKED_AT, Classification, certified_accuracy
from .lrrn_studies import EPOCHS, SEEDS
from .records import Recorded
from .runs import Run
from .training import History


@dataclass(frozen=True)
class Robustness(Recorded):
    """A lifted network that a method trains, and how far its inputs may move.

    To the record of its :class:`~lnn_core.experiments.runs.Run`, the ``history`` adds, epoch by
    epoch, ``lipschitz``, the certified upper bound of :mod:`lnn_core.lipschitz`, and
    ``radius``, the median over test images of the radius it certifies (all radii are recorded
    as 0 where a network has collapsed, so that its bound is 0). ``result`` describes
    the best validated epoch: also ``lower``, the largest ‖∂z_L/∂x‖₂ at validation images,
    ``trivial``, the product of the layers' norms, ``certified``, the share of test images
    classified correctly and with a radius above each of ``experiments.lrrn_runs.RADII``, and ``attack`` and
    ``closest`` of :func:`lnn_core.experiments.attacks.evaluate_attacks`, whose lists are in ``attacks``.
    ``result`` is None where the first epoch diverges.

    Args:
        dataset: see :class:`~lnn_core.experiments.runs.Run`, as for all other settings.
        attacked: how many test images, the first ones, are attacked at the best epoch; None attacks none.
    """

    kind = "Robustness"
    dataset: str = "mnist"
    seed: int = 0
    method: str = "arovr"
    beta: float | None = 0.25
    alpha: float | None = 0.49
    samples: int = 50_000
    hidden: tuple[int, ...] = Classification.hidden
    epochs: int = Classification.epochs
    batch: int = Classification.batch
    learning_rate: float = Classification.learning_rate
    init: str = "uniform"
    attacked: int | None = Classification.attacked

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attacked is not None:
            at_least("attacked", self.attacked, 1)
        run = self.run  # ValueErrors of all other settings
        for name in ("beta", "alpha"):  # None where the method has none
            object.__setattr__(self, name, getattr(run, name))

    @property
    def run(self) -> Run:
        """The training run."""
        shared = ("dataset", "seed", "method", "beta", "alpha", "samples", "hidden", "epochs",
                  "batch", "learning_rate", "init")
        return Run(**{name: getattr(self, name) for name in shared})

    @property
    def cost(self) -> float:
        """About how many images are used."""
        return self.samples * self.epochs + 300 * (self.attacked or 0)

    def prepare(self) -> None:
        """Load the data."""
        self.run.prepare()

    def execute(self) -> dict:
        """Train, measuring every epoch, and look closely at the one that validation chooses."""
        run, dataset = self.run, dataset_of(self.dataset)
        curves, kept = {"lipschitz": [], "radius": []}, {}

        def watch(net: LiftedNetwork, so_far: History) -> None:
            rho = lipschitz.certified(net)
            curves["lipschitz"].append(rho)
            curves["radius"].append(float(_recorded_radii(net, dataset.test.x, rho).median()))
            if so_far.best_epoch == len(so_far.validation):
                kept.update(copy.deepcopy(net.state_dict()))

        found = {**run.execute(watch), "attacks": None}
        found["history"] = {**found["history"], **curves}
        if found["result"] is None:
            return found
        net = run.network(dataset.dim)
        net.load_state_dict(kept)
        best = found["result"]["best_epoch"] - 1
        found["result"] |= {name: found["history"][name][best] for name in ("train", *curves)}
        found["result"] |= _closely(net, dataset.validation, dataset.test)
        if self.attacked is not None:
            found["attacks"] = attack(net, dataset.test, self.attacked)
            found["result"] |= found["attacks"].pop("summary")
        return found


@torch.no_grad()
def radii(net: LiftedNetwork, x: Tensor, rho: float | None = None) -> Tensor:
    """m_x/(√2ρ), shape (batch,): no change of x that is shorter changes the prediction.

    m_x is the margin between the two largest outputs of the forward pass, ρ an upper bound of
    the Lipschitz constant; default :func:`lnn_core.lipschitz.certified`. Høier and Zach
    (2020), section 4.2. In the network's type, at least float32.

    Raises:
        ValueError: ρ that is not positive, such as that of a constant network, whose radii are
            infinite; a single output; x that does not fit.
    """
    net, x = prepared(net, x)
    between = margin(net(x))
    rho = positive("rho", lipschitz.certified(net) if rho is None else rho)
    return between / (math.sqrt(2) * rho)


def _recorded_radii(net: LiftedNetwork, x: Tensor, rho: float | None = None) -> Tensor:
    """:func:`radii`, or 0, which claims nothing, where ρ = 0: JSON has no infinity.

    Training can collapse a layer: the output is then constant, and all changes are certified.
    """
    net = check_network(net)  # one network for ρ and for the margins
    rho = lipschitz.certified(net) if rho is None else rho
    return x.new_zeros(len(x)) if rho == 0 else radii(net, x, rho)


def attack(net: LiftedNetwork, split: Split, images: int) -> dict:
    """The first images' radii and attacks, judged in float64: see ``attacks.evaluate_attacks``."""
    from . import attacks  # foolbox takes a second to import; most of a book needs none

    judge, first = copy.deepcopy(net).double(), Split(split.x[:images], split.y[:images])
    return attacks.evaluate_attacks(net, judge, first, _recorded_radii(judge, first.x.double()))


@torch.no_grad()
def _closely(net: LiftedNetwork, validation: Split, test: Split) -> dict:
    """``lower``, ``trivial`` and ``certified`` of a record."""
    return {"lower": lipschitz.lower(net, validation.x[:LOOKED_AT], steps=0),
            "trivial": lipschitz.trivial(net),
            "certified": certified_accuracy(net(test.x).argmax(1) == test.y,
                                            _recorded_radii(net, test.x))}


#: The networks that training makes robust, or not: (method, β).
TRAINED = (("backprop", None), ("rovr", 0.25), ("arovr", 0.25), ("arovr", 0.5),
           ("arovr_ab", 0.25))
DATASETS = ("mnist", "fashion-mnist")


def by_training_and_construction(
        seeds: Iterable[int] = SEEDS, datasets: Sequence[str] = DATASETS, *,
        samples: int | None = None, **settings) -> list[Classification | Robustness]:
    """For each seed and data set an LRRN, then the trained networks; otherwise alike."""
    found = []
    for seed in seeds:
        for dataset in datasets:
            shared = {"epochs": EPOCHS.get(dataset, Classification.epochs)} | settings
            found.append(Classification(dataset, seed, samples, **shared))
            if samples is not None:
                shared["samples"] = samples
            found += [Robustness(dataset, seed, method, beta, **shared)
                      for method, beta in TRAINED]
    return found
