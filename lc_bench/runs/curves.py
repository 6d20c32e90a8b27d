"""Reads the metrics.csv of trainings, also while they are being written and after a kill cut them."""

from __future__ import annotations

import csv
import re
from pathlib import Path

Row = dict[str, float]


def read_curves(folder: Path) -> list[Row]:
    """Figures by name, `step` among them, one row for each line of all parts of a run, the earliest first.

    What is not there as a whole is left out: the last line while it has no end, a line with another number of fields than the
    header, a field that is no number.
    """
    return [row for path in _parts(folder) for row in _read(path)]


def _parts(folder: Path) -> list[Path]:
    """metrics-part1.csv, metrics-part2.csv, ..., and metrics.csv, which is the latest."""
    numbered = {path: re.fullmatch(r"metrics-part(\d+)\.csv", path.name) for path in folder.glob("metrics-part*.csv")}
    earlier = sorted((int(found[1]), path) for path, found in numbered.items() if found)
    return [*(path for _, path in earlier), *folder.glob("metrics.csv")]


def _read(path: Path) -> list[Row]:
    whole = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")[0]
    names, *lines = list(csv.reader(whole.replace("\0", "").splitlines())) or [[]]
    rows = [_row(names, fields) for fields in lines if len(fields) == len(names)]
    return [row for row in rows if "step" in row]


def _row(names: list[str], fields: list[str]) -> Row:
    row: Row = {}
    for name, field in zip(names, fields, strict=True):
        try:
            row[name] = float(field)
        except ValueError:
            continue
    return row
