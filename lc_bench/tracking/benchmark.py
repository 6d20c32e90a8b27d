"""What a benchmark tells its loggers when it has ended: records, curves and ranking as tables, plots, and decoded samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from ..report.ranking import Rank
from ..report.records import Curve, complete
from .loggers import close, log_config, log_pictures, log_result, log_table, of_wandb

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

Pictures = Mapping[tuple[str, float, str], Tensor]


def log_benchmark(
    loggers: Sequence[Logger],
    told: Mapping[str, Any],
    output: Path,
    records: pd.DataFrame,
    ranking: list[Rank],
    decoded: Pictures,
    originals: Mapping[str, Tensor],
) -> None:
    """After the report was written into `output`; of many processes, by the first. told: of origin.told_of; ranking: of write_report;
    decoded, originals: what the report shows of images.
    """
    if not loggers:
        return
    from lightning.pytorch.utilities import rank_zero_only

    if rank_zero_only.rank != 0:
        return
    log_config(loggers, told)
    for logger in of_wandb(loggers):
        logger.log_table("records", dataframe=plain(records))  # of TensorBoard no: text of a thousand rows
    log_table(loggers, "rd", table_of([entry.curve for entry in ranking]))
    log_table(loggers, "ranking", ranking_of(ranking))
    plots = {path.stem: picture(path) for pattern in ("rd-*.png", "cloud-*.png") for path in sorted(output.glob(pattern))}
    log_pictures(loggers, "plots", plots, list(plots))
    shown, captions = side_by_side(records, decoded, originals)
    if shown:
        log_pictures(loggers, "samples", shown, captions)
    log_result(loggers, told, results_of(complete(records)[0]))
    close(loggers)


def plain(records: pd.DataFrame) -> pd.DataFrame:
    """With one type in each column: levels are whole numbers, or with a fraction, or words."""
    mixed = [c for c in records if records[c].dtype == object]
    return records.assign(**{c: records[c].map(lambda v: "" if pd.isna(v) else str(v)) for c in mixed})


def table_of(curves: list[Curve]) -> pd.DataFrame:
    """A row for each point of each curve."""
    rows = []
    for curve in curves:
        for place, level in enumerate(curve.levels):
            row = {"codec": curve.name, "kind": curve.kind, "level": str(level), "bpp": curve.bpp[place]}
            row |= {metric: values[place] for metric, values in curve.values.items()}
            rows.append({**row, "encode_s": curve.encode_s[place], "decode_s": curve.decode_s[place], "samples": curve.images})
    return pd.DataFrame(rows)


def ranking_of(ranks: list[Rank]) -> pd.DataFrame:
    rows = []
    for place, entry in enumerate(ranks, 1):
        row: dict[str, Any] = {"place": place, "codec": entry.curve.name, "kind": entry.curve.kind}
        for metric, (percent, interval) in entry.bd.items():
            row |= {f"BD-rate {metric} (%)": percent, f"over, {metric}": interval}
        rows.append({**row, "lowest bpp": min(entry.curve.bpp), "highest bpp": max(entry.curve.bpp)})
    return pd.DataFrame(rows)


def results_of(whole: pd.DataFrame) -> dict[str, float]:
    """Means of the learned codec over all its levels and samples: what a sweep compares."""
    learned = whole[whole.kind == "learned"]
    columns = [c for c in ("bpp", "psnr-rgb", "ms-ssim-rgb", "d1-psnr", "encode_s", "decode_s") if c in learned]
    return {f"rd/{c}": float(np.mean(learned[c])) for c in columns} if len(learned) else {}


def side_by_side(records: pd.DataFrame, decoded: Pictures, originals: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Of each image the original and what each codec made of it, in a row, (3, H, W) uint8; clouds have their stills among the plots."""
    shown, captions = {}, []
    for name, original in originals.items():
        if original.dtype != torch.uint8:
            continue
        parts, words = [original], ["original"]
        for (codec, level, image), pixels in decoded.items():
            if image == name:
                row = records[(records.codec == codec) & (records.level == level) & (records.image == name)].iloc[0]
                parts.append(pixels)
                words.append(f"{codec} {row.bpp:.3f} bpp {row['psnr-rgb']:.2f} dB")
        shown[name] = torch.cat(parts, 2)
        captions.append(f"{name}: " + " | ".join(words))
    return shown, captions


def picture(path: Path) -> Tensor:
    """(3, H, W) uint8."""
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)
