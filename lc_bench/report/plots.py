"""Rate-distortion curves as PNG."""

from __future__ import annotations

from pathlib import Path

from ..ops.paths import printable
from ..ops.whole import written_whole
from .records import LABELS, Curve

# Okabe and Ito 2008: told apart by readers with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999")
LONGEST = 60  # letters of a name in the legend
DASH = {"learned": "solid", "anchor": "dashed", "published": "dotted"}


def colour_of(curves: list[Curve]) -> dict[str, str]:
    """Learned codecs first, so that they keep the strongest colours."""
    order = sorted(curves, key=lambda c: (("learned", "anchor", "published").index(c.kind), c.name))
    return {curve.name: COLOURS[i % len(COLOURS)] for i, curve in enumerate(order)}


def shortened(name: str) -> str:
    """As much of a name as leaves room for the curves."""
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}…"


def plot_curves(curves: list[Curve], metric: str, title: str, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.8), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = colour_of(curves)
    for curve in curves:
        bold = 2.4 if curve.kind == "learned" else 1.3
        style = {"color": colours[curve.name], "linestyle": DASH[curve.kind], "linewidth": bold}
        axes.plot(curve.bpp, curve.plotted(metric), marker="o", markersize=4, label=shortened(printable(curve.name)), **style)
    axes.set_xlabel(f"bits per {curves[0].unit}, all bytes of the stream")
    axes.set_ylabel(LABELS[metric])
    axes.set_title(printable(title), loc="left", parse_math=False)  # a dollar in a name is a dollar
    axes.grid(alpha=0.3)
    legend = axes.legend(*axes.get_legend_handles_labels(), fontsize=8)
    for text in legend.get_texts():
        text.set_parse_math(False)
    axes.set_xlim(left=0)
    with written_whole(path) as part:
        figure.savefig(part, format="png")
