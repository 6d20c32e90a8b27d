"""Quantisation, and what stands in for it while training.

Uniform noise: Ballé et al. 2017, arXiv 1611.01704. Straight-through rounding: Theis et al. 2017, arXiv 1703.00395.
"""

from __future__ import annotations

import torch
from torch import Tensor


def add_noise(y: Tensor) -> Tensor:
    """y + U(-1/2, 1/2): has the density that rounding would sample."""
    return y + torch.empty_like(y).uniform_(-0.5, 0.5)


def round_straight_through(y: Tensor, mean: Tensor | None = None) -> Tensor:
    """Rounds y to the integers about `mean`; the gradient is that of y."""
    centred = y if mean is None else y - mean
    rounded = centred.round() if mean is None else centred.round() + mean
    return y + (rounded - y).detach() if y.requires_grad else rounded


def between(values: Tensor, level: Tensor) -> Tensor:
    """values (L, ...) of levels 0 .. L - 1, and level (B,) -> (B, ...), interpolated linearly."""
    below = level.floor().long().clamp(0, len(values) - 2)
    part = (level - below).to(values).view(-1, *[1] * (values.ndim - 1))
    return torch.lerp(values[below], values[below + 1], part)
