"""Generalised divisive normalisation: x_i / sqrt(beta_i + sum_j gamma_ij x_j^2), and its approximate inverse.

Ballé et al. 2016, arXiv 1511.06281.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.bounds import lower_bound

# beta and gamma are kept as square roots of (value + pedestal), which slows their gradient near zero (ibid., sec. 3).
PEDESTAL = 2.0**-36


def _encode(value: Tensor) -> Tensor:
    return (value + PEDESTAL).clamp_min(PEDESTAL).sqrt()


def _decode(root: Tensor, minimum: float) -> Tensor:
    return lower_bound(root, (minimum + PEDESTAL) ** 0.5) ** 2 - PEDESTAL


class GDN(nn.Module):
    """(B, C, H, W) -> same shape; `inverse` multiplies where GDN divides."""

    def __init__(self, channels: int, inverse: bool = False, beta_min: float = 1e-6, gamma_init: float = 0.1) -> None:
        super().__init__()
        self.inverse = inverse
        self.beta_min = beta_min
        self.beta = nn.Parameter(_encode(torch.ones(channels)))
        self.gamma = nn.Parameter(_encode(gamma_init * torch.eye(channels)))

    def forward(self, x: Tensor) -> Tensor:
        beta = _decode(self.beta, self.beta_min)
        gamma = _decode(self.gamma, 0.0)
        norm = F.conv2d(x * x, gamma[:, :, None, None], beta)
        return x * (norm.sqrt() if self.inverse else norm.rsqrt())
