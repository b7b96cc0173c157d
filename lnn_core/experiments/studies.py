"""The runs behind Figure 1, Table 1 and the pages beside them: lists of configurations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .internal import InternalRobustness
from .runs import METHODS, Run

#: The methods of Zach (2025), Table 1.
TABLE = tuple(method for method in METHODS if method != "rovr")
DATASETS = ("mnist", "fashion-mnist")
#: Training ends when the best validation accuracy is 30 epochs old: it is never the last.
STOPPING = {"epochs": 300, "patience": 30}
#: Epochs of back-propagation before a method takes over.
PRETRAINING = 60
#: The seeds of Table 1, and of pages that vary one thing at a time.
SEEDS, FEWER = range(10), range(3)
#: Where Figure 1 samples β, those of them that 20 sweeps run too, and two near the limit γ_L = 1.
BETAS = (1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2)
PAIRED = (1 / 16, 1 / 4, 1 / 2)
NEAR = (3 / 4, 0.9)
#: Where inference is repeated to a thousandth of the default solver's tolerance.
TIGHT = (1 / 2,)
#: Figure 1's rows: epochs and seeds, by the number of training samples.
ROWS = {5000: (60, range(3)), 50_000: (20, range(2))}
#: Validation images on which Figure 1 looks for large Jacobians.
LOOKED_AT = 500
#: γ along depth with the same γ_L, hence the same bound on β.
GAMMAS = {"decreasing": (4.0, 2.0, 1.0), "increasing": (0.25, 0.5, 1.0)}


def table1(seeds: Iterable[int] = SEEDS, datasets: Sequence[str] = DATASETS, *,
           pretraining: int = PRETRAINING, **settings) -> list[Run]:
    """Each method from random weights, and after back-propagation.

    Back-propagation after back-propagation, with a fresh Adam like the others, is not in the
    paper: it is what they have to be compared with.
    """
    return [Run(dataset=dataset, seed=seed, method=method, pretraining=before,
                **STOPPING | settings)
            for seed in seeds for dataset in datasets for before in (0, pretraining)
            for method in TABLE]


def figure1(dataset: str, samples: int, betas: Sequence[float] = BETAS,
            solver: str = "shooting", *, seeds: Iterable[int] | None = None,
            **settings) -> list[Run]:
    """Back-propagation, then AROVR for each β; its Lipschitz constant after every epoch."""
    epochs, usual = ROWS.get(samples, (None, ()))
    common: dict[str, Any] = {"dataset": dataset, "samples": samples, "epochs": epochs,
              "lipschitz": LOOKED_AT} | settings
    return [run for seed in (usual if seeds is None else seeds)
            for run in (Run(method="backprop", seed=seed, **common),
                        *(Run(method="arovr", beta=beta, solver=solver, seed=seed, **common)
                          for beta in betas))]


@dataclass(frozen=True)
class Variation:
    """A run that differs from Table 1's in one choice, and the seeds it is run with."""

    choice: str
    value: str
    run: Run
    base: Run
    seeds: Sequence[int] = FEWER

    def runs(self, seeds: Iterable[int] | None = None) -> list[tuple[Run, Run]]:
        """(varied, as in Table 1), seed by seed; ``seeds`` in place of its own."""
        return [(replace(self.run, seed=seed), replace(self.base, seed=seed))
                for seed in (self.seeds if seeds is None else seeds)]


def sensitivity(dataset: str = "mnist", **settings) -> list[Variation]:
    """What the paper leaves open or we chose, one choice at a time.

    The batch size has as many seeds as Table 1, since something is concluded from it; the others
    have few, to find what matters.
    """
    found = []

    def vary(choice: str, value: str, methods: Sequence[str], **change) -> None:
        seeds = SEEDS if choice == "batch" else FEWER
        for method in methods:
            base = Run(dataset=dataset, method=method, **STOPPING | settings)
            if "pretraining" in change:
                base = replace(base, pretraining=PRETRAINING)
            found.append(Variation(choice, value, replace(base, **change), base, seeds))

    some = ("backprop", "arovr", "arovr_abg")
    vary("batch", "20", some, batch=20)
    vary("batch", "100", some, batch=100)
    vary("initial weights", "N(0, 1/fan-in)", some, init="normal")
    vary("images", "standardised", some, standardise=True)
    vary("N(0, 1/16)", "variance 1/16", ("arovr_abg",), tilt_sd=0.25)
    vary("tilt", "hidden layers only", ("arovr_abg",), tilt_output=False)
    vary("solver", "20 sweeps", ("arovr",), solver="paper")
    vary("β", "1/8", ("arovr",), beta=1 / 8)
    vary("β", "3/8", ("arovr",), beta=3 / 8)
    vary("α", "0.3", ("arovr_ab",), alpha=0.3)
    vary("α", "0.4", ("arovr_ab",), alpha=0.4)
    vary("pretraining", "10 epochs", ("arovr", "arovr_abg"), pretraining=10)
    vary("pretraining", "30 epochs", ("arovr", "arovr_abg"), pretraining=30)
    return found


def ablation(datasets: Sequence[str] = DATASETS, **settings) -> list[Variation]:
    """γ along depth at fixed β, for AROVR."""
    bases = [Run(dataset=dataset, method="arovr", **STOPPING | settings) for dataset in datasets]
    return [Variation("γ", name, replace(base, gamma=gamma), base)
            for base in bases for name, gamma in GAMMAS.items()]


def handover(dataset: str = "fashion-mnist", *, pretraining: int = PRETRAINING,
             **settings) -> list[Variation]:
    """AROVR from a pretrained network: what to do where its energies are unbounded.

    Leave those samples out, clip gradients, or take a β for which none is unbounded.
    """
    base = Run(dataset=dataset, method="arovr", pretraining=pretraining, **STOPPING | settings)
    return [Variation(choice, value, replace(base, **change), base, SEEDS)
            for choice, value, change in (
                ("unbounded samples", "left out", {"omit_unbounded": True}),
                ("gradients", "clipped to norm 1", {"clip": 1.0}),
                ("β", "1/8", {"beta": 1 / 8}))]


def convolutions(seeds: Iterable[int] = FEWER, betas: Sequence[float] = (1 / 4,),
                 **settings) -> list[Run]:
    """A small convolutional network with cross-entropy: back-propagation, and AROVR for each β.

    Not in the papers.
    """
    common: dict[str, Any] = {"dataset": "fashion-mnist", "samples": 50_000, "epochs": 20, "hidden": (16, 32),
              "layers": "convolutions", "loss": "cross-entropy", "learning_rate": 1e-3} | settings
    return [run for seed in seeds
            for run in (Run(method="backprop", seed=seed, **common),
                        *(Run(method="arovr", beta=beta, seed=seed, **common) for beta in betas))]


#: Numbers of training images, from less than the papers' to theirs.
FEW = (50, 100, 200, 500, 1000, 2000)
#: Of few images a mini-batch of 50 would leave a handful of steps per epoch.
FEW_SETTINGS = {"batch": 20, "epochs": 150, "patience": 30}
#: Strengths of the controls. Noise has the tilt's standard deviation; targets move as far as those of
#: AROVR_{α,β}, s = βᾱ; of the others validation chooses.
STRENGTHS = {"batch noise": (Run.tilt_sd,), "sample noise": (Run.tilt_sd,),
             "label smoothing": (0.25 * 0.51,), "away from a wrong label": (0.25 * 0.51,),
             "dropout": (0.2, 0.5), "weight decay": (1e-4, 1e-3, 1e-2),
             "attacked inputs": (0.25, 0.5, 1.0, 2.0)}


def few_images(samples: int, seeds: Iterable[int] = SEEDS, datasets: Sequence[str] = DATASETS,
               **settings) -> list[Run]:
    """The methods of Table 1, AROVR^g with an attack an eighth as strong, and every control.

    At β = 1/32 inference is to a thousandth of the usual tolerance: a difference of minima is divided by β.
    """
    common: dict[str, Any] = {"samples": samples} | FEW_SETTINGS | settings
    arms: list[dict[str, Any]] = [
        *({"method": method} for method in TABLE),
        {"method": "arovr_abg", "beta": 1 / 32, "solver": "tight"},
        *({"method": "backprop", "control": control, "strength": strength}
          for control, values in STRENGTHS.items() for strength in values)]
    return [Run(dataset=dataset, seed=seed, **common | arm)
            for seed in seeds for dataset in datasets for arm in arms]


def few_images_in_all(samples: int, seeds: Iterable[int] = SEEDS, datasets: Sequence[str] = DATASETS,
                      **settings) -> list[Run]:
    """The methods of Table 1 where those who have few images have as few to validate with."""
    common: dict[str, Any] = {"samples": samples, "validation": samples} | FEW_SETTINGS | settings
    return [Run(dataset=dataset, seed=seed, method=method, **common)
            for seed in seeds for dataset in datasets for method in TABLE]


#: Whose inside is looked at: the methods of Table 1, ROVR, a stronger AROVR, and what may do as well.
INSIDE: tuple[dict[str, Any], ...] = (
    *({"method": method} for method in TABLE), {"method": "rovr"}, {"method": "arovr", "beta": 1 / 2},
    *({"method": "backprop", "control": control, "strength": strength} for control, strength in (
        ("batch noise", Run.tilt_sd), ("dropout", 0.2), ("attacked inputs", 0.5))))


def inside(seeds: Iterable[int] = SEEDS, datasets: Sequence[str] = DATASETS,
           **settings) -> list[InternalRobustness]:
    """Networks trained as those of Table 1, and how robust they are inside."""
    common: dict[str, Any] = STOPPING | settings
    return [InternalRobustness(dataset=dataset, seed=seed, **common | arm)
            for seed in seeds for dataset in datasets for arm in INSIDE]
