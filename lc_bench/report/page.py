"""The leaderboard as one HTML file that needs nothing else: plotly, data and pictures are inside."""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import imagecodecs
import numpy as np
import pandas as pd
from torch import Tensor

from ..metrics.bd import METHOD
from . import solids
from .plots import DASH, colour_of
from .records import LABELS, Curve, Rank
from .terminal import percent, span

MOST_PICTURES = 12  # about 100 kB each, and the page has to open on a phone
COLUMNS = {
    "codec": None, "level": None, "image": None, "bytes": 0, "bpp": 4, "bpp_estimated": 4, "psnr-rgb": 2, "ms-ssim-rgb": 4,
    "points": 0, "points_decoded": 0, "d1-psnr": 2, "d2-psnr": 2, "d1-psnr-spacing": 2, "d2-psnr-spacing": 2, "chamfer": 6,
    "density": 4, "normals-f1": 4,
    "encode_s": 3, "encode_transform_s": 3, "encode_coding_s": 3, "decode_s": 3, "decode_transform_s": 3, "decode_coding_s": 3,
    "encoder_kmacs_px": 1, "encoder_kmacs_point": 1, "decoder_kmacs_point": 1, "decoder_kmacs_px": 1, "parameters": 0, "peak_memory_mib": 0,
}  # fmt: skip


def write_page(
    path: Path,
    ranks: list[Rank],
    records: pd.DataFrame,
    data: str,
    anchor: str,
    stamp: Mapping[str, Any],
    notes: list[str],
    pictures: Mapping[tuple[str, float, str], Tensor],
    originals: Mapping[str, Tensor],
) -> None:
    from plotly.offline import get_plotlyjs

    curves = [r.curve for r in ranks]
    metrics = list(curves[0].values)
    of_clouds = "chamfer" in curves[0].values
    shown = {} if of_clouds else _pictures(pictures, originals, records)
    clouds = solids.by_name(pictures, originals, records) if of_clouds else {}
    content = {
        "plots": [{"label": LABELS[metric], "traces": _traces(curves, metric)} for metric in metrics],
        "unit": f"bits per {curves[0].unit}",
        "records": _rows(records),
        "pictures": shown,
        "solids": solids.for_page(clouds),
    }
    images = max(c.images for c in curves)
    page = Template((Path(__file__).parent / "page.html").read_text()).substitute(
        title=html.escape(f"Rate-distortion leaderboard: {data}"),
        subtitle=html.escape(f"Mean of {images} samples, real bitstreams. " + ", ".join(f"{k} {v}" for k, v in stamp.items())),
        notes="".join(f"<p>Note: {html.escape(n)}</p>" for n in notes),
        anchor=html.escape(anchor),
        method=METHOD.capitalize(),
        ranking=_ranking(ranks, colour_of(curves)),
        pictures=PICTURES if shown else solids.PART if clouds else "",
        plotly=get_plotlyjs(),
        plots="".join(f'<div class="plot" id="plot-{i}"></div>' for i in range(len(metrics))),
        data=json.dumps(content).replace("</", "<\\/"),
    )
    path.write_text(page, encoding="utf-8")


PICTURES = """<h2>Original and decoded</h2>
<div class="controls"><label>Image <select id="picture"></select></label><label>Left <select id="left"></select></label>
<label>Right <select id="right"></select></label></div>
<div class="pair"><img alt=""><img alt=""></div>
<input type="range" id="cut" min="0" max="100" value="50" aria-label="Where the two pictures meet">"""


def _traces(curves: list[Curve], metric: str) -> list[dict[str, Any]]:
    colours = colour_of(curves)
    dash = {"solid": "solid", "dashed": "dash", "dotted": "dot"}
    return [
        {
            "x": [round(v, 5) for v in c.bpp],
            "y": [round(v, 4) if math.isfinite(v) else None for v in c.plotted(metric)],
            "text": [f"level {level}" for level in c.levels],
            "name": c.name,
            "mode": "lines+markers",
            "line": {"color": colours[c.name], "dash": dash[DASH[c.kind]], "width": 3 if c.kind == "learned" else 1.5},
            "hovertemplate": "%{y:.2f} dB at %{x:.3f} bpp, %{text}<extra>" + c.name + "</extra>",
        }
        for c in curves
    ]


def _ranking(ranks: list[Rank], colours: dict[str, str]) -> str:
    labels = [LABELS[m] for m in ranks[0].curve.values]
    heads = [
        "",
        "codec",
        *(f"BD-rate, {label.removesuffix(' (dB)')}" for label in labels),
        "bpp",
        labels[0],
        "encode (s)",
        "decode (s)",
    ]
    lines = ["<table><thead><tr>", *(f'<th class="{"name" if h == "codec" else ""}">{h}</th>' for h in heads), "</tr></thead><tbody>"]
    for place, entry in enumerate(ranks, 1):
        c = entry.curve
        bd = [f'<td title="{html.escape(entry.bd[m][1])}">{percent(entry.bd[m][0])}</td>' for m in c.values]
        dot = f'<span class="dot" style="background:{colours[c.name]}"></span>'
        cells = [span(c.bpp, 3), span(next(iter(c.values.values())), 2), span(c.encode_s, 3), span(c.decode_s, 3)]
        name = f'<td class="name" title="{html.escape(c.note)}">{dot}{html.escape(c.name)}</td>'
        lines.append(f'<tr class="{c.kind}"><td>{place}</td>{name}{"".join(bd)}{"".join(f"<td>{v}</td>" for v in cells)}</tr>')
    return "".join(lines) + "</tbody></table>"


def _rows(records: pd.DataFrame) -> dict[str, Any]:
    columns = [c for c in COLUMNS if c in records]

    def shown(column: str, value: Any) -> Any:
        digits = COLUMNS[column]
        if digits is None:
            return value.item() if isinstance(value, np.generic) else value
        return f"{value:,.{digits}f}" if isinstance(value, int | float | np.number) and math.isfinite(value) else None

    rows = [[shown(c, v) for c, v in zip(columns, row, strict=True)] for row in records[columns].itertuples(index=False)]
    return {"columns": columns, "rows": rows}


def _pictures(
    pictures: Mapping[tuple[str, float, str], Tensor], originals: Mapping[str, Tensor], records: pd.DataFrame
) -> dict[str, dict[str, str]]:
    """Data URIs by image and caption. They are stored as WebP of high quality; the figures beside them are of the true pixels."""
    found: dict[str, dict[str, str]] = {}
    for name in list(originals)[:MOST_PICTURES]:
        found[name] = {"original": _uri(originals[name])}
        for (codec, level, image), pixels in pictures.items():
            if image == name:
                row = records[(records.codec == codec) & (records.level == level) & (records.image == name)].iloc[0]
                found[name][f"{codec}, {row.bpp:.3f} bpp, {row['psnr-rgb']:.2f} dB"] = _uri(pixels)
    return found


def _uri(pixels: Tensor) -> str:
    data = imagecodecs.webp_encode(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()), level=93, lossless=False)
    return "data:image/webp;base64," + base64.b64encode(data).decode()
