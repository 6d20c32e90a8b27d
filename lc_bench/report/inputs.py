"""What a report is made from: records of runs, and curves that others published as JSON."""

from __future__ import annotations

import glob
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import UserError
from .identity import SampleSet, by_settings, mixed, sets_of, unsaid
from .records import Curve, curve_of, metrics_of, read_records

KEY = ["codec", "level", "image", "data"]


@dataclass
class Inputs:
    """tables: one for each records.csv, with the codecs' names as they are shown; files: where each is; names: what each codec is called in
    its folder, and what here.
    """

    tables: list[pd.DataFrame] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    names: list[dict[str, str]] = field(default_factory=list)


def gather(given: str | Sequence[str] | Mapping[str, str]) -> Inputs:
    """given: folders, records.csv files, JSON files of curves, or patterns of them. A mapping's keys tell codecs of one name apart."""
    pairs = list(given.items()) if isinstance(given, Mapping) else [("", one) for one in ([given] if isinstance(given, str) else given)]
    found = Inputs()
    own: list[list[str]] = []
    for label, one in pairs:
        for path in _expanded(str(one)):
            if path.suffix == ".json":
                found.curves.append(read_curve(path, str(label)))
                continue
            table = read_records(path)
            own.append([str(codec) for codec in table.codec])
            if label:
                table["codec"] = table.codec.where(table.kind != "learned", table.codec + f" [{label}]")
            found.tables.append(table)
            found.files.append(path)
    found.tables = by_settings(found.tables)
    found.names = [dict(zip(names, map(str, table.codec), strict=True)) for names, table in zip(own, found.tables, strict=True)]
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
        return [inside(file, path) for file in below]
    if not path.exists():
        raise UserError(f"inputs: {path}: no such file or folder, so no records.csv there")
    return [inside(path / "records.csv", path) if path.is_dir() else path]


def inside(file: Path, folder: Path) -> Path:
    """The file, unless it is a link that leads out of the folder: somebody else's folder would bring files of this machine into a page."""
    if not file.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{file}: a link that leads out of {folder}. Give the file that it stands for, or delete the link")
    return file


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
        if not all(0 <= rate < math.inf for rate in results["bpp"]):
            raise ValueError("rates that are not finite, or below 0")
        columns = {key: [None if v is None else float(v) for v in column] for key, column in results.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        wanted = '{"name": ..., "description": ..., "results": {"bpp": [...], "psnr-rgb": [...]}}'
        raise UserError(f"{path}: not a curve ({type(error).__name__}: {error}); it has to be {wanted}") from None
    name = label or str(entry.get("name") or path.stem)
    return curve_of(f"{name} (published)", f"{entry.get('description') or ''}; {path.name}".lstrip("; "), columns)


def joined(found: Inputs) -> tuple[pd.DataFrame, list[str]]:
    """One table, in which later records replace earlier ones of the same codec, level and image; notes say where figures differed.

    UserError for records of two sets of one name, which the contents of their samples tell.
    """
    if not found.tables:
        raise UserError("inputs: curves alone; give at least one folder of a run or records.csv")
    for table, file in zip(found.tables, found.files, strict=True):
        metrics_of(table)
        if mixed(table):
            raise UserError(f"{file}: {mixed(table)[0]} stands for different samples in it; its records are of several data sets")
    one_of_each_name(found)
    records = pd.concat(found.tables, ignore_index=True)
    metrics = [c for c in ("bytes", *metrics_of(records)) if c in records]
    spread = records[records.duplicated(KEY, keep=False)].groupby("codec", sort=False)
    notes = []
    old = [str(file) for table, file in zip(found.tables, found.files, strict=True) if unsaid(table)]
    if old and len(found.tables) > 1:
        notes.append(f"{', '.join(old)}: written by an earlier version, without the contents of samples; joined by their names")
    for codec, rows in spread:
        apart = int((rows.groupby(KEY)[metrics].nunique(dropna=False) > 1).to_numpy().any(1).sum())
        if apart:
            notes.append(
                f"{codec}: inputs differ in {apart} records of the same level and image; those of the last input are kept. "
                "To see both, name the inputs: inputs={old:...,new:...}"
            )
    return records.drop_duplicates(KEY, keep="last"), notes


def one_of_each_name(found: Inputs) -> None:
    """UserError if two inputs are of different sets that have the same name."""
    first: dict[str, SampleSet] = {}
    for samples in sets_of(found.tables):
        other = first.setdefault(samples.data, samples)
        if other is samples:
            continue
        differ = [name for name, content in samples.samples.items() if other.samples.get(name, content) != content]
        how = f"{differ[0]} is another sample" if differ else f"{len(other.samples)} and {len(samples.samples)} samples, not the same ones"
        here, there = found.files[other.tables[0]], found.files[samples.tables[0]]
        raise UserError(
            f"inputs: {here} and {there} are of two data sets that are both called {samples.data} ({how}); a report is about one. "
            "Make a report of each, or give one another name when it is measured (+data.name=...)"
        )
