"""From records (one row per sample) to curves (one point per level) to a ranking."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import UserError, unknown
from ..metrics import upper_hull
from ..metrics.image import ms_ssim_db

# The first of each is what the ranking goes by.
IMAGES = {"psnr-rgb": "PSNR (dB)", "ms-ssim-rgb": "MS-SSIM (dB)"}
CLOUDS = {"d1-psnr": "D1 PSNR (dB)", "d2-psnr": "D2 PSNR (dB)", "chamfer": "Chamfer (dB)"}
LABELS = {**IMAGES, **CLOUDS}
# Of a codec, not of a sample: kMACs per pixel or point and parameters.
COSTS = ("encoder_kmacs_px", "decoder_kmacs_px", "encoder_kmacs_point", "decoder_kmacs_point", "parameters")
NEEDED = ("codec", "kind", "level", "version", "data", "image", "bpp", "encode_s", "decode_s")
SOURCE = "published results collected by the reference implementation (CompressAI)"


def read_records(path: Path) -> pd.DataFrame:
    """The records of an earlier run, from its folder or its records.csv."""
    file = path / "records.csv" if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{path}: no records.csv there")
    try:
        table = pd.read_csv(file, keep_default_na=True)
    except ValueError as error:
        raise UserError(f"{file}: not a table of records ({error})") from None
    missing = [c for c in (*NEEDED, *metrics_of(table)) if c not in table]
    if missing:
        raise UserError(f"{file}: columns are missing: {', '.join(missing)}")
    return table


def write_records(records: pd.DataFrame, path: Path) -> None:
    """Beside the file, then in its place: it is always whole."""
    part = path.with_name(f"{path.name}.part")
    records.to_csv(part, index=False)
    part.replace(path)


def metrics_of(table: pd.DataFrame) -> tuple[str, ...]:
    """What records of images or of point clouds are measured by."""
    clouds = "chamfer" in table
    if clouds and "psnr-rgb" in table:
        raise UserError("records of images and of point clouds in one report: make one of each")
    return tuple(CLOUDS if clouds else IMAGES)


@dataclass(frozen=True)
class Curve:
    """Means over a data set, by rising rate. Values of a metric may be NaN where it was not published or not defined."""

    name: str
    kind: str  # learned, anchor or published
    note: str
    bpp: list[float]
    values: dict[str, list[float]]
    levels: list[Any]
    encode_s: list[float]
    decode_s: list[float]
    images: int
    units: float = math.nan  # mean pixels or points of a sample
    stamps: tuple[str, ...] = ()  # machines and versions that measured it
    costs: Mapping[str, float] = field(default_factory=dict)  # of COSTS, means over the levels

    def hull(self, metric: str) -> list[int]:
        """Places of the points on the upper convex hull, as the metric is plotted."""
        return upper_hull(self.bpp, self.plotted(metric))

    def plotted(self, metric: str) -> list[float]:
        """MS-SSIM and Chamfer distances are drawn in dB, so that higher is better."""
        in_db = {"ms-ssim-rgb": ms_ssim_db, "chamfer": lambda v: -10 * math.log10(v) if v > 0 else math.inf}.get(metric)
        values = self.values[metric]
        return values if in_db is None else [in_db(v) if math.isfinite(v) else math.nan for v in values]

    @property
    def unit(self) -> str:
        return "point" if "chamfer" in self.values else "pixel"


def complete(records: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Only levels that were measured on every image: means over different images cannot be compared. Says what is left out."""
    images = records.image.nunique()
    counts = records.groupby(["codec", "level"], sort=False).image.nunique()
    short = counts[counts < images]
    notes = [
        f"{codec}, level {level}: {count} of {images} images; left out of curves and ranking" for (codec, level), count in short.items()
    ]  # type: ignore[misc]
    kept = records.set_index(["codec", "level"]).index.isin(counts[counts == images].index)
    return pd.DataFrame(records[kept]), notes


def curves_of(records: pd.DataFrame) -> list[Curve]:
    """One curve per codec. Images without MS-SSIM (too small) are left out of that mean, and the curve's note says so."""
    curves, metrics = [], metrics_of(records)
    for name, rows in records.groupby("codec", sort=False):
        columns = ["bpp", *metrics, "encode_s", "decode_s"]
        means: pd.DataFrame = rows.groupby("level")[columns].mean().sort_values(by="bpp")  # type: ignore[assignment]
        small = rows[rows["ms-ssim-rgb"].isna()].image.nunique() if "ms-ssim-rgb" in metrics else 0
        note = str(rows.version.iloc[0]) + (f"; MS-SSIM without {small} images under 176 pixels" if small else "")
        curves.append(
            Curve(
                str(name),
                str(rows.kind.iloc[0]),
                note,
                means.bpp.tolist(),
                {m: means[m].tolist() for m in metrics},
                means.index.tolist(),
                means.encode_s.tolist(),
                means.decode_s.tolist(),
                rows.image.nunique(),
                units=_units(rows),
                stamps=stamps_of(rows),
                costs={c: float(np.nanmean(rows[c])) for c in COSTS if c in rows and np.isfinite(rows[c]).any()},
            )
        )
    return curves


def _units(rows: pd.DataFrame) -> float:
    """Mean pixels or points of a sample; NaN where records do not tell."""
    if "points" in rows:
        return float(np.mean(rows["points"]))
    return float(np.mean(rows["width"] * rows["height"])) if "width" in rows else math.nan


def stamps_of(rows: pd.DataFrame) -> tuple[str, ...]:
    """What measured these records: machine and torch, of older records that do not tell "not recorded"."""
    known = [c for c in ("machine", "torch") if c in rows]
    parts = pd.DataFrame(rows[known]).drop_duplicates().to_dict("records")
    told = (", ".join(f"torch {v}" if c == "torch" else str(v) for c, v in part.items() if isinstance(v, str)) for part in parts)
    return tuple(dict.fromkeys(words or "not recorded" for words in told)) or ("not recorded",)


@cache
def published_curves() -> dict[str, dict[str, dict[str, Any]]]:
    """By data set and name: published_rd.json, facts with their source in each description."""
    return json.loads((Path(__file__).parent / "published_rd.json").read_text())


def check_published(names: Sequence[str], data: str) -> None:
    known = published_curves().get(data, {})
    for name in names:
        if not known:
            raise UserError(
                f"run.published={name}: nothing is published for data={data}; there is something for {', '.join(published_curves())}"
            )
        if name not in known:
            raise unknown("run.published", name, known)


def published(names: Sequence[str], data: str) -> list[Curve]:
    check_published(names, data)
    entries = ((name, published_curves()[data][name]) for name in names)
    return [curve_of(f"{name} (published)", f"{entry.get('description', '')}; {SOURCE}", entry) for name, entry in entries]


def curve_of(name: str, note: str, columns: Mapping[str, Sequence[float | None]]) -> Curve:
    """A curve that was published as lists: bpp and what there is of metrics and seconds."""
    order = sorted(range(len(columns["bpp"])), key=lambda i: columns["bpp"][i] or 0)

    def column(key: str) -> list[float]:
        values = columns.get(key) or [None] * len(order)
        return [math.nan if values[i] is None else float(values[i]) for i in order]  # type: ignore[arg-type]

    values = {m: column(m) for m in (CLOUDS if CLOUDS.keys() & columns.keys() else IMAGES)}
    return Curve(name, "published", note, column("bpp"), values, order, column("encoding_time"), column("decoding_time"), images=0)


def summary(curve: Curve) -> dict[str, Any]:
    """The plain JSON shape that the field's plotting tools read."""
    clean = lambda values: [round(v, 6) if math.isfinite(v) else None for v in values]  # noqa: E731
    results = {"bpp": clean(curve.bpp), **{m: clean(values) for m, values in curve.values.items()}}
    results |= {"encoding_time": clean(curve.encode_s), "decoding_time": clean(curve.decode_s)}
    return {"name": curve.name, "description": curve.note, "results": results}
