"""What users rely on without naming it: values that signatures fill in, and objects that stay as they are."""

import dataclasses
import importlib
import inspect
import pkgutil

import lnn_core as lnn

EITHER = ("mnist", "fashion-mnist")
RUN = {"dataset": "mnist", "seed": 0}
LRRN_RUN = RUN | {"batch": 100, "epochs": 15, "learning_rate": 1e-3, "init": "normal"}
#: "module.name": numbers, words and tuples by parameter. Many are the papers' settings, and all
#: published records and pages were computed with them.
DEFAULTS = {
    "bounds.stability_threshold": {"curvature": 1.0},
    "constrained.ConstrainedAROVR": {"steps": 32},
    "convex.Box": {"lower": 0.0, "upper": 1.0},
    "convex.Box.prox": {"q": 0.0},
    "convex.ConvexFunction.prox": {"q": 0.0},
    "connections.Connection": {"tensors": ()},
    "convex.LeakyReLU": {"slope": 0.01},
    "convex.LeakyReLU.prox": {"q": 0.0},
    "smooth.Sigmoid.prox": {"q": 0.0},
    "smooth.Softplus.prox": {"q": 0.0},
    "smooth.Tanh.prox": {"q": 0.0},
    "data.Dataset.subset": {"part": "train"},
    "data.cifar.load": {"colour": True},
    "data.idx.check_sha256": {"of": ""},
    "data.load": {"fallback": False, "partial": False},
    "data.one_hot": {"classes": 10},
    "data.published.Source": {"validation": 10_000, "partial_validation": 1_000},
    "experiments.attacks.greatest_loss": {"bounds": (0.0, 1.0), "steps": 7, "step": 0.4},
    "experiments.attacks.minimal_perturbations": {"bounds": (0.0, 1.0), "bisections": 10},
    "experiments.datasets.dataset_of": {"partial": False},
    "experiments.internal.InternalRobustness": RUN | {
        "method": "arovr", "beta": 0.25, "alpha": 0.49, "tilt_sd": 1 / 16, "samples": 5000,
        "hidden": (256, 256), "batch": 50, "epochs": 300, "patience": 30, "learning_rate": 2e-4,
        "images": 500, "level": 0.05},
    "experiments.internal.disturbed_accuracy": {"draws": 4},
    "experiments.internal.jointly": {"rivals": 3, "steps": 14},
    "experiments.lrrn_runs.Classification": LRRN_RUN | {
        "hidden": (64, 64), "decay": 0.005, "attacked": 200},
    "experiments.lrrn_runs.Reconstruction": LRRN_RUN | {"activation": "relu", "hidden": (32, 32)},
    "experiments.lrrn_runs.Training": LRRN_RUN,
    "experiments.lrrn_studies.decays": {"dataset": "mnist", "seeds": (0,)},
    "experiments.pca.PrincipalModes": {"dataset": "mnist", "count": 32},
    "experiments.records.repeating.disagreements": {"factor": 1.0},
    "experiments.records.repeating.repeat": {"factor": 1.0},
    "experiments.records.parallel.run_all": {"jobs": -1},
    "experiments.robustness.Robustness": RUN | {
        "method": "arovr", "beta": 0.25, "alpha": 0.49, "samples": 50000, "hidden": (64, 64),
        "epochs": 15, "batch": 100, "learning_rate": 1e-3, "init": "uniform", "attacked": 200},
    "experiments.robustness.by_training_and_construction": {"datasets": EITHER},
    "experiments.runs.Run": RUN | {
        "samples": 5000, "method": "arovr", "beta": 0.25, "alpha": 0.49, "tilt_sd": 1 / 16,
        "solver": "shooting", "hidden": (256, 256), "init": "uniform", "batch": 50, "epochs": 60,
        "pretraining": 0, "learning_rate": 2e-4},
    "experiments.meta.LearnedGamma": {"every": 10, "rate": 0.05, "learning_rate": 0.05},
    "experiments.studies.few_images": {"datasets": ("mnist", "fashion-mnist")},
    "experiments.studies.few_images_in_all": {"datasets": ("mnist", "fashion-mnist")},
    "experiments.studies.ablation": {"datasets": EITHER},
    "experiments.studies.convolutions": {"betas": (0.25,)},
    "experiments.studies.figure1": {"betas": (1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2), "solver": "shooting"},
    "experiments.studies.handover": {"dataset": "fashion-mnist", "pretraining": 60},
    "experiments.studies.inside": {"datasets": EITHER},
    "experiments.studies.sensitivity": {"dataset": "mnist"},
    "experiments.studies.table1": {"datasets": EITHER, "pretraining": 60},
    "experiments.training.fit": {"batch": 50, "learning_rate": 2e-4, "omit_unbounded": False, "curves": True},
    "experiments.training.train_epoch": {"omit_unbounded": False},
    "generalized.GeneralizedAROVR": {"weight": 1.0},
    "inference.shooting.Shooting": {
        "tolerance": 1e-3, "max_passes": 50, "every": False, "compiled": False},
    "inference.compiled.Kernels": {"most": 64},
    "inference.iterate.Report": {"settled": False},
    "inference.passes.descends": {"sufficient": 0.0},
    "inference.sweeps.PaperSweeps": {"passes": 20, "tolerance": 1e-3},
    "inference.sweeps.sweep": {"step": 1.0},
    "lipschitz.bracket": {"steps": 4},
    "lipschitz.lower": {"steps": 4},
    "losses.CrossEntropy": {"label_smoothing": 0.0},
    "losses.Loss": {"terms": (), "lse": 0.0},
    "lrrn.bounds.gain": {"m": 0.0},
    "lrrn.bounds.lipschitz": {"refined": False},
    "lrrn.boxqp.CoordinateDescent": {"tolerance": 1e-3, "max_passes": 1000},
    "lrrn.boxqp.SpectralDescent": {"tolerance": 1e-3, "max_passes": 1000, "check_every": 4},
    "propositions.lrrn_equivalence.scales_are_not_enough": {"gamma": 0.5, "first": 1.0},
    "lrrn.layers.RRLayer": {"beta": 1.0},
    "lrrn.layers.feed_forward": {"beta": 1.0},
    "lrrn.model.LRRN": {"gamma": 1.0, "bias": True, "init": "uniform"},
    "lrrn.model.LRRN.reset_parameters": {"init": "uniform"},
    "lrrn.objectives.EnergyLoss.__call__": {"reduction": "mean"},
    "network.LiftedNetwork": {"bias": True, "init": "uniform"},
    "network.LiftedNetwork.reset_parameters": {"init": "uniform"},
    "network.LiftedNetwork.train": {"mode": True},
    "objectives.Objective.__call__": {"reduction": "mean"},
    "potentials.FenchelYoung.prox": {"q": 0.0},
    "potentials.LeastSquares.prox": {"q": 0.0},
    "potentials.Potential.prox": {"q": 0.0},
    "potentials.Reweighted.prox": {"q": 0.0},
    "potentials.Tilted.prox": {"q": 0.0},
    "propositions.borders.finite_by_every_k_and_infinite": {"beta": 0.5},
    "propositions.borders.infinite_by_k_and_finite": {"beta": 0.25},
    "propositions.borders.least_quotient": {"directions": 4000},
    "propositions.counterexamples.unit_chain": {"sizes": (1, 1, 1)},
    "propositions.lrrn.claim": {"limit": 1e-8},
    "propositions.regions.attacked": {"fractions": (0.2, 0.5, 0.9)},
    "propositions.registry.Claim.row": {"seed": 0},
    "propositions.registry.table": {"instances": 50, "seed": 0},
    "style.MethodStyle": {"line": "-"},
    "tilts.DropoutTilt": {"M": 100.0, "output": False},
    "tilts.Tilt": {"output": True},
}
#: For the library's own use, or the explorables', which have tests of their own.
INTERNAL = ("checks.", "kinds.", "potentials.checked_", "propositions.lrrn_toys.", "propositions.toys.",
            "widgets.")


def public():
    """(name, object) of the functions and classes, each where it is defined."""
    for info in pkgutil.walk_packages(lnn.__path__, "lnn_core."):
        if info.name == "lnn_core.experiments.records.__main__":
            continue
        for name, found in vars(importlib.import_module(info.name)).items():
            full = f"{info.name}.{name}".removeprefix("lnn_core.")
            if (getattr(found, "__module__", None) == info.name and not name.startswith("_")
                    and not full.startswith(INTERNAL)):
                yield full, found


def calls(name, found):
    """(name, function) of what can be called: a function, or a class and its methods."""
    if inspect.isfunction(found):
        yield name, found
    elif inspect.isclass(found):
        for method, function in vars(found).items():
            if inspect.isfunction(function) and (not method.startswith("_") or method == "__call__"):
                yield f"{name}.{method}", function
            elif method == "__init__":
                yield name, function


def test_defaults():
    """If it fails, calls that leave a value out compute something else than they did."""
    found = {name: {parameter.name: parameter.default
                    for parameter in inspect.signature(function).parameters.values()
                    if isinstance(parameter.default, (int, float, str, tuple))}
             for item in public() for name, function in calls(*item)}
    found = {name: values for name, values in found.items() if values}
    assert found == DEFAULTS
    kinds = [{name: [type(v) for v in values.values()] for name, values in table.items()}
             for table in (found, {name: DEFAULTS[name] for name in found})]
    assert kinds[0] == kinds[1], "True for 1, or 1 for 1.0"


def test_values_stay_as_they_are():
    """If it fails, settings, points or results can be changed after they were checked or hashed."""
    mutable = {name for name, found in public() if dataclasses.is_dataclass(found)
               and not found.__dataclass_params__.frozen}
    assert mutable == {"experiments.training.History"}  # grows by an epoch at a time
