"""The runs behind the pages about Høier and Zach (2020), as lists."""

from __future__ import annotations

from collections.abc import Iterable

from .datasets import CIFAR
from .lrrn_runs import ACTIVATIONS, DATASETS, Classification, Reconstruction

#: Only an eighth of KMNIST is public where these runs were made: its epochs are shorter by that factor.
EPOCHS = {"mnist": 15, "kmnist": 120, "fashion-mnist": 15}
SEEDS = range(3)
#: Around the default, for the balance of accuracy and Lipschitz constant.
DECAYS = (1e-3, 2e-3, 1e-2, 2e-2)


def figure1(seeds: Iterable[int] = SEEDS) -> list[Reconstruction]:
    """Filters on MNIST: without constraint, with activations ≥ 0, and these without biases,
    which can shift all activations to where ≥ 0 constrains nothing."""
    return [run for seed in seeds
            for run in (*(Reconstruction(seed=seed, activation=name) for name in ACTIVATIONS),
                        Reconstruction(seed=seed, bias=False))]


def table1(seeds: Iterable[int] = SEEDS) -> list[Reconstruction]:
    """Energies, one row per data set."""
    return [Reconstruction(name, seed, epochs=EPOCHS[name]) for seed in seeds for name in DATASETS]


def figure2(seeds: Iterable[int] = SEEDS, **settings) -> list[Classification]:
    """Loss, accuracies, Lipschitz constants and radii of 784-64-64-10."""
    return [Classification(name, seed, **{"epochs": EPOCHS[name]} | settings)
            for seed in seeds for name in DATASETS]


def pretrained(seeds: Iterable[int] = SEEDS) -> list[Classification]:
    """Figure 2's runs after a third as many epochs of unsupervised training, on the complete
    data sets; not attacked."""
    return [Classification(name, seed, epochs=EPOCHS[name], pretraining=EPOCHS[name] // 3,
                           attacked=None)
            for seed in seeds for name in DATASETS if name != "kmnist"]


def decays(dataset: str = "mnist", seeds: Iterable[int] = (0,)) -> list[Classification]:
    """Figure 2's runs with other decays; not attacked."""
    return [Classification(dataset, seed, epochs=EPOCHS[dataset], decay=decay, attacked=None)
            for seed in seeds for decay in DECAYS]


def figure3() -> list[Classification]:
    """CIFAR-10, grey and in colour, {1024, 3072}-256-256-10, the paper's 100 epochs."""
    return [Classification(name, hidden=(256, 256), epochs=100) for name in CIFAR]
