"""run=bench: every sample to bytes and back, the classical codecs beside it, and a report of both."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import pandas as pd
import torch
from omegaconf import DictConfig
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from torch import Tensor

from .. import __version__
from ..api import label_of, load_from, qualities_for
from ..bench.anchors import Anchor
from ..bench.draco import Draco
from ..bench.external import External
from ..bench.gpcc import Gpcc
from ..bench.learned import check_kind, run_model
from ..config import make, plain
from ..data import CloudSet, ImageSet
from ..data.identity import content_of
from ..errors import CannotCodeError, UserError, unknown
from ..models import TransformCode
from ..ops import stopping
from ..ops.device import device_name, machine_stamp
from ..ops.paths import cache_for
from ..ops.progress import progress
from ..report import write_report
from ..report.identity import labels
from ..report.pictures import MOST_PICTURES
from ..report.ranking import intervals, with_anchor
from ..report.records import CLOUDS, IMAGES, check_published, published_curves
from ..tracking import log_benchmark, make_loggers, told_of
from . import ranks
from .folders import remove_replaced
from .ledger import Ledger, Record, earlier_records
from .training_data import set_of

log = logging.getLogger(__name__)

AnyAnchor = Anchor | External | Draco | Gpcc
COLUMNS = (
    TextColumn("{task.description:<34}", markup=False),
    BarColumn(),
    TextColumn("{task.completed}/{task.total}"),
    TimeRemainingColumn(),
)


@dataclass
class Gallery:
    """Pictures and clouds for the report: originals, and decoded ones by (codec, level, image). Only as many as it shows."""

    names: tuple[str, ...]
    originals: dict[str, Tensor] = field(default_factory=dict)
    decoded: dict[tuple[str, float, str], Tensor] = field(default_factory=dict)

    def add(self, codec: str, level: float, name: str, original: Tensor, decoded: Tensor) -> None:
        if name in self.names:
            self.originals[name] = original
            self.decoded[codec, level, name] = decoded

    def join(self, others: Iterable[Gallery]) -> None:
        """Those of all ranks, in the order of the data."""
        originals, decoded = {}, {}
        for gallery in others:
            originals |= gallery.originals
            decoded |= gallery.decoded
        self.originals = {name: originals[name] for name in self.names if name in originals}
        self.decoded = {key: decoded[key] for key in sorted(decoded, key=lambda key: self.names.index(key[2]))}


def main(cfg: DictConfig) -> float:
    """Benchmark, write records and report into `output`; returns the mean bpp of the learned codec."""
    return ranks.launch(run, cfg)


def run(cfg: DictConfig) -> float:
    """Of one rank: it codes its share of the samples, on its own device; the first one writes the report of all."""
    qualities = qualities_for(cfg)
    data = set_of(cfg.data)
    anchors = make_anchors(cfg, published_curves().get(data.name, {})) if cfg.run.anchors else []
    check_published(cfg.run.published, data.name)
    intervals(plain(cfg.run.bd_interval), tuple(IMAGES if isinstance(data, ImageSet) else CLOUDS))
    us = ranks.join(cfg)
    output = Path(cfg.output)
    output.mkdir(parents=True, exist_ok=True)
    # The first model before the anchors: a missing checkpoint is told at once, not after minutes.
    pair = load_pair(cfg, qualities[0], us.device)
    check_kind(pair[0], data)
    count = min(len(data), cfg.run.images or len(data))
    share = us.share(count)
    known, notes = of_these_samples(earlier_records(cfg.run.resume, output), data, count)
    us.gather(None)  # all have read the weights, which may lie in the folder
    if us.first:
        remove_replaced(cfg, output)
    loggers = make_loggers(cfg, output, f"{cfg.model.name} on {data.name}") if us.first else []
    refused = Refused()
    ledger = Ledger(output, known, us.rank)
    gallery = Gallery(tuple(data.names[: min(count, MOST_PICTURES)]))
    interrupted = False
    with progress(*COLUMNS, unit="samples", show=us.first) as bars:
        try:
            for anchor in anchors:
                task = bars.add_task(anchor.name, total=len(share) * len(anchor.levels))
                for record in run_anchor(anchor, data, share, refused):
                    ledger.add(record)
                    bars.advance(task)
            for quality in qualities:
                pair = pair if quality == qualities[0] else load_pair(cfg, quality, us.device)
                label = label_of(pair[0], cfg.rate.name)
                task = bars.add_task(f"{label} quality {quality}", total=len(share))
                pictured = quality == qualities[len(qualities) // 2]
                show = functools.partial(gallery.add, label, quality) if pictured else None
                for record in run_model(*pair, data, label, quality, share, known, show, refused.add):
                    ledger.add(record)
                    bars.advance(task)
        except KeyboardInterrupt:
            interrupted = True
        finally:  # whatever ends the run, what was measured is on the disk
            ledger.write()
    everyone = us.gather((ledger.records, gallery, data.skipped, interrupted, refused.notes))
    if not us.first:
        return float("nan")
    records, galleries, skipped, stops, refusals = zip(*everyone, strict=True)
    table = ledger.join(records, data.names)
    gallery.join(galleries)
    interrupted = any(stops)
    if interrupted:
        stopping.note_end(stopping.asked())
    refused.notes = list(chain.from_iterable(refusals))
    if not len(table):
        raise UserError(refused.notes[0] if refused.notes else "interrupted before the first result; nothing was written")
    add_anchor_pictures(gallery, table, next((a for a in anchors if a.name == cfg.run.bd_anchor), None))
    stamp = {"lc_bench": __version__, "torch": str(torch.__version__), "device": device_name(us.device), "threads": torch.get_num_threads()}
    if us.world > 1:
        stamp["processes"] = us.world
    notes += [*dict.fromkeys(chain.from_iterable(skipped)), *refused.notes]
    notes += ["interrupted: levels may be incomplete"] if interrupted else []
    overlays = with_anchor(cfg.run.published, cfg.run.bd_anchor, list(table.codec.unique()), data.name)
    interval = plain(cfg.run.bd_interval)
    ranking = write_report(
        table, output, data.name, cfg.run.bd_anchor, overlays, stamp, notes, gallery.decoded, gallery.originals, interval
    )
    ledger.clean()
    log_benchmark(loggers, told_of(cfg), output, table, ranking, gallery.decoded, gallery.originals)
    log.info(f"report: {(output / 'index.html').resolve()}")
    if interrupted:
        ledger.write()  # with what an earlier part measured and this one had not come to
        log.info(f"interrupted; continue with run.resume={output}")
    learned = table[table.kind == "learned"]
    if not len(learned) and refused.notes and not interrupted:
        raise UserError(f"{cfg.model.name} could code no sample: {refused.notes[-1]}")
    return float(learned.bpp.mean()) if len(learned) else float("nan")


def load_pair(cfg: DictConfig, quality: float, device: torch.device) -> tuple[TransformCode, TransformCode]:
    """Sender and receiver: built separately, from the same weights."""
    sender, receiver = load_from(cfg, quality), load_from(cfg, quality)
    return sender.to(device), receiver.to(device)


class Refused:
    """What codecs say of samples that they cannot code. It is told at once, and stands in the report."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def add(self, note: str) -> None:
        self.notes.append(note)
        log.warning(note)


def of_these_samples(known: list[Record], data: ImageSet | CloudSet, count: int) -> tuple[list[Record], list[str]]:
    """Records of an earlier run that are of the same samples as this one, by their contents, and what is to be said of the others."""
    if not known:
        return [], []
    asked = {str(record["image"]) for record in known if record["data"] == data.name}
    places = [place for place in range(count) if data.names[place] in asked]
    contents = {name: content_of(sample) for name, sample in data.at(places)}
    same = [r for r in known if r["data"] == data.name and r.get("content") == contents.get(str(r["image"]), "")]
    if len(same) == len(known):
        return same, []
    note = (
        f"run.resume: {len(known) - len(same)} of {len(known)} earlier records are of other samples than those of data={data.name} "
        "(or do not say of which); they were measured anew"
    )
    log.warning(note)
    return same, [note]


def run_anchor(anchor: AnyAnchor, data: ImageSet | CloudSet, places: Iterable[int], refused: Refused) -> Iterator[Record]:
    """Records of an anchor at every level, one after the other: their seconds stand beside those of the learned codecs."""
    here = machine_stamp(torch.device("cpu"))  # what a cache keeps says itself where it was measured
    for name, pixels in data.at(places):
        note = {"codec": anchor.name, "kind": "anchor", "weights": "", "version": anchor.version, "settings": anchor.settings}
        note |= {"data": data.name, "content": content_of(pixels), **here}
        failed: list[CannotCodeError] = []
        for level in anchor.levels:
            try:
                record = anchor.run(name, pixels, level)
            except CannotCodeError as error:
                failed.append(error)
                continue
            yield {**note, "level": level, **record}
        if failed:
            refused.add(f"{name}: {failed[0]}; so at {len(failed)} of {len(anchor.levels)} levels")


def make_anchors(cfg: DictConfig, overlays: Iterable[str] = ()) -> list[AnyAnchor]:
    """Those that can run here. overlays: curves of others, which BD-rate may be relative to as well."""
    anchors = [make(node, cache=cache_for("anchors") if cfg.run.cache else None) for node in (cfg.get("anchor") or {}).values()]
    for missing in [a for a in anchors if not isinstance(a, Anchor) and a.missing]:
        log.warning(missing.missing)
        anchors.remove(missing)
    tell_apart(anchors)
    names = [a.name for a in anchors]
    if anchors and cfg.run.bd_anchor not in [*names, *overlays]:
        raise unknown("run.bd_anchor", cfg.run.bd_anchor, names, "Add others with anchor=[...].")
    return anchors


def tell_apart(anchors: list[AnyAnchor]) -> None:
    """Two speeds of one codec are two curves: where several have one name, what their settings differ in joins it."""
    for name in {a.name for a in anchors}:
        settings = dict.fromkeys(a.settings for a in anchors if a.name == name)
        if len(settings) > 1:
            told = labels(list(settings))
            for anchor in [a for a in anchors if a.name == name]:
                anchor.name = f"{name} [{told[anchor.settings]}]"


def add_anchor_pictures(gallery: Gallery, table: pd.DataFrame, anchor: AnyAnchor | None) -> None:
    """Beside each learned picture, the anchor's at the nearest rate."""
    if anchor is None:
        return
    for codec, quality, name in list(gallery.decoded):
        rate = table[(table.codec == codec) & (table.level == quality) & (table.image == name)].bpp.iloc[0]
        own = table[(table.codec == anchor.name) & (table.image == name)]
        if len(own):
            level = float(own.iloc[(own.bpp - rate).abs().argmin()].level)
            with contextlib.suppress(CannotCodeError):  # it could a moment ago; a picture is no reason to end here
                gallery.decoded[anchor.name, level, name] = anchor.measure(gallery.originals[name], level)[1]
