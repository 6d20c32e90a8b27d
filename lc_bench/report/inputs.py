"""What a report is made from: records of runs, and curves that others published as JSON."""

from __future__ import annotations

import glob
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import UserError
from .records import Curve, curve_of, metrics_of, read_records

KEY = ["codec", "level", "image", "data"]


@dataclass
class Inputs:
    """tables: one for each records.csv, with the codecs' names as they are shown."""

    tables: list[pd.DataFrame] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)


def gather(given: str | Sequence[str] | Mapping[str, str]) -> Inputs:
    """given: folders, records.csv files, JSON files of curves, or patterns of them. A mapping's keys tell codecs of one name apart."""
    pairs = list(given.items()) if isinstance(given, Mapping) else [("", one) for one in ([given] if isinstance(given, str) else given)]
    found = Inputs()
    for label, one in pairs:
        for path in _expanded(str(one)):
            if path.suffix == ".json":
                found.curves.append(read_curve(path, str(label)))
                continue
            table = read_records(path)
            if label:
                table["codec"] = table.codec.where(table.kind != "learned", table.codec + f" [{label}]")
            found.tables.append(table)
            found.folders.append(path.parent)
            found.labels.append(str(label))
    return found


def _expanded(given: str) -> list[Path]:
    """The files that an input stands for. A folder that has records.csv stands for that alone: a sweep's holds those of its jobs."""
    path = Path(given).expanduser()
    if glob.has_magic(given) and not path.exists():
        matches = sorted(Path(p) for p in glob.glob(str(path), recursive=True))
        if not matches:
            raise UserError(f"inputs: nothing matches {given}")
        return [file for match in matches if match.is_dir() or match.suffix in (".csv", ".json") for file in _expanded(str(match))]
    if path.is_dir() and not (path / "records.csv").is_file():
        below = sorted(path.rglob("records.csv"))
        if not below:
            raise UserError(f"inputs: no records.csv in {path}, nor below it. Give folders of runs, records.csv files or JSON of curves")
        return below
    if not path.exists():
        raise UserError(f"inputs: {path}: no such file or folder, so no records.csv there")
    return [path / "records.csv" if path.is_dir() else path]


def read_curve(path: Path, label: str = "") -> Curve:
    """{"name", "description", "results": {"bpp": [...], "psnr-rgb": [...], ...}}, the shape that the field's tools write."""
    try:
        entry: Any = json.loads(path.read_text())
        results = entry["results"]
        lengths = {len(v) for v in results.values()}
        if len(lengths) != 1 or not results["bpp"]:
            raise ValueError("lists of different lengths, or empty")
        values = [v for column in results.values() for v in column]
        if not all(v is None or (isinstance(v, int | float) and not isinstance(v, bool)) for v in values) or None in results["bpp"]:
            raise ValueError("values that are no numbers")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        wanted = '{"name": ..., "description": ..., "results": {"bpp": [...], "psnr-rgb": [...]}}'
        raise UserError(f"{path}: not a curve ({type(error).__name__}: {error}); it has to be {wanted}") from None
    name = label or str(entry.get("name") or path.stem)
    return curve_of(f"{name} (published)", f"{entry.get('description') or ''}; {path.name}".lstrip("; "), results)


def joined(found: Inputs) -> tuple[pd.DataFrame, list[str]]:
    """One table, in which later records replace earlier ones of the same codec, level and image; notes say where figures differed."""
    if not found.tables:
        raise UserError("inputs: curves alone; give at least one folder of a run or records.csv")
    for table in found.tables:
        metrics_of(table)
    records = pd.concat(found.tables, ignore_index=True)
    metrics = [c for c in ("bytes", *metrics_of(records)) if c in records]
    spread = records[records.duplicated(KEY, keep=False)].groupby("codec", sort=False)
    notes = []
    for codec, rows in spread:
        apart = int((rows.groupby(KEY)[metrics].nunique(dropna=False) > 1).to_numpy().any(1).sum())
        if apart:
            notes.append(
                f"{codec}: inputs differ in {apart} records of the same level and image; those of the last input are kept. "
                "To see both, name the inputs: inputs={old:...,new:...}"
            )
    return records.drop_duplicates(KEY, keep="last"), notes
