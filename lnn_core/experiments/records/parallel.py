"""Many runs, those without a record only, spread over processes or over a cluster."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import torch

from ...extras import extra

with extra("experiments"):
    import joblib
    from joblib.externals.loky import get_reusable_executor
    from tqdm import tqdm

from .files import claim, save
from .recorded import Recorded, load

#: Seconds after which an unfinished file is a killed process's: writing takes milliseconds.
ABANDONED = 3600


def run_all(runs: Iterable[Recorded], folder: Path | str, jobs: int = -1,
            scheduler: str | None = None) -> list[dict]:
    """The records of all runs, in order; those that are missing are computed.

    Every record is written by this process as soon as it arrives, wherever it was computed:
    workers need not see the folder. Killing this process, or all, loses the runs in flight.

    Args:
        runs: configurations; equal ones are computed once.
        folder: where records are, one file per run.
        jobs: processes at a time (joblib's convention: −1 is one for each core).
        scheduler: the address of a Dask cluster's scheduler, such as "tcp://10.0.0.1:8786", whose
            workers take the place of local processes, in whatever number there are; the lnn_core
            they have is what is run. The runs of a worker that dies go to another. Needs the
            package ``distributed``. (Where a local process dies, this ends with joblib's error;
            another call does the rest.)

    Raises:
        ValueError: a file in the folder is not a record of its run; before anything is computed.
        OSError: the folder cannot be written to; before anything is computed.
        RuntimeError: names runs that failed, whose findings JSON cannot hold, such as a NaN, or
            whose record could not be written, and records that were there and are gone. It does
            not stop the others: it comes once they are done and kept.
    """
    runs, folder = list(runs), Path(folder)
    missing = list({run.key: run for run in runs if load(run, folder) is None}.values())
    failed: list[tuple[Recorded, str]] = []
    if missing:
        claim(folder)
        _tidy(folder)
        if scheduler is None:  # a cluster's workers have their own data
            for run in missing:
                run.prepare()  # fail (or download) once, before any worker starts
        with _threads_restored(), _processes(jobs, scheduler):
            # A run at a time: a batch would come back, and be written, only when all of it is
            # done. Dispatched at once: workers that join later find something to do.
            results = joblib.Parallel(n_jobs=-1 if scheduler else jobs, batch_size=1,
                                      pre_dispatch="all", return_as="generator_unordered",
                                      initializer=_end_with, initargs=(os.getpid(),))(
                joblib.delayed(_record)(run) for run in missing)
            with closing(results) as work:  # where it breaks off, no more is computed
                for run, found in _with_progress(work, missing):
                    failure = found if isinstance(found, str) else _keep(run, found, folder)
                    if failure:
                        failed.append((run, failure))
    if failed:
        raise RuntimeError(
            f"{len(failed)} of {len(missing)} runs failed; the records of the others are kept. The "
            f"first to fail, where it ran:\n{failed[0][1]}\nAll that failed:\n"
            + "\n".join(f"{run}: {text.splitlines()[-1]}" for run, text in failed))
    records = [load(run, folder) for run in runs]
    lost = [str(run) for run, record in zip(runs, records) if record is None]
    if lost:
        raise RuntimeError(f"{folder} has lost {len(lost)} of {len(runs)} records in the "
                           "meantime:\n" + "\n".join(lost))
    return records


def _record(run: Recorded) -> tuple[Recorded, dict | str]:
    """A run and its record or, where it fails, the traceback: not every exception can be sent
    from one process to another, and one that cannot takes the runs in flight with it."""
    torch.set_num_threads(1)  # one core per run: runs are what is parallel
    try:
        return run, run.record()
    except Exception:
        return run, traceback.format_exc()


def _keep(run: Recorded, record: dict, folder: Path) -> str | None:
    """Write a record; why it could not be written, such as a full disk."""
    try:
        save(record, folder / f"{run.key}.json")
    except OSError:
        return traceback.format_exc()
    return None


def _tidy(folder: Path) -> None:
    """Remove what processes that were killed while writing left behind."""
    for path in folder.glob(".record-*.tmp"):
        with suppress(FileNotFoundError):  # another process was quicker
            if time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink()


def _end_with(parent: int) -> None:
    """End this worker process as soon as the process that started it does, however that ended: nobody
    is left to take its results. Where the system does not tell of a parent's end (Windows), an
    idle worker ends after joblib's five minutes.

    Asking once per second, rather than Linux's PR_SET_PDEATHSIG: that signal comes when the
    *thread* that started the worker ends.
    """
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _threads_restored() -> Iterator[None]:
    """With jobs=1 this process computes the runs, and goes on with as many threads as it had."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _processes(jobs: int, scheduler: str | None) -> Iterator[None]:
    """Within it, joblib computes where it was asked to; after it, no process of ours is left:
    joblib would keep its workers, and their memory, for minutes."""
    if scheduler is not None:
        with _cluster(scheduler):
            yield
        return
    kill_workers = True
    try:
        yield
        kill_workers = False  # they have nothing to do
    finally:
        if jobs != 1:
            get_reusable_executor(reuse=True).shutdown(kill_workers=kill_workers)


@contextmanager
def _cluster(scheduler: str) -> Iterator[None]:
    """Within it, joblib computes on the cluster.

    Through joblib rather than Dask's own futures: where the scheduler dies, joblib raises,
    while ``distributed.as_completed`` ends as if all were done.
    """
    with extra("experiments"):
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
