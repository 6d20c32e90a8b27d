"""Everything a run leaves: records, summaries, plots, the page, and the ranking in the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from ..errors import UserError
from .page import write_page
from .plots import plot_curves
from .records import complete, curves_of, published, rank, summary
from .solids import by_name, draw_stills
from .terminal import print_ranking


def write_report(
    records: pd.DataFrame,
    output: Path,
    data: str,
    bd_anchor: str,
    overlays: list[str],
    stamp: Mapping[str, Any],
    notes: list[str],
    pictures: Mapping[tuple[str, float, str], Tensor] | None = None,
    originals: Mapping[str, Tensor] | None = None,
) -> None:
    """records.csv, summary/CODEC.json, rd-*.png, index.html, of clouds cloud-*.png, in `output`, and the table on the terminal."""
    output.mkdir(parents=True, exist_ok=True)
    records.to_csv(output / "records.csv", index=False)
    whole, left_out = complete(records)
    notes = [*notes, *left_out]
    curves = curves_of(whole) + published(overlays, data)
    if not curves:
        raise UserError("no codec was measured on every image: nothing to compare. records.csv has what there is")
    (output / "summary").mkdir(exist_ok=True)
    for curve in curves:
        name = "".join(c if c.isalnum() or c in "-_." else "-" for c in curve.name).strip("-")
        (output / "summary" / f"{name}.json").write_text(json.dumps(summary(curve), indent=1))
    ranks = rank(curves, bd_anchor)
    images = max(c.images for c in curves)
    for metric in curves[0].values:
        plot_curves(curves, metric, f"{data}, mean of {images} samples", output / f"rd-{metric}.png")
    write_page(output / "index.html", ranks, records, data, bd_anchor, stamp, notes, pictures or {}, originals or {})
    if originals and "chamfer" in curves[0].values:
        draw_stills(by_name(pictures or {}, originals, records), output)
    print_ranking(ranks, data, bd_anchor)
    for note in notes:
        print(f"note: {note}")
