"""What an LRRN costs: inference ÷ a forward pass, and an epoch of all training images.

Sizes are those of the second paper's classifiers, 784-64-64-10 on MNIST, next to a lifted
network of these sizes. The first product is the same for both; above it, a forward pass goes
through each layer once, and inference solves one program in all layers' activations.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from lnn_core.data import Dataset, Split
from lnn_core.experiments.datasets import dataset_of
from lnn_core.experiments.lrrn_runs import Classification
from lnn_core.experiments.training import seeded_generator, train_epoch
from lnn_core.lrrn.boxqp import CoordinateDescent, SpectralDescent
from lnn_core.lrrn.model import LRRN
from lnn_core.lrrn.objectives import Contrastive, EnergyLoss, parameter_groups
from lnn_core.network import LiftedNetwork
from lnn_core.objectives import BackPropagation, Objective

from .learners import Settings, part, training_samples
from .timing import interleave, milliseconds, ratio, threads
from .tracing import arithmetic

PAPER = Classification()  # its sizes, batch, learning rate and weight decay
SOLVERS = {f"{type(solver).__name__}({solver.tolerance:g})": solver for solver in (
    SpectralDescent(1e-3), LRRN.solver, CoordinateDescent(1e-3))}
Trainer = Callable[[Split, torch.Generator], object]  # trains for an epoch


def trainer(net: LRRN | LiftedNetwork, loss: EnergyLoss | Objective) -> Trainer:
    """Trains this network by this loss; an LRRN's last matrix decays."""
    groups = (parameter_groups(net, PAPER.decay) if isinstance(net, LRRN)
              else [{"params": net.parameters()}])
    optimizer = torch.optim.Adam(groups, lr=PAPER.learning_rate, fused=True)
    return lambda samples, generator: train_epoch(net, loss, samples, optimizer, PAPER.batch,
                                                  generator)


def untrained_pair(settings: Settings) -> tuple[LRRN, LiftedNetwork]:
    """An LRRN and a lifted network of equal sizes, with random weights."""
    inputs = dataset_of(settings.dataset).dim
    return PAPER.network(inputs), LiftedNetwork([inputs, *PAPER.hidden, Dataset.classes],
                                                generator=seeded_generator(0, "weights"))


def inference(settings: Settings) -> list[dict]:
    """Prediction by an LRRN ÷ a forward pass, by solver and batch; one thread, trained weights.

    ``multiply-adds`` are those of whole predictions (the program, its factorisations, passes, checks of
    the certificate) ÷ those of forward passes of the same samples, as ``tracing.arithmetic`` counts.
    """
    net, plain = untrained_pair(settings)
    train, rows = training_samples(settings), []
    learn = trainer(net, Contrastive())
    for epoch in range(settings.epochs):
        learn(train, seeded_generator(epoch, "batches"))
    for batch in settings.batches:
        parts = [part(train, min(batch, len(train.y)), i).x for i in range(settings.rounds)]
        functions = {"forward pass": plain, **{name: predictor(net, solver)
                                               for name, solver in SOLVERS.items()}}
        with threads(1), torch.inference_mode():
            done = {"forward pass": sum(arithmetic(partial(plain, x)) for x in parts)}
            # Passes are those of the prediction that is counted: under a counter composite
            # operations run in parts, and another rounding may take some passes more.
            reports = {name: [] for name in SOLVERS}
            for name, solver in SOLVERS.items():
                done[name] = sum(arithmetic(lambda x=x: reports[name].append(
                    solver(net.quadratic(x))[1])) for x in parts)
            times = interleave({name: repeated(predict, parts, settings.repeat)
                                for name, predict in functions.items()}, settings.rounds)
        for name, taken in times.items():
            passes = sum(report.passes for report in reports.get(name, [])) / len(parts)
            rows.append({"batch": batch, "method": name, "passes": passes,
                         "multiply-adds": done[name] / done["forward pass"],
                         "milliseconds": milliseconds(taken) / settings.repeat,
                         "ratio to forward": ratio(taken, times["forward pass"])})
    return rows


def predictor(net: LRRN, solver: SpectralDescent | CoordinateDescent) -> Callable[[Tensor], Tensor]:
    """All activations of a batch."""
    return lambda x: solver(net.quadratic(x))[0]


def repeated(function: Callable[[Tensor], Tensor], parts: list[Tensor],
             times: int) -> Callable[[int], None]:
    """A turn: the function of a part, several times, as one takes too short to be timed."""
    def turn(i: int) -> None:
        for _ in range(times):
            function(parts[i])

    return turn


def epochs(settings: Settings) -> list[dict]:
    """An epoch of contrastive training and of back-propagation, equal sizes and batches of 100.

    ``images`` counts all that are not for testing, in one epoch; ``seconds`` is what it takes, the
    second of two.
    """
    dataset = dataset_of(settings.dataset)
    everything = [torch.cat(pair) for pair in zip(dataset.train, dataset.validation)]
    samples, rows = Split(*everything), []
    for count in settings.threads:
        net, plain = untrained_pair(settings)
        trainers = {"LRRN": trainer(net, Contrastive()),
                    "back-propagation": trainer(plain, BackPropagation())}
        with threads(count):
            times = interleave({name: lambda i, learn=learn: learn(samples, seeded_generator(i, "batches"))
                                for name, learn in trainers.items()}, 1)
        rows += [{"threads": count, "method": name, "images": len(samples.y),
                  "seconds": milliseconds(taken) / 1000} for name, taken in times.items()]
    return rows
