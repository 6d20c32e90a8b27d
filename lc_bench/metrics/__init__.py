"""What results are measured by: pure functions."""

from .bd import bd_rate
from .image import ms_ssim, psnr

__all__ = ["bd_rate", "ms_ssim", "psnr"]
