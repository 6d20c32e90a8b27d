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
            if sample == name:
                row = records[(records.codec == codec) & (records.level == level) & (records.image == name)].iloc[0]
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


def draw_stills(clouds: Mapping[str, Mapping[str, Tensor]], output: Path) -> list[Path]:
    """cloud-NAME.png for each sample: original and decoded side by side, from the same place and in the same box."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    paths = []
    for name, shown in clouds.items():
        figure = Figure(figsize=(4.4 * len(shown), 4.6), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        whole = some(shown["original"])
        low, high = whole.min(0), whole.max(0)
        middle, sides = (low + high) / 2, np.maximum(high - low, 0.05 * max(float((high - low).max()), 1e-30))
        for place, (caption, points) in enumerate(shown.items(), 1):
            axes: Any = figure.add_subplot(1, len(shown), place, projection="3d")
            x, y, z = some(points).T
            size = 4.0 if len(points) <= 2048 else 0.6
            axes.scatter(x, y, z, c=z, cmap="viridis", vmin=low[2], vmax=high[2], s=size, linewidths=0, alpha=1.0, depthshade=False)
            for axis, centre, side in zip("xyz", middle, sides, strict=True):
                getattr(axes, f"set_{axis}lim")(centre - side / 2, centre + side / 2)
            axes.set_box_aspect(tuple(sides), zoom=1.3)  # an array would be scaled in place
            axes.set_axis_off()
            axes.set_title(caption.replace(", ", "\n", 1), fontsize=9)
        path = output / f"cloud-{''.join(c if c.isalnum() or c in '-_.' else '-' for c in name)}.png"
        figure.savefig(path)
        paths.append(path)
    return paths
