"""Upper convex hull of a rate-distortion curve: what time-sharing between its points reaches."""

from __future__ import annotations

import math
from collections.abc import Sequence


def upper_hull(rate: Sequence[float], quality: Sequence[float]) -> list[int]:
    """Indices, by rising rate, of the points that no line between two others passes above. Points without quality are none.

    It starts at the lowest rate and ends where quality is highest: beyond, more rate buys nothing. Andrew 1979, monotone chain.
    """
    order = sorted((i for i, q in enumerate(quality) if math.isfinite(q)), key=lambda i: (rate[i], -quality[i]))
    hull: list[int] = []
    for i in order:
        if hull and quality[i] <= quality[hull[-1]]:
            continue
        while len(hull) > 1 and _below(rate, quality, hull[-2], hull[-1], i):
            hull.pop()
        hull.append(i)
    return hull


def _below(rate: Sequence[float], quality: Sequence[float], first: int, middle: int, last: int) -> bool:
    """Whether the middle point lies on or under the line between the others."""
    rise = (quality[last] - quality[first]) * (rate[middle] - rate[first])
    return (quality[middle] - quality[first]) * (rate[last] - rate[first]) <= rise
