"""run=bench: every sample to bytes and back, the classical codecs beside it, and a report of both."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig
from torch import Tensor

from .. import __version__
from ..api import load_from
from ..config import cache_dir, make, qualities_of
from ..data import ImageSet
from ..errors import UserError, unknown
from .anchors import Anchor
from .complexity import complexity
from .learned import code_image

log = logging.getLogger(__name__)

Record = dict[str, Any]
Pictures = dict[tuple[str, float, str], Tensor]  # decoded pixels by (codec, level, image)


def main(cfg: DictConfig) -> float:
    """Benchmark, write records and report into `output`; returns the mean bpp of the model's first quality."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from ..report import write_report
    from ..report.records import check_published

    device = pick_device(cfg.device)
    qualities = qualities_of(cfg)
    data: ImageSet = make(cfg.data)
    anchors = make_anchors(cfg) if cfg.run.anchors else []
    check_published(cfg.run.published, data.name)
    output = Path(cfg.output)
    output.mkdir(parents=True, exist_ok=True)
    records: list[Record] = []
    pictures: Pictures = {}
    count = min(len(data), cfg.run.images or len(data))
    # Models first: a missing checkpoint is told before minutes of anchors, not after.
    models = [(q, load_from(cfg, q), load_from(cfg, q)) for q in qualities[:1]]
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
                sender, receiver = models[0][1:] if quality == qualities[0] else (load_from(cfg, quality), load_from(cfg, quality))
                sender.to(device)
                receiver.to(device)
                label = codec_label(cfg, sender.weights_note)
                task = progress.add_task(f"{label} quality {quality}", total=count)
                for record, decoded in run_learned(cfg, sender, receiver, data, count, quality):
                    records.append(record)
                    pictures[label, quality, record["image"]] = decoded
                    progress.advance(task)
        except KeyboardInterrupt:
            interrupted = True
    if not records:
        raise UserError("interrupted before the first result; nothing was written")
    table = pd.DataFrame(records)
    stamp = {"lc_bench": __version__, "torch": torch.__version__, "device": device_name(device), "threads": torch.get_num_threads()}
    chosen = add_anchor_pictures(table, pictures, anchors, data, cfg.run.bd_anchor, count)
    notes = [*data.skipped, *(["interrupted: levels may be incomplete"] if interrupted else [])]
    write_report(table, output, data.name, cfg.run.bd_anchor, list(cfg.run.published), stamp, notes, chosen, originals(data, chosen))
    log.info(f"report: {(output / 'index.html').resolve()}")
    if interrupted:
        log.info("interrupted; what was measured is in the report. Anchors that are done are not measured again")
    learned = table[table.kind == "learned"]
    return float(learned.bpp.mean()) if len(learned) else float("nan")


def run_anchor(anchor: Anchor, data: ImageSet, count: int) -> Iterator[Record]:
    """Records of an anchor at every level; two images at a time, since most of the work is outside Python."""
    jobs = [(name, pixels, level) for name, pixels in islice(iter(data), count) for level in anchor.levels]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for (_, _, level), record in zip(jobs, pool.map(lambda job: anchor.run(*job), jobs), strict=True):
            note = {"codec": anchor.name, "kind": "anchor", "level": level, "weights": "", "version": anchor.version, "data": data.name}
            yield {**note, **record}


def run_learned(cfg: DictConfig, sender: Any, receiver: Any, data: ImageSet, count: int, quality: int) -> Iterator[tuple[Record, Tensor]]:
    cost = complexity(sender)
    label = codec_label(cfg, sender.weights_note)
    version = f"lc_bench {__version__}, weights {sender.weights_note}"
    for name, pixels in islice(iter(data), count):
        record = code_image(sender, receiver, name, pixels)
        decoded = record.pop("decoded")
        note = {"codec": label, "kind": "learned", "level": quality, "weights": sender.weights_note, "version": version, "data": data.name}
        yield {**note, **record, **cost}, decoded


def codec_label(cfg: DictConfig, note: str) -> str:
    """Name in tables: untrained weights and metrics other than MSE are part of it."""
    metric = "" if cfg.rate.name == "mse" else f" {cfg.rate.name}"
    return f"{cfg.model.name}{metric}" + (" (untrained)" if note == "untrained" else "")


def make_anchors(cfg: DictConfig) -> list[Anchor]:
    anchors = [make(node, cache=cache_dir() / "anchors" if cfg.run.cache else None) for node in cfg.anchor.values()]
    if cfg.run.bd_anchor not in [a.name for a in anchors]:
        raise unknown("run.bd_anchor", cfg.run.bd_anchor, [a.name for a in anchors], "Add others with anchor=[...].")
    return anchors


def add_anchor_pictures(
    table: pd.DataFrame, pictures: Pictures, anchors: list[Anchor], data: ImageSet, bd_anchor: str, count: int
) -> Pictures:
    """The pictures to show: the learned codec at its middle quality, and the BD anchor at the nearest rate."""
    if not pictures:
        return {}
    label = next(iter(pictures))[0]
    levels = sorted({level for _, level, _ in pictures})
    middle = levels[len(levels) // 2]
    shown = {key: value for key, value in pictures.items() if key[1] == middle}
    anchor = next((a for a in anchors if a.name == bd_anchor), None)
    if anchor is None:
        return shown
    rates = table[(table.codec == label) & (table.level == middle)].set_index("image").bpp
    for name, pixels in islice(iter(data), count):
        own = table[(table.codec == anchor.name) & (table.image == name)]
        if (label, middle, name) in shown and len(own):
            level = own.iloc[(own.bpp - rates[name]).abs().argmin()].level
            shown[anchor.name, level, name] = anchor.measure(pixels, level)[1]
    return shown


def originals(data: ImageSet, shown: Pictures) -> dict[str, Tensor]:
    names = {name for _, _, name in shown}
    return {name: pixels for name, pixels in data if name in names} if names else {}


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
