"""Stacks of (transposed) convolutions, and the masked convolutions of context models."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError, unknown
from .gdn import GDN

ACTIVATIONS = {
    "gdn": lambda channels: GDN(channels),
    "igdn": lambda channels: GDN(channels, inverse=True),
    "relu": lambda channels: nn.ReLU(inplace=True),
    "leaky_relu": lambda channels: nn.LeakyReLU(inplace=True),
}


def conv_stack(
    channels: Sequence[int],
    kernel: int | Sequence[int] = 5,
    stride: int | Sequence[int] = 2,
    act: str = "relu",
    up: bool = False,
    last_act: bool = False,
) -> nn.Sequential:
    """Convolutions channels[0] -> channels[1] -> ..., with `act` between them and, with `last_act`, after the last.

    kernel and stride: one for all or one each. `up`: layers with a stride above 1 are transposed convolutions that
    enlarge by it; those of stride 1 stay plain. Every layer keeps sizes exact multiples of its stride.
    UserError for lists of other lengths, and for another `act`.
    """
    count = len(channels) - 1
    kernels, strides = _each("kernel", kernel, count), _each("stride", stride, count)
    if act not in ACTIVATIONS:
        raise unknown("act", act, ACTIVATIONS)
    layers: list[nn.Module] = []
    for i, (k, s) in enumerate(zip(kernels, strides, strict=True)):
        before, after = channels[i], channels[i + 1]
        if up and s > 1:
            layers.append(nn.ConvTranspose2d(before, after, k, s, padding=k // 2, output_padding=s - 1))
        else:
            layers.append(nn.Conv2d(before, after, k, s, padding=k // 2))
        if i < count - 1 or last_act:
            layers.append(ACTIVATIONS[act](after))
    return nn.Sequential(*layers)


def sub_pixel(before: int, after: int, kernel: int = 3, factor: int = 2) -> nn.Sequential:
    """A convolution whose channels become factor x factor pixels.  Shi et al. 2016, arXiv 1609.05158."""
    return nn.Sequential(nn.Conv2d(before, after * factor**2, kernel, padding=kernel // 2), nn.PixelShuffle(factor))


def _each(name: str, value: int | Sequence[int], count: int) -> list[int]:
    values = [value] * count if isinstance(value, int) else list(value)
    if len(values) != count:
        raise UserError(f"conv_stack: {name} has {len(values)} entries for {count} convolutions; give one number or {count}")
    return values


class _WindowConv2d(nn.Conv2d):
    """A convolution that sees some positions of its window only.

    `taps` (T, 2) are the (row, column) of the positions it sees, `gathered` computes it at a few places.
    """

    mask: Tensor

    def __init__(self, in_channels: int, out_channels: int, mask: Tensor) -> None:
        kernel = len(mask)
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2)
        self.register_buffer("mask", mask.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)

    @property
    def taps(self) -> Tensor:
        return self.mask.nonzero()

    def enter(self, values: Tensor) -> Tensor:
        """What windows hold of a cell's values."""
        return values

    def gathered(self) -> Callable[[Tensor], Tensor]:
        """From windows (..., T * in), tap by tap, to (..., out)."""
        row, column = self.taps.unbind(1)
        weight = self.weight[:, :, row, column].transpose(1, 2).flatten(1)
        return lambda window: F.linear(window, weight, self.bias)


class MaskedConv2d(_WindowConv2d):
    """(B, in, H, W) -> (B, out, H, W); sees only what comes before in raster order (van den Oord et al. 2016, arXiv 1601.06759, mask A)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 5) -> None:
        super().__init__(in_channels, out_channels, (torch.arange(kernel * kernel) < kernel * kernel // 2).view(kernel, kernel))


class CheckerboardConv2d(_WindowConv2d):
    """(B, in, H, W) -> (B, out, H, W); sees only the cells of the other colour (He et al. 2021, arXiv 2103.15306)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 5) -> None:
        place = torch.arange(kernel)
        super().__init__(in_channels, out_channels, (place[:, None] + place) % 2 == 1)
