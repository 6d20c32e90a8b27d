"""Everything a run leaves: records, summaries, plots, the page, and the ranking in the terminal."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import UserError
from ..ops.paths import printable
from ..ops.whole import written_whole
from .identity import sets_of
from .names import file_name, own_folder
from .page import write_page
from .pictures import Key, Picture, prepared, save, tensors
from .plots import plot_curves
from .ranking import Rank, anchor_among, intervals, rank, told
from .records import Curve, complete, curves_of, measurable, notes_of, published, summary, write_records
from .solids import by_name, draw_stills
from .terminal import print_ranking

log = logging.getLogger(__name__)


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

    Records come first, and every other part is made for itself: one that fails is named, and takes nothing else with it.
    bd_interval: as ranking.intervals takes it; further: curves of others, besides the published ones of `overlays`.
    """
    output.mkdir(parents=True, exist_ok=True)
    write_records(records, output / "records.csv")
    usable, without_rate = measurable(records)
    whole, left_out = complete(usable)
    curves = [*curves_of(whole), *published(overlays, data), *further]
    if not curves:
        raise UserError("no codec was measured on every image: nothing to compare. records.csv has what there is")
    notes = [*notes, *without_rate, *left_out, *notes_of(curves)]
    metrics = tuple(curves[0].values)
    if any(tuple(c.values) != metrics for c in curves):
        raise UserError("curves of images and of point clouds in one report: make one of each")
    ranges = intervals(bd_interval, metrics)
    ranks = rank(curves, bd_anchor, ranges)
    base = anchor_among(curves, bd_anchor)
    anchor = base.name if base else bd_anchor
    images = max(c.images for c in curves)
    stamp = {**stamp, **_samples(usable)}
    parts = _Parts(notes)
    parts.make("summary", lambda: write_summaries(curves, output))
    for metric in metrics:
        plot = output / f"rd-{metric}.png"
        parts.make(plot.name, partial(plot_curves, curves, metric, f"{data}, mean of {images} samples", plot))
    shown, own, dropped = prepared(pictures or {}, originals or {})
    notes += dropped
    parts.make("pictures", lambda: save(output, shown, own))
    if own and "chamfer" in metrics:
        parts.make("cloud-*.png", lambda: draw_stills(by_name(tensors(shown), tensors(own), usable), output))
    page = output / "index.html"
    parts.make(page.name, lambda: write_page(page, ranks, usable, data, anchor, told(ranges, metrics), stamp, notes, shown, own))
    print_ranking(ranks, data, anchor)
    for note in notes:
        print(f"note: {printable(note)}")
    return ranks


class _Parts:
    """What a report consists of besides records, made one after the other; what fails is added to `notes`."""

    def __init__(self, notes: list[str]) -> None:
        self.notes = notes

    def make(self, name: str, write: Callable[[], object]) -> None:
        """Whatever goes wrong in drawing, in a library or on the disk: what was measured is worth more than a picture of it."""
        try:
            write()
        except Exception as error:
            log.debug(f"{name} failed", exc_info=True)
            self.notes.append(
                f"{name} could not be made ({type(error).__name__}: {error}). records.csv has everything that was measured: "
                "run=report inputs=[FOLDER] makes the report anew"
            )


def write_summaries(curves: Sequence[Curve], output: Path) -> None:
    """One JSON for each curve; those whose names differ in signs alone get files of their own."""
    folder = own_folder(output / "summary")
    taken: set[str] = set()
    for curve in curves:
        plain = file_name(curve.name, "").strip("-") or "curve"
        name, again = plain, 1
        while name.casefold() in taken:
            again += 1
            name = f"{plain}-{again}"
        taken.add(name.casefold())
        with written_whole(folder / f"{name}.json") as part:
            part.write_text(json.dumps(summary(curve), indent=1))


def _samples(records: pd.DataFrame) -> dict[str, str]:
    """Which samples a report is of, in digits that are equal for equal sets."""
    digits = [samples.digits for samples in sets_of([records]) if samples.digits]
    return {"samples": ", ".join(digits)} if digits else {}
