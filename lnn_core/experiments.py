"""Experiments: a configuration in, a record on disk out; what is there is not run again.

A :class:`Run` is all that decides a training run. Its record is one JSON file named by the
hash of the configuration, written atomically: killing a sweep at any moment loses at most
the runs in flight. Tables and figures are functions of records.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import joblib
import torch
from tqdm import tqdm

from . import __version__, data
from .inference import InferenceDiverged, Shooting, paper_sweeps
from .lipschitz import Bracket, bracket
from .losses import Targeted
from .network import LiftedNetwork
from .objectives import AROVR, ROVR, BackPropagation, Objective, TargetedAROVR
from .potentials import Reweighted
from .tilts import GaussianTilt
from .training import History, fit, stream

#: The settings that a method uses beside those that all share.
METHODS: dict[str, tuple[str, ...]] = {
    "backprop": (),
    "rovr": ("beta", "gamma", "solver"),
    "arovr": ("beta", "gamma", "solver"),
    "arovr_ab": ("beta", "gamma", "solver", "alpha"),
    "arovr_abg": ("beta", "gamma", "solver", "alpha", "tilt_sd", "tilt_output"),
}
#: Settings that may be left open.
OPTIONAL = {"gamma", "tilt_output"}
SOLVERS = {"shooting": Shooting, "paper": paper_sweeps}


@dataclass(frozen=True)
class Run:
    """The configuration of one run. Settings that its method does not use become None,
    so that runs which cannot differ have the same record.

    patience : see ``training.fit``; None trains for all ``epochs``.
    tilt_output : False tilts hidden layers only; None tilts all.
    standardise : True subtracts the mean of the training samples' values from all images and
        divides by their standard deviation; None leaves images in [0, 1].
    lipschitz : after every epoch, bracket the Lipschitz constant, with a lower bound from so
        many validation images (see ``lipschitz.bracket``).
    """

    dataset: str = "mnist"
    samples: int = 5000
    seed: int = 0
    method: str = "arovr"
    beta: float | None = 0.25
    alpha: float | None = 0.49
    tilt_sd: float | None = 1 / 16
    gamma: tuple[float, ...] | None = None
    solver: str | None = "shooting"
    hidden: tuple[int, ...] = (256, 256)
    init: str = "uniform"
    batch: int = 50
    epochs: int = 60
    pretraining: int = 0
    learning_rate: float = 2e-4
    patience: int | None = None
    tilt_output: bool | None = None
    standardise: bool | None = None
    lipschitz: int | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method={self.method!r} must be one of {', '.join(METHODS)}")
        used = METHODS[self.method]
        for name in METHODS["arovr_abg"]:  # it uses them all
            if name not in used:
                object.__setattr__(self, name, None)
        if self.solver is not None and self.solver not in SOLVERS:
            raise ValueError(f"solver={self.solver!r} must be one of {', '.join(SOLVERS)}")
        missing = [name for name in used if name not in OPTIONAL and getattr(self, name) is None]
        if missing:
            raise ValueError(f"method={self.method!r} needs a value for {', '.join(missing)}")
        self.objective()  # ValueError for settings out of bounds: now, not after pretraining

    @property
    def config(self) -> dict:
        """The settings that matter, as JSON has them: what is None is left out, so that a
        setting added later (None by default) does not rename the records of today."""
        used = {name: value for name, value in asdict(self).items() if value is not None}
        return json.loads(json.dumps(used, sort_keys=True))

    @property
    def key(self) -> str:
        """The name of the record: 16 hexadecimal digits of the configuration's SHA-256."""
        return hashlib.sha256(json.dumps(self.config).encode()).hexdigest()[:16]

    def objective(self) -> Objective:
        """The training objective, with random streams of its own."""
        if self.method == "backprop":
            return BackPropagation()
        shared = {"beta": self.beta, "solver": SOLVERS[self.solver](),
                  "potential": None if self.gamma is None else Reweighted(self.gamma)}
        if self.method in ("rovr", "arovr"):
            return {"rovr": ROVR, "arovr": AROVR}[self.method](**shared)
        tilt = None
        if self.method == "arovr_abg":
            tilt = GaussianTilt(self.tilt_sd, output=self.tilt_output is not False,
                                generator=stream(self.seed, "tilt"))
        return TargetedAROVR(self.alpha, attack=Targeted(stream(self.seed, "attack")),
                             tilt=tilt, **shared)

    def network(self, inputs: int) -> LiftedNetwork:
        """The network with this seed's initial weights."""
        return LiftedNetwork([inputs, *self.hidden, 10], init=self.init,
                             generator=stream(self.seed, "weights"))


@lru_cache(maxsize=4)
def _dataset(name: str) -> data.Dataset:
    return data.load(name)


def execute(run: Run) -> dict:
    """Train as configured and return the record, without touching the disk."""
    dataset = _dataset(run.dataset)
    splits = [dataset.subset(run.samples, run.seed), dataset.validation, dataset.test]
    if run.standardise:
        splits = data.standardised(*splits)
    net = run.network(dataset.dim)
    started = time.perf_counter()
    common = {"batch": run.batch, "learning_rate": run.learning_rate,
              "generator": stream(run.seed, "batches")}
    before = (fit(net, BackPropagation(), *splits, epochs=run.pretraining, **common)
              if run.pretraining else None)
    history, brackets, diverged = History(), [], None

    def after(_: int, so_far: History) -> None:
        nonlocal history
        history = so_far
        if run.lipschitz is not None:
            brackets.append(bracket(net, splits[1].x[:run.lipschitz]))

    try:
        fit(net, run.objective(), *splits, epochs=run.epochs, patience=run.patience,
            on_epoch=after, **common)
    except InferenceDiverged as error:  # a result like any other: the epochs before it count
        diverged = str(error)
    best = history.best_epoch if history.validation else None
    return {
        "config": run.config,
        "result": best and {"best_epoch": best, "validation": history.validation[best - 1],
                            "test": history.test[best - 1]},
        "diverged": diverged,
        "history": vars(history),
        "pretraining": None if before is None else vars(before),
        "lipschitz": {name: [getattr(one, name) for one in brackets]
                      for name in Bracket._fields} if brackets else None,
        "data": {"source": dataset.source, "notice": dataset.notice},
        "seconds": time.perf_counter() - started,
        "versions": {"lnn_core": __version__, "torch": torch.__version__,
                     "python": platform.python_version()},
        "machine": {"processor": platform.machine(), "system": platform.system(),
                    "threads": torch.get_num_threads()},
    }


def save(record: dict, path: Path) -> None:
    """Write a record atomically: readers see all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(record, file, indent=None, separators=(",", ":"), allow_nan=False)
            file.write("\n")
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load(run: Run, folder: Path) -> dict | None:
    """The record of a run, or None where there is none.

    Raises ValueError for a file that is no record of this run: it names the file, and is
    left for a person to look at rather than being overwritten.
    """
    path = Path(folder) / f"{run.key}.json"
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text())
        found = record["config"]
    except (ValueError, KeyError, TypeError) as error:  # not JSON, not text, not a record
        raise ValueError(f"{path} is damaged ({error}); delete it to run it again") from error
    if found != run.config:
        raise ValueError(f"{path} holds the record of another configuration: {found}")
    return record


def _execute_and_save(run: Run, folder: Path) -> Run:
    torch.set_num_threads(1)  # one core a run: runs are what is parallel
    save(execute(run), folder / f"{run.key}.json")
    return run


def sweep(runs: Iterable[Run], folder: Path | str, jobs: int = -1) -> list[dict]:
    """The records of all runs, in order; those that are missing are computed.

    Parameters
    ----------
    folder : where records are, one file a run.
    jobs : processes at a time (joblib's convention: −1 is one for each core).
    """
    runs, folder = list(runs), Path(folder)
    missing = list({run.key: run for run in runs if load(run, folder) is None}.values())
    if missing:
        for name in {run.dataset for run in missing}:
            _dataset(name)  # fail (or download) once, before any worker starts
        work = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(
            joblib.delayed(_execute_and_save)(run, folder) for run in missing)
        # On stderr: pages do not show it, `make` does.
        for _ in tqdm(work, total=len(missing), desc="training runs", unit="run", mininterval=2):
            pass
    return [load(run, folder) for run in runs]
