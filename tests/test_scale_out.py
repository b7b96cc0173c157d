"""Sweeps that are killed, and sweeps on a cluster that loses a worker, on tiny runs.

As a script, ``python test_scale_out.py FOLDER`` is what the test of kills starts: it imports once,
and forks the sweeps that it kills.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import joblib
import pytest

from lnn_core import tables
from lnn_core.experiments import Run
from lnn_core.records import load, sweep

ROOT = Path(__file__).parents[1]
KILLS = 20
METHODS = {"backprop": "back-propagation", "arovr": "AROVR", "arovr_ab": "targeted"}
#: One after the other ever longer, so that moments are in runs and between them.
RUNS = [Run(dataset="digits", samples=100 + 50 * seed, epochs=2, hidden=(8,), seed=seed,
            method=method) for seed in range(4) for method in METHODS]
LONGER = [Run(dataset="digits", samples=1000, epochs=6, hidden=(32,), seed=seed)
          for seed in range(6)]


def timeless(record):
    """A record without what differs from run to run."""
    return {name: value for name, value in record.items() if name != "seconds"}


def on_disk(folder):
    """The contents of the records that are there."""
    return {path.name: path.read_bytes() for path in folder.glob("*.json")}


# --- kills ---------------------------------------------------------------------------------------


def start(folder):
    """Sweep in a process of its own, two runs at a time; its id.

    In threads: processes would spend their lives importing torch. The caller writes the records
    whoever computes them.
    """
    process = os.fork()
    if process == 0:
        try:
            with joblib.parallel_config("threading"):
                sweep(RUNS, folder, jobs=2)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return process


def kill(folder, moments, longest):
    """Start a sweep and kill it, some records later and somewhere in the next runs."""
    process, enough = start(folder), len(on_disk(folder)) + moments.randrange(3)
    while len(on_disk(folder)) < min(enough, len(RUNS)):
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break  # with an error
        time.sleep(0.002)
    time.sleep(moments.random() * longest)
    os.kill(process, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code in (0, -signal.SIGKILL), f"exit code {code}"


def kill_and_resume(folder):
    """KILLS kills; where a sweep was through before, the next starts with an empty folder. Prints
    how many records each kill left."""
    serial = sweep(RUNS, folder / "serial", jobs=1)  # imports, too, what training imports late
    longest, moments = max(record["seconds"] for record in serial[1:]), random.Random(0)
    left, now = [], folder / "killed-0"
    for _ in range(KILLS):
        before = on_disk(now)
        kill(now, moments, longest)
        after = on_disk(now)
        assert before.items() <= after.items(), "a record was lost or made again"
        left.append(len(after))
        if len(after) == len(RUNS):
            now = folder / f"killed-{len(left)}"
    sweep(RUNS, now, jobs=2)
    print(json.dumps({"left": left, "dask": "distributed" in sys.modules}))


def test_killed_sweeps_resume(tmp_path):
    """SIGKILL, 20 times. If it fails, a record is lost, damaged, made again, or another than it
    would have been."""
    finished = subprocess.run(
        [sys.executable, __file__, str(tmp_path)], capture_output=True, text=True, timeout=600,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    assert finished.returncode == 0, finished.stderr
    report = json.loads(finished.stdout)
    middle = [count for count in report["left"] if 0 < count < len(RUNS)]
    assert len(report["left"]) == KILLS and len(middle) >= KILLS / 2, "killed too early or late"
    serial, *others = sorted(tmp_path.iterdir(), key=lambda folder: folder.name != "serial")
    expected = [load(run, serial) for run in RUNS]
    table = tables.table_1(expected, "digits", METHODS)
    for folder in others:
        assert on_disk(folder).keys() == {f"{run.key}.json" for run in RUNS}
        found = [load(run, folder) for run in RUNS]
        assert list(map(timeless, found)) == list(map(timeless, expected))
        assert tables.table_1(found, "digits", METHODS) == table
    assert not report["dask"], "imported without need"


# --- a cluster -----------------------------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path):
    """A scheduler's address, and its two workers by name: processes of this machine."""
    file = tmp_path / "scheduler.json"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with ExitStack() as stack:
        def run(name, *arguments):
            log = stack.enter_context((tmp_path / f"{name}.log").open("w"))
            process = stack.enter_context(subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments, "--host", "127.0.0.1",
                 "--no-dashboard", "--scheduler-file", str(file)],
                env=environment, cwd=tmp_path, stdout=log, stderr=log))
            stack.callback(process.kill)
            return process

        run("scheduler", "scheduler", "--port", "0")
        workers = {name: run(name, "worker", "--name", name, "--nthreads", "1", "--no-nanny",
                             "--death-timeout", "300") for name in ("first", "second")}
        yield json.loads(patiently(lambda: file.exists() and file.read_text()))["address"], workers


def patiently(ask):
    """The answer, as soon as there is one."""
    for _ in range(6000):
        if answer := ask():
            return answer
        time.sleep(0.05)
    raise TimeoutError("nothing for five minutes")


def connect(address):
    """A client; imported here, so that the script above can tell whether sweeps import it, too."""
    from distributed import Client

    return Client(address, set_as_default=False)


def kill_while_busy(address, workers, folder):
    """Once there is a record, kill the first worker while it has work; what it had."""
    with connect(address) as client:
        info = client.scheduler_info()["workers"]
        victim, = (where for where, about in info.items() if about["name"] == "first")
        patiently(lambda: on_disk(folder))
        had = patiently(lambda: client.processing()[victim])
        workers["first"].kill()
        return had


def test_worker_that_dies_loses_nothing(cluster, tmp_path):
    """Two workers, one killed in the middle of a run. If it fails, a run is missing, or those that
    were computed elsewhere are not the same."""
    address, workers = cluster
    with connect(address) as client:
        client.wait_for_workers(2, timeout=300)
    folder = tmp_path / "records"
    with ThreadPoolExecutor(1) as pool:
        had = pool.submit(kill_while_busy, address, workers, folder)
        found = sweep(LONGER, folder, scheduler=address)
        assert had.result(), "killed when it had nothing to do"
    assert workers["first"].wait() == -signal.SIGKILL and workers["second"].poll() is None
    assert list(on_disk(folder)) and len(on_disk(folder)) == len(LONGER)
    assert list(map(timeless, found)) == list(map(timeless, sweep(LONGER, tmp_path / "serial", 1)))


def test_a_run_that_fails_on_a_worker_stops_no_other(cluster, tmp_path):
    """If it fails, one bad run ends a cluster's sweep: of 5,000 digits there are too few."""
    bad, *good = runs = [replace(RUNS[0], samples=5000), *RUNS[:2]]
    with pytest.raises(RuntimeError, match="1 of 3 runs failed") as error:
        sweep(runs, tmp_path / "records", scheduler=cluster[0])
    assert f"{bad}: ValueError: n=5000 must lie between" in str(error.value)
    assert on_disk(tmp_path / "records").keys() == {f"{run.key}.json" for run in good}


if __name__ == "__main__":
    kill_and_resume(Path(sys.argv[1]))
