"""Batches of runs that are killed, and some on a cluster that loses a worker, on tiny runs.

As a script, ``python test_scale_out.py FOLDER`` is what the test of kills starts: it imports once,
and forks the processes that it kills.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import joblib
import pytest
from tqdm import tqdm

from lnn_core.experiments import Run, tables, training
from lnn_core.experiments.records import Recorded, load, run_all

HERE = Path(__file__).parent
#: Other processes import lnn_core, and this file.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (HERE.parent, HERE))),
               "OMP_NUM_THREADS": "1"}
KILLS = 20
METHODS = {"backprop": "back-propagation", "arovr": "AROVR", "arovr_ab": "targeted"}
RUNS = [Run(dataset="digits", samples=100 + 50 * seed, epochs=2, hidden=(8,), seed=seed,
            method=method) for seed in range(4) for method in METHODS]
#: Set for a process that is to be killed: the file that says when it is in the middle of a run.
DOOMED = "LNN_TEST_DOOMED"


@dataclass(frozen=True)
class Stuck(Run):
    """A training run that does not end by itself where it is doomed."""

    kind = "Stuck"

    def execute(self):
        if DOOMED in os.environ:
            Path(os.environ[DOOMED]).touch()
            time.sleep(600)
        return super().execute()


def timeless(record):
    """A record without what differs from run to run."""
    return {name: value for name, value in record.items() if name != "seconds"}


def on_disk(folder):
    """The contents of the records that are there."""
    return {path.name: path.read_bytes() for path in folder.glob("*.json")}


# --- kills ---------------------------------------------------------------------------------------


def die_at(event):
    """Have this process killed at its so-manieth event: an epoch begins, or a record's file is
    there and empty, or complete and without its name. Counted, as no clock tells how far it is."""
    lock, left = threading.Lock(), event

    def counted(function):
        def call(*args, **options):
            nonlocal left
            with lock:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **options)

        return call

    training.train_epoch = counted(training.train_epoch)
    json.dump, os.replace = counted(json.dump), counted(os.replace)


def killed(folder, event):
    """Compute runs in a process of its own, two runs at a time, until it is through or is killed.

    In threads: processes would spend their lives importing torch. The caller writes the records
    whoever computes them.
    """
    process = os.fork()
    if process == 0:
        try:
            # tqdm's own lock is shared with this process's parent, who would wait for it for ever
            # where it is held at the moment of the kill.
            tqdm.set_lock(threading.RLock())
            die_at(event)
            with joblib.parallel_config("threading"):
                run_all(RUNS, folder, jobs=2)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code in (0, -signal.SIGKILL), f"exit code {code}"


def kill_and_resume(folder):
    """KILLS kills; where all runs were through before, the next starts with an empty folder. Prints
    how many records each kill left."""
    run_all(RUNS, folder / "serial", jobs=1)  # imports, too, what training imports late
    moments, left, now = random.Random(0), [], folder / "killed-0"
    for _ in range(KILLS):
        before = on_disk(now)
        killed(now, moments.randint(2, 12))  # of four events a run
        after = on_disk(now)
        assert before.items() <= after.items(), "a record was lost or made again"
        left.append(len(after))
        if len(after) == len(RUNS):
            now = folder / f"killed-{len(left)}"
    run_all(RUNS, now, jobs=1)
    print(json.dumps({"left": left, "dask": "distributed" in sys.modules}))


def test_killed_batches_resume(tmp_path):
    """SIGKILL, 20 times. If it fails, a record is lost, damaged, made again, or another than it
    would have been."""
    finished = subprocess.run([sys.executable, __file__, str(tmp_path)], capture_output=True,
                              text=True, env=ENVIRONMENT)
    assert finished.returncode == 0, finished.stderr
    report = json.loads(finished.stdout)
    middle = [count for count in report["left"] if 0 < count < len(RUNS)]
    assert len(report["left"]) == KILLS and len(middle) >= KILLS / 2, report["left"]
    serial, *others = sorted(tmp_path.iterdir(), key=lambda folder: folder.name != "serial")
    expected = [load(run, serial) for run in RUNS]
    table = tables.table_1(expected, "digits", METHODS)
    for folder in others:
        assert on_disk(folder).keys() == {f"{run.key}.json" for run in RUNS}
        found = [load(run, folder) for run in RUNS]
        assert list(map(timeless, found)) == list(map(timeless, expected))
        assert tables.table_1(found, "digits", METHODS) == table
    assert not report["dask"], "imported without need"


# --- processes that are left ---------------------------------------------------------------------


@dataclass(frozen=True)
class Where(Recorded):
    """Finds the process that it is in, which it also prints; an endless one then stays there for
    longer than any test, and says so."""

    kind = "Where"
    number: int
    endless: bool = False

    def execute(self):
        os.write(1, f"{os.getpid()}\n".encode())  # in one piece: print may write the end of a line apart
        if self.endless:
            time.sleep(600)
            os.write(1, b"survived\n")
        return {"process": os.getpid()}


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_its_parent(tmp_path, kill):
    """A batch that is killed in the middle of two runs. If it fails, its workers go on computing
    what nobody will write, or keep their memory for minutes."""
    script = """if True:
        import signal, sys
        from test_scale_out import Where, run_all
        signal.signal(signal.SIGINT, signal.default_int_handler)  # shells' background jobs are deaf
        run_all([Where(number, endless=True) for number in range(3)], sys.argv[1], jobs=2)
        """
    computing = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    with computing:
        workers = {int(computing.stdout.readline()) for _ in range(2)}
        assert len(workers) == 2 and computing.pid not in workers
        computing.send_signal(kill)
        rest = computing.stdout.read()  # until the last of the processes has closed it
    assert rest == "" and computing.returncode in (-kill, 1)


def test_no_worker_is_left_after_run_all(tmp_path):
    """If it fails, a notebook that computes runs goes on with several processes' memory in use."""
    found = run_all([Where(number) for number in range(4)], tmp_path, jobs=2)
    workers = {record["process"] for record in found}
    assert os.getpid() not in workers
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


@pytest.mark.filterwarnings("ignore:.*tasks which were still being processed:UserWarning")
def test_a_batch_that_breaks_off_waits_for_nothing(tmp_path, monkeypatch, capfd):
    """Ctrl-C while a record is written and another run goes on. If it fails, it stops only
    when all its runs are through (here: after ten minutes)."""
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("lnn_core.experiments.records.parallel.save", stop)
    with pytest.raises(KeyboardInterrupt):
        run_all([Where(0), Where(1, endless=True)], tmp_path, jobs=2)
    assert not list(tmp_path.iterdir()) and "survived" not in capfd.readouterr().out


# --- a cluster -----------------------------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path):
    """A scheduler's address, and its two workers by name: processes of this machine."""
    file = tmp_path / "scheduler.json"
    with ExitStack() as stack:
        def run(name, *arguments, **more):
            log = stack.enter_context((tmp_path / f"{name}.log").open("w"))
            process = stack.enter_context(subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments, "--host", "127.0.0.1",
                 "--no-dashboard", "--scheduler-file", str(file)],
                env={**ENVIRONMENT, **more}, cwd=tmp_path, stdout=log, stderr=log))
            stack.callback(process.kill)
            return process

        scheduler = run("scheduler", "scheduler", "--port", "0")
        patiently(file.exists, scheduler)
        address = patiently(lambda: json.loads(file.read_text() or "{}").get("address"), scheduler)
        arguments = "worker", "--nthreads", "1", "--no-nanny", "--name"
        workers = {"doomed": run("doomed", *arguments, "doomed", **{DOOMED: str(tmp_path / "busy")}),
                   "other": run("other", *arguments, "other")}
        with connect(address) as client:
            patiently(lambda: len(client.scheduler_info()["workers"]) == 2, *workers.values())
        yield address, workers


def patiently(ask, *processes):
    """The answer, as soon as there is one: however long it takes, while the processes live."""
    while not (answer := ask()):
        assert all(process.poll() is None for process in processes), "a process has ended"
        time.sleep(0.05)
    return answer


def connect(address):
    """A client; imported here, so that the script above can tell whether run_all imports it, too."""
    from distributed import Client

    return Client(address, set_as_default=False)


def test_worker_that_dies_loses_nothing(cluster, tmp_path):
    """Two workers, one killed in the middle of a run. If it fails, a run is missing, or those that
    were computed elsewhere are not the same."""
    address, workers = cluster
    folder, busy = tmp_path / "records", tmp_path / "busy"
    runs = [Stuck(**asdict(run)) for run in RUNS]
    with ThreadPoolExecutor(1) as pool:
        computing = pool.submit(run_all, runs, folder, scheduler=address)
        patiently(lambda: busy.exists() or computing.done(), *workers.values())
        workers["doomed"].kill()
        found = computing.result()
    assert busy.exists(), "killed when it had nothing to do"
    assert workers["doomed"].wait() == -signal.SIGKILL and workers["other"].poll() is None
    assert len(on_disk(folder)) == len(runs)
    assert list(map(timeless, found)) == list(map(timeless, run_all(runs, tmp_path / "serial", 1)))


def test_a_run_that_fails_on_a_worker_stops_no_other(cluster, tmp_path):
    """If it fails, one bad run ends a cluster's batch: of 5,000 digits there are too few."""
    bad, *good = runs = [replace(RUNS[0], samples=5000), *RUNS[:2]]
    with pytest.raises(RuntimeError, match="1 of 3 runs failed") as error:
        run_all(runs, tmp_path / "records", scheduler=cluster[0])
    assert f"{bad}: ValueError: n=5000 must lie between" in str(error.value)
    assert on_disk(tmp_path / "records").keys() == {f"{run.key}.json" for run in good}


if __name__ == "__main__":
    kill_and_resume(Path(sys.argv[1]))
