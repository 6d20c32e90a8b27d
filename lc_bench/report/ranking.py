"""From curves to a ranking: BD-rate and BD-PSNR against one of them, over an interval that is declared or that curves share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UserError, unknown
from ..metrics import bd_quality, bd_rate
from ..metrics.bd import Interval
from .records import LABELS, Curve, published_curves

Delta = tuple[float, str]  # a figure and the interval it holds over, or NaN and why there is none


@dataclass(frozen=True)
class Rank:
    curve: Curve
    bd: dict[str, Delta]  # BD-rate in percent, by metric
    quality: Delta  # BD-PSNR in dB, or its twin in the first metric of clouds


def intervals(given: Any, metrics: Sequence[str]) -> dict[str, Interval]:
    """bd_interval=[28,40] is of the first metric in dB; {psnr-rgb: [28,40], ms-ssim-rgb: [12,20]} of each; {bpp: [0.1,1]} of the rate."""
    if given is None:
        return {}
    ranges = dict(given) if isinstance(given, Mapping) else {metrics[0]: given}
    for name, pair in ranges.items():
        if name not in (*metrics, "bpp"):
            raise unknown("run.bd_interval", name, (*metrics, "bpp"))
        low, high = pair if isinstance(pair, Sequence) and len(pair) == 2 else (None, None)
        least = 0 if name == "bpp" else -math.inf
        if not isinstance(low, int | float) or not isinstance(high, int | float) or not least < low < high:
            raise UserError(f"run.bd_interval={given}: give low and high, as [28,40] in dB, {{ms-ssim-rgb:[12,20]}} or {{bpp:[0.1,1]}}")
    return {str(name): (float(pair[0]), float(pair[1])) for name, pair in ranges.items()}


def told(ranges: Mapping[str, Interval], metrics: Sequence[str]) -> str:
    """The interval of each metric in words."""
    if not ranges:
        return "all quality that both curves cover"
    rates = f"where the anchor has {span(ranges['bpp'])} bpp" if "bpp" in ranges else "all that both curves cover"
    return "; ".join(f"{LABELS[m].removesuffix(' (dB)')}: {span(ranges[m]) + ' dB' if m in ranges else rates}" for m in metrics)


def span(interval: Interval) -> str:
    return f"{interval[0]:g} to {interval[1]:g}"


def anchor_among(curves: Sequence[Curve], anchor: str) -> Curve | None:
    """The curve of that name; the ending "(published)" need not be given."""
    return next((c for name in (anchor, f"{anchor} (published)") for c in curves if c.name == name), None)


def with_anchor(overlays: Sequence[str], anchor: str, names: Sequence[str], data: str) -> list[str]:
    """Published curves to lay over: the anchor is one of them if no codec has its name."""
    known = published_curves().get(data, {})
    wanted = anchor.removesuffix(" (published)")
    return [*overlays, *([wanted] if anchor not in names and wanted in known and wanted not in overlays else [])]


def rank(curves: list[Curve], anchor: str, ranges: Mapping[str, Interval] | None = None) -> list[Rank]:
    """By BD-rate in the first metric against the anchor, lowest first; curves without one come last."""
    ranges = ranges or {}
    base = anchor_among(curves, anchor)
    first = next(iter(curves[0].values))
    ranks = [Rank(c, {m: _rate(base, c, m, ranges) for m in c.values}, _quality(base, c, first, ranges)) for c in curves]
    return sorted(ranks, key=lambda r: (math.isnan(r.bd[first][0]), r.bd[first][0]))


def _rate(base: Curve | None, curve: Curve, metric: str, ranges: Mapping[str, Interval]) -> Delta:
    if base is None or curve is base:
        return (math.nan, "no anchor curve") if base is None else (0.0, "the anchor")
    interval = ranges.get(metric)
    if interval is None and "bpp" in ranges:
        low, high = ranges["bpp"]
        known = [(r, q) for r, q in zip(base.bpp, base.plotted(metric), strict=True) if r > 0 and math.isfinite(q)]
        if not known:
            return math.nan, "the anchor has no finite values"
        if low < known[0][0] or high > known[-1][0]:
            return math.nan, f"the anchor covers {known[0][0]:.3f} .. {known[-1][0]:.3f} bpp"
        rates, values = np.array(known).T
        at = np.interp(np.log([low, high]), np.log(rates), values)
        interval = (float(at[0]), float(at[1]))
    return bd_rate(base.bpp, base.plotted(metric), curve.bpp, curve.plotted(metric), interval)


def _quality(base: Curve | None, curve: Curve, metric: str, ranges: Mapping[str, Interval]) -> Delta:
    if base is None or curve is base:
        return (math.nan, "no anchor curve") if base is None else (0.0, "the anchor")
    return bd_quality(base.bpp, base.plotted(metric), curve.bpp, curve.plotted(metric), ranges.get("bpp"))
