"""Gaussian prior with predicted scale and, optionally, mean.

Scale: Ballé et al. 2018, arXiv 1802.01436. Mean: Minnen et al. 2018, arXiv 1809.02736.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from scipy.special import ndtr
from torch import Tensor, nn

from ..coding.ans import SLOTS
from ..coding.tables import Tables
from ..ops.bounds import lower_bound
from .lookup import exponential, look_up_series, nearest_of_series
from .rounding import Rounding

FARTHEST = 4.3  # standard deviations that a table reaches
MORE = 2  # symbols beyond: latents have longer tails than Gaussians
NO_ESCAPE = 0.33  # below this scale not even 2 comes once in 200,000 symbols: exceptions do for what a model has not foreseen
SMALLEST_LIKELIHOOD = 1e-9  # as the reference implementation bounds it: an impossible symbol costs 30 bits


def likelihood_to_bits(likelihood: Tensor) -> Tensor:
    """Bits of each element; likelihoods below 1e-9 count as that."""
    return -lower_bound(likelihood, SMALLEST_LIKELIHOOD).log2()


class GaussianPrior(nn.Module):
    """A family of Gaussians, with `levels` tables for scales spaced evenly in their logarithm.

    Called with parameters (B, C, ...) it is the Gaussians with these scales; with `mean`, the second half of the
    channels (with `mean_first`, the first) are the means; with `log_scale`, the parameters are logarithms of scales.
    Estimates use the exact scale (at least `scale_min`); coding uses the nearest table.

    dead_zone: the sender rounds to 0 where that saves more bits, times dead_zone, than it adds squared error (in steps);
    closed_below: latents of smaller scales are not sent, both sides take their means. Both matter outside training only.
    """

    threshold: Tensor
    nearest: Tensor

    def __init__(
        self,
        mean: bool = True,
        scale_min: float = 0.11,
        scale_max: float = 256.0,
        levels: int = 128,
        log_scale: bool = False,
        mean_first: bool = False,
        dead_zone: float = 0.0,
        closed_below: float = 0.0,
    ) -> None:
        super().__init__()
        self.mean = mean
        self.log_scale = log_scale
        self.mean_first = mean_first
        self.scale_min = scale_min
        self.scale_max = scale_max
        self.levels = levels
        self.step = math.log(scale_max / scale_min) / (levels - 1)
        scale = self.table_scales()
        self.closed = int((scale < closed_below).sum())  # so many tables, from the smallest scale on
        zero, one = (-np.log2(np.maximum(ndtr((k + 0.5) / scale) - ndtr((k - 0.5) / scale), SMALLEST_LIKELIHOOD)) for k in (0, 1))
        threshold = torch.from_numpy(0.5 + dead_zone * (one - zero) / 2)
        threshold[: self.closed] = math.inf
        self.register_buffer("threshold", threshold, persistent=False)  # magnitudes below it are rounded to 0
        self.register_buffer("nearest", nearest_of_series(scale_min, self.step, levels), persistent=False)
        self.rounds_plainly = dead_zone == 0 and self.closed == 0

    def forward(self, parameters: Tensor) -> Gaussian:
        scale, mean = parameters.chunk(2, 1) if self.mean else (parameters, None)
        if self.mean_first and mean is not None:
            scale, mean = mean, scale
        return Gaussian(self, exponential(scale) if self.log_scale else scale, mean)

    def table_scales(self) -> np.ndarray:
        return self.scale_min * np.exp(self.step * np.arange(self.levels))

    def make_tables(self) -> Tables:
        return _tables(self.table_scales().tobytes(), self.closed)


@lru_cache(maxsize=2)  # with what coding derives from them they take 50 MB
def _tables(scales: bytes, closed: int) -> Tables:
    """Return the tables of these scales (bytes of float64), of which the first `closed` are
    certain of 0.

    They have nothing of a model's weights: models share them.
    """
    scale = np.frombuffer(scales, np.float64)
    # Symbols of a sixth of a count and more, within 4.3 standard deviations: further out the
    # escape is cheaper. Small scales need none.
    far = np.sqrt(2 * np.log(6 * SLOTS / (scale * math.sqrt(2 * math.pi))))
    escapes = scale >= NO_ESCAPE
    reach = np.ceil(np.minimum(far, FARTHEST) * scale - 0.5)
    reach = np.maximum(reach, 1).astype(np.int64) + MORE * escapes
    magnitude = np.abs(np.arange(2 * reach.max() + 2) - reach[:, None])
    below = ndtr((-0.5 - magnitude) / scale[:, None])
    pmf = ndtr((0.5 - magnitude) / scale[:, None]) - below
    row = np.arange(len(scale))
    pmf[row, 2 * reach + 1] = 2 * ndtr((-0.5 - reach) / scale)  # the escape
    # At the smallest scale anything but 0 has a probability of 5e-6, less than a table can say.
    certain = row < max(1, closed)
    pmf[certain, 0] = 1.0
    reach[certain] = 0
    escapes[certain] = False
    return Tables.from_pmf(pmf, 2 * reach + 1 + escapes, -reach, escapes)


@dataclass(frozen=True)
class Gaussian(Rounding):
    """One Gaussian per element; scale and mean have the shape of the latent."""

    family: GaussianPrior
    scale: Tensor
    mean: Tensor | None = None

    @property
    def width(self) -> Tensor:
        return lower_bound(self.scale, self.family.scale_min)

    def over(self, step: Tensor) -> Gaussian:
        """The distribution of y / step."""
        return Gaussian(self.family, self.scale / step, None if self.mean is None else self.mean / step)

    def bits(self, y: Tensor) -> Tensor:
        bits = likelihood_to_bits(self.likelihood(y))
        if self.family.closed and not self.family.training:
            bits = torch.where(self.index(y.shape) < self.family.closed, 0.0, bits)
        return bits

    def symbols(self, y: Tensor) -> Tensor:
        symbols = super().symbols(y)
        if not self.family.rounds_plainly:
            centred = y if self.mean is None else y - self.mean
            symbols[centred.abs() < self.family.threshold[self.index(y.shape)]] = 0
        return symbols

    def likelihood(self, y: Tensor) -> Tensor:
        """Mass of the bin of width one about y."""
        distance = (y if self.mean is None else y - self.mean).abs()
        width = self.width * math.sqrt(2)
        upper = torch.erfc((distance - 0.5) / width)
        lower = torch.erfc((distance + 0.5) / width)
        return 0.5 * (upper - lower)

    def index(self, shape: torch.Size) -> Tensor:
        return self._index.expand(shape)

    @cached_property
    def _index(self) -> Tensor:
        """Tables by element of the scale; rounding, counting and coding all ask for them."""
        return look_up_series(self.family.nearest, self.scale)
