"""Factorized prior: one learned density per channel, the same at every position.

The cumulative is a small monotone network, appendix 6.1 of Ballé et al. 2018, arXiv 1802.01436. Quantisation is to the
integers about each channel's median, which is found by bisection rather than trained by an optimiser of its own.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..coding.tables import TAIL, Tables
from ..ops import decimals
from .gaussian import likelihood_to_bits
from .rounding import Rounding

WIDEST = 4096  # symbols of a table; a density that is wider than that leaves the rest to the escape
SEARCH = 2.0**20  # medians and tails are looked for in +- this
MEDIAN_UNIT = 2.0**-14  # medians are its multiples: as fine as the values of exact networks, which see them
DOUBTFUL = 1e-9  # a logit of float64 below it may have another sign on another machine


class FactorizedPrior(Rounding, nn.Module):
    """A learned density for each channel.  Ballé et al. 2018, arXiv 1802.01436, appendix 6.1.

    channels: of the latent (B, C, ...); filters: widths of the hidden layers; init_scale: spread of the first density."""

    median: Tensor

    def __init__(self, channels: int, filters: tuple[int, ...] = (3, 3, 3, 3), init_scale: float = 10.0) -> None:
        super().__init__()
        self.channels = channels
        widths = (1, *filters, 1)
        gain = init_scale ** (1 / (len(filters) + 1))
        self.matrices = nn.ParameterList()
        self.biases = nn.ParameterList()
        self.factors = nn.ParameterList()
        for i, (before, after) in enumerate(itertools.pairwise(widths)):
            fill = math.log(math.expm1(1 / gain / after))
            self.matrices.append(nn.Parameter(torch.full((channels, after, before), fill)))
            self.biases.append(nn.Parameter(torch.empty(channels, after, 1).uniform_(-0.5, 0.5)))
            if i < len(filters):
                self.factors.append(nn.Parameter(torch.zeros(channels, after, 1)))
        self.register_buffer("median", torch.zeros(channels))
        self._median_is_stale = True
        self.unit_bins = False  # evaluation counts bins of width one whatever the step is

    @property
    def family(self) -> FactorizedPrior:
        return self

    @property
    def mean(self) -> Tensor:
        """(C, 1, 1): broadcasts over a latent (B, C, H, W)."""
        return self.median.view(-1, 1, 1)

    def logits(self, values: Tensor) -> Tensor:
        """values (C, n) -> (C, n): logits of the cumulative, increasing along n."""
        return self.cumulative()(values)

    def cumulative(self) -> Callable[[Tensor], Tensor]:
        """Return `logits` of the present weights, with what depends on them alone computed once.

        For searches, which ask for many values.
        """
        weights = [F.softplus(matrix) for matrix in self.matrices]
        biases = list(self.biases)
        factors = [torch.tanh(factor) for factor in self.factors]

        def logits(values: Tensor) -> Tensor:
            x = values.unsqueeze(1)
            for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                x = torch.matmul(weight, x) + bias
                if i < len(factors):
                    x = x + factors[i] * torch.tanh(x)
            return x.squeeze(1)

        return logits

    def bits(self, y: Tensor, step: Tensor | float = 1.0) -> Tensor:
        """y (B, C, ...) -> bits of bins of width `step`, same shape. step: one, or of a shape that broadcasts over y."""
        self._median_is_stale |= self.training
        values, half = y.transpose(0, 1), 0.5 * step
        half = half.expand(y.shape).transpose(0, 1).flatten(1) if isinstance(half, Tensor) else half
        flat = values.flatten(1)
        lower, upper = self.logits(flat - half), self.logits(flat + half)
        return likelihood_to_bits(_mass(lower, upper)).view(values.shape).transpose(0, 1)

    def over(self, step: Tensor) -> FactorizedOver:
        return FactorizedOver(self, step)

    def index(self, shape: torch.Size) -> Tensor:
        channel = torch.arange(self.channels, dtype=torch.int32, device=self.median.device)
        return channel.view(-1, *[1] * (len(shape) - 2)).expand(shape)

    def train(self, mode: bool = True) -> FactorizedPrior:
        """Entering evaluation after training finds the medians anew."""
        if not mode and self._median_is_stale:
            self.update_median()
        return super().train(mode)

    @torch.no_grad()
    def update_median(self) -> None:
        """The same on every machine, of the same weights."""
        medians = self._in_double().nearest_medians()
        with torch.inference_mode(self.median.is_inference()):  # else it could not be written to
            self.median.copy_(medians)
        self._median_is_stale = False

    def _in_double(self) -> FactorizedPrior:
        return copy.deepcopy(self).cpu().double()

    @torch.no_grad()
    def nearest_medians(self) -> Tensor:
        """(C,): the multiples of MEDIAN_UNIT next to where the cumulatives cross one half. Of a prior in float64 on the CPU."""
        logits = self.cumulative()
        low = torch.full((self.channels, 1), -SEARCH / MEDIAN_UNIT, dtype=torch.float64)
        high = -low
        while bool((high - low > 1).any()):
            middle = ((low + high) / 2).floor()
            place = (middle + 0.5) * MEDIAN_UNIT
            logit = logits(place)
            for channel in (logit.abs() < DOUBTFUL).nonzero()[:, 0].tolist():
                logit[channel] = self._sign_in_decimals(channel, Decimal(float(place[channel])))
            low, high = torch.where(logit < 0, middle, low), torch.where(logit < 0, high, middle)
        return (high * MEDIAN_UNIT).squeeze(1)

    def _sign_in_decimals(self, channel: int, place: Decimal) -> float:
        """Of a channel's logit there: -1 or 1."""
        x = [place]
        for i, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            rows = [[Decimal(decimals.softplus(Decimal(weight))) for weight in row] for row in matrix[channel].tolist()]
            sums = [sum((weight * value for weight, value in zip(row, x, strict=True)), Decimal(0)) for row in rows]
            x = [total + Decimal(more) for total, (more,) in zip(sums, bias[channel].tolist(), strict=True)]
            if i < len(self.factors):
                factors = [decimals.tanh(Decimal(factor)) for (factor,) in self.factors[i][channel].tolist()]
                x = [value + factor * decimals.tanh(value) for value, factor in zip(x, factors, strict=True)]
        return -1.0 if x[0] < 0 else 1.0

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:  # type: ignore[no-untyped-def]
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._median_is_stale = False

    @torch.no_grad()
    def quantile(self, probability: float) -> Tensor:
        """(C,): where the cumulative crosses the probability, by bisection."""
        target = math.log(probability / (1 - probability))
        logits = self.cumulative()
        low = torch.full((self.channels, 1), -SEARCH, dtype=self.median.dtype, device=self.median.device)
        high = -low
        for _ in range(64):
            middle = (low + high) / 2
            below = logits(middle) < target
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return ((low + high) / 2).squeeze(1)

    @torch.no_grad()
    def make_tables(self, step: float = 1.0) -> Tables:
        """Of y / step."""
        exact = self._in_double()
        median = exact.median
        first = ((exact.quantile(TAIL) - median) / step).floor().clamp(-WIDEST // 2, -2).long()
        last = ((exact.quantile(1 - TAIL) - median) / step).ceil().clamp(2, WIDEST // 2).long()
        count = last - first + 1
        edges = first[:, None] + torch.arange(int(count.max()) + 1) - 0.5  # (C, W + 1), left edge of every symbol
        logits = exact.logits(step * edges + median[:, None])
        pmf = np.zeros((self.channels, int(count.max()) + 1))
        pmf[:, :-1] = _mass(logits[:, :-1], logits[:, 1:]).numpy()
        left = torch.sigmoid(logits[:, 0])
        right = torch.sigmoid(-logits.gather(1, count[:, None])).squeeze(1)
        pmf[np.arange(self.channels), count.numpy()] = (left + right).numpy()  # the escape
        return Tables.from_pmf(pmf, (count + 1).numpy(), first.numpy())


@dataclass(frozen=True)
class StepFamily:
    """The tables of a prior at one step."""

    prior: FactorizedPrior
    step: float

    def make_tables(self) -> Tables:
        return self.prior.make_tables(self.step)


@dataclass(frozen=True)
class FactorizedOver(Rounding):
    """The distribution of y / step, for a latent of variable quantisation.  Kamisli et al. 2024, arXiv 2402.18930."""

    prior: FactorizedPrior
    step: Tensor

    @property
    def family(self) -> StepFamily:
        return StepFamily(self.prior, self.step.item())

    @property
    def mean(self) -> Tensor:
        return self.prior.mean / self.step

    def bits(self, y: Tensor) -> Tensor:
        """Of the bins as they are; but for a hyper-latent evaluation counts bins of width one, as the reference implementation does
        (it hands the step to an argument of another meaning), to be comparable with it. Streams have the tables of the true bins.
        """
        in_units = self.prior.unit_bins and not self.prior.training
        return self.prior.bits(y * self.step, 1.0 if in_units else self.step)

    def index(self, shape: torch.Size) -> Tensor:
        return self.prior.index(shape)


def _mass(lower: Tensor, upper: Tensor) -> Tensor:
    """Probability between two logits of the cumulative, from the side on which both sigmoids are small and keep their digits."""
    sign = torch.where(lower + upper > 0, -1.0, 1.0).to(lower.dtype)
    return (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs()
