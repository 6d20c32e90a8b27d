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
from ..ops.whole import written_whole

# The first of each is what the ranking goes by.
IMAGES = {"psnr-rgb": "PSNR (dB)", "ms-ssim-rgb": "MS-SSIM (dB)"}
CLOUDS = {"d1-psnr": "D1 PSNR (dB)", "d2-psnr": "D2 PSNR (dB)", "chamfer": "Chamfer (dB)"}
LABELS = {**IMAGES, **CLOUDS}
# Of a codec, not of a sample: kMACs per pixel or point and parameters.
COSTS = ("encoder_kmacs_px", "decoder_kmacs_px", "encoder_kmacs_point", "decoder_kmacs_point", "parameters")
NEEDED = ("codec", "kind", "level", "version", "data", "image", "bpp", "encode_s", "decode_s")
# Words, even where they look like numbers: a folder may be called 2024 or NA.
TEXTS = ("codec", "kind", "weights", "version", "data", "image", "content", "settings", "machine", "torch")
SOURCE = "published results collected by the reference implementation (CompressAI)"


def read_records(path: Path) -> pd.DataFrame:
    """The records of an earlier run, from its folder or its records.csv."""
    file = path / "records.csv" if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{path}: no records.csv there")
    try:
        named = [str(name) for name in pd.read_csv(file, nrows=0).columns]
        # What is missing among numbers is NaN; words stay as they are.
        absent = {name: ["", "NaN", "nan", "NA", "null", "None"] for name in named if name not in TEXTS}
        words: dict[Any, Any] = {name: str for name in named if name in TEXTS}
        table = pd.read_csv(file, dtype=words, keep_default_na=False, na_values=absent)
    except (ValueError, OSError) as error:
        raise UserError(f"{file}: not a table of records ({error})") from None
    missing = [c for c in (*NEEDED, *metrics_of(table)) if c not in table]
    if missing:
        raise UserError(f"{file}: columns are missing: {', '.join(missing)}")
    for name in ("bpp", "encode_s", "decode_s", *metrics_of(table)):
        if len(table) and not pd.api.types.is_numeric_dtype(table[name]):
            given = pd.Series(table[name])
            numbers = pd.Series(pd.to_numeric(given, errors="coerce"))
            wrong = given[numbers.isna() & given.notna()].tolist()[0]
            raise UserError(f"{file}: column {name} has {str(wrong)!r}, which is no number. Correct or delete that line")
    return table


def write_records(records: pd.DataFrame, path: Path) -> None:
    """The file is whole at every moment; a link in its place is replaced and not followed."""
    with written_whole(path) as part:
        records.to_csv(part, index=False, errors="backslashreplace")  # whatever a name holds, figures are kept


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
    left_out: Mapping[str, int] = field(default_factory=dict)  # by metric: samples that its means are without
    undefined: Mapping[str, list[Any]] = field(default_factory=dict)  # by metric: levels at which no sample has a finite value

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
    """One curve per codec. What its means are without is in `left_out` and `undefined`; `notes_of` puts it into words."""
    curves, metrics = [], metrics_of(records)
    for name, rows in records.groupby("codec", sort=False):
        rates: pd.DataFrame = rows.groupby("level")[["bpp", "encode_s", "decode_s"]].mean().sort_values(by="bpp")  # type: ignore[assignment]
        small = rows[rows["ms-ssim-rgb"].isna()].image.nunique() if "ms-ssim-rgb" in metrics else 0
        note = str(rows.version.iloc[0]) + (f"; MS-SSIM without {small} images under 176 pixels" if small else "")
        values, left_out, undefined = {}, {}, {}
        for metric in metrics:
            means, left_out[metric] = finite_means(rows, metric)
            values[metric] = [means[level] for level in rates.index]
            undefined[metric] = [level for level in rates.index if math.isnan(means[level])]
        curves.append(
            Curve(
                str(name),
                str(rows.kind.iloc[0]),
                note,
                rates.bpp.tolist(),
                values,
                rates.index.tolist(),
                rates.encode_s.tolist(),
                rates.decode_s.tolist(),
                rows.image.nunique(),
                units=_units(rows),
                stamps=stamps_of(rows),
                costs={c: float(np.nanmean(rows[c])) for c in COSTS if c in rows and np.isfinite(rows[c]).any()},
                left_out=left_out,
                undefined=undefined,
            )
        )
    return curves


def finite_means(rows: pd.DataFrame, metric: str) -> tuple[dict[Any, float], int]:
    """Mean of a metric by level of one codec, NaN where there is none, and how many samples are left out of them.

    A sample that came back without loss has an infinite PSNR, and one flat cloud an infinite D2: one such value would be the mean of all.
    The sample is left out at every level, so that a curve's points are means over the same ones. A level at which every sample is
    lossless has no mean (NaN); it takes no samples from the others.
    """
    finite = rows[metric].where(np.isfinite(rows[metric]))
    table = (
        pd.DataFrame(rows[["image", "level"]])
        .assign(value=finite)
        .pivot_table(index="image", columns="level", values="value", aggfunc="mean", dropna=False)
    )
    known = table.loc[:, table.notna().any()]
    whole = known.dropna()
    # Every sample is lossless somewhere: then each level is the mean over those that it has.
    kept = whole if len(whole) else known
    means = {level: float(value) for level, value in kept.mean().items()}
    return {level: means.get(level, math.nan) for level in table.columns}, len(known) - len(whole)


def notes_of(curves: Sequence[Curve]) -> list[str]:
    """What means and BD-rates are without, in words that name codecs, metric and number of samples."""
    short: dict[tuple[str, int, int], list[str]] = {}
    none: dict[tuple[str, str], list[str]] = {}
    notes = []
    for curve in curves:
        for metric, count in curve.left_out.items():
            if count:
                short.setdefault((metric, count, curve.images), []).append(curve.name)
        for metric, levels in curve.undefined.items():
            if levels:
                which = "any level" if len(levels) == len(curve.levels) else f"level {', '.join(map(str, levels))}"
                none.setdefault((metric, which), []).append(curve.name)
        free = sum(rate <= 0 for rate in curve.bpp)
        if free:
            notes.append(f"{curve.name}: {free} of {len(curve.bpp)} points have rate 0; BD-rate and BD-PSNR are without them")
    without = [
        f"{_short(metric)}: {count} of {images} samples {'is' if count == 1 else 'are'} left out of the means of {', '.join(names)}, "
        "whose values are infinite (no loss, or a flat cloud) or undefined"
        for (metric, count, images), names in short.items()
    ]
    gaps = [
        f"{_short(metric)} of {', '.join(names)} has no finite value at {which} (no loss, or not defined for such samples); no points there"
        for (metric, which), names in none.items()
    ]
    return [*without, *gaps, *notes]


def _short(metric: str) -> str:
    return LABELS[metric].removesuffix(" (dB)")


def measurable(records: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Records whose rate is a number from 0 on, and a note on each codec that has others."""
    bad = ~(np.isfinite(records.bpp) & (records.bpp >= 0))
    counts = records[bad].groupby("codec", sort=False).size()
    return pd.DataFrame(records[~bad]), [f"{codec}: {count} records without a rate are left out" for codec, count in counts.items()]


def _units(rows: pd.DataFrame) -> float:
    """Mean pixels or points of a sample; NaN where records do not tell."""
    if "points" in rows:
        return float(np.mean(rows["points"]))
    return float(np.mean(rows["width"] * rows["height"])) if "width" in rows else math.nan


def stamps_of(rows: pd.DataFrame) -> tuple[str, ...]:
    """What measured these records: machine and torch, of older records that do not tell "not recorded"."""
    known = [c for c in ("machine", "torch") if c in rows]
    parts = pd.DataFrame(rows[known]).drop_duplicates().to_dict("records")
    told = (", ".join(f"torch {v}" if c == "torch" else str(v) for c, v in part.items() if isinstance(v, str) and v) for part in parts)
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
