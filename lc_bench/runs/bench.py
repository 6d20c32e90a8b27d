"""run=bench: every sample to bytes and back, the classical codecs beside it, and a report of both."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
from ..api import load_from
from ..bench.anchors import Anchor
from ..bench.complexity import complexity
from ..bench.learned import code_image
from ..config import cache_dir, make, qualities_of
from ..data import ImageSet
from ..errors import UserError, unknown
from ..models import TransformCode
from ..report import write_report
from ..report.page import MOST_PICTURES
from ..report.records import check_published, read_records

log = logging.getLogger(__name__)

Record = dict[str, Any]


@dataclass
class Gallery:
    """Pictures for the report: originals, and decoded pixels by (codec, level, image). Only as many as it shows."""

    originals: dict[str, Tensor] = field(default_factory=dict)
    decoded: dict[tuple[str, float, str], Tensor] = field(default_factory=dict)


def main(cfg: DictConfig) -> float:
    """Benchmark, write records and report into `output`; returns the mean bpp of the learned codec."""
    device = pick_device(cfg.device)
    qualities = qualities_of(cfg)
    data: ImageSet = make(cfg.data)
    anchors = make_anchors(cfg) if cfg.run.anchors else []
    check_published(cfg.run.published, data.name)
    output = Path(cfg.output)
    output.mkdir(parents=True, exist_ok=True)
    # The first model before the anchors: a missing checkpoint is told at once, not after minutes.
    pair = load_pair(cfg, qualities[0], device)
    count = min(len(data), cfg.run.images or len(data))
    known = read_records(Path(cfg.run.resume).expanduser()).to_dict("records") if cfg.run.resume else []
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
                pictured = quality == qualities[len(qualities) // 2]
                task = progress.add_task(f"{codec_label(cfg, pair[0])} quality {quality}", total=count)
                for record in run_learned(cfg, pair, data, count, quality, known, gallery if pictured else None):
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


def load_pair(cfg: DictConfig, quality: int, device: torch.device) -> tuple[TransformCode, TransformCode]:
    """Sender and receiver: built separately, from the same weights."""
    sender, receiver = load_from(cfg, quality), load_from(cfg, quality)
    return sender.to(device), receiver.to(device)


def run_anchor(anchor: Anchor, data: ImageSet, count: int) -> Iterator[Record]:
    """Records of an anchor at every level; several levels at a time, since most of the work is outside Python."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for name, pixels in islice(iter(data), count):
            found = pool.map(lambda level, name=name, pixels=pixels: anchor.run(name, pixels, level), anchor.levels)
            for level, record in zip(anchor.levels, found, strict=True):
                note = {"codec": anchor.name, "kind": "anchor", "level": level, "weights": "", "version": anchor.version, "data": data.name}
                yield {**note, **record}


def run_learned(
    cfg: DictConfig,
    pair: tuple[TransformCode, TransformCode],
    data: ImageSet,
    count: int,
    quality: int,
    known: list[Record],
    gallery: Gallery | None,
) -> Iterator[Record]:
    """Records of a model at one quality. Those of an earlier run (same codec, weights, level and data) are taken from `known`."""
    note = {
        "codec": codec_label(cfg, pair[0]),
        "kind": "learned",
        "level": quality,
        "weights": pair[0].weights_note,
        "version": f"lc_bench {__version__}, weights {pair[0].weights_note} {pair[0].frozen.identity.weights.hex()}",
        "data": data.name,
    }
    kept = {r["image"]: r for r in known if all(r.get(k) == v for k, v in note.items())}
    cost = complexity(pair[0])
    for name, pixels in islice(iter(data), count):
        if name in kept:
            yield kept[name]
            continue
        record = code_image(*pair, name, pixels)
        decoded = record.pop("decoded")
        if gallery is not None and len(gallery.originals) < MOST_PICTURES:
            gallery.originals[name] = pixels
            gallery.decoded[note["codec"], quality, name] = decoded
        yield {**note, **record, **cost}


def codec_label(cfg: DictConfig, model: TransformCode) -> str:
    """Name in tables: untrained weights and metrics other than MSE are part of it."""
    metric = "" if cfg.rate.name == "mse" else f" {cfg.rate.name}"
    return f"{cfg.model.name}{metric}" + (" (untrained)" if model.weights_note == "untrained" else "")


def make_anchors(cfg: DictConfig) -> list[Anchor]:
    anchors = [make(node, cache=cache_dir() / "anchors" if cfg.run.cache else None) for node in cfg.anchor.values()]
    if cfg.run.bd_anchor not in [a.name for a in anchors]:
        raise unknown("run.bd_anchor", cfg.run.bd_anchor, [a.name for a in anchors], "Add others with anchor=[...].")
    return anchors


def add_anchor_pictures(gallery: Gallery, table: pd.DataFrame, anchor: Anchor | None) -> None:
    """Beside each learned picture, the anchor's at the nearest rate."""
    if anchor is None:
        return
    for codec, quality, name in list(gallery.decoded):
        rate = table[(table.codec == codec) & (table.level == quality) & (table.image == name)].bpp.iloc[0]
        own = table[(table.codec == anchor.name) & (table.image == name)]
        if len(own):
            level = float(own.iloc[(own.bpp - rate).abs().argmin()].level)
            gallery.decoded[anchor.name, level, name] = anchor.measure(gallery.originals[name], level)[1]


def pick_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise unknown("device", name, ("auto", "cpu", "cuda"))
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: this machine (or this build of torch) has no CUDA device; use device=cpu or auto")
    return torch.device(name)


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU {platform.processor() or platform.machine()}"
