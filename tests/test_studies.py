"""The lists of runs: what the pages claim to compare is what they compare."""

from dataclasses import asdict

import pytest

from lnn_core.experiments import studies
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
