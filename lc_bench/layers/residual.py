"""Residual blocks and simplified attention.

Plain, strided and enlarging blocks and attention: Cheng et al. 2020, arXiv 2001.01568; bottleneck: He et al. 2022 (ELIC),
arXiv 2203.10886. Parts have the names under which published checkpoints hold them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conv import sub_pixel
from .gdn import GDN


class Residual(nn.Module):
    """(B, before, H, W) -> (B, after, H, W): two 3x3 convolutions, each rectified, beside a skip; both have one rectifier."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.act = nn.LeakyReLU()
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv2(self.act(self.conv1(x)))) + self.skip(x)


class Pick(nn.Conv2d):
    """A strided 1x1 convolution, of the pixels that it sees: torch 2.13 writes beyond its memory in the gradients of a strided one with
    few channels, channels last, on a CPU.
    """

    def forward(self, input: Tensor) -> Tensor:
        down, right = self.stride
        return F.conv2d(input[:, :, ::down, ::right], self.weight, self.bias)


class ResidualDown(nn.Module):
    """(B, before, H, W) -> (B, after, H / stride, W / stride): strided 3x3, rectifier, 3x3, GDN, beside a strided 1x1."""

    def __init__(self, before: int, after: int, stride: int = 2) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.act = nn.LeakyReLU()
        self.gdn = GDN(after)
        self.skip = Pick(before, after, 1, stride) if stride > 1 or before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.gdn(self.conv2(self.act(self.conv1(x)))) + self.skip(x)


class ResidualUp(nn.Module):
    """(B, before, H, W) -> (B, after, H * factor, W * factor): sub-pixel 3x3, rectifier, 3x3, inverse GDN, beside a sub-pixel 3x3."""

    def __init__(self, before: int, after: int, factor: int = 2) -> None:
        super().__init__()
        self.subpel_conv = sub_pixel(before, after, factor=factor)
        self.conv = nn.Conv2d(after, after, 3, padding=1)
        self.act = nn.LeakyReLU()
        self.igdn = GDN(after, inverse=True)
        self.upsample = sub_pixel(before, after, factor=factor)

    def forward(self, x: Tensor) -> Tensor:
        return self.igdn(self.conv(self.act(self.subpel_conv(x)))) + self.upsample(x)


class ResidualBottleneck(nn.Module):
    """(B, C, H, W) -> same shape: x + (1x1 to half the channels, 3x3, 1x1 back), rectified in between."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        middle = channels // 2
        self.conv1 = nn.Conv2d(channels, middle, 1)
        self.conv2 = nn.Conv2d(middle, middle, 3, padding=1)
        self.conv3 = nn.Conv2d(middle, channels, 1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv3(self.act(self.conv2(self.act(self.conv1(x)))))


class _Unit(nn.Module):
    """A bottleneck that is rectified at its end."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        layers = (nn.Conv2d(channels, half, 1), nn.ReLU(), nn.Conv2d(half, half, 3, padding=1), nn.ReLU(), nn.Conv2d(half, channels, 1))
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.conv(x))


class Attention(nn.Module):
    """(B, C, H, W) -> same shape: x + a(x) * sigmoid(b(x)), both of three units; a gate without dot products."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_a = nn.Sequential(*(_Unit(channels) for _ in range(3)))
        self.conv_b = nn.Sequential(*(_Unit(channels) for _ in range(3)), nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_a(x) * torch.sigmoid(self.conv_b(x))
