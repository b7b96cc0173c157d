"""Training runs, as :mod:`lnn_core.experiments.records` keeps them: a configuration in, a record out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import pairwise

import torch
from torch import nn

from .. import data
from ..checks import at_least, one_of, positive
from ..inference import InferenceDiverged, PaperSweeps, Shooting
from ..lift import lift
from ..lipschitz import Bracket, bracket
from ..losses import CrossEntropy, Euclidean, Targeted
from ..network import LiftedNetwork, draw_weight
from ..objectives import AROVR, ROVR, BackPropagation, Objective
from ..potentials import Reweighted
from ..targeted import TargetedAROVR
from ..tilts import GaussianTilt
from .controls import CONTROLS
from .datasets import CIFAR, dataset_of
from .records import Recorded
from .training import History, fit, seeded_generator

#: The settings that a method uses beside those that all share.
METHODS: dict[str, tuple[str, ...]] = {
    "backprop": (),
    "rovr": ("beta", "gamma", "solver"),
    "arovr": ("beta", "gamma", "solver"),
    "arovr_ab": ("beta", "gamma", "solver", "alpha"),
    "arovr_abg": ("beta", "gamma", "solver", "alpha", "tilt_sd", "tilt_output"),
}
#: Settings that count something, and the least they may be.
COUNTS = {"samples": 1, "batch": 1, "epochs": 1, "pretraining": 0, "patience": 1, "lipschitz": 1,
          "validation": 1}
LOSSES = {"cross-entropy": CrossEntropy}
SOLVERS = {"shooting": Shooting, "tight": partial(Shooting, 1e-6), "paper": PaperSweeps}


@dataclass(frozen=True)
class Run(Recorded):
    """The configuration of one training run.

    Settings that its method does not use become None, so that runs which cannot differ have the
    same record. Others may be None only where that is their default.

    Args:
        dataset: "mnist", "fashion-mnist", "kmnist", "digits", "cifar-10-grey" or "cifar-10-colour".
        samples: the number of training samples, drawn with the seed.
        seed: decides samples, weights, batches, attacks and tilts.
        method: "backprop", "rovr", "arovr", "arovr_ab" or "arovr_abg".
        beta: β of the objective.
        alpha: α of the targeted objectives.
        tilt_sd: the standard deviation of the tilts.
        gamma: γ_1, …, γ_L of a reweighted potential; None for all 1.
        solver: "shooting", "tight" (tolerance 1e-6) or "paper" (20 sweeps).
        hidden: sizes of the hidden layers; of convolutions, their numbers of channels.
        init: see :class:`~lnn_core.LiftedNetwork`.
        batch: samples per mini-batch.
        epochs: the most epochs with the method.
        pretraining: epochs of back-propagation before.
        learning_rate: Adam's.
        patience: see ``training.fit``; None trains for all ``epochs``.
        tilt_output: False tilts hidden layers only; None tilts all.
        standardise: True subtracts the mean of the training samples' values from all images and
            divides by their standard deviation; None leaves images in [0, 1].
        omit_unbounded: True leaves samples whose energy is found unbounded out of each mini-batch's
            mean; None keeps them, at the value where inference stopped.
        clip: the largest norm of a mini-batch's gradient; None does not clip. Both from the epoch
            on in which the method takes over from back-propagation.
        lipschitz: after every epoch, bracket the Lipschitz constant, with a lower bound from this
            many validation images (see ``lipschitz.bracket``), and measure all accuracies (see
            ``curves`` of ``training.fit``).
        loss: "cross-entropy"; None for the papers' Euclidean loss.
        control: what back-propagation is done with, one of ``controls.CONTROLS``; None for nothing.
        strength: of the control.
        validation: the number of validation samples, drawn with the seed; None takes all.
        layers: "convolutions", 5×5 with a stride of 2, of square images; "residual", fully connected, from
            each hidden layer to the next two; None for a chain of fully connected layers.

    Raises:
        ValueError: settings out of bounds, or None where a value is needed.
    """

    kind = "Run"
    dataset: str = "mnist"
    samples: int = 5000
    seed: int = 0
    method: str = "arovr"
    beta: float | None = 0.25
    alpha: float | None = 0.49
    tilt_sd: float | None = 1 / 16
    gamma: tuple[float, ...] | None = None
    solver: str | None = "shooting"
    hidden: tuple[int, ...] = (256, 256)
    init: str = "uniform"
    batch: int = 50
    epochs: int = 60
    pretraining: int = 0
    learning_rate: float = 2e-4
    patience: int | None = None
    tilt_output: bool | None = None
    standardise: bool | None = None
    lipschitz: int | None = None
    omit_unbounded: bool | None = None
    clip: float | None = None
    loss: str | None = None
    layers: str | None = None
    control: str | None = None
    strength: float | None = None
    validation: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("method", self.method, METHODS)
        unused = set(METHODS["arovr_abg"]) - set(METHODS[self.method])  # it uses them all
        for name in unused:
            object.__setattr__(self, name, None)
        missing = [field.name for field in fields(self) if field.name not in unused
                   and field.default is not None and getattr(self, field.name) is None]
        if missing:
            raise ValueError(f"method={self.method!r} needs a value for {', '.join(missing)}")
        one_of("dataset", self.dataset, (*data.NAMES, *CIFAR))
        if self.solver is not None:
            one_of("solver", self.solver, SOLVERS)
        for name, least in COUNTS.items():
            if getattr(self, name) is not None:
                at_least(name, getattr(self, name), least)
        positive("learning_rate", self.learning_rate)
        if self.clip is not None:
            positive("clip", self.clip)
        if self.loss is not None:
            one_of("loss", self.loss, LOSSES)
        if self.layers is not None:
            one_of("layers", self.layers, ("convolutions", "residual"))
        self._check_control()
        net, objective = self.network(1), self.objective()  # ValueErrors of theirs: now
        if self.gamma is not None:
            objective.potential.check(net)

    def _check_control(self) -> None:
        if self.control is None:
            if self.strength is not None:
                raise ValueError(f"strength={self.strength} belongs to a control, and control=None")
            return
        one_of("control", self.control, CONTROLS)
        if self.method != "backprop":
            raise ValueError(f"method={self.method!r} has no controls: those are of back-propagation")
        if self.strength is None:
            raise ValueError(f"control={self.control!r} needs a value for strength")
        if self.control == "dropout" and not self.strength < 1:
            raise ValueError(f"strength={self.strength} must be below 1, as the probability of dropout")
        if self.control == "attacked inputs" and self.standardise:
            raise ValueError("standardise=True: attacked inputs stay in [0, 1]")

    @property
    def cost(self) -> float:
        """The number of times a sample is used in training, at most."""
        return self.samples * (self.pretraining + self.epochs)

    def objective(self) -> Objective:
        """The training objective, with random streams of its own."""
        loss = Euclidean if self.loss is None else LOSSES[self.loss]
        if self.control is not None and self.strength is not None:
            return CONTROLS[self.control](positive("strength", self.strength), loss,
                                          seeded_generator(self.seed, self.control))
        if self.method == "backprop":
            return BackPropagation(loss)
        shared = {"beta": self.beta, "loss": loss, "solver": SOLVERS[self.solver](),
                  "potential": None if self.gamma is None else Reweighted(self.gamma)}
        if self.method in ("rovr", "arovr"):
            return {"rovr": ROVR, "arovr": AROVR}[self.method](**shared)
        tilt = None
        if self.method == "arovr_abg":
            tilt = GaussianTilt(self.tilt_sd, output=self.tilt_output is not False,
                                generator=seeded_generator(self.seed, "tilt"))
        return TargetedAROVR(self.alpha, attack=Targeted(seeded_generator(self.seed, "attack")),
                             tilt=tilt, **shared)

    def network(self, inputs: int) -> LiftedNetwork:
        """The network with this seed's initial weights."""
        generator, depth = seeded_generator(self.seed, "weights"), len(self.hidden) + 1
        if self.layers == "convolutions":
            return convolutional(inputs, self.hidden, self.init, generator)
        steps = (1, 2) if self.layers == "residual" else (1,)
        edges = [(j, j + step) for step in steps for j in range(step - 1, depth + 1 - step)]
        return LiftedNetwork([inputs, *self.hidden, 10], edges=edges, init=self.init, generator=generator)

    def prepare(self) -> None:
        """Load the data."""
        dataset_of(self.dataset)

    def execute(self, watch: Callable[[LiftedNetwork, History], None] | None = None) -> dict:
        """Train as configured, up to the epoch that diverges if one does.

        ``watch`` is called after each epoch with the network and the history so far.
        """
        dataset = dataset_of(self.dataset)
        validation = (dataset.validation if self.validation is None
                      else dataset.subset(self.validation, self.seed, "validation"))
        splits = [dataset.subset(self.samples, self.seed), validation, dataset.test]
        if self.standardise:
            splits = data.standardised(*splits)
        net = self.network(dataset.dim)
        common = {"batch": self.batch, "learning_rate": self.learning_rate,
                  "generator": seeded_generator(self.seed, "batches")}
        before = (fit(net, BackPropagation(), *splits, epochs=self.pretraining, curves=False, **common)
                  if self.pretraining else None)
        history, brackets, diverged = History(), [], None

        def after(_: int, so_far: History) -> None:
            nonlocal history
            history = so_far
            if self.lipschitz is not None:
                brackets.append(bracket(net, splits[1].x[:self.lipschitz]))
            if watch is not None:
                watch(net, so_far)

        try:
            fit(net, self.objective(), *splits, epochs=self.epochs, patience=self.patience,
                omit_unbounded=bool(self.omit_unbounded), clip=self.clip, on_epoch=after,
                curves=self.lipschitz is not None, **common)
        except InferenceDiverged as error:  # a result like any other: the epochs before it count
            diverged = str(error)
        best = history.best_epoch if history.validation else None
        return {
            "result": best and {"best_epoch": best, "validation": history.validation[best - 1],
                                "test": history.test[best - 1]},
            "diverged": diverged,
            "history": vars(history),
            "pretraining": None if before is None else vars(before),
            "lipschitz": {name: [getattr(one, name) for one in brackets]
                          for name in Bracket._fields} if brackets else None,
            "data": {"source": dataset.source, "notice": dataset.notice},
        }


@torch.no_grad()
def convolutional(inputs: int, channels: Sequence[int], init: str,
                  generator: torch.Generator) -> LiftedNetwork:
    """Convolutions, 5×5 with a stride of 2 and ReLU, and a linear layer to 10 outputs.

    Args:
        inputs: the number of values of a square image, which x holds in one row: its pixels if that is a
            square, else three colours.
        channels: the numbers of channels of the convolutions.
        init: of the weights, as for :class:`~lnn_core.LiftedNetwork`.
        generator: draws the weights; biases are zero.
    """
    colours = 1 if math.isqrt(inputs) ** 2 == inputs else 3
    side = math.isqrt(inputs // colours)
    modules: list[nn.Module] = [nn.Unflatten(1, (colours, side, side))]
    for before, after in pairwise((colours, *channels)):
        modules += [nn.Conv2d(before, after, 5, stride=2, padding=2), nn.ReLU()]
        side = (side + 1) // 2
    net = lift(nn.Sequential(*modules, nn.Flatten(), nn.Linear(channels[-1] * side**2, 10)), (inputs,))
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            draw_weight(module.weight, module.weight[0].numel(), init, generator)
            nn.init.zeros_(module.bias)
    return net
