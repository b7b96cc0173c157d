"""What the LRRN tests share: random instances, eq. (1) in loops, and SciPy's exact solution."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import lsq_linear

from lnn_core import lrrn
from lnn_core.propositions import lrrn_toys

EXACT = lrrn.SpectralDescent(1e-12, max_passes=20_000)
PAPER = lrrn.CoordinateDescent(1e-12, max_passes=20_000)


def instance(seed, samples=4, beta="mixed", **options):
    """A random float64 network, inputs and targets inside the output's set."""
    draw = torch.Generator().manual_seed(seed)
    net = lrrn_toys.network(draw, beta, **options)
    x, y = lrrn_toys.normal(draw, samples, net.sizes[0]), lrrn_toys.normal(draw, samples, net.sizes[-1])
    return net, x, y


def network(sizes, activation=None, output=None, seed=0, scale=1.0, **options):
    """A float64 network with biases that are not zero."""
    draw = torch.Generator().manual_seed(seed)
    net = lrrn.LRRN(sizes, activation, output, init="normal", generator=draw,
                    dtype=torch.float64, **options)
    with torch.no_grad():
        for W in net.weights:
            W.mul_(scale)
        for bias in (*net.biases, *net.reconstruction_biases):
            bias.normal_(0, 0.5, generator=draw)
    return net


def by_hand(net, z):
    """Eqs. (1) and (17) for one sample [x, z_1, …, z_L], in NumPy, with the paper's indices."""
    z = [part.numpy() for part in z]
    total = 0.0
    for k in range(net.depth):
        W, b, c = (parameters[k].detach().numpy() for parameters in
                   (net.weights, net.biases, net.reconstruction_biases))
        regression, reconstruction = z[k + 1] - W @ z[k] - b, W.T @ z[k + 1] - z[k] - c
        total += net.gamma**k * (regression @ regression
                                 + net.beta[k] * reconstruction @ reconstruction)
    return total / 2


def least_squares(net, x):
    """A, r with E(z; x) = ½‖Az − r‖² for one sample x, from eq. (17) alone."""
    ends = np.cumsum([0, *net.sizes[1:]])
    rows, right = [], []
    for k in range(net.depth):
        W, b, c = (parameters[k].detach().numpy() for parameters in
                   (net.weights, net.biases, net.reconstruction_biases))
        above = slice(ends[k], ends[k + 1])
        for scale, out, into, bias in ((1.0, np.eye(len(W)), -W, b),
                                       (net.beta[k], W.T, -np.eye(W.shape[1]), c)):
            A = np.zeros((len(out), ends[-1]))
            A[:, above] = out
            target = bias - into @ x if k == 0 else bias
            if k > 0:
                A[:, ends[k - 1]:ends[k]] = into
            weight = np.sqrt(scale * net.gamma**k)
            rows.append(weight * A)
            right.append(weight * target)
    return np.vstack(rows), np.concatenate(right)


def reference(net, x, y=None):
    """The minimiser, (batch, n), by SciPy's bounded-variable least squares, a sample at a time."""
    out, free = [], sum(net.sizes[1:]) - (0 if y is None else net.sizes[-1])
    for i, sample in enumerate(x.numpy()):
        A, r = least_squares(net, sample)
        if y is not None:
            r = r - A[:, free:] @ y[i].numpy()
        bounds = net.lower[:free].numpy(), net.upper[:free].numpy()
        z = (lsq_linear(A[:, :free], r, bounds, method="bvls", tol=1e-15).x
             if free else np.zeros(0))
        out.append(z if y is None else np.concatenate([z, y[i].numpy()]))
    return torch.from_numpy(np.stack(out))


def flat(z):
    return torch.cat(z[1:], 1)
