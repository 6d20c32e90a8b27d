"""Pixels as image libraries take them."""

from __future__ import annotations

import numpy as np
from torch import Tensor


def interleaved(pixels: Tensor) -> np.ndarray:
    """(3, H, W) uint8 -> (H, W, 3), a copy in plain row order.

    A view with a side of one pixel counts as contiguous whatever its strides are, and encoders refuse it; so it is always a copy.
    """
    return pixels.permute(1, 2, 0).numpy().copy(order="C")
