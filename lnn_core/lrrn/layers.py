"""Linear regression/reconstruction layers inside an ordinary feed-forward network.

Without a constraint an RR layer is a linear map, so that it can stand wherever a Linear
layer does; followed by 1-Lipschitz activations such as ReLU it makes feed-forward networks
that are 1-Lipschitz by construction. The price, which inference in an LRRN avoids, is the
factorisation of a (d_out, d_out) matrix at every forward and backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..checks import not_negative
from ..kinds import expect
from ..network import checked_sizes
from .bounds import gain


class RRLayer(nn.Module):
    """x ↦ argmin_z ½‖z − Wx − b‖² + (β/2)‖Wᵀz − x − c‖², which is eq. (3):

        z = (I + βWWᵀ)⁻¹ ( (1 + β)Wx + b + βWc ).

    x: (batch, d_in), z: (batch, d_out). W starts as in :class:`torch.nn.Linear`, its
    entries from U(−1/√d_in, 1/√d_in); the biases start at zero.

    Raises:
        ValueError: a β that is negative, or sizes below 1.
    """

    def __init__(self, d_in: int, d_out: int, beta: float = 1.0, *,
                 generator: torch.Generator | None = None, dtype: torch.dtype | None = None):
        super().__init__()
        d_in, d_out = checked_sizes((d_in, d_out))
        self.beta = not_negative("beta", beta)
        W = torch.empty(d_out, d_in, dtype=dtype)
        self.weight = nn.Parameter(W.uniform_(-d_in**-0.5, d_in**-0.5, generator=generator))
        self.bias = nn.Parameter(torch.zeros(d_out, dtype=dtype))
        self.reconstruction_bias = nn.Parameter(torch.zeros(d_in, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        W, beta = self.weight, self.beta
        expect("x", x, Tensor, "a tensor")
        if x.ndim != 2 or x.shape[1] != W.shape[1]:
            raise ValueError(f"x has shape {tuple(x.shape)}; the layer takes (batch, {W.shape[1]})")
        right = nn.functional.linear((1 + beta) * x + beta * self.reconstruction_bias, W, self.bias)
        H = torch.eye(len(W), dtype=W.dtype, device=W.device) + beta * W @ W.T
        return torch.cholesky_solve(right.T, torch.linalg.cholesky(H)).T

    @torch.no_grad()
    def lipschitz(self) -> float:
        """max_i f_β(σ_i) over the singular values of W (Remark 1): exact, ≤ (β^½ + β^−½)/2.

        It is attained at the singular value whose logarithm is closest to that of 1/√β.
        """
        return float(gain(torch.linalg.svdvals(self.weight.double()), self.beta).max())

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, beta={self.beta:g}"


def feed_forward(sizes: Sequence[int], beta: float = 1.0, *, activation: type[nn.Module] = nn.ReLU,
                 generator: torch.Generator | None = None,
                 dtype: torch.dtype | None = None) -> nn.Sequential:
    """RR layers of these sizes with activations between them; 1-Lipschitz for β = 1 and ReLU.

    Train it with any loss and optimizer: back-propagation goes through the solves.
    """
    sizes = checked_sizes(sizes)
    expect("activation", activation, Callable, "a class such as torch.nn.ReLU")
    layers: list[nn.Module] = []
    for d_in, d_out in zip(sizes, sizes[1:]):
        layers += [RRLayer(d_in, d_out, beta, generator=generator, dtype=dtype), activation()]
    return nn.Sequential(*layers[:-1])
