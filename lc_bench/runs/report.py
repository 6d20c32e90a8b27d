"""run=report: records of any runs and curves of others, one report."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig, OmegaConf

from .. import __version__
from ..config import plain
from ..errors import UserError, unknown
from ..report import write_report
from ..report.inputs import gather, joined
from ..report.pictures import Key, Picture, load
from ..report.ranking import anchor_among, intervals, with_anchor
from ..report.records import Curve, check_published, metrics_of, published_curves

log = logging.getLogger(__name__)


def main(cfg: DictConfig) -> None:
    """Later inputs replace records of the same codec, level and image; all have to be of one data set."""
    if OmegaConf.is_missing(cfg, "inputs"):
        raise UserError("inputs: give what to join, such as inputs=[outputs/a,outputs/b]: folders of runs, records.csv, JSON of curves")
    found = gather(plain(cfg.inputs))
    records, notes = joined(found)
    pictures: dict[Key, Picture] = {}
    originals: dict[str, Picture] = {}
    for file, names in zip(found.files, found.names, strict=True):
        try:
            decoded, own = load(file.parent)
        except UserError as error:
            notes.append(str(error))
            continue
        # What is told apart here has another name than in its folder.
        pictures |= {(names.get(codec, codec), level, image): p for (codec, level, image), p in decoded.items()}
        originals |= own
    output = Path(cfg.output)
    interval = plain(cfg.run.bd_interval)
    report_on(records, output, str(cfg.run.bd_anchor), list(cfg.run.published), interval, notes, found.curves, pictures, originals)
    log.info(f"report: {(output / 'index.html').resolve()}")


def report_on(
    records: pd.DataFrame,
    output: Path,
    bd_anchor: str,
    published: Sequence[str],
    bd_interval: Any = None,
    notes: Sequence[str] = (),
    further: Sequence[Curve] = (),
    pictures: Mapping[Key, Picture] | None = None,
    originals: Mapping[str, Picture] | None = None,
) -> None:
    """One report over records of one data set, whatever runs they are of. bd_anchor: any codec of them, or a curve of others."""
    sets = list(records.data.unique())
    if len(sets) != 1:
        raise UserError(f"inputs: records of several data sets ({', '.join(sets)}); a report is about one")
    codecs = [str(c) for c in records.codec.unique()]
    overlays = with_anchor(published, bd_anchor, [*codecs, *(c.name for c in further)], sets[0])
    check_published(overlays, sets[0])
    intervals(bd_interval, metrics_of(records))
    if bd_anchor not in codecs and not anchor_among(further, bd_anchor) and bd_anchor.removesuffix(" (published)") not in overlays:
        raise unknown("run.bd_anchor", bd_anchor, [*codecs, *(c.name for c in further), *published_curves().get(sets[0], {})])
    stamp = {"lc_bench": __version__, "torch": str(torch.__version__)}
    write_report(records, output, sets[0], bd_anchor, overlays, stamp, list(notes), pictures, originals, bd_interval, further)
