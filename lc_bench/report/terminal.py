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
    console = Console()
    columns = [("codec", "left"), ("BD PSNR", "right"), ("BD MS-SSIM", "right"), ("bpp", "right"), ("PSNR (dB)", "right")]
    wide = console.width >= 120
    if wide:
        columns += [("encode (s)", "right"), ("decode (s)", "right")]
    table = Table(title=f"{data}: BD-rate against {anchor}", title_justify="left")
    for heading, justify in columns:
        table.add_column(heading, justify=justify, no_wrap=heading != "codec")  # type: ignore[arg-type]
    for entry in ranks:
        curve = entry.curve
        cells = [curve.name, *(percent(entry.bd[m][0]) for m in METRICS), span(curve.bpp, 3), span(curve.values["psnr-rgb"], 2)]
        if wide:
            cells += [span(curve.encode_s, 3), span(curve.decode_s, 3)]
        table.add_row(*cells, style="bold" if curve.kind == "learned" else None)
    console.print(table)
