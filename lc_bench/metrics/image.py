"""Image metrics on 8-bit RGB, the way published tables compute them.

MS-SSIM: Wang et al. 2003, as torchmetrics implements it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Five scales of an 11x11 window: the smallest scale has to hold one window.
MS_SSIM_SMALLEST = 11 * 2**4


def psnr(a: Tensor, b: Tensor) -> float:
    """a, b uint8 of one shape -> dB over all channels; infinite for equal images."""
    mse = torch.mean((a.double() - b.double()) ** 2).item()
    return math.inf if mse == 0 else 10 * math.log10(255**2 / mse)


def ms_ssim(a: Tensor, b: Tensor) -> float:
    """a, b (3, H, W) uint8 -> in [0, 1]; NaN where a side is under 176 pixels, for which it is not defined."""
    if min(a.shape[-2:]) < MS_SSIM_SMALLEST:
        return math.nan
    return ms_ssim_of(a[None].float() / 255, b[None].float() / 255)[0].item()


def ms_ssim_of(a: Tensor, b: Tensor) -> Tensor:
    """a, b (B, 3, H, W) in [0, 1] -> (B,); differentiable."""
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    return multiscale_structural_similarity_index_measure(a, b, reduction="none", data_range=1.0)


def ms_ssim_db(value: float) -> float:
    """-10 log10(1 - MS-SSIM): spreads out what lies near 1."""
    return math.inf if value >= 1 else -10 * math.log10(1 - value)
