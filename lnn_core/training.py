"""One training run: mini-batches, Adam, and what was measured after every epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple
from zlib import crc32

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from .checks import positive
from .data import Split
from .losses import home
from .network import LiftedNetwork
from .objectives import Objective

#: So many samples are measured at a time: more of them fall out of a processor's cache.
BLOCK = 1000


def stream(seed: int, purpose: str) -> torch.Generator:
    """A generator of its own for each purpose ("weights", "batches", …) of a seed.

    Methods that draw different amounts of randomness thus still share their initial
    weights and the order of their samples: runs with equal seeds are paired.
    """
    return torch.Generator().manual_seed(crc32(f"{seed}/{purpose}".encode()))


@torch.no_grad()
def accuracy(net: LiftedNetwork, split: Split) -> float:
    """Share of samples whose largest output (forward pass) is at their label."""
    blocks = zip(split.x.split(BLOCK), split.y.split(BLOCK))
    return sum(int((net(x).argmax(1) == y).sum()) for x, y in blocks) / len(split.y)


@dataclass
class History:
    """One list an epoch count long for each quantity; epochs are numbered from 1.

    objective : mean of the training objective over the epoch's mini-batches.
    train, validation, test : accuracies (0…1) of the forward pass after the epoch.
    passes : mean inference passes.
    gap : mean of the estimated relative gaps to inference's optimum, over the samples whose
        energy was not found unbounded (0 where nothing is inferred, None where none is left).
    converged : share of samples whose own gap is within the solver's tolerance.
    unbounded : share of samples whose energy was proved to have no minimum.
    gradient, largest_gradient : median and maximum of the mini-batches' gradient norms, before
        clipping.
    """

    objective: list[float] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    test: list[float] = field(default_factory=list)
    passes: list[float] = field(default_factory=list)
    gap: list[float | None] = field(default_factory=list)
    converged: list[float] = field(default_factory=list)
    unbounded: list[float] = field(default_factory=list)
    gradient: list[float] = field(default_factory=list)
    largest_gradient: list[float] = field(default_factory=list)

    @property
    def best_epoch(self) -> int:
        """The first epoch (from 1) with the highest validation accuracy."""
        return max(range(len(self.validation)), key=lambda i: (self.validation[i], -i)) + 1


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

    omit_unbounded : average each mini-batch over the samples whose energy was not found
        unbounded; a mini-batch in which none is left changes nothing.
    clip : the largest norm of a mini-batch's gradient; a longer one is shortened to it.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    values, norms, reports = [], [], []
    batches = torch.randperm(len(train.y), generator=generator, device=home(generator)).split(batch)
    for rows in batches:
        optimizer.zero_grad()
        value = _mean(objective, net, train.x[rows], train.y[rows], omit_unbounded)
        if value is None:
            values.append(train.x.new_zeros(()))
            norms.append(train.x.new_zeros(()))
        else:
            value.backward()
            norms.append(get_total_norm(p.grad for p in parameters if p.grad is not None))
            if clip is not None:
                clip_grads_with_norm_(parameters, clip, norms[-1])
            optimizer.step()
            values.append(value.detach())
        reports.append(objective.report)
    share = torch.tensor([len(rows) for rows in batches], dtype=torch.float64) / len(train.y)
    mean, norms = float(share @ torch.stack(values).to(share)), torch.stack(norms)
    gradients = float(norms.median()), float(norms.max())
    if reports[0] is None:
        return Epoch(mean, 0.0, 0.0, 1.0, 0.0, *gradients)
    passes = torch.tensor([r.passes for r in reports], dtype=share.dtype)
    gap, converged = (torch.cat([getattr(r, name) for r in reports]) for name in ("gap", "converged"))
    # Only lifted networks' energies can be unbounded: an LRRN's report has no such entry.
    unbounded = torch.cat([getattr(r, "unbounded", torch.zeros_like(r.converged)) for r in reports])
    bounded = gap[~unbounded]
    return Epoch(mean, float(share @ passes), float(bounded.mean()) if len(bounded) else None,
                 float(converged.float().mean()), float(unbounded.float().mean()), *gradients)


def _mean(objective: Objective, net: LiftedNetwork, x: Tensor, y: Tensor,
          omit_unbounded: bool) -> Tensor | None:
    """The objective's mean over a mini-batch, or over what is bounded of it, if anything is."""
    if not omit_unbounded:
        return objective(net, x, y)
    values = objective(net, x, y, reduction="none")
    unbounded = getattr(objective.report, "unbounded", None)  # nothing inferred, or an LRRN: none
    if unbounded is not None:  # targeted objectives infer two minima, one batch after the other
        values = values[~unbounded.view(-1, len(values)).any(0)]
    return values.mean() if len(values) else None


def fit(net: LiftedNetwork, objective: Objective, train: Split, validation: Split, test: Split, *,
        epochs: int, patience: int | None = None, batch: int = 50,
        learning_rate: float = 2e-4, generator: torch.Generator | None = None,
        omit_unbounded: bool = False, clip: float | None = None,
        on_epoch: Callable[[int, History], None] | None = None) -> History:
    """Train in place with Adam.

    Parameters
    ----------
    epochs : the most epochs.
    patience : stop once the best validation accuracy is this many epochs old.
    generator : draws the order of the samples.
    omit_unbounded, clip : see :func:`train_epoch`.
    on_epoch : called with the epoch (from 1) and the history so far.

    Raises
    ------
    ValueError : epochs, patience or batch below 1, clip not positive.
    """
    if min(epochs, batch, epochs if patience is None else patience) < 1:
        raise ValueError(f"epochs={epochs}, patience={patience} and batch={batch} must be at "
                         "least 1")
    if clip is not None:
        positive("clip", clip)
    optimizer = torch.optim.Adam(net.parameters(), lr=learning_rate, fused=True)
    history = History()
    for epoch in range(1, epochs + 1):
        done = train_epoch(net, objective, train, optimizer, batch, generator,
                           omit_unbounded=omit_unbounded, clip=clip)
        for name, mean in done._asdict().items():
            getattr(history, name).append(mean)
        for name, split in (("train", train), ("validation", validation), ("test", test)):
            getattr(history, name).append(accuracy(net, split))
        if on_epoch is not None:
            on_epoch(epoch, history)
        if patience is not None and epoch - history.best_epoch >= patience:
            break
    return history
