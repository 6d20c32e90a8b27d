"""What results are measured by: pure functions."""

from .bd import bd_quality, bd_rate
from .hull import upper_hull
from .image import ms_ssim, psnr
from .points import chamfer

__all__ = ["bd_quality", "bd_rate", "chamfer", "ms_ssim", "psnr", "upper_hull"]
