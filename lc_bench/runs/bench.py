"""run=bench: every sample to bytes and back, the classical codecs beside it, and a report of both."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from .. import __version__
from ..api import label_of, load_from, qualities_for
from ..bench.anchors import Anchor
from ..bench.draco import Draco
from ..bench.gpcc import Gpcc
from ..bench.learned import check_kind, run_model
from ..config import make
from ..data import CloudSet, ImageSet
from ..errors import UserError, unknown
from ..models import TransformCode
from ..ops.device import device_name, pick_device
from ..ops.paths import cache_dir
from ..report import write_report
from ..report.page import MOST_PICTURES
from ..report.records import check_published, read_records

log = logging.getLogger(__name__)

Record = dict[str, Any]
AnyAnchor = Anchor | Draco | Gpcc


@dataclass
class Gallery:
    """Pictures and clouds for the report: originals, and decoded ones by (codec, level, image). Only as many as it shows."""

    originals: dict[str, Tensor] = field(default_factory=dict)
    decoded: dict[tuple[str, float, str], Tensor] = field(default_factory=dict)

    def add(self, codec: str, level: float, name: str, original: Tensor, decoded: Tensor) -> None:
        if len(self.originals) < MOST_PICTURES:
            self.originals[name] = original
            self.decoded[codec, level, name] = decoded


def main(cfg: DictConfig) -> float:
    """Benchmark, write records and report into `output`; returns the mean bpp of the learned codec."""
    device = pick_device(cfg.device)
    qualities = qualities_for(cfg)
    data: ImageSet | CloudSet = make(cfg.data)
    anchors = make_anchors(cfg) if cfg.run.anchors else []
    check_published(cfg.run.published, data.name)
    output = Path(cfg.output)
    output.mkdir(parents=True, exist_ok=True)
    # The first model before the anchors: a missing checkpoint is told at once, not after minutes.
    pair = load_pair(cfg, qualities[0], device)
    check_kind(pair[0], data)
    if cfg.run.images is not None and (not isinstance(cfg.run.images, int) or cfg.run.images < 1):
        raise UserError(f"run.images={cfg.run.images}: give the number of images, 1 or more, or null for all")
    count = min(len(data), cfg.run.images or len(data))
    known = known_records(cfg.run.resume, output)
    records: list[Record] = []
    gallery = Gallery()
    columns = (TextColumn("{task.description:<34}"), BarColumn(), TextColumn("{task.completed}/{task.total}"), TimeRemainingColumn())
    interrupted = False
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        try:
            for anchor in anchors:
                task = progress.add_task(anchor.name, total=count * len(anchor.levels))
                for record in run_anchor(anchor, data, count):
                    records.append(record)
                    progress.advance(task)
            for quality in qualities:
                pair = pair if quality == qualities[0] else load_pair(cfg, quality, device)
                label = label_of(pair[0], cfg.rate.name)
                task = progress.add_task(f"{label} quality {quality}", total=count)
                pictured = quality == qualities[len(qualities) // 2]
                show = functools.partial(gallery.add, label, quality) if pictured else None
                for record in run_model(*pair, data, label, quality, count, known, show):
                    records.append(record)
                    progress.advance(task)
                pd.DataFrame(records).to_csv(output / "records.csv", index=False)  # for run.resume, should this run be killed
        except KeyboardInterrupt:
            interrupted = True
    if not records:
        raise UserError("interrupted before the first result; nothing was written")
    table = pd.DataFrame(records)
    add_anchor_pictures(gallery, table, next((a for a in anchors if a.name == cfg.run.bd_anchor), None))
    stamp = {"lc_bench": __version__, "torch": torch.__version__, "device": device_name(device), "threads": torch.get_num_threads()}
    notes = [*data.skipped, *(["interrupted: levels may be incomplete"] if interrupted else [])]
    overlays = list(cfg.run.published)
    write_report(table, output, data.name, cfg.run.bd_anchor, overlays, stamp, notes, gallery.decoded, gallery.originals)
    log.info(f"report: {(output / 'index.html').resolve()}")
    if interrupted:
        log.info(f"interrupted; continue with run.resume={output}")
    learned = table[table.kind == "learned"]
    return float(learned.bpp.mean()) if len(learned) else float("nan")


def known_records(resume: str | None, output: Path) -> list[Record]:
    """What an interrupted run measured: of a folder, a file, or `auto` (the output folder's own, if there are any)."""
    if resume is None or (resume == "auto" and not (output / "records.csv").is_file()):
        return []
    return read_records(output if resume == "auto" else Path(resume).expanduser()).to_dict("records")


def load_pair(cfg: DictConfig, quality: float, device: torch.device) -> tuple[TransformCode, TransformCode]:
    """Sender and receiver: built separately, from the same weights."""
    sender, receiver = load_from(cfg, quality), load_from(cfg, quality)
    return sender.to(device), receiver.to(device)


def run_anchor(anchor: AnyAnchor, data: ImageSet | CloudSet, count: int) -> Iterator[Record]:
    """Records of an anchor at every level, one after the other: their seconds stand beside those of the learned codecs."""
    for name, pixels in islice(iter(data), count):
        for level in anchor.levels:
            note = {"codec": anchor.name, "kind": "anchor", "level": level, "weights": "", "version": anchor.version, "data": data.name}
            yield {**note, **anchor.run(name, pixels, level)}


def make_anchors(cfg: DictConfig) -> list[AnyAnchor]:
    anchors = [make(node, cache=cache_dir() / "anchors" if cfg.run.cache else None) for node in (cfg.get("anchor") or {}).values()]
    for missing in [a for a in anchors if not isinstance(a, Anchor) and a.missing]:
        log.warning(missing.missing)
        anchors.remove(missing)
    if anchors and cfg.run.bd_anchor not in [a.name for a in anchors]:
        raise unknown("run.bd_anchor", cfg.run.bd_anchor, [a.name for a in anchors], "Add others with anchor=[...].")
    return anchors


def add_anchor_pictures(gallery: Gallery, table: pd.DataFrame, anchor: AnyAnchor | None) -> None:
    """Beside each learned picture, the anchor's at the nearest rate."""
    if anchor is None:
        return
    for codec, quality, name in list(gallery.decoded):
        rate = table[(table.codec == codec) & (table.level == quality) & (table.image == name)].bpp.iloc[0]
        own = table[(table.codec == anchor.name) & (table.image == name)]
        if len(own):
            level = float(own.iloc[(own.bpp - rate).abs().argmin()].level)
            gallery.decoded[anchor.name, level, name] = anchor.measure(gallery.originals[name], level)[1]
