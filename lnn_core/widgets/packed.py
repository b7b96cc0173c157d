"""A trained network and some images in few bytes: what the page of a network loads.

Weights are bytes, and each row of a matrix has a scale of its own (:mod:`lnn_core.quantisation`). The
network shown is this rounded one, in the page and in Python, so that the two agree to the last
digits. What rounding changes is for whoever packs a network to measure.

The bytes, once inflated (zlib): a header, one line of JSON with what :class:`Packed` holds
beside weights and images; the n_ij of W_1, W_2, …, row by row; the images.
"""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .. import quantisation
from ..bounds import kappa
from ..network import LiftedNetwork

#: A page loads the bytes as a script, since scripts may come from the file system. It leaves the
#: bytes at its own script element, where only who asked for them looks.
_BEFORE, _AFTER = 'document.currentScript.packed = "', '";\n'


@dataclass(frozen=True)
class Packed:
    """A chain of ReLU layers with a linear output, float64, and images to look at.

    Attributes:
        images: (n, d_0) in [0, 1].
        names: one per image.
        labels: one per image.
        kappa: κ of the network (``bounds.kappa``), which a page could not compute in a frame.
    """

    net: LiftedNetwork
    images: Tensor
    names: list[str]
    labels: list[int]
    kappa: float


def pack(net: LiftedNetwork, images: Tensor, names: list[str], labels: list[int]) -> bytes:
    """The bytes of the rounded network and of images in [0, 1], shape (n, d_0).

    Raises:
        ValueError: a network that is not a chain with biases, images that do not fit it, or another
            number of names or labels than of images.
    """
    if not net.is_chain or net.biases is None:
        raise ValueError("only a chain of layers with biases can be packed")
    if images.shape != (len(names), net.sizes[0]) or len(labels) != len(names):
        raise ValueError(f"{len(names)} names and {len(labels)} labels do not fit images of "
                         f"shape {tuple(images.shape)} for {net.sizes[0]} inputs")
    weights = [weight.detach().double() for weight in net.weights]
    scales = [_short(quantisation.scales(weight)) for weight in weights]
    rows = [quantisation.quantise(weight, weight.new_tensor(scale))
            for weight, scale in zip(weights, scales)]
    header = {"sizes": net.sizes, "scales": scales, "names": names, "labels": labels,
              "biases": [_short(bias.detach().double()) for bias in net.biases]}
    header["kappa"] = kappa(_network(header, rows))
    body = [row.numpy().tobytes() for row in rows]
    body.append((255 * images).round().numpy().astype(np.uint8).tobytes())
    line = json.dumps(header, separators=(",", ":")) + "\n"
    return zlib.compress(line.encode("ascii") + b"".join(body), 9)


def unpack(data: bytes) -> Packed:
    """What was packed, after rounding."""
    line, _, body = zlib.decompress(data).partition(b"\n")
    header, rows, at = json.loads(line), [], 0
    for columns, count in zip(header["sizes"], header["sizes"][1:]):
        weights = np.frombuffer(body, np.int8, columns * count, at)
        rows.append(torch.from_numpy(weights.reshape(count, columns).copy()))
        at += columns * count
    images = np.frombuffer(body, np.uint8, offset=at).reshape(-1, header["sizes"][0])
    return Packed(_network(header, rows), torch.from_numpy(images / 255),
                  header["names"], header["labels"], header["kappa"])


def to_script(data: bytes) -> str:
    """The bytes as a script for pages."""
    return _BEFORE + base64.b64encode(data).decode("ascii") + _AFTER


def from_script(text: str) -> bytes:
    """The bytes in a script."""
    return base64.b64decode(text.removeprefix(_BEFORE).removesuffix(_AFTER), validate=True)


def _short(values: Tensor) -> list[float]:
    """Seven digits: more than float32 training can mean, and fewer bytes than all seventeen."""
    return [float(f"{value:.7g}") for value in values.tolist()]


def _network(header: dict, rows: list[Tensor]) -> LiftedNetwork:
    net = LiftedNetwork(header["sizes"], dtype=torch.float64, generator=torch.Generator())
    with torch.no_grad():
        for weight, row, scales in zip(net.weights, rows, header["scales"]):
            weight.copy_(quantisation.dequantise(row, weight.new_tensor(scales)))
        for bias, values in zip(net.biases, header["biases"]):
            bias.copy_(torch.tensor(values, dtype=torch.float64))
    return net.requires_grad_(False)
