"""What a masked convolution gives at a few cells, from the cells that are known so far."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Windows:
    """Cells lie (B, places, C) with a border of zeros around, so that the window of a cell is one gather.

    context: MaskedConv2d or CheckerboardConv2d, as the tape gives it.
    """

    def __init__(self, context: Any, batch: int, height: int, width: int, like: Tensor) -> None:
        self.reach = context.kernel_size[0] // 2
        self.height, self.width = height, width
        self.across = width + 2 * self.reach
        self.known = like.new_zeros(batch, (height + 2 * self.reach) * self.across, context.in_channels)
        self.offsets = (context.taps[:, 0] * self.across + context.taps[:, 1]).to(like.device)
        self.weight, self.bias = context.tap_weight(), context.bias

    def context(self, cells: Tensor) -> Tensor:
        """cells (n,), row * width + column -> (B, Q, n)."""
        place = self._corner(cells)[:, None] + self.offsets
        window = self.known[:, place.flatten()].view(len(self.known), len(cells), -1)
        return (window @ self.weight + self.bias).transpose(1, 2)

    def put(self, cells: Tensor, values: Tensor) -> None:
        """values (B, C, n) are known now."""
        self.known[:, self._corner(cells) + self.reach * self.across + self.reach] = values.transpose(1, 2)

    def grid(self) -> Tensor:
        """All cells, (B, C, H, W)."""
        inside = slice(self.reach, self.reach + self.height), slice(self.reach, self.reach + self.width)
        return self.known.unflatten(1, (-1, self.across))[:, inside[0], inside[1]].permute(0, 3, 1, 2)

    def _corner(self, cells: Tensor) -> Tensor:
        """Place of the upper left cell of the window."""
        return torch.div(cells, self.width, rounding_mode="floor") * self.across + cells % self.width
