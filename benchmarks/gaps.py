"""How far from its minimum inference stops, and how many passes it takes, in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from itertools import islice

import torch
from torch import Tensor

from lnn_core import bounds, data
from lnn_core.convex import Identity
from lnn_core.experiments import Run
from lnn_core.experiments.training import seeded_generator
from lnn_core.inference import Shooting, minimise, sweep
from lnn_core.inference.iterate import Iterate, Report
from lnn_core.losses import Euclidean
from lnn_core.network import LiftedNetwork
from lnn_core.potentials import Energy, FenchelYoung

from .learners import BATCH, METHODS, Settings, trained, trained_at_size, training_samples

#: The gap that the default solver promises for the mean of a batch.
PROMISED = 1e-3
NETWORKS = {"AROVR": "arovr", "back-propagation": "autograd"}


def _sweeps(net: LiftedNetwork, energy: Energy, start: Iterate) -> Iterator[Tensor]:
    """The energy after one more pass of (17), without end."""
    z, a = list(start.z), list(start.a)
    while True:
        sweep(net, energy, z, a)
        yield energy(net, z)


def _shooting(net: LiftedNetwork, energy: Energy, start: Iterate) -> Iterator[Tensor]:
    """The energy after one more pass of the default solver, without end."""
    for state in Shooting.iterate(net, energy, start):
        yield state.iterate.energy


SOLVERS = {"sweeps": _sweeps, "shooting": _shooting}


def trace(net: LiftedNetwork, x: Tensor, energy: Energy, solver: str, passes: int,
          until: Callable[[Tensor], bool] = lambda energies: False) -> Tensor:
    """The energy after 0, 1, …, ``passes`` passes of a solver, shape (passes + 1, batch).

    Fewer where ``until`` says that the energy is low enough; +∞ where it is not a number.
    """
    energies = []

    def watch(net: LiftedNetwork, energy: Energy, start: Iterate) -> tuple[Iterate, Report]:
        energies.append(start.energy)
        for after in islice(SOLVERS[solver](net, energy, start), passes):
            energies.append(after.nan_to_num(torch.inf, torch.inf))
            if until(energies[-1]):
                break
        none = torch.zeros_like(start.energy, dtype=torch.bool)
        return start, Report(len(energies) - 1, torch.zeros_like(start.energy), none, none)

    minimise(net, x, energy, watch)
    return torch.stack(energies)


def optimum(net: LiftedNetwork, x: Tensor, energy: Energy,
            traces: list[Tensor]) -> tuple[Tensor, Tensor]:
    """(least energy found by anyone, whether there is a minimum), each of shape (batch,)."""
    point, report = minimise(net, x, energy, Shooting(1e-10, max_passes=50, every=True))
    best, bounded = point.energy.clone(), ~report.unbounded
    left = (bounded & ~report.converged).nonzero()[:, 0]
    if len(left):  # few, and these take long
        point, report = minimise(net, x[left], energy.take(left),
                                 Shooting(1e-10, max_passes=1000, every=True))
        best[left], bounded[left] = point.energy, ~report.unbounded
    return torch.stack([best, *(energies.amin(0) for energies in traces)]).amin(0), bounded


def gap(energies: Tensor, best: Tensor, start: Tensor) -> Tensor:
    """(E − E_min)/max(|E_min|, E(z*) − E_min), the library's relative gap."""
    return (energies - best) / torch.maximum(best.abs(), start - best)


def summary(gaps: Tensor) -> dict:
    """The mean and the worst gap of samples, and the share within what is promised.

    None stands for an energy that is not finite.
    """
    mean, worst = (value.item() if value.isfinite() else None
                   for value in (gaps.mean(), gaps.amax()))
    return {"mean": mean, "worst": worst, "within": (gaps <= PROMISED).double().mean().item()}


def network(settings: Settings, method: str) -> LiftedNetwork:
    """A trained network's copy in float64."""
    return copy.deepcopy(trained(settings, method).net).double()


def gap_samples(settings: Settings, count: int) -> tuple[Tensor, Tensor]:
    """This many training images in float64, and their one-hot targets."""
    x, y = (values[:count] for values in training_samples(settings))
    return x.double(), data.one_hot(y).double()


def by_passes(settings: Settings) -> list[dict]:
    """Gaps of AROVR's energy after 1, 2, … 20 passes: lists with one entry per pass.

    ``beyond`` is the share of samples whose local border of stability is below β.
    """
    x, target = gap_samples(settings, settings.judged)
    rows = []
    for name, method in NETWORKS.items():
        net = network(settings, method)
        threshold = bounds.stability_threshold(net, x)
        for beta in settings.betas:
            energy = FenchelYoung() - beta * Euclidean(target)
            traces = {solver: trace(net, x, energy, solver, 20) for solver in SOLVERS}
            best, bounded = optimum(net, x, energy, list(traces.values()))
            for solver, energies in traces.items():
                gaps = [summary(after[bounded]) for after in gap(energies, best, energies[0])[1:]]
                rows.append({"trained by": name, "beta": beta, "solver": solver,
                             "beyond": (threshold < beta).double().mean().item(),
                             "unbounded": int((~bounded).sum()),
                             **{what: [one[what] for one in gaps] for what in gaps[0]}})
    return rows


def energies_of(method: str, net: LiftedNetwork, target: Tensor) -> dict[str, Energy]:
    """The energies that an objective minimises, with its standard settings."""
    U, attack, change, _ = Run(**METHODS[method]).objective().difference(net, target)
    if attack is None:
        return {"the only one": U + change}
    return {"attack": U + attack, "attack − loss": U + (attack + change)}


def at_default(settings: Settings) -> list[dict]:
    """Where the default solver stops in batches as in training, for every objective's energies."""
    x, target = gap_samples(settings, settings.judged)
    rows = []
    for name, trainer in NETWORKS.items():
        net = network(settings, trainer)
        for method in ("arovr", "arovr_ab", "arovr_abg"):
            for which, energy in energies_of(method, net, target).items():
                passes, ends = _in_batches(net, x, energy)
                far = [trace(net, x, energy, solver, 20) for solver in SOLVERS]
                best, bounded = optimum(net, x, energy, [ends[None], *far])
                rows.append({"trained by": name, "objective": method, "energy": which,
                             "passes": passes,
                             **summary(gap(ends, best, far[0][0])[bounded]),
                             "unbounded": int((~bounded).sum())})
    return rows


def _in_batches(net: LiftedNetwork, x: Tensor, energy: Energy) -> tuple[float, Tensor]:
    """Mean passes of the default solver over batches, and the energies where it stopped."""
    passes, ends = [], []
    for rows in torch.arange(len(x), device=x.device).split(BATCH):
        point, report = minimise(net, x[rows], energy.take(rows))
        passes.append(report.passes)
        ends.append(point.energy)
    return sum(passes) / len(passes), torch.cat(ends)


def linear(sizes: list[int], seed: int) -> LiftedNetwork:
    """A linear network with random weights."""
    return LiftedNetwork(sizes, Identity(), init="normal", dtype=torch.float64,
                         generator=seeded_generator(seed, "weights"))


def near_the_border(settings: Settings) -> list[dict]:
    """Passes for a mean gap of 1e-3 against β as a share of the border 1/λ_max(K).

    Linear networks have an exact border and an optimum in closed form. In the trained
    networks the border is that of the linearisation at each sample, which gets a β of its own.
    """
    x, target = gap_samples(settings, settings.border)
    nets = {f"linear, seed {seed}": linear([x.shape[1], *settings.hidden, 10], seed)
            for seed in range(3)}
    nets |= {name: network(settings, method) for name, method in NETWORKS.items()}
    return [{"network": name, "share": share,
             **_at_share(net, x, target, share, settings.patience)}
            for name, net in nets.items()
            for share in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)]


def by_depth(settings: Settings) -> list[dict]:
    """Passes of the default solver against depth, at equal shares of the border of stability."""
    x, target = gap_samples(settings, settings.border)
    rows, width = [], settings.hidden[0]
    for depth in settings.depths:
        nets = {"linear": linear([x.shape[1], *[width] * (depth - 1), 10], seed=0),
                "trained": copy.deepcopy(trained_at_size(settings, depth, width).net).double()}
        for name, net in nets.items():
            threshold = bounds.stability_threshold(net, x)
            for share in (0.2, 0.4, 0.6):
                energy = FenchelYoung() - (share * threshold)[:, None] * Euclidean(target)
                rows.append({"depth": depth, "network": name, "share": share,
                             "border": threshold.median().item(),
                             "passes": _in_batches(net, x, energy)[0]})
    return rows


@torch.no_grad()
def _at_share(net: LiftedNetwork, x: Tensor, target: Tensor, share: float, patience: int) -> dict:
    """Passes and gap of the default solver, and the passes that each solver needs."""
    threshold = bounds.stability_threshold(net, x)
    energy = FenchelYoung() - (share * threshold)[:, None] * Euclidean(target)
    passes, ends = _in_batches(net, x, energy)
    start = energy.output(net(x))
    if isinstance(net.function(1), Identity):
        beta = share * float(threshold[0])
        best = -beta * bounds.reduced(net, x, target, beta)[1]
        bounded = torch.ones_like(best, dtype=torch.bool)

        def until(energies: Tensor) -> bool:
            return gap(energies, best, start).mean() <= PROMISED
        traces = {solver: trace(net, x, energy, solver, patience, until) for solver in SOLVERS}
    else:
        traces = {solver: trace(net, x, energy, solver, patience) for solver in SOLVERS}
        best, bounded = optimum(net, x, energy, [ends[None], *traces.values()])
    return {"border": threshold.median().item(), "passes": passes,
            **summary(gap(ends, best, start)[bounded]),
            **{f"{solver} needed": _needed(gap(energies, best, start)[:, bounded])
               for solver, energies in traces.items()},
            "unbounded": int((~bounded).sum())}


def _needed(gaps: Tensor) -> int | None:
    """The first pass after which the mean gap is as promised, or None."""
    found = (gaps.mean(1) <= PROMISED).nonzero()
    return int(found[0]) if len(found) else None
