"""How large the benchmark is, and the networks that it trains and times."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from functools import lru_cache

import torch

from lnn_core.alerts import StabilityWarning
from lnn_core.data import Split
from lnn_core.experiments import Run
from lnn_core.experiments.datasets import dataset_of
from lnn_core.experiments.training import Epoch, seeded_generator, train_epoch
from lnn_core.network import LiftedNetwork
from lnn_core.objectives import Objective

from .handwritten import HandWritten

#: The methods that are compared, and how a `Run` of each is configured; "handwritten" is the one without.
METHODS: dict[str, dict] = {
    "autograd": {"method": "backprop"},
    "arovr": {"method": "arovr"},
    "arovr_ab": {"method": "arovr_ab"},
    "arovr_abg": {"method": "arovr_abg"},
    "paper": {"method": "arovr", "solver": "paper"},
}
BATCH = 50


@dataclass(frozen=True)
class Settings:
    """All sizes, by the names that the published records have for them.

    Methods take turns; a *turn* is what one of them trains on before the next one does.
    """

    dataset: str = "mnist"
    samples: int = 5000                   # that networks are trained on
    hidden: tuple[int, ...] = (256, 256)
    epochs: int = 20                      # of training before anything is timed
    turn: int = 2000                      # samples per turn
    rounds: int = 15
    batches: tuple[int, ...] = (20, 50, 100, 500)
    threads: tuple[int, ...] = (1, 2)
    course: int = 60                      # epochs that are timed from random weights on
    judged: int = 1000                    # training samples whose gaps are measured
    betas: tuple[float, ...] = (0.1, 0.25, 0.4)
    border: int = 200                     # of them, those with β near the stability threshold
    patience: int = 200                   # the most passes there
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
    depths: tuple[int, ...] = (2, 3, 4, 6, 8, 10)
    growing: int = 1000                   # samples per turn for these
    growing_epochs: int = 10              # of training before anything is timed
    growing_rounds: int = 9
    weighed: tuple[int, ...] = (50, 500, 1000)  # batches whose memory is counted
    repeat: int = 20                      # steps per turn when a step is taken apart


FULL = Settings()
QUICK = Settings(dataset="digits", samples=300, hidden=(32, 32), epochs=8, turn=100, rounds=3,
                 batches=(50,), threads=(1,), course=3, judged=50, betas=(0.25,), border=20,
                 patience=60, widths=(32, 64), depths=(2, 4), growing=100, growing_epochs=3,
                 growing_rounds=3, weighed=(50, 100, 200), repeat=2)


@dataclass
class Learner:
    """A network in training, an epoch at a time."""

    net: LiftedNetwork
    objective: Objective
    optimizer: torch.optim.Optimizer

    def epoch(self, samples: Split, batch: int,
              generator: torch.Generator | None = None) -> Epoch:
        """``train_epoch`` by this learner's objective."""
        return train_epoch(self.net, self.objective, samples, self.optimizer, batch, generator)


def adam(net: LiftedNetwork, state: dict | None = None) -> torch.optim.Adam:
    """Adam as all methods use it, going on from a state of another's."""
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-4, fused=True)
    if state is not None:
        optimizer.load_state_dict(copy.deepcopy(state))
    return optimizer


def make_learner(method: str, start: Learner) -> Learner | HandWritten:
    """A learner that goes on, by this method, from the weights and the optimizer's state of another."""
    net = copy.deepcopy(start.net)
    optimizer = adam(net, start.optimizer.state_dict())
    if method == "handwritten":
        return HandWritten(net, optimizer)
    return Learner(net, Run(**METHODS[method]).objective(), optimizer)


def untrained(settings: Settings, method: str = "arovr", **options) -> Learner:
    """A learner with random weights; options as for `Run` (hidden, init)."""
    run = Run(**{"hidden": settings.hidden, **METHODS[method], **options})
    net = run.network(dataset_of(settings.dataset).dim)
    return Learner(net, run.objective(), adam(net))


@lru_cache(maxsize=2)
def trained(settings: Settings, method: str) -> Learner:
    """A learner after ``settings.epochs`` epochs; to be copied, not to be trained on."""
    learner, train = untrained(settings, method), training_samples(settings)
    batches = seeded_generator(0, "batches")
    for _ in range(settings.epochs):
        learner.epoch(train, BATCH, batches)
    return learner


def trained_at_size(settings: Settings, depth: int, width: int) -> Learner:
    """A learner of another shape after some epochs of AROVR on few samples.

    From weights N(0, 1/fan-in), which keep signals alive in deep networks. Where β is too
    large for the network, its reports say so: no warnings.
    """
    learner = untrained(settings, hidden=(width,) * (depth - 1), init="normal")
    train = part(training_samples(settings), settings.growing, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StabilityWarning)
        for i in range(settings.growing_epochs):
            learner.epoch(train, BATCH, seeded_generator(i, "warm-up"))
    return learner


def training_samples(settings: Settings) -> Split:
    """What all networks here are trained on: ``settings.samples`` samples, drawn with seed 0."""
    return dataset_of(settings.dataset).subset(settings.samples, 0)


def part(samples: Split, count: int, i: int) -> Split:
    """A random part of the samples, shapes (count, d_0) and (count,), another one for every i.

    Raises:
        ValueError: a count above the number of samples.
    """
    if count > len(samples.y):
        raise ValueError(f"count={count} must be at most the {len(samples.y)} samples there are")
    rows = torch.randperm(len(samples.y), generator=seeded_generator(i, "part"), device="cpu")[:count]
    return Split(samples.x[rows], samples.y[rows])
