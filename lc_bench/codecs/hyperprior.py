"""Latent codecs without a context model: a bottleneck alone, or with a hyperprior.

Factorized and scale hyperprior: Ballé et al. 2018, arXiv 1802.01436; mean and scale: Minnen et al. 2018, arXiv 1809.02736.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..coding.tapes import Tape
from ..entropy import FactorizedPrior, GaussianPrior


class Bottleneck(nn.Module):
    """y (B, C, H, W), all of it under one factorized prior."""

    def __init__(self, prior: FactorizedPrior, name: str = "y") -> None:
        super().__init__()
        self.prior = prior
        self.name = name
        prior.unit_bins = name == "z"

    def forward(self, tape: Tape, y: Tensor) -> Tensor:
        return tape.code(self.name, y, self.prior)


class GaussianLatent(nn.Module):
    """y (B, C, H, W) under the Gaussians that the parameters (B, P, H, W) say."""

    def __init__(self, prior: GaussianPrior) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, tape: Tape, y: Tensor, parameters: Tensor) -> Tensor:
        return tape.code("y", y, self.prior(parameters))


class Hyperprior(nn.Module):
    """Sends z = h_a(y) first; h_s(z_hat) are the parameters for y. `magnitude`: h_a sees |y|."""

    def __init__(self, h_a: nn.Module, h_s: nn.Module, z: Bottleneck, y: nn.Module, magnitude: bool = False) -> None:
        super().__init__()
        self.h_a = h_a
        self.h_s = h_s
        self.z = z
        self.y = y
        self.magnitude = magnitude

    def forward(self, tape: Tape, y: Tensor) -> Tensor:
        z_hat = self.z(tape, tape.side(self.h_a, tape.tell(y.abs() if self.magnitude else y)))
        return self.y(tape, y, tape.exact(self.h_s)(tape.tell(z_hat)))
