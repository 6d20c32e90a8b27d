"""The leaderboard in the terminal."""

from __future__ import annotations

import math

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..ops.paths import printable
from .ranking import Rank
from .records import LABELS


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
    wide = console.width >= 120
    metrics = list(ranks[0].curve.values)[: None if wide else 2]
    labels = [LABELS[m] for m in metrics]
    columns = [("codec", "left"), *((f"BD {label.removesuffix(' (dB)')}", "right") for label in labels)]
    columns += [("bpp", "right"), (labels[0], "right")]
    if wide:
        columns += [("encode (s)", "right"), ("decode (s)", "right")]
    table = Table(title=escape(printable(f"{data}: BD-rate against {anchor}")), title_justify="left")
    for heading, justify in columns:
        table.add_column(heading, justify=justify, no_wrap=heading != "codec")  # type: ignore[arg-type]
    for entry in ranks:
        curve = entry.curve
        first = next(iter(curve.values.values()))
        cells = [escape(printable(curve.name)), *(percent(entry.bd[m][0]) for m in metrics), span(curve.bpp, 3), span(first, 2)]
        if wide:
            cells += [span(curve.encode_s, 3), span(curve.decode_s, 3)]
        table.add_row(*cells, style="bold" if curve.kind == "learned" else None)
    console.print(table)
