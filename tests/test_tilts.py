"""Random tilts, against the distributions they are drawn from."""

import math

import pytest
import torch
from scipy.stats import kstest
from strategies import random_inputs, random_network

import lnn_core as lnn


@pytest.mark.parametrize("sd", [1 / 16, 1 / 4])
def test_gaussian_tilt(sd):
    """If it fails, g is not N(0, sd²), or 1/16 is read as the variance."""
    net = lnn.LiftedNetwork([2, 4000, 3000])
    g = lnn.GaussianTilt(sd, generator=torch.Generator().manual_seed(0))(net, lnn.LeastSquares()).g
    assert [tuple(entry.shape) for entry in g] == [(4000,), (3000,)]
    for entry in g:
        assert kstest(entry.numpy() / sd, "norm").pvalue > 1e-3


def test_dropout_tilt_switches_units_off():
    """If it fails, units with g = M are not zero at the minimum, or too many or few have it."""
    net = lnn.LiftedNetwork([2, 4000, 3000], generator=torch.Generator().manual_seed(1))
    tilt = lnn.DropoutTilt(0.3, generator=torch.Generator().manual_seed(0))
    hidden, output = tilt(net, lnn.FenchelYoung()).g
    assert output is None and set(hidden.tolist()) == {0.0, 100.0}
    assert (hidden > 0).float().mean().item() == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / 4000))
    z, _ = lnn.infer(net, torch.ones(1, 2), lnn.Tilted([hidden, None]) + lnn.Loss())
    assert (z[1][0, hidden > 0] == 0).all() and (z[1][0, hidden == 0] > 0).any()


@pytest.mark.parametrize("kind", [lnn.GaussianTilt, lnn.DropoutTilt])
def test_tilts_follow_their_generator_and_the_networks_dtype(kind):
    """If it fails, equal seeds tilt differently, or float64 networks refuse a tilt."""
    net = random_network(8, [4, 6, 3], scale=0.7)
    x, y = random_inputs(8, net)
    values, state = [], torch.get_rng_state()
    for seed in (0, 0, 1):
        tilt = kind(0.1, generator=torch.Generator().manual_seed(seed))
        assert tilt(net, lnn.FenchelYoung()).g[0].dtype == torch.float64
        values.append(lnn.TargetedAROVR(1.0, 0.2, lnn.untargeted, tilt=tilt)(net, x, y).item())
    assert values[0] == values[1] != values[2]
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(("tilt", "settings"), [
    (lnn.GaussianTilt, {"sd": 0.0}), (lnn.GaussianTilt, {"sd": -1.0}),
    (lnn.DropoutTilt, {"rate": 1.0}), (lnn.DropoutTilt, {"rate": -0.1}),
    (lnn.DropoutTilt, {"M": 0.0, "rate": 0.5}),
], ids=str)
def test_bad_tilts(tilt, settings):
    """If it fails, a tilt does nothing, or all units are switched off."""
    name, value = next(iter(settings.items()))
    with pytest.raises(ValueError, match=f"{name}={value} must be"):
        tilt(**settings)
