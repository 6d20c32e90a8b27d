"""Rate-distortion losses: bits per unit + lambda * distortion.  Ballé et al. 2017, arXiv 1611.01704."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .errors import UserError, unknown
from .metrics.image import MS_SSIM_SMALLEST, ms_ssim_of

METRICS = ("mse", "ms-ssim")


@dataclass
class Terms:
    """Scalars of one batch: loss = bpp + lmbda * distortion; psnr of the unrounded output in dB."""

    loss: Tensor
    bpp: Tensor
    distortion: Tensor
    psnr: Tensor


class RateDistortion(nn.Module):
    """metric `mse`: distortion is 255^2 times the mean squared error; `ms-ssim`: 1 - MS-SSIM."""

    def __init__(self, metric: str, lmbda: float) -> None:
        super().__init__()
        if metric not in METRICS:
            raise unknown("rate.loss.metric", metric, METRICS)
        self.metric = metric
        self.lmbda = lmbda

    def forward(self, x: Tensor, x_hat: Tensor, bits: dict[str, Tensor], units: int) -> Terms:
        """x, x_hat (B, C, H, W) in [0, 1]; bits (B,) by latent; units: pixels of a sample."""
        if self.metric == "ms-ssim" and min(x.shape[-2:]) < MS_SSIM_SMALLEST:
            raise UserError(f"rate=ms-ssim: images of {x.shape[-1]}x{x.shape[-2]}; it needs {MS_SSIM_SMALLEST} pixels a side (run.crop)")
        mse = torch.mean((x_hat - x) ** 2)
        distortion = 255**2 * mse if self.metric == "mse" else 1 - ms_ssim_of(x_hat, x)
        bpp = torch.stack([b.mean() for b in bits.values()]).sum() / units
        psnr = -10 / math.log(10) * mse.detach().clamp_min(1e-10).log()
        return Terms(bpp + self.lmbda * distortion, bpp, distortion, psnr)
