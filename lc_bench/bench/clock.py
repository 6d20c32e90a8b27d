"""Where the bytes and the seconds of one sample go."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..models.transform_code import Coded

CLEAR_REFS, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class Clock:
    """Seconds by label; waits for the device at both ends of a section."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, label: str) -> Iterator[None]:
        self._wait()
        start = time.perf_counter()
        try:
            yield
        finally:
            self._wait()
            self.seconds[label] += time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def reset_peak_memory(device: torch.device) -> None:
    """Peaks are from here on, where the system can forget the earlier ones (CUDA, Linux)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif CLEAR_REFS.exists():
        CLEAR_REFS.write_text("5")


def peak_memory_mib(device: torch.device) -> float:
    """Largest memory since the reset: of the device on CUDA, of the process elsewhere; NaN where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if STATUS.exists():
        return int(STATUS.read_text().partition("VmHWM:")[2].split()[0]) / 2**10
    return math.nan


def rates(coded: Coded, units: int) -> dict[str, Any]:
    """Bytes that were written, and bits per pixel or point beside those that the model expected."""
    size = len(coded.streams[0])
    return {"bytes": size, "bpp": 8 * size / units, "bpp_estimated": sum(float(b[0]) for b in coded.bits.values()) / units}


def costs(write: Clock, read: Clock, coded: Coded) -> dict[str, Any]:
    """Seconds of both sides, split; memory; bytes by latent."""
    seconds = {
        f"{side}_{part}s": clock.seconds[part.rstrip("_")] if part else clock.total
        for side, clock in (("encode", write), ("decode", read))
        for part in ("", "transform_", "coding_")
    }
    return {
        **seconds,
        "peak_memory_mib": peak_memory_mib(write.device),
        **{f"bytes_{latent}": count for latent, count in coded.segment_bytes[0].items()},
    }
