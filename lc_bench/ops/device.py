"""Which device to use."""

from __future__ import annotations

import logging
import os
import platform
from functools import cache
from pathlib import Path

import torch

from ..errors import UserError, unknown

log = logging.getLogger(__name__)


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


BFLOAT16 = frozenset({"amx_bf16", "avx512_bf16", "bf16"})  # what Linux calls the instructions of x86 and ARM


def warn_of_slow_bfloat16() -> None:
    """Say so where bf16-mixed on this CPU takes longer than float32."""
    if computes_bfloat16() is False:
        log.warning(
            "trainer.precision=bf16-mixed: this CPU has no instructions for bfloat16 (AMX, AVX512-BF16). Where it was measured, training "
            "then took twice as long as with 32-true: docs/cluster.md"
        )


def computes_bfloat16(told: Path = Path("/proc/cpuinfo")) -> bool | None:
    """Whether the CPU has instructions for products of bfloat16; None where the system does not say."""
    if not told.is_file():
        return None
    flags = {word for line in told.read_text().splitlines() if line.startswith(("flags", "Features")) for word in line.split()}
    return bool(flags & BFLOAT16) if flags else None
