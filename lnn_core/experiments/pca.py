"""Are filters the principal modes of the images? Numbers for what Figure 1 shows.

Throughout, filters are the rows of a matrix W, shape (count, d).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import data, quantisation
from ..checks import at_least
from .records import Recorded


@dataclass(frozen=True)
class PrincipalModes(Recorded):
    """PCA of a data set's training images, the mean taken off.

    The record holds the ``count`` leading modes for
    :func:`~lnn_core.experiments.lrrn_runs.filters` (rows of length 1, largest variance first) and the
    share of the ``variance`` along each.
    """

    kind = "PrincipalModes"
    dataset: str = "mnist"
    count: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("count", self.count, 1)

    def prepare(self) -> None:
        """Load the data."""
        data.load(self.dataset, partial=True)

    def execute(self) -> dict:
        """One eigenvalue problem."""
        dataset = data.load(self.dataset, partial=True)
        x = dataset.train.x - dataset.train.x.mean(0)
        values, vectors = torch.linalg.eigh((x.T @ x).double())
        share = (values / values.sum()).flip(0)[:self.count]
        return {"filters": quantisation.to_json(vectors.T.flip(0)[:self.count]), "variance": share.tolist(),
                "data": {"source": dataset.source, "notice": dataset.notice}}


def overlap(W: Tensor, V: Tensor) -> float:
    """How much of the space of W's rows lies in that of V's, 0…1.

    ‖QᵀU‖²_F / rank(W) with orthonormal bases Q and U: the mean squared cosine of the angles
    between the two spaces. 1 if V's contains W's; about rank(V)/d for random ones.
    """
    Q, U = (_basis(rows) for rows in (W, V))
    return float((Q.T @ U).square().sum() / Q.shape[1])


def alignment(W: Tensor, V: Tensor) -> float:
    """The mean, over rows of W, of cos² of the angle to the row of V that is closest, 0…1."""
    W, V = (torch.nn.functional.normalize(rows.double()) for rows in (W, V))
    return float((W @ V.T).square().amax(1).mean())


def _basis(rows: Tensor) -> Tensor:
    """Orthonormal columns that span the rows, (d, rank)."""
    _, s, Vh = torch.linalg.svd(rows.double(), full_matrices=False)
    return Vh[s > 1e-3 * s[0]].T  # records round to a byte
