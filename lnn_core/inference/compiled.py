"""First passes compiled by ``torch.compile``, where there is a compiler."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import torch


class CompilationWarning(UserWarning):
    """What was to be compiled runs as it is."""


class Kernels:
    """Functions compiled as a whole, each for every size of a batch and every β of its own.

    The first call of each kind takes seconds. Where compiling fails, as it does without a C++
    compiler and for what is not a single graph (the Newton steps of cross-entropy, gradients by
    autograd), or where there are too many kinds, the function itself runs from then on, and a
    ``CompilationWarning`` says why.

    Args:
        most: how many kinds of calls a function may have (older versions of torch have a limit of their own).
    """

    def __init__(self, most: int = 64) -> None:
        limits = {"recompile_limit": most, "isolate_recompiles": True}
        known = inspect.signature(torch.compile).parameters
        self._limits: dict[str, Any] = {name: value for name, value in limits.items() if name in known}
        self._compiled: dict[Callable, Callable] = {}

    def __call__(self, function: Callable, *arguments):
        """``function(*arguments)``."""
        if function not in self._compiled:
            self._compiled[function] = torch.compile(function, fullgraph=True, dynamic=False, **self._limits)
        try:
            return self._compiled[function](*arguments)
        except (torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.FailOnRecompileLimitHit,
                torch._inductor.exc.InductorError) as error:
            self._compiled[function] = function
            warnings.warn(f"{function.__name__} is not compiled: {str(error).strip().splitlines()[0]}",
                          CompilationWarning, stacklevel=2)
        return function(*arguments)
