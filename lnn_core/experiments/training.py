"""One training run: mini-batches, Adam, and what was measured after every epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple
from zlib import crc32

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from ..checks import as_targets, at_least, check_input, check_network, positive
from ..data import Split
from ..kinds import expect, expect_function, expect_generator
from ..losses import home
from ..lrrn.model import LRRN
from ..lrrn.objectives import EnergyLoss
from ..network import LiftedNetwork
from ..objectives import Objective

#: This many samples are measured together: more do not fit into a processor's cache.
BLOCK = 1000


def seeded_generator(seed: int, purpose: str) -> torch.Generator:
    """A generator of its own for each purpose ("weights", "batches", …) of a seed.

    Methods that draw different amounts of randomness thus still share their initial
    weights and the order of their samples: runs with equal seeds are paired.
    """
    return torch.Generator().manual_seed(crc32(f"{seed}/{purpose}".encode()))


def accuracy(net: LiftedNetwork, split: Split) -> float:
    """Share of samples whose largest output (forward pass) is at their label.

    Args:
        net: a LiftedNetwork or an LRRN.
        split: samples and their labels.

    Raises:
        TypeError: an argument of another kind.
        ValueError: the split does not fit the network.
    """
    net = _fixed(net)
    _check_split("split", net, split, labels=True)
    return _accuracy(net, split)


@torch.no_grad()
def _accuracy(net: LiftedNetwork | LRRN, split: Split) -> float:
    blocks = zip(split.x.split(BLOCK), split.y.split(BLOCK))
    return sum(int((net(x).argmax(1) == y).sum()) for x, y in blocks) / len(split.y)


class BestSoFar:
    """The accuracy on samples, of a network that changes, where it exceeds all that were found before.

    Such an accuracy is exact. Otherwise there are at least as many mistakes as the best network made, and
    counting stops there: soon, as samples come in the order of the margins that the best network had.

    Args:
        split: samples and their labels.
    """

    def __init__(self, split: Split):
        self.split, self.order = split, torch.arange(len(split.y), device=split.y.device)
        self.fewest = len(split.y) + 1

    @torch.no_grad()
    def __call__(self, net: LiftedNetwork | LRRN) -> float | None:
        """The accuracy, or None where it does not exceed the best one so far."""
        mistakes, margins = 0, []
        for rows in self.order.split(BLOCK):
            out, y = net(self.split.x[rows]), self.split.y[rows, None]
            right = out.gather(1, y).squeeze(1)
            margins.append(right - out.scatter(1, y, -torch.inf).amax(1))
            mistakes += int((out.argmax(1, keepdim=True) != y).sum())
            if mistakes >= self.fewest:
                return None
        self.fewest = mistakes
        self.order = self.order[torch.cat(margins).argsort()]
        return (len(self.order) - mistakes) / len(self.order)


@dataclass
class History:
    """For each quantity a list with one entry per epoch; epochs are numbered from 1.

    Attributes:
        objective: mean of the training objective over the epoch's mini-batches.
        train: accuracy (0…1) of the forward pass on training samples after the epoch; None where
            it was not measured (see :func:`fit`).
        validation: the same on validation samples.
        test: the same on test samples.
        passes: mean inference passes.
        gap: mean of the estimated relative gaps to inference's optimum, over the samples whose
            energy was not found unbounded (0 where nothing is inferred, None where none is left).
        converged: share of samples whose own gap is within the solver's tolerance.
        unbounded: share of samples whose energy was proved to have no minimum.
        gradient: median of the mini-batches' gradient norms, before clipping.
        largest_gradient: their maximum.
    """

    objective: list[float] = field(default_factory=list)
    train: list[float | None] = field(default_factory=list)
    validation: list[float | None] = field(default_factory=list)
    test: list[float | None] = field(default_factory=list)
    passes: list[float] = field(default_factory=list)
    gap: list[float | None] = field(default_factory=list)
    converged: list[float] = field(default_factory=list)
    unbounded: list[float] = field(default_factory=list)
    gradient: list[float] = field(default_factory=list)
    largest_gradient: list[float] = field(default_factory=list)

    @property
    def best_epoch(self) -> int:
        """The first epoch (from 1) with the highest validation accuracy."""
        measured = [i for i, value in enumerate(self.validation) if value is not None]
        return max(measured, key=lambda i: (self.validation[i], -i)) + 1


class Epoch(NamedTuple):
    """What happened in an epoch: see :class:`History`."""

    objective: float
    passes: float
    gap: float | None
    converged: float
    unbounded: float = 0.0
    gradient: float | None = None
    largest_gradient: float | None = None


def train_epoch(net: LiftedNetwork, objective: Objective, train: Split,
                optimizer: torch.optim.Optimizer, batch: int,
                generator: torch.Generator | None = None, *, omit_unbounded: bool = False,
                clip: float | None = None) -> Epoch:
    """One pass over the samples in random order, the last short batch included.

    Args:
        net: the network, changed in place.
        objective: the training loss.
        train: training samples.
        optimizer: a torch optimizer of the network's parameters.
        batch: samples per mini-batch.
        generator: draws the order of the samples.
        omit_unbounded: average each mini-batch over the samples whose energy was not found
            unbounded; a mini-batch in which none is left changes nothing.
        clip: the largest norm of a mini-batch's gradient; a longer one is shortened to it.

    Raises:
        TypeError: an argument of another kind.
        ValueError: batch below 1, clip not positive, samples that do not fit the network.
    """
    _check_epoch(net, objective, batch, generator, omit_unbounded, clip)
    expect("optimizer", optimizer, torch.optim.Optimizer, "an optimizer such as torch.optim.Adam")
    _check_split("train", _fixed(net), train, targets=getattr(objective, "uses_targets", True))
    step = _without_unbounded(net, objective, train) if omit_unbounded else objective.over(
        net, train.x, train.y)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    values, norms, reports = [], [], []
    batches = torch.randperm(len(train.y), generator=generator, device=home(generator)).split(batch)
    own = {id(parameter) for parameter in net.parameters()}
    others = [parameter for parameter in parameters if id(parameter) not in own]
    for rows in batches:
        for parameter in others:  # such as a factor in the loss
            parameter.grad = None
        value = step(rows)
        if value is None:
            values.append(train.x.new_zeros(()))
            norms.append(train.x.new_zeros(()))
        else:
            norms.append(get_total_norm(p.grad for p in parameters if p.grad is not None))
            if clip is not None:
                clip_grads_with_norm_(parameters, clip, norms[-1])
            optimizer.step()
            values.append(value)
        reports.append(objective.report)
    share = torch.tensor([len(rows) for rows in batches], dtype=torch.float64,
                         device="cpu") / len(train.y)
    mean, norms = float(share @ torch.stack(values).to(share)), torch.stack(norms)
    gradients = float(norms.median()), float(norms.max())
    if reports[0] is None:
        return Epoch(mean, 0.0, 0.0, 1.0, 0.0, *gradients)
    passes = share.new_tensor([r.passes for r in reports])
    gap, converged = (torch.cat([getattr(r, name) for r in reports]) for name in ("gap", "converged"))
    # Only lifted networks' energies can be unbounded: an LRRN's report has no such entry.
    unbounded = torch.cat([getattr(r, "unbounded", torch.zeros_like(r.converged)) for r in reports])
    bounded = gap[~unbounded]
    return Epoch(mean, float(share @ passes), float(bounded.mean()) if len(bounded) else None,
                 float(converged.float().mean()), float(unbounded.float().mean()), *gradients)


def _without_unbounded(net: LiftedNetwork, objective: Objective,
                       train: Split) -> Callable[[Tensor], Tensor | None]:
    """As ``Objective.over``, of what is bounded of a mini-batch; None where nothing is."""
    def step(rows: Tensor) -> Tensor | None:
        values = objective(net, train.x[rows], train.y[rows], reduction="none")
        unbounded = getattr(objective.report, "unbounded", None)  # nothing inferred, or an LRRN: none
        if unbounded is not None:  # targeted objectives infer two minima, one batch after the other
            values = values[~unbounded.view(-1, len(values)).any(0)]
        if not len(values):
            return None
        net.zero_grad()
        value = values.mean()
        value.backward()
        return value.detach()

    return step


def fit(net: LiftedNetwork, objective: Objective, train: Split, validation: Split, test: Split, *,
        epochs: int, patience: int | None = None, batch: int = 50,
        learning_rate: float = 2e-4, generator: torch.Generator | None = None,
        omit_unbounded: bool = False, clip: float | None = None, curves: bool = True,
        on_epoch: Callable[[int, History], None] | None = None) -> History:
    """Train in place with Adam.

    Args:
        net: the network, changed in place.
        objective: the training loss.
        train: training samples.
        validation: samples that choose the epoch.
        test: samples that are only measured.
        epochs: the most epochs.
        batch: samples per mini-batch.
        learning_rate: Adam's.
        patience: stop once the best validation accuracy is this many epochs old.
        generator: draws the order of the samples.
        omit_unbounded: see :func:`train_epoch`.
        clip: see :func:`train_epoch`.
        curves: measure accuracies after every epoch; False measures them after the first, the last, and
            each that is better on validation samples than all before it: what chooses the epoch. (Seeing
            that an epoch is no better takes a fraction of the validation samples, see
            :class:`BestSoFar`.)
        on_epoch: called with the epoch (from 1) and the history so far.

    Raises:
        TypeError: an argument of another kind.
        ValueError: epochs, patience or batch below 1, clip or learning_rate not positive, samples
            that do not fit the network. All before any computing.
    """
    splits = {"train": train, "validation": validation, "test": test}
    _check_epoch(net, objective, batch, generator, omit_unbounded, clip)
    for name, split in splits.items():
        _check_split(name, _fixed(net), split, labels=True)
    epochs = at_least("epochs", epochs, 1)
    expect("curves", curves, bool, "True or False")
    if patience is not None:
        at_least("patience", patience, 1)
    if on_epoch is not None:
        expect_function("on_epoch", on_epoch, "a function (epoch, history)")
    optimizer = torch.optim.Adam(net.parameters(), lr=positive("learning_rate", learning_rate),
                                 fused=True)
    history, better = History(), BestSoFar(validation)
    for epoch in range(1, epochs + 1):
        done = train_epoch(net, objective, train, optimizer, batch, generator,
                           omit_unbounded=omit_unbounded, clip=clip)
        found = None if curves else better(net)
        measured = _accuracies(net, splits, found) if curves or found is not None else dict.fromkeys(splits)
        for name, value in (done._asdict() | measured).items():
            getattr(history, name).append(value)
        last = epoch == epochs or patience is not None and epoch - history.best_epoch >= patience
        if last and history.test[-1] is None:
            for name, value in _accuracies(net, splits).items():
                getattr(history, name)[-1] = value
        if on_epoch is not None:
            on_epoch(epoch, history)
        if last:
            break
    return history


def _accuracies(net: LiftedNetwork | LRRN, splits: dict[str, Split],
                validation: float | None = None) -> dict[str, float]:
    """By the names of the splits; that on validation samples may be known."""
    return {name: validation if name == "validation" and validation is not None
            else _accuracy(net, split) for name, split in splits.items()}


def _fixed(net: LiftedNetwork | LRRN) -> LiftedNetwork | LRRN:
    """The network as it is now; TypeError for what is not one."""
    return net if isinstance(net, LRRN) else check_network(net)


def _check_epoch(net: LiftedNetwork, objective: Objective, batch: int,
                 generator: torch.Generator | None, omit_unbounded: bool,
                 clip: float | None) -> None:
    """The errors of :func:`train_epoch` that are about one argument alone."""
    _fixed(net)
    expect("objective", objective, (Objective, EnergyLoss), "an objective such as AROVR(0.25)")
    at_least("batch", batch, 1)
    expect_generator("generator", generator)
    expect("omit_unbounded", omit_unbounded, bool, "True or False")
    if clip is not None:
        positive("clip", clip)


def _check_split(name: str, net: LiftedNetwork | LRRN, split: Split, *,
                 targets: bool = True, labels: bool = False) -> None:
    """TypeError or ValueError unless samples fit the network, and labels or targets do.

    Args:
        targets: whether y matters at all.
        labels: whether it has to be labels.
    """
    expect(name, split, Split, "a Split of samples x and labels y")
    try:
        check_input(net, split.x)
        if targets:
            as_targets(net, split.x, split.y)
        if labels and split.y.is_floating_point():
            raise TypeError(f"y has dtype {split.y.dtype}; expected integer labels")
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None
