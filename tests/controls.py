"""What the negative controls of the statements share."""

from __future__ import annotations

import torch

from lnn_core import propositions as P

#: Ten times what counts as a violation.
DELTA = 1e-6
ONE_LAYER = (((1, 1), None),)


def slack(name, toy):
    """The slack of the statement of that name, all its parts."""
    return P.CLAIMS[name].slack(toy).detach()


def toy_of(name, seed=3, **changes):
    """An instance that the statement is made for, but for some settings of ``draw``."""
    return P.draw(seed, **P.CLAIMS[name].instances | changes)


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def close(found, expected, tolerance=1e-8):
    """Asserts that all entries are as expected (an entry each, or one for all)."""
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.double(), expected.expand_as(found), rtol=0, atol=tolerance)
