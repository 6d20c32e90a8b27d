"""The leaderboard in the terminal."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table

from .records import METRICS, Rank


def percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.1f} %"


def span(values: list[float], digits: int) -> str:
    """Lowest to highest of what is finite."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return "–"
    low, high = f"{min(finite):.{digits}f}", f"{max(finite):.{digits}f}"
    return low if low == high else f"{low} … {high}"


def print_ranking(ranks: list[Rank], data: str, anchor: str) -> None:
    table = Table(title=f"{data}: BD-rate against {anchor}", title_justify="left")
    for heading, justify in (("", "right"), ("codec", "left"), ("PSNR", "right"), ("MS-SSIM", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for heading in ("bpp", "PSNR (dB)", "encode (s)", "decode (s)"):
        table.add_column(heading, justify="right", no_wrap=True)
    for place, entry in enumerate(ranks, 1):
        curve = entry.curve
        style = "bold" if curve.kind == "learned" else None
        bd = [percent(entry.bd[m][0]) for m in METRICS]
        times = [span(curve.encode_s, 3), span(curve.decode_s, 3)]
        table.add_row(str(place), curve.name, *bd, span(curve.bpp, 3), span(curve.values["psnr-rgb"], 2), *times, style=style)
    Console().print(table)
