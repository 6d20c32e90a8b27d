"""Results of classical codecs, kept by content and settings: they do not change from run to run."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..ops.device import machine_stamp
from ..ops.whole import written_whole

log = logging.getLogger(__name__)

Record = dict[str, Any]
FORM = 3  # of what is kept; another one is measured anew
NUMBERS = ("width", "height", "bytes", "bpp", "psnr-rgb", "ms-ssim-rgb", "encode_s", "decode_s")
WORDS = ("machine", "torch")


def recorded(cache: Path | None, pixels: Tensor, settings: list[Any], measure: Callable[[], Record]) -> Record:
    """The record of one image (3, H, W) uint8 with the machine that measured it, from the cache if it was measured before.

    What the cache holds is used if it is whole. Where nothing can be written, nothing is kept.
    """
    if cache is None:
        return measure() | machine_stamp(torch.device("cpu"))
    sha = hashlib.sha256(pixels.contiguous().numpy().data)
    sha.update(json.dumps([*settings, tuple(pixels.shape), FORM]).encode())
    path = cache / sha.hexdigest()[:2] / f"{sha.hexdigest()}.json"
    kept = whole_record(path)
    if kept is not None:
        return kept
    record = measure() | machine_stamp(torch.device("cpu"))
    try:
        with written_whole(path) as part:
            part.write_text(json.dumps(record))
    except OSError as error:
        _tell_once(f"{cache}: results are not kept ({error.strerror}); set LC_BENCH_CACHE to a folder of yours")
    return record


def whole_record(path: Path) -> Record | None:
    """What a file of the cache holds; None if there is none, or it was cut short or damaged, so that it is measured anew."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    numbers = all(isinstance(record.get(k), int | float) and not isinstance(record[k], bool) for k in NUMBERS)
    return record if numbers and all(isinstance(record.get(k), str) for k in WORDS) else None


_told: set[str] = set()


def _tell_once(words: str) -> None:
    if words not in _told:
        _told.add(words)
        log.warning(words)
