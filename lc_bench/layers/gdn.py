"""Generalised divisive normalisation: x_i / sqrt(beta_i + sum_j gamma_ij x_j^2), and its approximate inverse.

Ballé et al. 2016, arXiv 1511.06281.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.bounds import from_root, to_root


class GDN(nn.Module):
    """(B, C, H, W) -> same shape; `inverse` multiplies where GDN divides."""

    def __init__(self, channels: int, inverse: bool = False, beta_min: float = 1e-6, gamma_init: float = 0.1) -> None:
        super().__init__()
        self.inverse = inverse
        self.beta_min = beta_min
        self.beta = nn.Parameter(to_root(torch.ones(channels)))
        self.gamma = nn.Parameter(to_root(gamma_init * torch.eye(channels)))

    def forward(self, x: Tensor) -> Tensor:
        beta = from_root(self.beta, self.beta_min)
        gamma = from_root(self.gamma)
        return self.normalise(x, gamma[:, :, None, None], beta)

    def normalise(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        norm = F.conv2d(x * x, gamma, beta)
        return x * (norm.sqrt() if self.inverse else norm.rsqrt())


class GDN1(GDN):
    """(B, C, H, W) -> same shape, without the squares: x_i / (beta_i + sum_j gamma_ij |x_j|).  Johnston et al. 2019, arXiv 1912.08771."""

    def normalise(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        norm = F.conv2d(x.abs(), gamma, beta)
        return x * norm if self.inverse else x / norm
