"""Filters against principal modes, and the paper's tables."""

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from lnn_core import data
from lnn_core.experiments import lrrn_paper, lrrn_runs, pca
from lnn_core.experiments.pca import PrincipalModes, alignment, overlap


def orthogonal(d, seed=0):
    return torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(seed)))[0]


def test_modes_are_those_of_scikit_learn():
    """If it fails, the mean stays in, the order is wrong or the record does not return them."""
    record = PrincipalModes("digits", 5).record()
    reference = PCA(5).fit(data.load("digits").train.x.double().numpy())
    V = lrrn_runs.filters(record).double().numpy()
    cosines = np.abs((V * reference.components_).sum(1)) / np.linalg.norm(V, axis=1)
    assert cosines.min() > 0.9999
    np.testing.assert_allclose(record["variance"], reference.explained_variance_ratio_, rtol=1e-4)


def test_a_rotated_basis_overlaps_but_is_not_aligned():
    """If it fails, the two measures cannot tell "the same space" from "the same vectors"."""
    Q = orthogonal(12)
    V, mixed = Q[:4], 3 * orthogonal(4, seed=1) @ Q[:4]
    assert math.isclose(overlap(mixed, V), 1, rel_tol=1e-5)
    assert math.isclose(alignment(-2 * V, V), 1, rel_tol=1e-5) and alignment(mixed, V) < 0.9
    assert overlap(Q[4:8], V) < 1e-9 and alignment(Q[4:8], V) < 1e-9
    half = torch.stack([Q[0], Q[5]])
    assert math.isclose(overlap(half, V), 0.5, rel_tol=1e-5)


def test_one_plane_at_an_angle():
    """If it fails, the cosine is not squared: a line at 60 degrees has cos² = 1/4."""
    V = torch.tensor([[1.0, 0.0]])
    W = torch.tensor([[math.cos(math.pi / 3), math.sin(math.pi / 3)]])
    assert math.isclose(overlap(W, V), 0.25, rel_tol=1e-5)
    assert math.isclose(alignment(W, V), 0.25, rel_tol=1e-5)


def test_the_papers_table_is_complete():
    """If it fails, a cell is missing or the transposition moves mirrored or Gaussian images."""
    rows = set(lrrn_runs.DATASETS)
    columns = rows | {"mirrored", "gaussian"}
    assert set(lrrn_paper.TABLE_1) == {(row, column) for row in rows for column in columns}
    turned = lrrn_paper.transposed(lrrn_paper.TABLE_1)
    assert turned["mnist", "fashion-mnist"] == (55.4, 30.8)
    assert turned["fashion-mnist", "gaussian"] == (65.0, 3.9)
    assert lrrn_paper.transposed(turned) == lrrn_paper.TABLE_1 != turned
    assert set(lrrn_paper.FIGURE_2) == rows


def test_the_papers_numbers_add_up():
    """If it fails, a number was changed in typing: sums by row, added from the paper by hand."""
    for row, means, deviations in (("mnist", 145.5, 30.0), ("kmnist", 270.8, 73.1),
                                   ("fashion-mnist", 177.2, 63.9)):
        cells = [value for (name, _), value in lrrn_paper.TABLE_1.items() if name == row]
        assert math.isclose(sum(mean for mean, _ in cells), means)
        assert math.isclose(sum(sd for _, sd in cells), deviations)
    sums = [sum(column) for column in zip(*lrrn_paper.FIGURE_2.values(), *lrrn_paper.FIGURE_3.values())]
    assert np.allclose(sums, [367.27, 4.9681, 1.86])


def test_preparing_loads_what_the_run_reads(monkeypatch):
    """If it fails, a worker without a network has to download in the middle of a run, or a run refuses the
    part of a training set that was prepared."""
    asked, digits = [], data.load("digits")
    monkeypatch.setattr(data, "load", lambda *args, **options: asked.append((args, options)) or digits)
    PrincipalModes("kmnist").prepare()
    assert asked == [(("kmnist",), {"partial": True})]
    PrincipalModes("kmnist").execute()
    assert asked == 2 * [(("kmnist",), {"partial": True})]


def test_each_reading_is_told_from_the_others():
    """If it fails, two readings predict the same energies, or the factor ignores a direction."""
    tables = lrrn_paper.readings()
    for name, ours in tables.items():
        fits = {other: lrrn_paper.geometric_mean_ratio(ours, table) for other, table in tables.items()}
        assert min(fits, key=fits.get) == name and fits.pop(name) == 1
        assert min(fits.values()) > 1.1  # told apart by more than 10 %
    halved, whole = (tables[f"rows are training sets, {half} ½"] for half in ("without", "with"))
    assert halved["mnist", "mnist"] == 13.7 / 2
    assert math.isclose(lrrn_paper.geometric_mean_ratio(halved, whole), 2)
    assert tables["rows are test sets, with ½"]["kmnist", "fashion-mnist"] == 26.8


def test_bad_count():
    """If it fails, a run without modes, which measures nothing, is accepted."""
    with pytest.raises(ValueError, match="count=0 must be at least 1"):
        PrincipalModes(count=0)
    assert pca.PrincipalModes().config == {"dataset": "mnist", "count": 32}
