"""What an epoch is made of: multiply-adds, memory, and where a step's time goes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from lnn_core.experiments.training import seeded_generator
from lnn_core.inference import PaperSweeps, Shooting

from .epochs import ALL
from .handwritten import HandWritten
from .learners import BATCH, Learner, Settings, make_learner, part, trained, training_samples
from .timing import interleave, threads, with_interval
from .tracing import Operations, multiply_adds, peak_bytes


def one_step(settings: Settings, learner: Learner | HandWritten,
             batch: int) -> Callable[[], object]:
    """An epoch of a single batch, always of the same samples."""
    samples = part(training_samples(settings), batch, 0)
    return lambda: learner.epoch(samples, batch, seeded_generator(0, "batches"))


def operations(settings: Settings) -> list[dict]:
    """Multiply-adds per sample of a training step, against the passes that inference makes."""
    start, rows = trained(settings, "arovr"), []

    def count(learner):
        return multiply_adds(one_step(settings, learner, BATCH)) / BATCH

    plain = count(make_learner("autograd", start))
    solvers = {passes: Shooting(tolerance=0.0, max_passes=passes) for passes in (1, 2, 3)}
    cases = [("autograd", 0, None), ("handwritten", 0, None), ("paper", 20, PaperSweeps(20))]
    cases += [(method, passes, solver) for method in ("arovr", "arovr_ab", "arovr_abg")
              for passes, solver in solvers.items()]
    for method, passes, solver in cases:
        learner = make_learner(method, start)
        if solver is not None:
            learner.objective.solver = solver
        done = count(learner)
        rows.append({"method": method, "passes": passes, "multiply-adds": done,
                     "ratio to autograd": done / plain})
    return rows


def memory(settings: Settings) -> list[dict]:
    """Peak bytes of tensors made in a training step, by method and batch.

    Weights, Adam's state and the data set are there before the step; so are gradients in the
    hand-written one. What a large batch adds to a smaller one is what a sample takes.
    """
    start = trained(settings, "arovr")
    return [{"method": method, "batch": batch,
             "peak bytes": peak_bytes(one_step(settings, make_learner(method, start), batch))}
            for method in ALL for batch in settings.weighed]


def breakdown(settings: Settings) -> list[dict]:
    """Microseconds of a step by what they are spent on, medians over rounds with intervals.

    The matrix products of one step are recorded and run again, alone; so is Adam. The rest
    is what the step takes longer than these: element-wise operations, autograd, Python.
    """
    start, rows, repeat = trained(settings, "arovr"), [], settings.repeat
    with threads(1):
        for method in ALL:
            learner = make_learner(method, start)
            step = one_step(settings, learner, BATCH)
            step()  # Adam's state and gradients are there from the second step on
            with Operations() as made:
                step()
            calls = {"step": step} | {part: partial(made.again, part) for part in made.calls}
            times = interleave({name: _repeated(call, repeat) for name, call in calls.items()},
                               settings.rounds)
            each = {name: [1e6 * time.wall / repeat for time in values]
                    for name, values in times.items()}
            each["rest"] = [whole - sum(parts) for whole, *parts in zip(*each.values())]
            rows.append({"method": method, "operations": made.count,
                         "products": len(made.calls["products"]),
                         **{f"µs {name}": with_interval(values) for name, values in each.items()}})
    return rows


def _repeated(call: Callable[[], object], times: int) -> Callable[[int], None]:
    def turn(_: int) -> None:
        for _ in range(times):
            call()
    return turn
