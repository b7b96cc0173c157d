"""Random small networks for Hypothesis: chains and graphs, every activation, float64."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

import lnn_core as lnn

FUNCTIONS = [lnn.Identity(), lnn.ReLU(), lnn.Box(0, 1), lnn.Box(-0.5, 2), lnn.Tanh()]
#: Those that the exhaustive oracle, which goes through quadratic pieces, does not know.
SMOOTH_OR_LEAKY = [lnn.Sigmoid(), lnn.Softplus(), lnn.LeakyReLU(0.2)]
POTENTIALS = [lnn.FenchelYoung(), lnn.LeastSquares()]
seeds = st.integers(0, 2**32 - 1)


def random_network(seed, sizes, activation=None, output=None, edges=None, scale=1.0,
                   dtype=torch.float64):
    """A network with weights N(0, scale²/fan_in) and biases that are not zero."""
    generator = torch.Generator().manual_seed(seed)
    net = lnn.LiftedNetwork(sizes, activation, output, edges=edges, init="normal",
                            generator=generator, dtype=dtype)
    with torch.no_grad():
        for weight in net.weights:
            weight.mul_(scale)
        for bias in net.biases:
            bias.normal_(0.0, 0.5, generator=generator)
    return net


def random_inputs(seed, net, samples=3):
    """x and targets y for a network, both N(0, 1)."""
    generator = torch.Generator().manual_seed(seed + 1)
    dtype = net.weights[0].dtype
    return (torch.randn(samples, net.sizes[0], generator=generator, dtype=dtype),
            torch.randn(samples, net.sizes[-1], generator=generator, dtype=dtype))


def gammas(net, seed=0, units=False):
    """Random positive weights, one per layer or one per unit."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [(size,) if units else () for size in net.sizes[1:]]
    drawn = [0.3 + 2 * torch.rand(size, generator=generator, dtype=torch.float64) for size in sizes]
    return drawn if units else [entry.item() for entry in drawn]


def tilts(net, seed=0):
    """A push on every other layer, the first one included."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator, dtype=torch.float64) if k % 2 else None
            for k, size in enumerate(net.sizes[1:], 1)]


@st.composite
def networks(draw, outputs=(lnn.Identity(),), max_depth=4, scales=(0.3, 1.2)):
    """Depth 1 to ``max_depth``, up to 4 units per layer, skip connections in half of them."""
    depth = draw(st.integers(1, max_depth))
    sizes = draw(st.lists(st.integers(1, 4), min_size=depth + 1, max_size=depth + 1))
    activation = draw(st.lists(st.sampled_from(FUNCTIONS), min_size=depth - 1, max_size=depth - 1))
    skips = [(j, k) for k in range(depth + 1) for j in range(k - 1)]
    extra = draw(st.sets(st.sampled_from(skips))) if skips else set()
    edges = {(k - 1, k) for k in range(1, depth + 1)} | extra
    return random_network(draw(seeds), sizes, activation, draw(st.sampled_from(outputs)),
                          sorted(edges), draw(st.floats(*scales)))
