"""Residual blocks."""

from __future__ import annotations

from torch import Tensor, nn


class ResidualBottleneck(nn.Module):
    """x + (1x1 to half the channels, 3x3, 1x1 back), rectified in between.  He et al. 2022 (ELIC), arXiv 2203.10886."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        middle = channels // 2
        self.conv1 = nn.Conv2d(channels, middle, 1)
        self.conv2 = nn.Conv2d(middle, middle, 3, padding=1)
        self.conv3 = nn.Conv2d(middle, channels, 1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv3(self.act(self.conv2(self.act(self.conv1(x)))))
