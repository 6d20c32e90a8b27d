"""Which images a folder holds. A million of them take minutes to list on a network drive, so that long lists are kept in the cache.

A kept list holds as long as no folder that the pattern goes into has changed: adding or removing a file changes the time of its folder.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ..ops.paths import cache_dir
from ..ops.whole import written_whole
from .images import SUFFIXES

LONG = 10_000  # images from which on a list is kept


def found(root: Path, pattern: str) -> list[Path]:
    """Images that fit a pattern such as `train/*/*.jpg`, in the order of their paths."""
    above, _, name = pattern.rpartition("/")
    folders = sorted(p for p in root.glob(above or ".") if p.is_dir())
    state = hashlib.sha256(repr((str(root), pattern, [(str(p), p.stat().st_mtime_ns) for p in folders])).encode()).hexdigest()
    key = hashlib.sha256(repr((str(root), pattern)).encode()).hexdigest()[:16]
    kept = cache_dir() / "listings" / f"{key}.txt"
    if kept.is_file():
        first, *lines = kept.read_text().splitlines()
        if first == state:
            return [root / line for line in lines]
    names = [(folder, entry) for folder in folders for entry in sorted(os.listdir(folder))]
    paths = [folder / entry for folder, entry in names if _is_image(entry) and Path(entry).match(name)]
    if len(paths) >= LONG:
        with written_whole(kept) as part:
            part.write_text("\n".join([state, *(p.relative_to(root).as_posix() for p in paths)]))
    return paths


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES
