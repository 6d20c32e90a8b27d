"""Clouds to look at: points for the page, which turns them, and stills as PNG."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..ops.paths import printable
from ..ops.whole import written_whole
from .names import file_name

MOST_CLOUDS = 6
MOST_POINTS = 6000  # of each, drawn at random: 48 kB in the page
STEPS = 65535  # of a side of the box in which the page keeps points

PART = """<h2>Original and decoded</h2>
<details id="solids"><summary>Turn them in 3D</summary>
<div class="controls"><label>Cloud <select id="solid"></select></label><label>Left <select id="left-solid"></select></label>
<label>Right <select id="right-solid"></select></label></div>
<div class="solids"><div id="left-view"></div><div id="right-view"></div></div></details>"""

Pictures = Mapping[tuple[str, float, str], Tensor]


def by_name(pictures: Pictures, originals: Mapping[str, Tensor], records: pd.DataFrame) -> dict[str, dict[str, Tensor]]:
    """Clouds (N, 3) by sample and caption, the original first."""
    found: dict[str, dict[str, Tensor]] = {}
    for name in list(originals)[:MOST_CLOUDS]:
        found[name] = {"original": originals[name]}
        for (codec, level, sample), points in pictures.items():
            rows = records[(records.codec == codec) & (records.level == level) & (records.image == name)]
            if sample == name and len(rows):
                row = rows.iloc[0]
                found[name][f"{codec}, {row.bpp:.3f} bpp, D1 {row['d1-psnr']:.2f} dB"] = points
    return found


def some(points: Tensor) -> np.ndarray:
    """(n, 3) float64, as many as are drawn."""
    draw = torch.Generator().manual_seed(0)
    return points[torch.randperm(len(points), generator=draw)[:MOST_POINTS], :3].double().numpy()


def for_page(clouds: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Any]]:
    """Each as low corner and step of its box, and base64 of uint16 coordinates, point by point."""
    return {name: {caption: _packed(some(points)) for caption, points in shown.items()} for name, shown in clouds.items()}


def _packed(points: np.ndarray) -> dict[str, Any]:
    low = points.min(0)
    step = max(float((points.max(0) - low).max()), 1e-30) / STEPS
    data = ((points - low) / step).round().astype("<u2").tobytes()
    return {"low": low.tolist(), "step": step, "data": base64.b64encode(data).decode()}


# From a little above and from the side, as far away as it takes to see without perspective: right, up, towards the eye.
VIEW = np.array([[0.866, 0.5, 0.0], [-0.25, 0.433, 0.866], [0.433, -0.75, 0.5]])
MARGIN = 0.05  # of the longer side of what is seen


def draw_stills(clouds: Mapping[str, Mapping[str, Tensor]], output: Path) -> list[Path]:
    """cloud-NAME.png for each sample: original and decoded side by side, from the same place, all of the original in view."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    paths = []
    for name, shown in clouds.items():
        figure = Figure(figsize=(4.4 * len(shown), 4.6), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        whole = shown["original"][:, :3].double().numpy()
        # In units of the body's size about its middle: axes have to hold neither 1e25 nor a millimetre at UTM coordinates.
        low, high = whole.min(0), whole.max(0)
        middle, size = (low + high) / 2, max(float((high - low).max()), np.finfo(np.float64).tiny)
        seen = (whole - middle) / size @ VIEW.T
        corner, other = seen.min(0)[:2], seen.max(0)[:2]
        half = (0.5 + MARGIN) * max(float((other - corner).max()), 1e-3)
        for place, (caption, points) in enumerate(shown.items(), 1):
            axes: Any = figure.add_subplot(1, len(shown), place)
            drawn = (some(points) - middle) / size
            x, y, depth = (drawn @ VIEW.T).T
            front = np.argsort(depth, kind="stable")  # what is nearer covers what is farther
            scale = {"vmin": (low[2] - middle[2]) / size, "vmax": (high[2] - middle[2]) / size, "cmap": "viridis"}
            axes.scatter(x[front], y[front], c=drawn[front, 2], s=4.0 if len(points) <= 2048 else 0.6, linewidths=0, **scale)
            for axis, centre in zip("xy", (corner + other) / 2, strict=True):
                getattr(axes, f"set_{axis}lim")(centre - half, centre + half)
            axes.set_aspect("equal")
            axes.set_axis_off()
            axes.set_title(printable(caption).replace(", ", "\n", 1), fontsize=9, parse_math=False)
        path = output / file_name(f"cloud-{name}", ".png")
        with written_whole(path) as part:
            figure.savefig(part, format="png")
        paths.append(path)
    return paths
