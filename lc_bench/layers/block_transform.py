"""A learned block transform with a network beside it, which starts as the best-known transform rather than from noise.

Both directions begin as an orthonormal DCT of every block in a luma-chroma basis, and the networks beside them begin at
zero: training starts at a classical codec's level and moves on from there, everything included.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from .residual import ResidualBottleneck

# Rows: luma, blue-yellow, red-green. Orthonormal, near the principal axes of photographs' colours.
COLOUR = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
COLOUR = COLOUR / COLOUR.norm(dim=1, keepdim=True)
# Detail of that many DCT steps less is kept in the two colour differences: their energy lies in the low frequencies.
CHROMA_REACH = 2.0


def dct_matrix(size: int) -> Tensor:
    """(size, size): row k is the k-th orthonormal cosine."""
    k, n = torch.arange(size, dtype=torch.float64)[:, None], torch.arange(size, dtype=torch.float64)
    rows = torch.cos(math.pi * (2 * n + 1) * k / (2 * size)) * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    return rows


def block_basis(channels: int, block: int) -> Tensor:
    """(channels, 3 * block^2), orthonormal rows in PixelUnshuffle's order: low frequencies first, chroma among them."""
    cosines = dct_matrix(block)
    spatial = torch.einsum("iy,jx->ijyx", cosines, cosines).flatten(0, 1).flatten(1)  # (block^2, block^2)
    frequency = torch.arange(block, dtype=torch.float64)
    radius = (frequency[:, None] ** 2 + frequency**2).sqrt().flatten()
    rank = torch.cat([radius, CHROMA_REACH * radius + 0.1, CHROMA_REACH * radius + 0.2])
    order = rank.argsort(stable=True)[:channels]
    rows = torch.einsum("cd,kp->ckdp", COLOUR.double(), spatial).flatten(0, 1).flatten(1)
    return rows[order].float()


def _check(channels: int, block: int) -> None:
    if channels > 3 * block * block:
        raise UserError(f"{channels} channels: a block of {block}x{block} pixels in three colours has {3 * block * block}")


class BlockAnalysis(nn.Module):
    """x (B, 3, H, W) in [0, 1] -> y (B, channels, H / block, W / block), in units of `unit`.

    widths: channels of the network beside at 1/4 and 1/8 of the resolution; depths: residual blocks at each.
    """

    def __init__(self, channels: int, widths: tuple[int, int], depths: tuple[int, int], unit: float = 0.15, block: int = 16) -> None:
        super().__init__()
        _check(channels, block)
        self.block = block
        self.transform = nn.Conv2d(3 * block * block, channels, 1)
        self.beside = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, widths[0], 3, padding=1),
            *(ResidualBottleneck(widths[0]) for _ in range(depths[0])),
            nn.Conv2d(widths[0], widths[1], 2, stride=2),
            *(ResidualBottleneck(widths[1]) for _ in range(depths[1])),
            nn.Conv2d(widths[1], channels, block // 8, stride=block // 8),
        )
        with torch.no_grad():
            self.transform.weight.copy_(block_basis(channels, block)[:, :, None, None] / unit)
        for parameter in (self.transform.bias, self.beside[-1].weight, self.beside[-1].bias):
            nn.init.zeros_(parameter)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = x - 0.5
        return self.transform(F.pixel_unshuffle(x, self.block)) + self.beside(x)


class BlockSynthesis(nn.Module):
    """y_hat (B, channels + 1, h, w), the last channel saying the level -> x_hat (B, 3, block h, block w).

    The network beside sees y_hat and what the transform makes of it, and removes the blocks' edges.
    """

    def __init__(self, channels: int, widths: tuple[int, int], depths: tuple[int, int], unit: float = 0.15, block: int = 16) -> None:
        super().__init__()
        _check(channels, block)
        self.block = block
        self.transform = nn.Conv2d(channels, 3 * block * block, 1)
        up = block // 8
        self.coarse = nn.Sequential(
            nn.Conv2d(channels + 1, widths[1] * up * up, 1),
            nn.PixelShuffle(up),
            *(ResidualBottleneck(widths[1]) for _ in range(depths[1])),
            nn.Conv2d(widths[1], widths[0] * 4, 1),
            nn.PixelShuffle(2),
        )
        self.seen = nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(48, widths[0], 3, padding=1))
        self.fine = nn.Sequential(
            *(ResidualBottleneck(widths[0]) for _ in range(depths[0])),
            nn.Conv2d(widths[0], 48, 3, padding=1),
            nn.PixelShuffle(4),
        )
        with torch.no_grad():
            self.transform.weight.copy_(block_basis(channels, block).T[:, :, None, None] * unit)
        for parameter in (self.transform.bias, self.fine[-2].weight, self.fine[-2].bias):
            nn.init.zeros_(parameter)  # type: ignore[arg-type]

    def forward(self, y_hat: Tensor) -> Tensor:
        plain = F.pixel_shuffle(self.transform(y_hat[:, :-1]), self.block)
        return plain + self.fine(self.coarse(y_hat) + self.seen(plain)) + 0.5
