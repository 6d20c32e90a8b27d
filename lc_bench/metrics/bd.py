"""Bjontegaard deltas: how much more rate a codec needs for the same quality, how much more quality it has at the same rate, on average.

Bjontegaard 2001 (VCEG-M33); Akima interpolation and the library: Herglotz et al. 2022, arXiv 2202.12565.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

METHOD = "akima"
SMALLEST_SHARE = 0.25  # of the smaller range: less overlap says nothing about the curves as a whole

Interval = tuple[float, float]


def bd_rate(
    anchor_rate: Sequence[float],
    anchor_quality: Sequence[float],
    rate: Sequence[float],
    quality: Sequence[float],
    interval: Interval | None = None,
) -> tuple[float, str]:
    """-> (percent, the quality interval it holds over, or why there is none). Negative: fewer bits than the anchor.

    interval: of quality, which both curves have to cover; None is all that they both cover.
    """
    base, own = _monotone(anchor_rate, anchor_quality), _monotone(rate, quality)
    value, over = _delta([(q, math.log10(r)) for r, q in base], [(q, math.log10(r)) for r, q in own], interval, 2)
    return 100 * (10**value - 1), over


def bd_quality(
    anchor_rate: Sequence[float],
    anchor_quality: Sequence[float],
    rate: Sequence[float],
    quality: Sequence[float],
    interval: Interval | None = None,
) -> tuple[float, str]:
    """-> (dB, the rate interval it holds over, or why there is none). Positive: better than the anchor. interval: of rates."""
    base, own = _monotone(anchor_rate, anchor_quality), _monotone(rate, quality)
    logs = None if interval is None else (math.log10(interval[0]), math.log10(interval[1]))
    value, over = _delta([(math.log10(r), q) for r, q in base], [(math.log10(r), q) for r, q in own], logs, 3, lambda v: 10**v)
    return value, over


def _delta(base, own, interval, digits, shown=lambda v: v) -> tuple[float, str]:  # type: ignore[no-untyped-def]
    """Mean difference of y over an interval of x, of points (x, y) by rising x; NaN and the reason where there is none."""
    from bjontegaard import bd_linear

    told = lambda low, high: f"{shown(low):.{digits}f} .. {shown(high):.{digits}f}"  # noqa: E731
    if len(base) < 4 or len(own) < 4:
        return math.nan, "under four points that rise"
    low, high = max(base[0][0], own[0][0]), min(base[-1][0], own[-1][0])
    if interval is None:
        shorter = min(base[-1][0] - base[0][0], own[-1][0] - own[0][0])
        if high - low < SMALLEST_SHARE * shorter:
            return math.nan, "the curves do not overlap enough"
    elif interval[0] < low or interval[1] > high:
        short = "it" if interval[0] < own[0][0] or interval[1] > own[-1][0] else "the anchor"
        covered = own if short == "it" else base
        return math.nan, f"{short} covers {told(covered[0][0], covered[-1][0])}, not {told(*interval)}"
    else:
        low, high = interval
    (x, y), (x_own, y_own) = np.array(base).T, np.array(own).T
    _, theirs, ours = bd_linear(  # type: ignore[misc]
        x, y, x_own, y_own, METHOD, require_matching_points=False, interpolators=True, min_overlap=0
    )
    return float((ours.integrate(low, high) - theirs.integrate(low, high)) / (high - low)), told(low, high)


def _monotone(rate: Sequence[float], quality: Sequence[float]) -> list[tuple[float, float]]:
    """Points in order of rate without those that do not gain quality: interpolation over quality needs them apart.

    A rate of 0 has no logarithm, and infinite or unknown quality no place on a curve: such points are left out.
    """
    points: list[tuple[float, float]] = []
    usable = [(r, q) for r, q in zip(rate, quality, strict=True) if 0 < r < math.inf and math.isfinite(q)]
    for r, q in sorted(usable):
        if not points or (q > points[-1][1] and r > points[-1][0]):
            points.append((r, q))
    return points
