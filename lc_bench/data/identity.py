"""What a sample is, whatever its file is called and wherever it lies: a digest of its pixels or points."""

from __future__ import annotations

import hashlib

from torch import Tensor

DIGITS = 16  # of the SHA-256, 64 bits: no two samples of any data set share them by chance


def content_of(sample: Tensor) -> str:
    """Hex digits that are equal for equal pixels (3, H, W) or points (N, 3), shape and type included."""
    sha = hashlib.sha256(f"{sample.dtype} {tuple(sample.shape)} ".encode())
    sha.update(sample.detach().cpu().contiguous().numpy().data)
    return sha.hexdigest()[:DIGITS]
