"""Affine maps z_j ↦ A z_j + b between layers, read off the torch modules that compute them.

What a potential and its inference ask of a connection is little: its value, its transpose
Aᵀe for the errors that come back, and the gradients of Σ eᵀ(Az + b) in what A and b are
made of. Matrices and convolutions have them in closed form; torch's autograd gives them for
any other affine module. Activations are flat, of shape (batch, d): only this module knows
that some of them are images.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

#: Where the hooks come from that put a computed tensor in a parameter's place before a module is
#: called: pruning's, and those of the older ``weight_norm`` and ``spectral_norm``.
REPARAMETRISING = "torch.nn.utils."
#: Convolutions that are computed here; others, and their transposes, by torch's autograd.
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
RESHAPES = (nn.Flatten, nn.Unflatten, nn.Identity)
#: Random vectors from which the Frobenius norm of an operator that is not a matrix is estimated.
PROBES = 16

Shape = tuple[int, ...]


class Connection(ABC):
    """z ↦ A z + b from flat z of shape (batch, d_j) to flat a of shape (batch, d_k).

    Attributes:
        source: the shape of one sample of z, before it was made flat.
        target: that of a.
        tensors: what A and b are made of, as read when this object was made.
    """

    def __init__(self, source: Shape, target: Shape, tensors: Sequence[Tensor] = ()):
        self.source, self.target, self.tensors = source, target, tuple(tensors)

    @abstractmethod
    def __call__(self, z: Tensor) -> Tensor:
        """A z + b, shape (batch, d_k)."""

    @abstractmethod
    def transpose(self, e: Tensor) -> Tensor:
        """Aᵀe, shape (batch, d_j), a new tensor, for e of shape (batch, d_k)."""

    @abstractmethod
    def gradients(self, z: Tensor, e: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
        """The gradients of Σ eᵀ(Az + b) in the ``tensors`` that are wanted, None for the others."""

    def replaced(self, tensors: Sequence[Tensor]) -> Connection:
        """This map with other values of its tensors."""
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        new.tensors = tuple(tensors)
        return new

    def to(self, dtype: torch.dtype) -> Connection:
        """This map in another precision."""
        return self.replaced([tensor.to(dtype) for tensor in self.tensors])

    @torch.no_grad()
    def squared_norm(self) -> Tensor:
        """‖A‖_F², a tensor without dimensions; estimated (Hutchinson): E‖Aᵀv‖² for random v = ±1."""
        like = self._like()
        draws = torch.randint(0, 2, (PROBES, math.prod(self.target)), device="cpu",
                              generator=torch.Generator("cpu").manual_seed(0))
        return self.transpose((2 * draws - 1).to(like)).square().sum() / PROBES

    @torch.no_grad()
    def spectral_norm(self) -> float:
        """‖A‖₂, in float64: by Lanczos iteration on AAᵀ or AᵀA, to rounding (SciPy's eigsh).

        Like every iteration it starts from one vector, fixed here. Were that one orthogonal to the
        top singular vector, a smaller singular value would be found.
        """
        from scipy.sparse.linalg import LinearOperator, eigsh  # takes a third of torch's time to import

        exact, like = self.to(torch.float64), self._like().double()
        rows, columns = math.prod(self.target), math.prod(self.source)
        offset = exact(like.new_zeros(1, columns))

        def product(v: np.ndarray) -> np.ndarray:
            row = torch.from_numpy(np.ascontiguousarray(v)).to(like).reshape(1, -1)
            if rows <= columns:
                row = exact(exact.transpose(row)) - offset
            else:
                row = exact.transpose(exact(row) - offset)
            return row.flatten().cpu().numpy()

        size = min(rows, columns)
        gram = LinearOperator((size, size), matvec=product, dtype=np.float64)
        start = np.random.default_rng(0).standard_normal(size)
        if size < 3:  # eigsh asks for more
            square = np.linalg.eigvalsh(gram @ np.eye(size))[-1]
        elif not product(start).any():  # nor can it work on zero
            square = 0.0
        else:
            square = eigsh(gram, k=1, which="LA", v0=start, return_eigenvectors=False)[0]
        return math.sqrt(max(square, 0.0))

    def _like(self) -> Tensor:
        return self.tensors[0] if self.tensors else torch.zeros(())


class Matrix(Connection):
    """A = W, the weight of an ``nn.Linear``; ``tensors`` are W and, if there is one, b."""

    @property
    def weight(self) -> Tensor:
        """W, shape (d_k, d_j)."""
        return self.tensors[0]

    def __call__(self, z: Tensor) -> Tensor:
        return nn.functional.linear(z, *self.tensors)

    def transpose(self, e: Tensor) -> Tensor:
        return e @ self.tensors[0]

    def gradients(self, z, e, wanted):
        found = (lambda: e.T @ z), (lambda: e.sum(0))
        return [gradient() if want else None for gradient, want in zip(found, wanted)]

    @torch.no_grad()
    def squared_norm(self) -> Tensor:
        return torch.linalg.vector_norm(self.weight).square()

    @torch.no_grad()
    def spectral_norm(self) -> float:
        return float(torch.linalg.matrix_norm(self.weight.double(), 2))


class Convolution(Connection):
    """A convolution with zero padding; ``tensors`` are its kernel and, if there is one, b."""

    def __init__(self, module: _ConvNd, source: Shape):
        padding = tuple(map(int, module.padding))
        sizes = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in zip(
            source[1:], padding, module.dilation, module.kernel_size, module.stride))
        super().__init__(source, (module.out_channels, *sizes), _weight_and_bias(module))
        self.options = (module.stride, padding, module.dilation, False, module.output_padding, module.groups)
        self.pixels_met = tuple(map(_pixels_met, source[1:], sizes, module.kernel_size, module.stride,
                                    padding, module.dilation))

    def __call__(self, z: Tensor) -> Tensor:
        kernel, bias = (*self.tensors, None)[:2]
        return torch.convolution(z.view(-1, *self.source), kernel, bias, *self.options).flatten(1)

    def transpose(self, e: Tensor) -> Tensor:
        shape_only = e.new_empty(1).expand(len(e), *self.source)
        return self._backward(e, shape_only, (True, False, False))[0].flatten(1)

    @torch.no_grad()
    def squared_norm(self) -> Tensor:
        """‖A‖_F²: each entry of the kernel counts as often as it meets a pixel and not the padding."""
        squares = self.tensors[0].square().sum((0, 1))
        for met in self.pixels_met:  # along the first axis that is left
            squares = torch.tensordot(squares.new_tensor(met), squares, 1)
        return squares

    def gradients(self, z, e, wanted):
        found = self._backward(e, z.reshape(-1, *self.source), (False, *wanted, False)[:3])
        return [gradient if want else None for gradient, want in zip(found[1:], wanted)]

    def _backward(self, e: Tensor, z: Tensor, wanted: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        """Those of Aᵀe and the gradients of Σ eᵀ(Az + b) in kernel and bias that are wanted."""
        return torch.ops.aten.convolution_backward(
            e.reshape(-1, *self.target), z, self.tensors[0], self.target[:1], *self.options, wanted)


@lru_cache
def _pixels_met(source: int, target: int, taps: int, stride: int, padding: int, dilation: int) -> list[int]:
    """Along one axis of a convolution: for each tap, at how many outputs it lies on a pixel."""
    return [sum(0 <= i * stride - padding + tap * dilation < source for i in range(target))
            for tap in range(taps)]


class Reshape(Connection):
    """The identity on flat activations: ``nn.Flatten``, ``nn.Unflatten``, ``nn.Identity``."""

    def __call__(self, z: Tensor) -> Tensor:
        return z

    def transpose(self, e: Tensor) -> Tensor:
        return e.clone()  # as for any other map: what comes back may be changed in place

    def gradients(self, z, e, wanted):
        return []


class ByAutograd(Connection):
    """Any other module that is affine in its input; torch's autograd gives transpose and gradients.

    The module is called for each of them, and its hooks with it. ``tensors`` are its parameters and
    floating-point buffers.
    """

    def __init__(self, module: nn.Module, source: Shape):
        tensors = {name: tensor for name, tensor in (*module.named_parameters(), *module.named_buffers())
                   if tensor.is_floating_point()}
        self.module, self.names = module, tuple(tensors)
        like = next(iter(tensors.values()), torch.zeros(()))
        with torch.no_grad():
            target = tuple(module(like.new_zeros(1, *source)).shape[1:])
        super().__init__(source, target, list(tensors.values()))

    def __call__(self, z: Tensor) -> Tensor:
        values = dict(zip(self.names, self.tensors))
        return torch.func.functional_call(self.module, values, z.view(-1, *self.source)).flatten(1)

    def transpose(self, e: Tensor) -> Tensor:
        pull = torch.func.vjp(self, e.new_zeros(len(e), math.prod(self.source)))[1]
        return _own(pull(e)[0])

    def gradients(self, z, e, wanted):
        with torch.enable_grad():
            tensors = [tensor.detach().requires_grad_(want) for tensor, want in zip(self.tensors, wanted)]
            leaves = [tensor for tensor in tensors if tensor.requires_grad]
            found = iter(torch.autograd.grad(self.replaced(tensors)(z), leaves, e, allow_unused=True)
                         if leaves else ())
        each = [next(found) if want else None for want in wanted]
        return [None if gradient is None else _own(gradient) for gradient in each]


def _own(found: Tensor) -> Tensor:
    """A tensor of its own memory: what autograd returns may be its argument, or one number many times."""
    return found.clone(memory_format=torch.contiguous_format)


class Composition(Connection):
    """Maps one after the other, as an ``nn.Sequential`` of affine modules computes them."""

    def __init__(self, parts: Sequence[Connection]):
        self.parts = tuple(parts)
        super().__init__(parts[0].source, parts[-1].target,
                         [tensor for part in parts for tensor in part.tensors])

    def __call__(self, z: Tensor) -> Tensor:
        for part in self.parts:
            z = part(z)
        return z

    def transpose(self, e: Tensor) -> Tensor:
        for part in reversed(self.parts):
            e = part.transpose(e)
        return e

    def gradients(self, z, e, wanted):
        inputs, last = [z], len(wanted)
        found: list[Tensor | None] = []
        for part in self.parts[:-1]:
            inputs.append(part(inputs[-1]))
        for part, z in zip(reversed(self.parts), reversed(inputs)):
            first = last - len(part.tensors)
            found = part.gradients(z, e, wanted[first:last]) + found
            e, last = part.transpose(e) if first else e, first
        return found

    def replaced(self, tensors):
        left, parts = list(tensors), []
        for part in self.parts:
            own, left = left[:len(part.tensors)], left[len(part.tensors):]
            parts.append(part.replaced(own))
        return Composition(parts)


def connection(module: nn.Module, source: Shape) -> Connection:
    """The affine map of a module, as its parameters are now, from samples of shape ``source``.

    Computed parameters are computed once: parametrizations where they are read, the masks and
    norms of torch's older tools by their hooks.

    Raises:
        ValueError: a module that is not the same affine function of one sample at every call, such as
            batch normalisation or dropout in training mode.
    """
    for hook in module._forward_pre_hooks.values():
        if any(kind.__module__.startswith(REPARAMETRISING) for kind in type(hook).__mro__):
            hook(module, None)
    if isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward and len(source) == 1:
        return Matrix(source, (module.out_features,), _weight_and_bias(module))
    if isinstance(module, _ConvNd) and module.padding_mode == "zeros" and not isinstance(module.padding, str):
        if type(module).forward in [kind.forward for kind in CONVOLUTIONS]:  # a parametrized one, too
            return Convolution(module, source)
    if isinstance(module, RESHAPES) and type(module).forward in [kind.forward for kind in RESHAPES]:
        return Reshape(source, _reshaped(module, source))
    if type(module) is nn.Sequential:
        return _composition(module, source)
    _check_fixed(module)
    return ByAutograd(module, source)


def _check_fixed(module: nn.Module) -> None:
    """ValueError where a module is not one affine function of one sample, the same at every call."""
    for name, part in module.named_modules():
        what = name or type(part).__name__
        if isinstance(part, _BatchNorm) and part.training:
            raise ValueError(f"batch normalisation {what!r} is in training mode, where an output "
                             "depends on the other samples of a batch: freeze it by .eval()")
        if isinstance(part, _DropoutNd) and part.training:
            raise ValueError(f"dropout {what!r} is in training mode, and random: freeze it by .eval()")
        tools = (part, *part._forward_pre_hooks.values())  # a parametrization is a module; older: a hook
        if part.training and any(type(tool).__name__.lstrip("_") == "SpectralNorm" for tool in tools):
            raise ValueError(f"the spectral norm of {what!r} moves on at every call: freeze it by .eval()")
        if getattr(part, "_is_replica", False):
            raise ValueError(f"{what!r} is a replica of nn.DataParallel, whose parameters are not "
                             "found: use DistributedDataParallel")


def _composition(module: nn.Sequential, source: Shape) -> Connection:
    parts: list[Connection] = []
    target = source
    for child in module:
        parts.append(connection(child, target))
        target = parts[-1].target
    parts = [part for part in parts if not isinstance(part, Reshape)]
    if not parts:
        return Reshape(source, target)
    if len(parts) > 1:
        return Composition(parts)
    return parts[0]


def _weight_and_bias(module: nn.Linear | _ConvNd) -> list[Tensor]:
    return [module.weight] if module.bias is None else [module.weight, module.bias]


def _reshaped(module: nn.Module, source: Shape) -> Shape:
    """The shape that one sample has after a module that only reshapes."""
    return tuple(module(torch.empty(1, *source, device="meta")).shape[1:])
