"""Epoch times ÷ back-propagation's: by batch and threads, along training, by width and depth."""

from __future__ import annotations

import warnings
from statistics import mean

from lnn_core.alerts import StabilityWarning
from lnn_core.data import Split
from lnn_core.experiments.training import Epoch, seeded_generator

from .handwritten import HandWritten
from .learners import (
    BATCH,
    Learner,
    Settings,
    make_learner,
    part,
    trained,
    trained_at_size,
    training_samples,
    untrained,
)
from .timing import interleave, milliseconds, ratio, threads

ALL = ("autograd", "handwritten", "arovr", "arovr_ab", "arovr_abg", "paper")


def compare(learners: dict[str, Learner | HandWritten], parts: list[Split],
            batch: int) -> list[dict]:
    """One row per learner, which all train on one part after the other, in turns.

    ``ratio to …`` is a median with its interval, on the clock; ``cpu to …`` the same in processor
    time; ``cpu over clock`` how much of the time the process was at work (1 on a quiet machine with
    one thread); ``passes`` and ``converged`` are means over the timed turns.
    """
    seen: dict[str, list[Epoch]] = {name: [] for name in learners}

    def turn(name: str):
        return lambda i: seen[name].append(
            learners[name].epoch(parts[i], batch, seeded_generator(i, "batches")))

    times = interleave({name: turn(name) for name in learners}, len(parts))
    rows = []
    for name in learners:
        row = {"method": name, "milliseconds": milliseconds(times[name]),
               "passes": mean(epoch.passes for epoch in seen[name][1:]),
               "converged": mean(epoch.converged for epoch in seen[name][1:])}
        for reference in ("autograd", "handwritten"):
            row[f"ratio to {reference}"] = ratio(times[name], times[reference])
            row[f"cpu to {reference}"] = ratio(times[name], times[reference], "cpu")
        row["cpu over clock"] = mean(time.cpu / time.wall for time in times[name])
        rows.append(row)
    return rows


def by_batch(settings: Settings) -> list[dict]:
    """All methods on a trained network, at each batch size and number of threads."""
    train, rows = training_samples(settings), []
    parts = [part(train, settings.turn, i) for i in range(settings.rounds)]
    start = trained(settings, "arovr")
    for count in settings.threads:
        for batch in settings.batches:
            with threads(count):
                learners = {name: make_learner(name, start) for name in ALL}
                rows += [{"threads": count, "batch": batch, **row}
                         for row in compare(learners, parts, batch)]
    return rows


def along_training(settings: Settings) -> list[dict]:
    """A training run from random weights: one entry per epoch, and the whole run's ratio."""
    train, start = training_samples(settings), untrained(settings)
    learners = {name: make_learner(name, start) for name in ALL}
    passes: dict[str, list] = {name: [] for name in learners}

    def turn(name: str):
        return lambda i: passes[name].append(
            learners[name].epoch(train, BATCH, seeded_generator(i, "batches")).passes)

    with threads(1):
        times = interleave({name: turn(name) for name in learners}, settings.course)
    wall = {name: [time.wall for time in values] for name, values in times.items()}
    return [{"method": name, "whole run to autograd": sum(wall[name]) / sum(wall["autograd"]),
             "whole run to handwritten": sum(wall[name]) / sum(wall["handwritten"]),
             "passes": passes[name][1:],
             "ratio to autograd": [a / b for a, b in zip(wall[name], wall["autograd"])],
             "ratio to handwritten": [a / b for a, b in zip(wall[name], wall["handwritten"])]}
            for name in learners]


def by_size(settings: Settings) -> list[dict]:
    """AROVR and back-propagation as the network grows: wider at one depth, deeper at one width."""
    train = part(training_samples(settings), settings.growing, 0)
    depth, width = len(settings.hidden) + 1, settings.hidden[0]
    shapes = [(depth, w) for w in settings.widths]
    shapes += [(d, width) for d in settings.depths if (d, width) not in shapes]
    rows = []
    for d, w in shapes:
        with threads(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", StabilityWarning)  # the column "converged" says it
            start = trained_at_size(settings, d, w)
            learners = {name: make_learner(name, start)
                        for name in ("autograd", "handwritten", "arovr")}
            rows += [{"depth": d, "width": w, **row} for row in compare(
                learners, [train] * settings.growing_rounds, BATCH)]
    return rows
