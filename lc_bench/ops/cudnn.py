"""cuDNN's settings for the time of a computation. They belong to the whole process, so one thread at a time has its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_alone = threading.RLock()


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Inside, convolutions on a GPU choose algorithms that add in a fixed order, so that the receiver repeats the sender."""
    with _having(device, enabled=True, benchmark=False, deterministic=True):
        yield


@contextmanager
def without(device: torch.device) -> Iterator[None]:
    """Inside, convolutions on a GPU are torch's own, which multiply matrices; cuDNN may transform them."""
    with _having(device, enabled=False):
        yield


@contextmanager
def _having(device: torch.device, **wanted: bool) -> Iterator[None]:
    """Nothing is touched for a CPU. What float32 is rounded to stays the user's choice: coding computes in float64."""
    if device.type != "cuda":
        yield
        return
    with _alone:
        before = {name: getattr(torch.backends.cudnn, name) for name in wanted}
        try:
            for name, value in wanted.items():
                setattr(torch.backends.cudnn, name, value)
            yield
        finally:
            for name, value in before.items():
                setattr(torch.backends.cudnn, name, value)
