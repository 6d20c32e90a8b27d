"""The leaderboard as one HTML file that needs nothing else: plotly, data and pictures are inside.

page.html is the skeleton, page.css its look; page.js draws curves and ranking, samples.js what one sample shows.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import pandas as pd

from ..metrics.bd import METHOD
from ..ops.whole import written_whole
from . import solids
from .pictures import Key, Picture, for_page, tensors
from .plots import COLOURS, colour_of
from .ranking import Delta, Rank
from .records import LABELS

# Of the table of samples: the digits that are shown; the CSV has all.
DIGITS = {
    "image": None, "bytes": 0, "bpp": 4, "bpp_estimated": 4, "psnr-rgb": 2, "ms-ssim-rgb": 4,
    "points": 0, "points_decoded": 0, "d1-psnr": 2, "d2-psnr": 2, "d1-psnr-spacing": 2, "d2-psnr-spacing": 2, "chamfer": 6,
    "density": 4, "normals-f1": 4,
    "encode_s": 3, "encode_transform_s": 3, "encode_coding_s": 3, "decode_s": 3, "decode_transform_s": 3, "decode_coding_s": 3,
    "encoder_kmacs_px": 1, "encoder_kmacs_point": 1, "decoder_kmacs_point": 1, "decoder_kmacs_px": 1, "parameters": 0, "peak_memory_mib": 0,
}  # fmt: skip
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star")  # one more for every round of colours
FEW = 64  # different texts in a column, of which the page keeps a list


def write_page(
    path: Path,
    ranks: list[Rank],
    records: pd.DataFrame,
    data: str,
    anchor: str,
    interval: str,
    stamp: Mapping[str, Any],
    notes: list[str],
    pictures: Mapping[Key, Picture],
    originals: Mapping[str, Picture],
) -> None:
    from plotly.offline import get_plotlyjs

    first = ranks[0].curve
    of_clouds = first.unit == "point"
    shown = {} if of_clouds else for_page(pictures, originals, records)
    clouds = solids.by_name(tensors(pictures), tensors(originals), records) if of_clouds else {}
    content = {
        "unit": first.unit,
        "metrics": [{"key": m, "label": LABELS[m], "short": LABELS[m].removesuffix(" (dB)")} for m in first.values],
        "curves": _curves(ranks),
        "records": _table(records),
        "shown": list(DIGITS.items()),
        "pictures": shown,
        "solids": solids.for_page(clouds),
    }
    files = Path(__file__).parent
    samples = max(r.curve.images for r in ranks)
    page = Template((files / "page.html").read_text()).substitute(
        title=html.escape(f"Rate-distortion leaderboard: {data}"),
        subtitle=f"Mean of {samples} samples, real bitstreams.",
        notes="".join(f"<p>Note: {html.escape(n)}</p>" for n in notes),
        anchor=html.escape(anchor),
        interval=html.escape(interval),
        method=METHOD.capitalize(),
        pictures=PICTURES if shown else solids.PART if clouds else NO_PICTURES,
        stamp=html.escape("This page: " + ", ".join(f"{k} {v}" for k, v in stamp.items()) + "."),
        style=(files / "page.css").read_text(),
        script=(files / "page.js").read_text() + (files / "samples.js").read_text(),
        plotly=get_plotlyjs(),
        # Text inside a script ends at the first "</script", and "<!--" would hide it.
        data=json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    )
    with written_whole(path) as part:
        part.write_text(page, encoding="utf-8", errors="replace")


PICTURES = """<p id="no-picture" hidden>Of this sample the runs left no pictures; the first ones have some.</p>
<div id="comparison">
<div class="controls"><label>Left <select id="left"></select></label><label>Right <select id="right"></select></label>
<label><input type="checkbox" id="real"> pixel by pixel</label></div>
<div class="stage" id="stage"><div class="pair"><img alt="" draggable="false"><img alt="" draggable="false"></div></div>
<input type="range" id="cut" min="0" max="100" step="any" value="50" aria-label="Where the two pictures meet, in percent">
<p class="captions" id="captions"><span></span><span></span></p>
</div>"""
NO_PICTURES = "<p>The runs left no pictures.</p>"


def _curves(ranks: list[Rank]) -> list[dict[str, Any]]:
    curves = [r.curve for r in ranks]
    colours = colour_of(curves)
    turn = {name: i // len(COLOURS) for i, name in enumerate(colours)}
    return [
        {
            "name": c.name,
            "kind": c.kind,
            "note": c.note,
            "colour": colours[c.name],
            "symbol": SYMBOLS[turn[c.name] % len(SYMBOLS)],
            "levels": c.levels,
            "bpp": c.bpp,
            "values": {m: _finite(c.plotted(m)) for m in c.values},
            "hull": {m: c.hull(m) for m in c.values},
            "encode_s": _finite(c.encode_s),
            "decode_s": _finite(c.decode_s),
            "units": c.units if math.isfinite(c.units) else None,
            "stamps": c.stamps,
            "costs": c.costs,
            "bd": {m: _delta(rank.bd[m]) for m in c.values},
            "quality": _delta(rank.quality),
        }
        for rank, c in zip(ranks, curves, strict=True)
    ]


def _finite(values: Iterable[float]) -> list[float | None]:
    return [v if math.isfinite(v) else None for v in values]


def _delta(delta: Delta) -> list[Any]:
    return [delta[0] if math.isfinite(delta[0]) else None, delta[1]]


def _table(records: pd.DataFrame) -> dict[str, Any]:
    """By column, every digit; of few different texts a list and places in it. Missing is null, infinity "inf" as in records.csv."""
    columns = []
    for name in records:
        values = [_plain(v) for v in records[name]]
        texts = list(dict.fromkeys(values))
        few = len(texts) <= FEW and all(isinstance(v, str) for v in texts)
        place = {v: i for i, v in enumerate(texts)}
        columns.append({"name": name, "choices": texts, "values": [place[v] for v in values]} if few else {"name": name, "values": values})
    return {"columns": columns, "count": len(records)}


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(value) if isinstance(value, float) and math.isinf(value) else value
