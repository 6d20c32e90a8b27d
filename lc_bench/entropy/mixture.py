"""Gaussian mixture prior, and a way to code it with fixed tables.  Cheng et al. 2020, arXiv 2001.01568.

Every element has a distribution of its own here, so there is no table to look up. Its symbol is told by decisions between
two sets of integers instead (lc_bench.codecs.MixtureLatent asks them); the probability of each is a ratio of two masses of
the mixture, rounded to the nearest of some fixed odds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from torch import Tensor, nn

from ..coding.exact import on_grid
from ..coding.tables import Tables
from ..errors import UserError
from .gaussian import Gaussian, GaussianPrior, likelihood_to_bits
from .lookup import PHI_TOTAL, exponential, look_up_series, nearest_of_series, normal
from .rounding import Rounding

# Odds from 2^-14 to 2^14 in 95 steps: rounding to the nearest costs at most 0.002 bits per decision, 0.0006 on average.
FINEST = 14.0
ODDS = 95
WEIGHT_TOTAL = 2.0**16  # of the heaviest component; times PHI_TOTAL and 32 components a sum is still below 2^53
MOST_COMPONENTS = 32


class GaussianMixturePrior(nn.Module):
    """Called with (B, 3 K C, ...): scales, means and weights of K components, each (B, K C, ...), component by component.

    Weights go through a softmax over components; with `log_scale`, scales are given as logarithms.
    """

    def __init__(self, components: int = 3, scale_min: float = 0.11, log_scale: bool = False) -> None:
        super().__init__()
        if not 1 <= components <= MOST_COMPONENTS:
            raise UserError(f"components={components}: a mixture has 1 to {MOST_COMPONENTS}")
        self.components = components
        self.scale_min = scale_min
        self.log_scale = log_scale
        self.gaussian = GaussianPrior(mean=True, scale_min=scale_min)
        self.odds = Odds()

    def forward(self, parameters: Tensor) -> GaussianMixture:
        scale, mean, weight = (part.unflatten(1, (self.components, -1)) for part in parameters.chunk(3, 1))
        return GaussianMixture(self, exponential(scale) if self.log_scale else scale, mean, weight)


@dataclass(frozen=True)
class GaussianMixture(Rounding):
    """scale, mean, logarithms of weights (B, K, C, ...). Quantisation is to the integers themselves."""

    family: GaussianMixturePrior
    scale: Tensor
    mean_of: Tensor
    log_weight: Tensor

    @property
    def mean(self) -> None:
        return None

    @cached_property
    def weight(self) -> Tensor:
        return self.log_weight.softmax(1)

    def over(self, step: Tensor) -> GaussianMixture:
        step = step.unsqueeze(1)
        return GaussianMixture(self.family, self.scale / step, self.mean_of / step, self.log_weight)

    def bits(self, y: Tensor) -> Tensor:
        parts = Gaussian(self.family.gaussian, self.scale, self.mean_of).likelihood(y.unsqueeze(1))
        return likelihood_to_bits((self.weight * parts).sum(1))

    def index(self, shape: torch.Size) -> Tensor:
        raise TypeError("a mixture has no tables; lc_bench.codecs.MixtureLatent codes it")

    def whole(self) -> WholeMixture:
        """Of the elements of y.flatten(), as coding wants it."""
        scale, mean, log = (p.double().movedim(1, -1).flatten(0, -2) for p in (self.scale, self.mean_of, self.log_weight))
        weight = exponential(log - log.amax(1, keepdim=True)).mul_(WEIGHT_TOTAL).add_(0.5).floor_()
        return WholeMixture(on_grid(mean), scale.clamp_min(self.family.scale_min), weight)


@dataclass(frozen=True)
class WholeMixture:
    """A mixture for each of n elements, whose masses are whole numbers: the same on every machine. All (n, K) float64."""

    mean: Tensor  # on the grid of exact arithmetic
    scale: Tensor
    weight: Tensor  # whole

    @property
    def total(self) -> Tensor:
        """(n,): the mass of everything."""
        return self.weight.sum(1) * PHI_TOTAL

    @property
    def middle(self) -> Tensor:
        """(n,): the integer nearest to the mean of the mixture."""
        return ((self.weight * self.mean).sum(1) / self.weight.sum(1)).round()

    def mass(self, low: Tensor, high: Tensor) -> Tensor:
        """(n,): of the integers low .. high."""
        a, b = (normal((edge.unsqueeze(1) - self.mean) / self.scale) for edge in (low - 0.5, high + 0.5))
        return (self.weight * (b - a)).sum(1)

    def at(self, place: Tensor) -> WholeMixture:
        return WholeMixture(self.mean[place], self.scale[place], self.weight[place])


class Odds(nn.Module):
    """Tables of one decision, 0 or 1. The first is certain of 0."""

    nearest: Tensor

    def __init__(self) -> None:
        super().__init__()
        step = 2 * FINEST / (ODDS - 1) * math.log(2)
        self.register_buffer("nearest", nearest_of_series(2.0**-FINEST, step, ODDS), persistent=False)

    def index(self, one: Tensor, zero: Tensor) -> Tensor:
        """Masses of 1 and of 0, whole -> the table, never the certain one."""
        return look_up_series(self.nearest, (one + 1) / (zero + 1)) + 1

    def make_tables(self) -> Tables:
        return _tables()


@cache
def _tables() -> Tables:
    """Tables of one decision; all models share them."""
    odds = np.linspace(-FINEST, FINEST, ODDS)
    one = 1 / (1 + 2.0**-odds)
    pmf = np.zeros((ODDS + 1, 3))
    pmf[1:, 0], pmf[1:, 1], pmf[1:, 2] = 1 - one, one, 1e-9  # the escape is never used
    pmf[0, 0] = 1.0
    return Tables.from_pmf(pmf, np.array([1, *[3] * ODDS]), np.zeros(ODDS + 1, np.int64))


@dataclass(frozen=True)
class Decision(Rounding):
    """A prior over 0 and 1. table: (B, C, ...) int32; the first is certain of 0."""

    family: Odds
    table: Tensor

    @property
    def mean(self) -> None:
        return None

    def index(self, shape: torch.Size) -> Tensor:
        return self.table.expand(shape)
