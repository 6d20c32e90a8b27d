"""Records on disk while a benchmark runs: a run that is killed at any moment leaves what it measured."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import UserError
from ..report.records import read_records, write_records

Record = dict[str, Any]
EVERY = 1.0  # seconds between writes


class Ledger:
    """records.csv of the first rank, records-rank1.csv and so on of the others, which are joined at the end."""

    def __init__(self, output: Path, known: list[Record], rank: int = 0) -> None:
        self.output = output
        self.known = [] if rank else known  # stay in the file until the run has them again
        self.path = output / (f"records-rank{rank}.csv" if rank else "records.csv")
        self.records: list[Record] = []
        self._written = 0.0

    def add(self, record: Record) -> None:
        self.records.append(record)
        if time.monotonic() - self._written > EVERY:
            self.write()

    def write(self) -> None:
        if self.records:
            table = pd.DataFrame(self.records + self.known)
            write_records(table.drop_duplicates(["codec", "level", "image", "data"]), self.path)
        self._written = time.monotonic()

    def join(self, ranks: Iterable[list[Record]], names: Sequence[str]) -> pd.DataFrame:
        """The records of all ranks in the order of one process: by codec and level, then as the data set has its samples."""
        blocks: dict[Any, int] = {}
        place = {name: i for i, name in enumerate(names)}

        def order(record: Record) -> tuple[int, int]:
            block = (record["codec"], record["level"] if record["kind"] == "learned" else None)
            return blocks.setdefault(block, len(blocks)), place[record["image"]]

        self.records = sorted((record for records in ranks for record in records), key=order)
        return pd.DataFrame(self.records)

    def clean(self) -> None:
        """Once records.csv holds those of all ranks."""
        for path in self.output.glob("records-rank*.csv"):
            path.unlink()


def earlier_records(resume: str | None, output: Path) -> list[Record]:
    """run.resume: null, a folder or records.csv of an interrupted run, or `auto`: what the output folder holds, if anything."""
    if resume is None:
        return []
    folder = output if resume == "auto" else Path(resume).expanduser()
    parts = [*folder.glob("records.csv"), *folder.glob("records-rank*.csv")] if folder.is_dir() else [folder]
    if not parts:
        if resume == "auto":
            return []
        raise UserError(f"run.resume={resume}: no records.csv there. Give the folder of an interrupted run, auto or null")
    return [record for path in parts for record in read_records(path).to_dict("records")]
