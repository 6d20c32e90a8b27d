"""Functions by table, so that coding gets the same bits of them everywhere.

Tables of exponentials and of the normal distribution are made in whole numbers, where nothing depends on a maths library.
"""

from __future__ import annotations

import functools
import math
from decimal import Decimal

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..ops.decimals import ARITHMETIC

LARGEST_LOG = 20.0  # beyond it a scale says nothing more, and its exponential overflows sooner or later
LOG_UNIT = 2.0**-10  # of exponentials' arguments: 0.1 % of a scale
PHI_UNIT = 2.0**-12  # of the normal distribution's arguments
PHI_LARGEST = 6.0
PHI_TOTAL = 2.0**32  # of its values
POINT = 160  # binary digits of the whole numbers below


def _fixed(x: Decimal) -> int:
    return int(ARITHMETIC.multiply(x, Decimal(2**POINT)))


@functools.cache
def _exponentials(device: torch.device) -> Tensor:
    """e^x at -LARGEST_LOG, ..., LARGEST_LOG, by repeated multiplication; float64."""
    ratio, value = (_fixed(Decimal(x).exp(ARITHMETIC)) for x in (LOG_UNIT, -LARGEST_LOG))
    values = []
    for _ in range(round(2 * LARGEST_LOG / LOG_UNIT) + 1):
        values.append(math.ldexp(float(value), -POINT))
        value = value * ratio >> POINT
    return torch.tensor(values, dtype=torch.float64, device=device)


@functools.cache
def _normal(device: torch.device) -> Tensor:
    """PHI_TOTAL times the cumulative at -PHI_LARGEST, ..., PHI_LARGEST, whole; by Simpson's rule from the middle on."""
    half = PHI_UNIT / 2  # the density at k halves: d_0 = 1 / sqrt(2 pi), d_k+1 = d_k r_k, r_k+1 = r_k q
    density = _fixed(Decimal("0.39894228040143267793994605993438186847585863116493"))
    ratio, quotient = (_fixed(Decimal(-half * half / over).exp(ARITHMETIC)) for over in (2, 1))
    value, values = 1 << POINT - 1, [PHI_TOTAL / 2]
    for _ in range(round(PHI_LARGEST / PHI_UNIT)):
        middle = density * ratio >> POINT
        ratio = ratio * quotient >> POINT
        after = middle * ratio >> POINT
        ratio = ratio * quotient >> POINT
        value += (density + 4 * middle + after) // round(6 / PHI_UNIT)
        density = after
        values.append(float((value * round(PHI_TOTAL) >> POINT - 1) + 1 >> 1))
    upper = torch.tensor(values, dtype=torch.float64, device=device)
    return torch.cat([PHI_TOTAL - upper[1:].flip(0), upper])


def refuse_nan(found: Tensor) -> None:
    """found: whether there was one."""
    if bool(found):
        raise UserError("a model's scales are NaN: its weights are broken, or its hyper-latent is out of all bounds")


def exponential(x: Tensor) -> Tensor:
    """e^x for x within +-LARGEST_LOG. Of float64 without a gradient, which is what coding has, by table."""
    x = x.clamp(-LARGEST_LOG, LARGEST_LOG)
    if x.dtype != torch.float64 or x.requires_grad:
        return x.exp()
    refuse_nan(x.isnan().any())
    return _look_up(_exponentials(x.device), x, LOG_UNIT, LARGEST_LOG)


def normal(x: Tensor) -> Tensor:
    """PHI_TOTAL times the cumulative normal distribution; float64, whole."""
    return _look_up(_normal(x.device), x.clamp(-PHI_LARGEST, PHI_LARGEST), PHI_UNIT, PHI_LARGEST)


def _look_up(table: Tensor, x: Tensor, unit: float, largest: float) -> Tensor:
    place = (x * (1 / unit)).add_(largest / unit + 0.5).to(torch.int32)
    return table.index_select(0, place.flatten()).view(x.shape)


def nearest_of_series(first: float, log_ratio: float, count: int) -> Tensor:
    """(65536,) int32: for the upper half of a float32's bits, the nearest of first, first e^log_ratio, ... in the logarithm; NaN: -1."""
    lowest = np.arange(1 << 16, dtype=np.uint32) << 16
    middle = lowest | 1 << 15  # of all floats with these upper halves
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.where(np.isfinite(lowest.view(np.float32)), middle.view(np.float32), lowest.view(np.float32)).astype(np.float64)
        place = np.floor((np.log(np.maximum(value, first)) - math.log(first)) / log_ratio + 0.5)
    return torch.from_numpy(np.where(np.isnan(value), -1, np.clip(place, 0, count - 1)).astype(np.int32))


def look_up_series(table: Tensor, values: Tensor) -> Tensor:
    """Values of any shape -> entries of `nearest_of_series`; NaN is refused."""
    upper = values.float().contiguous().view(torch.int32) >> 16
    entry = table.index_select(0, upper.bitwise_and_(0xFFFF).flatten()).view(values.shape)
    refuse_nan((entry < 0).any())
    return entry
