"""Back-propagation written out for a chain of ReLU layers: the yardstick without autograd."""

from __future__ import annotations

import torch

from lnn_core.convex import Identity, ReLU
from lnn_core.data import Split
from lnn_core.experiments.training import Epoch
from lnn_core.losses import home
from lnn_core.network import LiftedNetwork


class HandWritten:
    """Trains as ``train_epoch`` does with ``BackPropagation()``, and as fast as torch allows.

        e_L = (z_L − y)/batch,    e_k = (e_k+1 W_k+1) ⊙ 1[z_k > 0],    ∂ℓ/∂W_k = e_kᵀ z_k−1

    No graph; gradients go where they were at the last step, straight into the same fused Adam.

    Args:
        net: a chain of ReLU layers with biases and a linear output.
        optimizer: a fused Adam over the network's parameters.

    Raises:
        ValueError: another network.
    """

    def __init__(self, net: LiftedNetwork, optimizer: torch.optim.Optimizer):
        hidden = net.functions[:-1]
        if not (net.is_chain and net.biases is not None and isinstance(net.functions[-1], Identity)
                and all(isinstance(function, ReLU) for function in hidden)):
            raise ValueError(f"written for a chain of ReLU layers, linear at the end; got {net}")
        self.net, self.optimizer = net, optimizer
        self.weights, self.biases = list(net.weights), list(net.biases)
        for parameter in net.parameters():
            parameter.grad = torch.zeros_like(parameter)

    def epoch(self, samples: Split, batch: int,
              generator: torch.Generator | None = None) -> Epoch:
        """One pass over the samples; returns what ``train_epoch`` does."""
        one_hot = torch.eye(self.net.sizes[-1], dtype=samples.x.dtype, device=samples.x.device)[samples.y]
        total = 0.0
        order = torch.randperm(len(one_hot), generator=generator, device=home(generator))
        for rows in order.split(batch):
            total += self.step(samples.x[rows], one_hot[rows])
        return Epoch(total / len(one_hot), passes=0.0, gap=0.0, converged=1.0)

    @torch.no_grad()
    def step(self, x: torch.Tensor, y: torch.Tensor) -> float:
        """Forward, backward, Adam; the sum of the samples' losses before the step."""
        z, last = [x], len(self.weights) - 1
        for W, b in zip(self.weights[:-1], self.biases):
            z.append(torch.addmm(b, z[-1], W.T).relu_())
        e = torch.addmm(self.biases[-1], z[-1], self.weights[-1].T).sub_(y)
        loss = 0.5 * torch.linalg.vecdot(e, e).sum().item()
        e.div_(len(x))
        for k in range(last, -1, -1):
            torch.mm(e.T, z[k], out=self.weights[k].grad)
            torch.sum(e, 0, out=self.biases[k].grad)
            if k:  # e ⊙ 1[z > 0] in one pass over memory
                e = torch.ops.aten.threshold_backward(e @ self.weights[k], z[k], 0)
        self.optimizer.step()
        return loss
