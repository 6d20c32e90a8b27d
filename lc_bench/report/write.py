"""Everything a run leaves: records, summaries, plots, the page, and the ranking in the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import UserError
from .page import write_page
from .pictures import Key, Picture, save, tensors
from .plots import plot_curves
from .ranking import Rank, anchor_among, intervals, rank, told
from .records import Curve, complete, curves_of, published, summary, write_records
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
    pictures: Mapping[Key, Picture] | None = None,
    originals: Mapping[str, Picture] | None = None,
    bd_interval: Any = None,
    further: Sequence[Curve] = (),
) -> list[Rank]:
    """records.csv, summary/CODEC.json, pictures/, rd-*.png, index.html, of clouds cloud-*.png, in `output`, and the table on the terminal.
    Returns the ranking.

    bd_interval: as ranking.intervals takes it; further: curves of others, besides the published ones of `overlays`.
    """
    output.mkdir(parents=True, exist_ok=True)
    write_records(records, output / "records.csv")
    whole, left_out = complete(records)
    notes = [*notes, *left_out]
    curves = [*curves_of(whole), *published(overlays, data), *further]
    if not curves:
        raise UserError("no codec was measured on every image: nothing to compare. records.csv has what there is")
    metrics = tuple(curves[0].values)
    if any(tuple(c.values) != metrics for c in curves):
        raise UserError("curves of images and of point clouds in one report: make one of each")
    ranges = intervals(bd_interval, metrics)
    (output / "summary").mkdir(exist_ok=True)
    for curve in curves:
        name = "".join(c if c.isalnum() or c in "-_." else "-" for c in curve.name).strip("-")
        (output / "summary" / f"{name}.json").write_text(json.dumps(summary(curve), indent=1))
    ranks = rank(curves, bd_anchor, ranges)
    base = anchor_among(curves, bd_anchor)
    anchor = base.name if base else bd_anchor
    images = max(c.images for c in curves)
    for metric in metrics:
        plot_curves(curves, metric, f"{data}, mean of {images} samples", output / f"rd-{metric}.png")
    pictures, originals = pictures or {}, originals or {}
    save(output, pictures, originals)
    write_page(output / "index.html", ranks, records, data, anchor, told(ranges, metrics), stamp, notes, pictures, originals)
    if originals and "chamfer" in metrics:
        draw_stills(by_name(tensors(pictures), tensors(originals), records), output)
    print_ranking(ranks, data, anchor)
    for note in notes:
        print(f"note: {note}")
    return ranks
