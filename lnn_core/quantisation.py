"""Matrices in one byte per number: W_ij ≈ s_i·n_ij with integers |n_ij| ≤ 127.

Each row has a scale of its own, so that W_ij is off by at most s_i/2, which is 1/254 of the row's
largest number. The network of a page and the filters in a record are kept so.
"""

from __future__ import annotations

import base64

import torch
from torch import Tensor

#: What :func:`to_json` gives, by name.
STORED = {"columns", "scale", "values"}


def scales(W: Tensor) -> Tensor:
    """s_i = max_j |W_ij|/127, shape (rows,), of W's type; 1 for a row of zeros."""
    scale = W.detach().abs().amax(1) / 127
    return scale.masked_fill(scale == 0, 1.0)


def quantise(W: Tensor, scale: Tensor | None = None) -> Tensor:
    """The integers n, int8 of W's shape, for scales of shape (rows,); default :func:`scales`."""
    scale = scales(W) if scale is None else scale
    return (W.detach() / scale[:, None]).round().clamp(-127, 127).to(torch.int8)


def dequantise(n: Tensor, scale: Tensor) -> Tensor:
    """s_i·n_ij, of the scales' type."""
    return n * scale[:, None]


def to_json(W: Tensor) -> dict:
    """A matrix, quantised, as JSON has it: the number of columns, scales, and n in base64."""
    scale = scales(W)
    values = quantise(W, scale).numpy().tobytes()
    return {"columns": W.shape[1], "scale": scale.tolist(),
            "values": base64.b64encode(values).decode("ascii")}


def from_json(stored: dict) -> Tensor:
    """The matrix that :func:`to_json` stored, dequantised, float32."""
    n = torch.frombuffer(bytearray(base64.b64decode(stored["values"])), dtype=torch.int8)
    scale = torch.tensor(stored["scale"], dtype=torch.float32, device=n.device)
    return dequantise(n.view(-1, stored["columns"]), scale)
