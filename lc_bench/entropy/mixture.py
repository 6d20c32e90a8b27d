"""Gaussian mixture prior, and a way to code it with fixed tables.  Cheng et al. 2020, arXiv 2001.01568.

Every element has a distribution of its own here, so there is no table to look up. Its symbol is told by decisions between
two sets of integers instead (lc_bench.codecs.MixtureLatent asks them); the probability of each is a ratio of two masses of
the mixture, rounded to the nearest of some fixed odds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..coding.tables import Tables
from .gaussian import LARGEST_LOG, Gaussian, GaussianPrior, likelihood_to_bits
from .rounding import Rounding

# Odds from 2^-14 to 2^14 in 95 steps: rounding to the nearest costs at most 0.002 bits per decision, 0.0006 on average.
FINEST = 14.0
ODDS = 95
TINY = 1e-300


class GaussianMixturePrior(nn.Module):
    """Called with (B, 3 K C, ...): scales, means and weights of K components, each (B, K C, ...), component by component.

    Weights go through a softmax over components; with `log_scale`, scales are given as logarithms.
    """

    def __init__(self, components: int = 3, scale_min: float = 0.11, log_scale: bool = False) -> None:
        super().__init__()
        self.components = components
        self.scale_min = scale_min
        self.log_scale = log_scale
        self.gaussian = GaussianPrior(mean=True, scale_min=scale_min)
        self.odds = Odds()

    def forward(self, parameters: Tensor) -> GaussianMixture:
        scale, mean, weight = (part.unflatten(1, (self.components, -1)) for part in parameters.chunk(3, 1))
        scale = scale.clamp(-LARGEST_LOG, LARGEST_LOG).exp() if self.log_scale else scale
        return GaussianMixture(self, scale, mean, weight.softmax(1))


@dataclass(frozen=True)
class GaussianMixture(Rounding):
    """scale, mean, weight (B, K, C, ...). Quantisation is to the integers themselves."""

    family: GaussianMixturePrior
    scale: Tensor
    mean_of: Tensor
    weight: Tensor

    @property
    def mean(self) -> None:
        return None

    def over(self, step: Tensor) -> GaussianMixture:
        step = step.unsqueeze(1)
        return GaussianMixture(self.family, self.scale / step, self.mean_of / step, self.weight)

    def bits(self, y: Tensor) -> Tensor:
        parts = Gaussian(self.family.gaussian, self.scale, self.mean_of).likelihood(y.unsqueeze(1))
        return likelihood_to_bits((self.weight * parts).sum(1))

    def index(self, shape: torch.Size) -> Tensor:
        raise TypeError("a mixture has no tables; lc_bench.codecs.MixtureLatent codes it")

    def mass(self, low: Tensor, high: Tensor) -> Tensor:
        """Of the integers low .. high; of the shape of y, exact far out too."""
        scale = self.scale.clamp_min(self.family.scale_min)
        a, b = ((edge.unsqueeze(1) - self.mean_of) / scale for edge in (low - 0.5, high + 0.5))
        flip = torch.where(a + b > 0, -1.0, 1.0).to(a.dtype)  # to the side on which both tails are small
        return (self.weight * (torch.special.ndtr(flip * b) - torch.special.ndtr(flip * a)).abs()).sum(1)

    def at(self, place: Tensor) -> GaussianMixture:
        """Of the elements at these places of y.flatten(), as if y were (n,); float64."""
        scale, mean, weight = (p.double().movedim(1, -1).flatten(0, -2)[place] for p in (self.scale, self.mean_of, self.weight))
        return GaussianMixture(self.family, scale, mean, weight)


class Odds(nn.Module):
    """Tables of one decision, 0 or 1. The first is certain of 0."""

    def index(self, one: Tensor, zero: Tensor) -> Tensor:
        """Masses of 1 and of 0 -> the table, never the certain one."""
        odds = ((one + TINY) / (zero + TINY)).log2().clamp(-FINEST, FINEST)
        return ((odds / FINEST + 1) * ((ODDS - 1) / 2)).round().to(torch.int32) + 1

    def make_tables(self) -> Tables:
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
