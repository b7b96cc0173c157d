"""Many runs, those without a record only, spread over processes or over a cluster."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import joblib
import torch
from tqdm import tqdm

from .recorded import Recorded, load, save

#: Seconds after which an unfinished file is a killed process's: writing takes milliseconds.
ABANDONED = 3600


def sweep(runs: Iterable[Recorded], folder: Path | str, jobs: int = -1,
          scheduler: str | None = None) -> list[dict]:
    """The records of all runs, in order; those that are missing are computed.

    Every record is written by this process as soon as it arrives, wherever it was computed:
    workers need not see the folder. Killing this process, or all, loses the runs in flight.

    Parameters
    ----------
    folder : where records are, one file a run.
    jobs : processes at a time (joblib's convention: −1 is one for each core).
    scheduler : the address of a Dask cluster's scheduler, such as "tcp://10.0.0.1:8786", whose
        workers take the place of local processes, in whatever number there are; the lnn_core
        they have is what is run. The runs of a worker that dies go to another. Needs the
        package ``distributed``. (Where a local process dies, the sweep ends with joblib's
        error; the next one does the rest.)

    Raises ValueError for a file in the folder that is no record of its run, before anything is
    computed. A run that fails, or whose findings JSON cannot hold, such as a NaN, does not stop
    the others: once they are done and kept, RuntimeError names those that failed.
    """
    runs, folder = list(runs), Path(folder)
    missing = list({run.key: run for run in runs if load(run, folder) is None}.values())
    failed: list[tuple[Recorded, str]] = []
    if missing:
        _tidy(folder)
        if scheduler is None:  # a cluster's workers have their own data
            for run in missing:
                run.prepare()  # fail (or download) once, before any worker starts
        with _threads_restored(), _cluster(scheduler) if scheduler else nullcontext():
            # A run at a time: a batch would come back, and be written, only when all of it is
            # done. Dispatched at once: workers that join later find something to do.
            work = joblib.Parallel(n_jobs=-1 if scheduler else jobs, batch_size=1,
                                   pre_dispatch="all", return_as="generator_unordered")(
                joblib.delayed(_record)(run) for run in missing)
            for run, found in _with_progress(work, missing):
                if isinstance(found, str):
                    failed.append((run, found))
                else:
                    save(found, folder / f"{run.key}.json")
    if failed:
        raise RuntimeError(
            f"{len(failed)} of {len(missing)} runs failed; the records of the others are kept. The "
            f"first to fail, where it ran:\n{failed[0][1]}\nAll that failed:\n"
            + "\n".join(f"{run}: {text.splitlines()[-1]}" for run, text in failed))
    return [load(run, folder) for run in runs]


def _record(run: Recorded) -> tuple[Recorded, dict | str]:
    """A run and its record or, where it fails, the traceback: not every exception can be sent
    from one process to another, and one that cannot takes the runs in flight with it."""
    torch.set_num_threads(1)  # one core a run: runs are what is parallel
    try:
        record = run.record()
        json.dumps(record, allow_nan=False)  # ValueError or TypeError, as saving it would
    except Exception:
        return run, traceback.format_exc()
    return run, record


@contextmanager
def _threads_restored() -> Iterator[None]:
    """With jobs=1 this process computes the runs, and goes on with as many threads as it had."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _cluster(scheduler: str) -> Iterator[None]:
    """Within it, joblib computes on the cluster.

    Through joblib rather than Dask's own futures: where the scheduler dies, joblib raises,
    while ``distributed.as_completed`` ends as if all were done.
    """
    from distributed import Client  # not needed, and slow to import, on one machine

    with Client(scheduler, set_as_default=False) as client:
        with joblib.parallel_config("dask", client=client):
            yield


def _with_progress(work: Iterable[tuple[Recorded, dict | str]], runs: list[Recorded],
                   ) -> Iterator[tuple[Recorded, dict | str]]:
    """The finished runs, counted on stderr: pages do not show it, `make` does.

    The remaining time is by cost, not by number, and by the mean speed so far: runs of unequal
    lengths would have it jump up and down otherwise.
    """
    total = sum(run.cost for run in runs)
    with tqdm(total=total, desc=f"0 of {len(runs)} runs", smoothing=0, mininterval=2, miniters=0,
              bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left") as bar:
        for done, (run, found) in enumerate(work, 1):
            yield run, found
            bar.set_description_str(f"{done} of {len(runs)} runs", refresh=False)
            bar.update(run.cost)


def _tidy(folder: Path) -> None:
    """Remove what processes that were killed while writing left behind."""
    for path in folder.glob(".record-*.tmp"):
        with suppress(FileNotFoundError):  # another process was quicker
            if time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink()
