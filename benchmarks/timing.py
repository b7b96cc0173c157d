"""Times as ratios: what is compared takes turns, round after round, in one process.

A machine that is busy for a while slows down all of a round, and leaves the ratios within the
round nearly alone. What is reported is the median over rounds, with an interval.
"""

from __future__ import annotations

import gc
import os
import platform
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from scipy.stats import quantile_test

import lnn_core


class Time(NamedTuple):
    """Seconds that a turn took: on the clock, and of processor time, all threads together."""

    wall: float
    cpu: float


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use this many threads, for the time being."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def interleave(turns: dict[str, Callable[[int], object]], rounds: int) -> dict[str, list[Time]]:
    """Times of ``turns[name](round)``, one list per name, one entry per round.

    A first turn of each is not timed; every round draws an order of its own; Python's garbage
    collector rests meanwhile.
    """
    order, shuffle = list(turns), random.Random(0).shuffle
    times: dict[str, list[Time]] = {name: [] for name in turns}
    for turn in turns.values():
        turn(0)
    gc.collect()
    gc.disable()
    try:
        for i in range(rounds):
            shuffle(order)
            for name in order:
                wall, cpu = time.perf_counter(), time.process_time()
                turns[name](i)
                times[name].append(Time(time.perf_counter() - wall, time.process_time() - cpu))
    finally:
        gc.enable()
    return times


def with_interval(values: list[float]) -> dict[str, float]:
    """The median, and the order statistics that hold it with 95 % confidence.

    Free of assumptions about the noise. Fewer than 6 values allow no such interval: then low
    and high are the least and the greatest.
    """
    low, high = (quantile_test(values, p=0.5).confidence_interval() if len(values) >= 6
                 else (min(values), max(values)))
    return {"median": median(values), "low": float(low), "high": float(high)}


def ratio(times: list[Time], reference: list[Time], clock: str = "wall") -> dict[str, float]:
    """The median, over rounds, of time ÷ the reference's time in the same round, with interval."""
    return with_interval([getattr(a, clock) / getattr(b, clock) for a, b in zip(times, reference)])


def milliseconds(times: list[Time]) -> float:
    """The median time of a turn on the clock."""
    return 1e3 * median(time.wall for time in times)


def provenance() -> dict:
    """The machine and the versions, for records. Without a date: the same run, the same file."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines()
             if line.startswith("model name")] if cpuinfo.exists() else []
    return {
        "machine": {"processor": names[0] if names else platform.processor() or platform.machine(),
                    "instructions": torch.backends.cpu.get_cpu_capability(),
                    "cores": os.cpu_count(), "system": platform.system()},
        "versions": {"lnn_core": lnn_core.__version__, "torch": torch.__version__,
                     "python": platform.python_version()},
    }
