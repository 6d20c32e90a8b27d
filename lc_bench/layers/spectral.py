"""Convolutions whose kernels are learned in the frequency domain.

All frequencies of a kernel then move at one speed under Adam.  Ballé 2018, arXiv 1802.00847.
"""

from __future__ import annotations

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


def _in_frequency(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    parametrize.register_parametrization(layer, "weight", _Spectrum(tuple(layer.kernel_size)), unsafe=True)


class SpectralConv2d(nn.Conv2d):
    """nn.Conv2d, its kernel learned as a spectrum."""

    def __init__(self, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        super().__init__(*args, **kwargs)
        _in_frequency(self)


class SpectralConvTranspose2d(nn.ConvTranspose2d):
    """nn.ConvTranspose2d, its kernel learned as a spectrum."""

    def __init__(self, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        super().__init__(*args, **kwargs)
        _in_frequency(self)
