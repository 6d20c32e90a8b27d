"""First weights that depend on a seed alone: not on the processor, on other threads, or on torch's global settings."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

UNIFORM_BITS = 24  # of a draw: as many as a float32 has digits
_alone = threading.RLock()


@contextmanager
def usual_settings() -> Iterator[None]:
    """Inside, tensors are made as torch does it at its start: float32, on the CPU, not for inference alone.

    The default type belongs to the whole process, so this is for one thread at a time, and the others wait.
    """
    with _alone, torch.inference_mode(False), torch.device("cpu"):
        chosen = torch.get_default_dtype()
        if chosen == torch.float32:
            yield
            return
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(chosen)


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Inside, modules get the same first weights on every machine; torch's own generators are afterwards as they were before."""
    with usual_settings():
        before = torch.default_generator.get_state()
        torch.default_generator.manual_seed(seed)  # for what takes no generator; torch.manual_seed would reach GPUs too
        try:
            with _Draws(seed):
                yield
        finally:
            torch.default_generator.set_state(before)


class _Draws(TorchDispatchMode):
    """Hands a generator of its own to whatever draws on the CPU, and rounds uniform numbers in one way.

    torch's kernel of uniform numbers is compiled for each kind of processor: some round once after a product and a sum, others twice.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator("cpu").manual_seed(seed)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Models are never built inside torch.compile. To guard against that, torch would import
        its compiler, which takes two seconds.
        """
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        draws = any(argument.name == "generator" for argument in func._schema.arguments)
        on_cpu = bool(args) and isinstance(args[0], Tensor) and args[0].device.type == "cpu"
        if draws and on_cpu and kwargs.get("generator") is None:
            kwargs["generator"] = self.generator
            if func is torch.ops.aten.uniform_.default and args[0].dtype == torch.float32:
                return _uniform(args[0], self.generator, *args[1:])
        return func(*args, **kwargs)


def _uniform(out: Tensor, generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Fill `out` with the numbers that torch draws, rounded to float32 once."""
    draws = torch.empty(out.shape, dtype=torch.int64).random_(0, 1 << UNIFORM_BITS, generator=generator).numpy()
    first, last = np.float32(low), np.float32(high)
    values = draws * 2.0**-UNIFORM_BITS * np.float64(last - first) + np.float64(first)
    return out.copy_(torch.from_numpy(values.astype(np.float32)))
