"""Which device to use."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

import torch

from ..errors import UserError, unknown


def pick_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise unknown("device", name, ("auto", "cpu", "cuda"))
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: this machine (or this build of torch) has no CUDA device; use device=cpu or auto")
    return torch.device(name)


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU {cpu_name()}"


@cache
def cpu_name() -> str:
    """Model as the system tells it (Linux), else the kind of processor."""
    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in told.splitlines() if line.startswith("model name")]
    return names[0] if names and names[0] != "unknown" else platform.processor() or platform.machine()


def machine_stamp(device: torch.device) -> dict[str, str]:
    """What seconds of a record hold for: processor, threads and version of torch."""
    threads = f"{torch.get_num_threads()} of {os.cpu_count()} threads"
    name = f"{device_name(device)}, CPU {cpu_name()}" if device.type == "cuda" else device_name(device)
    return {"machine": f"{name}, {threads}", "torch": str(torch.__version__)}
