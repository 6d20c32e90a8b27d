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
        self.enter, self.at = context.enter, context.gathered()
        self.values = like.new_zeros(batch, context.in_channels, height * width)
        self.shift: Tensor | float = 0.0  # (B, 1, Q), added to every context

    def context(self, cells: Tensor) -> Tensor:
        """cells (n,), row * width + column -> (B, Q, n)."""
        place = self._corner(cells)[:, None] + self.offsets
        window = self.known[:, place.flatten()].view(len(self.known), len(cells), -1)
        return (self.at(window) + self.shift).transpose(1, 2)

    def put(self, cells: Tensor, values: Tensor) -> None:
        """values (B, C, n) are known now."""
        self.known[:, self._corner(cells) + self.reach * self.across + self.reach] = self.enter(values).transpose(1, 2)
        self.values[:, :, cells] = values

    def grid(self) -> Tensor:
        """All cells, (B, C, H, W)."""
        return self.values.unflatten(2, (self.height, self.width))

    def _corner(self, cells: Tensor) -> Tensor:
        """Place of the upper left cell of the window."""
        return torch.div(cells, self.width, rounding_mode="floor") * self.across + cells % self.width
