"""Rate-distortion losses: bits per unit + lambda * distortion.  Ballé et al. 2017, arXiv 1611.01704."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import UserError, unknown
from ..metrics.image import MS_SSIM_SMALLEST, ms_ssim_of
from ..ops.quantise import between

METRICS = ("mse", "ms-ssim")


@dataclass
class Terms:
    """Scalars of one batch: loss = bpp + lmbda * distortion; psnr of the unrounded output in dB."""

    loss: Tensor
    bpp: Tensor
    distortion: Tensor
    psnr: Tensor


def psnr_of(mse: Tensor) -> Tensor:
    """dB of mean squared errors over a peak of 1, for the log."""
    return -10 / math.log(10) * mse.detach().clamp_min(1e-10).log()


class RateDistortion(nn.Module):
    """metric `mse`: distortion is 255^2 times the mean squared error; `ms-ssim`: 1 - MS-SSIM.

    lmbda: a number, or one per level of a model of variable rate, between which its logarithm is interpolated. Samples then
    weigh lmbda^-balance: losses grow with lambda, and without it the high rates would do all the learning.
    """

    def __init__(self, metric: str, lmbda: float | Sequence[float], balance: float = 0.5) -> None:
        super().__init__()
        if metric not in METRICS:
            raise unknown("rate.loss.metric", metric, METRICS)
        self.metric = metric
        self.lmbdas = [float(lmbda)] if isinstance(lmbda, int | float) else [float(v) for v in lmbda]
        self.balance = balance

    def forward(self, x: Tensor, x_hat: Tensor, bits: dict[str, Tensor], units: int, level: Tensor | None = None) -> Terms:
        """x, x_hat (B, C, H, W) in [0, 1]; bits (B,) by latent; units: pixels of a sample; level (B,) or (1,)."""
        if self.metric == "ms-ssim" and min(x.shape[-2:]) < MS_SSIM_SMALLEST:
            raise UserError(f"rate=ms-ssim: images of {x.shape[-1]}x{x.shape[-2]}; it needs {MS_SSIM_SMALLEST} pixels a side (run.crop)")
        mse = ((x_hat - x) ** 2).flatten(1).mean(1)
        distortion = 255**2 * mse if self.metric == "mse" else 1 - ms_ssim_of(x_hat, x)
        bpp = torch.stack(list(bits.values())).sum(0) / units
        lmbda, weight = self._lmbda(level)
        loss = (weight * (bpp + lmbda * distortion)).mean()
        return Terms(loss, bpp.mean(), distortion.mean(), psnr_of(mse).mean())

    def _lmbda(self, level: Tensor | None) -> tuple[Tensor | float, Tensor | float]:
        """Lambda and weight, (B,) or one."""
        if level is None:
            if len(self.lmbdas) > 1:
                raise UserError(f"a loss with {len(self.lmbdas)} lambdas needs the level of each sample")
            return self.lmbdas[0], 1.0
        logs = torch.tensor(self.lmbdas, dtype=torch.float32, device=level.device).log()
        log = between(logs, level)
        return log.exp(), (-self.balance * (log - logs.mean())).exp()
