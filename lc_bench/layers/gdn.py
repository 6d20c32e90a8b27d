"""Generalised divisive normalisation: x_i / sqrt(beta_i + sum_j gamma_ij x_j^2), and its approximate inverse.

Ballé et al. 2016, arXiv 1511.06281. Gradients are written out: they keep and read less than what autograd would make of the formula,
a fifth to a quarter of the time of such a layer on a CPU.
"""

from __future__ import annotations

from typing import Any

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
        if torch.is_grad_enabled():
            return _Normalise.apply(x, gamma.to(x.dtype), beta.to(x.dtype), self.inverse)  # type: ignore[return-value]
        return normalise(x, gamma, beta, self.inverse)


def normalise(x: Tensor, gamma: Tensor, beta: Tensor, inverse: bool) -> Tensor:
    """x (B, C, H, W), gamma (C, C, 1, 1), beta (C,): the formula."""
    norm = F.conv2d(x * x, gamma, beta)
    return x * (norm.sqrt() if inverse else norm.rsqrt())


class _Normalise(torch.autograd.Function):
    """`normalise` with its first derivatives."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, inverse: bool) -> Tensor:  # type: ignore[override]
        norm = F.conv2d(x * x, gamma, beta)
        root = norm.sqrt_() if inverse else norm.rsqrt_()
        ctx.save_for_backward(x, gamma, root)
        ctx.inverse = inverse
        return x * root

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # type: ignore[override]
        x, gamma, root = ctx.saved_tensors
        direct = grad * root
        # By the norm n: d sqrt(n) = 1 / (2 sqrt(n)), d rsqrt(n) = -rsqrt(n)^3 / 2.
        by_norm = (grad * x).div_(root).mul_(0.5) if ctx.inverse else (direct * x).mul_(root).mul_(root).mul_(-0.5)
        squares = torch.ops.aten.convolution_backward(
            by_norm, x * x, gamma, [len(gamma)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, True, True]
        )
        by_square, by_gamma, by_beta = squares
        return direct.addcmul_(x, by_square, value=2), by_gamma, by_beta, None


class GDN1(GDN):
    """(B, C, H, W) -> same shape, without the squares: x_i / (beta_i + sum_j gamma_ij |x_j|).  Johnston et al. 2019, arXiv 1912.08771."""

    def normalise(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        norm = F.conv2d(x.abs(), gamma, beta)
        return x * norm if self.inverse else x / norm
