"""A set decoded once: the 8-bit pixels of all images in one file, mapped into every process that draws from it.

Training crops of large PNG files would decode four megapixels for each 256 x 256; from the map only the rows of the crop are read, and the
operating system shares them between loader workers and processes of a machine. The file is in LC_BENCH_CACHE/decoded, named by the images'
names, sizes and times; it can be deleted at any moment.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..errors import UserError
from ..ops.fetch import alone
from ..ops.paths import cache_dir
from ..ops.whole import written_whole
from .images import read_pixels
from .sets import ImageSet

AHEAD = 64  # images that are decoded or wait to be written

Item = TypeVar("Item")
Result = TypeVar("Result")


class Decoded:
    """Pixels of each image of a set, by its place; what an unreadable one has to say instead."""

    def __init__(self, images: ImageSet) -> None:
        times = [(images.label(p), *_state(p)) for p in images.paths]
        key = hashlib.sha256(repr((str(images.root), times)).encode()).hexdigest()[:16]
        folder = cache_dir() / "decoded"
        name = f"{images.name[:50]}-{key}"
        self.file, index = folder / f"{name}.u8", folder / f"{name}.json"
        if not index.is_file():
            with alone(folder):
                if not index.is_file():
                    _decode(images, self.file, index)
        self.entries: list[list[int] | str] = json.loads(index.read_text())  # place, height, width; or what is wrong
        told = next((entry for entry in self.entries if isinstance(entry, str)), None)
        if told and images.on_error == "fail":  # decoded by a run that skipped it
            raise UserError(told)
        self.values: np.memmap | None = None  # mapped by each process for itself

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "values": None}

    def __getitem__(self, place: int) -> np.ndarray:
        """(H, W, 3) uint8, not to be written to."""
        entry = self.entries[place]
        if isinstance(entry, str):
            raise UserError(entry)
        if self.values is None:
            self.values = np.memmap(self.file, np.uint8, "r")
        start, height, width = entry
        return self.values[start : start + height * width * 3].reshape(height, width, 3)


def _state(path: Path) -> tuple[int, int]:
    """Size and time; of a file that is not there, which whoever reads it tells, nothing."""
    try:
        state = path.stat()
    except OSError:
        return 0, 0
    return state.st_size, state.st_mtime_ns


def _decode(images: ImageSet, file: Path, index: Path) -> None:
    from rich.markup import escape
    from rich.progress import track

    def one(path: Path) -> np.ndarray | str:
        try:
            return read_pixels(path, images.label(path))
        except UserError as error:
            if images.on_error == "fail":
                raise
            return str(error)

    entries: list[list[int] | str] = []
    with written_whole(file) as part, part.open("wb") as out, ThreadPoolExecutor() as pool:
        decoded = _ahead(pool, one, images.paths)
        for pixels in track(decoded, escape(f"decoding {images.name}"), len(images), transient=True):
            if isinstance(pixels, str):
                entries.append(pixels)
                continue
            free = shutil.disk_usage(part.parent).free
            if pixels.nbytes > free:
                raise UserError(f"{file}: {free:,} bytes are free there, not enough for the pixels of {images.name}; data.cache=false")
            entries.append([out.tell(), *pixels.shape[:2]])
            out.write(np.ascontiguousarray(pixels).data)
    with written_whole(index) as part:
        part.write_text(json.dumps(entries))


def _ahead(pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: tuple[Item, ...]) -> Iterator[Result]:
    """work(item) in order, not more than AHEAD at a time: a pool's own map would hold all results."""
    for start in range(0, len(items), AHEAD):
        yield from pool.map(work, items[start : start + AHEAD])
