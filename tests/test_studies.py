"""The lists of runs: what the pages claim to compare is what they compare."""

import re
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import pytest

from lnn_core.experiments import lrrn_studies, studies
from lnn_core.experiments.tables import PAPER_TABLE_1


def changed(run, base):
    """The names of the settings in which two runs differ."""
    one, other = asdict(run), asdict(base)
    return {name for name in one if one[name] != other[name]}


def test_table_1_has_every_cell_of_the_paper():
    """If it fails, a row of the published table has no counterpart, seeds are not paired, or
    pretrained methods lack the back-propagation that went on as long as they did."""
    cells = {}
    for run in studies.table1():
        cells.setdefault((run.dataset, run.method, run.pretraining > 0), []).append(run.seed)
    assert set(cells) - set(PAPER_TABLE_1) == {(name, "backprop", True) for name in studies.DATASETS}
    assert set(PAPER_TABLE_1) <= set(cells)
    assert all(sorted(seeds) == list(studies.SEEDS) for seeds in cells.values())
    assert len({run.key for run in studies.table1()}) == len(studies.table1())


def test_table_1_differs_by_method_alone():
    """If it fails, a method wins because it trained for longer or on more images."""
    base = next(run for run in studies.table1() if run.method == "arovr")
    for run in studies.table1():
        assert changed(run, base) <= {"dataset", "seed", "method", "pretraining", "beta", "alpha",
                                      "tilt_sd", "solver"}
        assert run.beta in (None, 0.25) and run.alpha in (None, 0.49) and run.samples == 5000


def test_figure_1_varies_beta_alone():
    """If it fails, curves of one panel differ in more than β."""
    runs = studies.figure1("mnist", 5000, seeds=[3])
    assert [run.beta for run in runs] == [None, *studies.BETAS]
    assert all(changed(run, runs[1]) <= {"method", "beta", "solver"} for run in runs)
    literal = studies.figure1("mnist", 5000, studies.PAIRED, "paper", seeds=[3])
    assert {run.solver for run in literal[1:]} == {"paper"} and literal[0] == runs[0]
    assert set(studies.PAIRED) <= set(studies.BETAS) and max(studies.NEAR) < 1


@pytest.mark.parametrize("one", studies.sensitivity() + studies.ablation() + studies.handover(),
                         ids=lambda one: f"{one.choice} {one.value} {one.run.method}")
def test_variations_change_one_thing(one):
    """If it fails, a difference is put down to the wrong choice, or the base is not Table 1's."""
    assert len(changed(one.run, one.base)) == 1
    table = {run.key for run in studies.table1()}
    assert set(one.seeds) <= set(studies.SEEDS)
    for varied, base in one.runs():
        assert changed(varied, base) == changed(one.run, one.base)
        assert base.key in table and varied.key not in table


#: The setting that each choice is about.
SETTINGS = {"batch": "batch", "initial weights": "init", "images": "standardise", "N(0, 1/16)": "tilt_sd",
            "tilt": "tilt_output", "solver": "solver", "β": "beta", "α": "alpha", "γ": "gamma",
            "pretraining": "pretraining", "unbounded samples": "omit_unbounded", "gradients": "clip"}


@pytest.mark.parametrize("one", studies.sensitivity() + studies.ablation() + studies.handover(),
                         ids=lambda one: f"{one.choice} {one.value} {one.run.method}")
def test_variations_are_called_what_they_are(one):
    """If it fails, a row of a page has the name of another choice, or another number than it ran with."""
    setting = SETTINGS[one.choice]
    assert changed(one.run, one.base) == {setting}
    if one.choice in ("batch", "β", "α", "pretraining", "gradients"):
        number, = re.findall(r"\d[\d./]*", one.value)
        assert float(Fraction(number)) == getattr(one.run, setting)
    if one.choice == "γ":
        gamma = one.run.gamma
        assert list(gamma) == sorted(gamma, reverse=one.value == "decreasing") and gamma[-1] == 1


def test_published_records_are_of_these_lists():
    """If it fails, a list asks for runs that nobody has computed: a page would compute them for days, or
    show something else than the records behind its text."""
    published = {path.stem for path in (Path(__file__).parents[1] / "book" / "records" / "runs").iterdir()}
    lists = [studies.table1(), studies.convolutions(), lrrn_studies.figure1(), lrrn_studies.table1(),
             lrrn_studies.figure2(), lrrn_studies.pretrained(), lrrn_studies.decays(),
             *(studies.figure1(name, samples) for name in studies.DATASETS for samples in studies.ROWS),
             *(studies.figure1("fashion-mnist", n, studies.PAIRED, "paper") for n in studies.ROWS),
             *(pair for variations in (studies.sensitivity(), studies.ablation(), studies.handover())
               for one in variations for pair in one.runs())]
    assert {run.key for runs in lists for run in runs} <= published
