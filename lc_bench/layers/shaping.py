"""Small blocks that give a tensor another shape, order or size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Reshape(nn.Module):
    """(B, ...) -> (B, *shape)."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *self.shape)


class Interleave(nn.Module):
    """Channel i of group j becomes channel i * groups + j: (B, C, ...) keeps its shape.  Zhang et al. 2018, arXiv 1707.01083."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)


class Gain(nn.Module):
    """factor * gain * x with a learned gain of the given shape, which broadcasts; training starts at `factor`."""

    def __init__(self, shape: Sequence[int], factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor
        self.gain = nn.Parameter(torch.ones(tuple(shape)))

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.gain * x
