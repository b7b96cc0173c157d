"""A training step in every way that the library offers, against one in plain torch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache
from statistics import mean

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from lnn_core.data import Split
from lnn_core.experiments import Run
from lnn_core.experiments.datasets import dataset_of
from lnn_core.experiments.training import seeded_generator
from lnn_core.inference import Shooting
from lnn_core.network import LiftedNetwork

from .learners import BATCH, METHODS, Learner, Settings, adam, part, trained, training_samples
from .timing import interleave, milliseconds, ratio, threads

#: How the gradient is computed: a call and ``backward()``; ``Objective.over``, as ``fit`` does; the same
#: with ``Shooting(compiled=True)``.
WAYS = ("backward", "gradients", "compiled")
LIFTED = ("arovr", "arovr_ab", "arovr_abg")

Step = Callable[[Tensor], None]


def by_way(settings: Settings) -> list[dict]:
    """Chains and convolutions, each batch size and way: time of a step ÷ that of the same in plain torch.

    Chains with the Euclidean loss on a trained network. Convolutions with cross-entropy, of which
    nothing is compiled, from random weights and trained.
    """
    train, start = training_samples(settings), trained(settings, "arovr")
    rows = [row for batch in settings.batches
            for row in compare(settings, start.net, train, batch, chain_steps)]
    for epochs in (0, settings.epochs):
        net = convolutions(settings, epochs).net
        rows += compare(settings, net, train, BATCH, convolution_steps, f"convolutions, {epochs} epochs")
    return rows


def compare(settings: Settings, net: LiftedNetwork, train: Split, batch: int,
            steps: Callable[[LiftedNetwork, Split], dict[tuple[str, str], tuple[Step, object]]],
            network: str = "chain") -> list[dict]:
    """One row per method and way, all of which train on the same mini-batches, in turns."""
    samples = part(train, min(settings.turn, len(train.y)), 0)
    made, passes = steps(net, samples), {}

    def turn(name: tuple[str, str]):
        step, objective = made[name]

        def run(i: int) -> None:
            order = torch.randperm(len(samples.y), generator=seeded_generator(i, "batches"))
            for rows in order[:len(order) // batch * batch].split(batch):
                step(rows)
                if report := getattr(objective, "report", None):
                    passes.setdefault(name, []).append(report.passes)
        return run

    with threads(1):
        times = interleave({name: turn(name) for name in made}, settings.rounds)
    plain = times["torch", "backward"]
    return [{"network": network, "batch": batch, "method": method, "way": way,
             "milliseconds": milliseconds(times[method, way]) / (len(samples.y) // batch),
             "passes": mean(passes.get((method, way), [0])),
             "ratio to torch": ratio(times[method, way], plain)} for method, way in made]


def plain_step(net: LiftedNetwork, samples: Split,
               loss: Callable[[Tensor, Tensor], Tensor]) -> tuple[Step, None]:
    """A step as in any torch program."""
    net = copy.deepcopy(net)
    optimizer = adam(net)

    def step(rows: Tensor) -> None:
        optimizer.zero_grad()
        loss(net(samples.x[rows]), samples.y[rows]).backward()
        optimizer.step()

    return step, None


def lifted_step(net: LiftedNetwork, samples: Split, run: Run, way: str) -> tuple[Step, object]:
    """A step of a run's objective, in one of the ``WAYS``."""
    net, objective = copy.deepcopy(net), run.objective()
    optimizer = adam(net)
    if way == "compiled":
        objective.solver = Shooting(compiled=True)
    set_gradients = objective.over(net, samples.x, samples.y)

    def step(rows: Tensor) -> None:
        if way == "backward":
            optimizer.zero_grad()
            objective(net, samples.x[rows], samples.y[rows]).backward()
        else:
            set_gradients(rows)
        optimizer.step()

    return step, objective


def chain_steps(net: LiftedNetwork, samples: Split) -> dict[tuple[str, str], tuple[Step, object]]:
    """Back-propagation and the lifted methods, Euclidean loss."""
    def euclidean(outputs: Tensor, labels: Tensor) -> Tensor:
        targets = one_hot(labels, outputs.shape[1]).to(outputs.dtype)
        return (0.5 * (outputs - targets).square().sum(1)).mean()

    steps = {("torch", "backward"): plain_step(net, samples, euclidean)}
    steps |= {("autograd", way): lifted_step(net, samples, Run(method="backprop"), way) for way in WAYS[:2]}
    return steps | {(method, way): lifted_step(net, samples, Run(**METHODS[method]), way)
                    for method in LIFTED for way in WAYS}


def convolution_steps(net: LiftedNetwork, samples: Split) -> dict[tuple[str, str], tuple[Step, object]]:
    """Back-propagation and AROVR, cross-entropy."""
    steps = {("torch", "backward"): plain_step(net, samples, cross_entropy)}
    runs = {method: Run(loss="cross-entropy", **METHODS[method]) for method in ("autograd", "arovr")}
    return steps | {(method, way): lifted_step(net, samples, run, way)
                    for method, run in runs.items() for way in WAYS[:2]}


@lru_cache(maxsize=2)
def convolutions(settings: Settings, epochs: int) -> Learner:
    """The convolutional network of the page on other losses after some epochs of AROVR."""
    run = Run(layers="convolutions", loss="cross-entropy", hidden=(16, 32))
    net = run.network(dataset_of(settings.dataset).dim)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    learner, batches = Learner(net, run.objective(), optimizer), seeded_generator(0, "batches")
    for _ in range(epochs):
        learner.epoch(training_samples(settings), BATCH, batches)
    return learner
