"""What one training step does, seen at torch's dispatcher: operations, products, memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

#: What is timed alone, by the names of torch's operations.
PARTS = {"products": {"mm", "addmm", "bmm"}, "Adam": {"_fused_adam_"}}
#: Multiply-adds that torch's counter of matrix products leaves out, from the shapes of arguments:
#: a product with a vector and, by their leading terms, what factorises, inverts or solves.
FORMULAS: dict[str, Callable[..., float]] = {
    "mv": lambda A, v: A[0] * A[1],
    "linalg_cholesky_ex": lambda H: H[0]**3 / 6,
    "cholesky_inverse": lambda L: L[0]**3 / 3,
    "cholesky_solve": lambda B, L: L[0]**2 * B[1],
}


def multiply_adds(step: Callable[[], object]) -> int:
    """Multiply-adds in the matrix products of a call."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() // 2


class Mode(TorchDispatchMode):
    """Sees the operations that are run: in inference mode composite ones arrive here whole."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        with self:
            result = func.decompose(*args, **kwargs)
        return self.run_operation(func, args, kwargs) if result is NotImplemented else result

    def run_operation(self, func, args, kwargs):
        """The result of an operation that is not made of others, noted by the way."""
        raise NotImplementedError


class Uncounted(Mode):
    """``multiply_adds`` of a block's operations that have one of ``FORMULAS``."""

    #: Their number so far.
    multiply_adds = 0.0

    def run_operation(self, func, args, kwargs):
        if formula := FORMULAS.get(func.overloadpacket.__name__):
            self.multiply_adds += formula(*(each.shape for each in args
                                            if isinstance(each, Tensor)))
        return func(*args, **kwargs)


def arithmetic(step: Callable[[], object]) -> float:
    """Multiply-adds of a call's matrix products, factorisations and inversions."""
    with Uncounted() as rest:
        products = multiply_adds(step)
    return products + rest.multiply_adds


class Operations(Mode):
    """Records the tensor operations of a block, so that some can be run again, alone.

    Attributes:
        calls: the operations of each of the ``PARTS``.
        count: how many operations there were, without those that only make a view.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, list[tuple]] = {part: [] for part in PARTS}
        self.count = 0

    def run_operation(self, func, args, kwargs):
        for part, names in PARTS.items():
            if func.overloadpacket.__name__ in names:
                self.calls[part].append((func, args, kwargs))
        self.count += func.namespace == "aten" and not func.is_view
        return func(*args, **kwargs)

    @torch.no_grad()
    def again(self, part: str) -> None:
        """Run the operations of a part again, one after the other, with the same tensors."""
        for func, args, kwargs in self.calls[part]:
            func(*args, **kwargs)


class Peak(Mode):
    """``peak``: the most bytes that tensors made in a block took up at one time.

    Counted at the dispatcher from the sizes of what operations return, until torch gives it
    back. Unlike the resident size of a process it does not depend on the allocator, on what ran
    before, or on chance. What was there before the block is not counted, nor is scratch space
    within an operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.known: weakref.WeakSet = weakref.WeakSet()
        self.now = self.peak = 0

    def run_operation(self, func, args, kwargs):
        for storage in _storages((args, kwargs)):
            self.known.add(storage)  # an argument that no operation here made was there before
        result = func(*args, **kwargs)
        for storage in _storages(result):
            if storage not in self.known:
                self.known.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._free, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _free(self, size: int) -> None:
        self.now -= size


def _storages(tree: object) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def peak_bytes(step: Callable[[], object]) -> int:
    """:class:`Peak` of a call."""
    with Peak() as mode:
        step()
    return mode.peak
