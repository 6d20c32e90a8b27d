"""What results are measured by: pure functions."""

from .bd import bd_rate
from .image import ms_ssim, psnr
from .points import chamfer

__all__ = ["bd_rate", "chamfer", "ms_ssim", "psnr"]
