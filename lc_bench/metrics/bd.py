"""Bjontegaard delta rate: how much more rate a codec needs for the same quality, on average.

Bjontegaard 2001 (VCEG-M33); Akima interpolation and the library: Herglotz et al. 2022, arXiv 2202.12565.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

METHOD = "akima"
SMALLEST_SHARE = 0.25  # of the smaller quality range: less overlap says nothing about the curves as a whole


def bd_rate(
    anchor_rate: Sequence[float], anchor_quality: Sequence[float], rate: Sequence[float], quality: Sequence[float]
) -> tuple[float, str]:
    """-> (percent, the quality interval it holds over, or why there is none). Negative: fewer bits than the anchor."""
    import bjontegaard

    anchor_curve, curve = _monotone(anchor_rate, anchor_quality), _monotone(rate, quality)
    if len(anchor_curve) < 4 or len(curve) < 4:
        return math.nan, "under four points that rise"
    low = max(anchor_curve[0][1], curve[0][1])
    high = min(anchor_curve[-1][1], curve[-1][1])
    shorter = min(anchor_curve[-1][1] - anchor_curve[0][1], curve[-1][1] - curve[0][1])
    if high - low < SMALLEST_SHARE * shorter:
        return math.nan, "the curves do not overlap enough"
    base, own = np.array(anchor_curve), np.array(curve)
    value: Any = bjontegaard.bd_rate(
        base[:, 0], base[:, 1], own[:, 0], own[:, 1], method=METHOD, require_matching_points=False, min_overlap=0
    )
    return float(value), f"{low:.2f} .. {high:.2f}"


def _monotone(rate: Sequence[float], quality: Sequence[float]) -> list[tuple[float, float]]:
    """Points in order of rate without those that do not gain quality: interpolation over quality needs them apart."""
    points: list[tuple[float, float]] = []
    for r, q in sorted(zip(rate, quality, strict=True)):
        if math.isfinite(q) and (not points or (q > points[-1][1] and r > points[-1][0])):
            points.append((r, q))
    return points
