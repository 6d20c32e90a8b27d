"""Sizes that networks can halve, and back."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """x (B, C, H, W) -> (B, C, H', W') with H', W' the next multiples; border pixels are repeated right and below.

    Repeating costs fewer bits than zeros, which would draw an edge around the image.
    """
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")


def padded_size(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
