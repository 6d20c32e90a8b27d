"""Results of classical codecs, kept by content and settings: they do not change from run to run."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..ops.device import machine_stamp

Record = dict[str, Any]
FORM = 2  # of what is kept; another one is measured anew


def recorded(cache: Path | None, pixels: Tensor, settings: list[Any], measure: Callable[[], Record]) -> Record:
    """The record of one image (3, H, W) uint8 with the machine that measured it, from the cache if it was measured before."""
    if cache is None:
        return measure() | machine_stamp(torch.device("cpu"))
    sha = hashlib.sha256(pixels.contiguous().numpy().tobytes())
    sha.update(json.dumps([*settings, tuple(pixels.shape), FORM]).encode())
    path = cache / sha.hexdigest()[:2] / f"{sha.hexdigest()}.json"
    if path.is_file():
        return json.loads(path.read_text())
    record = measure() | machine_stamp(torch.device("cpu"))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{time.time_ns()}.part")
    part.write_text(json.dumps(record))
    part.replace(path)
    return record
