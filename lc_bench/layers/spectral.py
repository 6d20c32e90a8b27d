"""Convolutions whose kernels are learned in the frequency domain.

All frequencies of a kernel then move at one speed under Adam.  Ballé 2018, arXiv 1802.00847.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class _Spectrum(nn.Module):
    """weight (..., k, k) <-> its orthonormal half spectrum (..., k, k // 2 + 1, 2), real and imaginary parts."""

    def __init__(self, size: tuple[int, ...]) -> None:
        super().__init__()
        self.size = size

    def forward(self, spectrum: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.view_as_complex(spectrum), s=self.size, norm="ortho")

    def right_inverse(self, weight: Tensor) -> Tensor:
        return torch.view_as_real(torch.fft.rfft2(weight, norm="ortho")).contiguous()

    def exact_weight(self, spectrum: Tensor) -> Tensor:
        """The weight in float64 by sums without rounding, the same on every machine; a Fourier transform's last bits are its library's.

        Both factors are rounded first: the transform's matrix to 2^-20, the spectrum to 2^-24 of its largest value.
        """
        values = spectrum.detach().cpu().double().flatten(-3)
        matrix = self(torch.eye(values.shape[-1], dtype=torch.float64).unflatten(1, spectrum.shape[-3:])).flatten(1)
        unit = 2.0 ** (math.frexp(float(values.abs().max()))[1] - 24)
        return ((values / unit).round() @ (matrix * 2.0**20).round() * (unit * 2.0**-20)).unflatten(-1, self.size)


def _in_frequency(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    parametrize.register_parametrization(layer, "weight", _Spectrum(tuple(layer.kernel_size)), unsafe=True)


class SpectralConv2d(nn.Conv2d):
    """nn.Conv2d, its kernel learned as a spectrum: (B, in, H, W) -> (B, out, H / stride, W / stride).  Ballé 2018, arXiv 1802.00847."""

    def __init__(self, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        super().__init__(*args, **kwargs)
        _in_frequency(self)


class SpectralConvTranspose2d(nn.ConvTranspose2d):
    """nn.ConvTranspose2d, its kernel learned as a spectrum: (B, in, H, W) -> (B, out, H * stride, W * stride). The same source."""

    def __init__(self, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        super().__init__(*args, **kwargs)
        _in_frequency(self)
