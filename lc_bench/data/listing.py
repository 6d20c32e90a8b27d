"""Which files a folder holds: linked folders are followed, hidden files left out.

A million of them take minutes to list on a network drive, so that long lists of a set of its own shape are kept in the cache.
A kept list holds as long as no folder that the pattern goes into has changed: adding or removing a file changes the time of its folder.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Container
from pathlib import Path

from ..errors import UserError
from ..ops.paths import cache_for, printable
from ..ops.whole import written_whole
from .images import SUFFIXES

log = logging.getLogger(__name__)

LONG = 10_000  # images from which on a list is kept


def files_below(root: Path, suffixes: Container[str], recursive: bool = True) -> list[Path]:
    """Files with such suffixes, in any case, in the order of their paths.

    Linked folders are followed, but not into a folder that they lie in. Hidden files and folders are left out, such as the `._x`
    that macOS puts beside x on foreign disks. A link to nothing is listed: whoever reads it says that it is missing.
    """
    listed: list[Path] = []
    _walk(root, suffixes, recursive, (), listed)
    return sorted(listed)


def _walk(folder: Path, suffixes: Container[str], recursive: bool, above: tuple[tuple[int, int], ...], listed: list[Path]) -> None:
    """Adds to `listed`; above: device and number of the folders that this one lies in, by the way it was reached."""
    try:
        state = folder.stat()
        if (state.st_dev, state.st_ino) in above:
            return
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"{printable(folder)}: a folder that cannot be read ({error.strerror})") from None
    for entry in visible:
        path = folder / entry.name
        if entry.is_dir():
            if recursive:
                _walk(path, suffixes, recursive, (*above, (state.st_dev, state.st_ino)), listed)
        elif path.suffix.lower() in suffixes and (entry.is_file() or not path.exists()):
            listed.append(path)


def found(root: Path, pattern: str) -> list[Path]:
    """Images that fit a pattern such as `train/*/*.jpg`, in the order of their paths."""
    above, _, name = pattern.rpartition("/")
    folders = sorted(p for p in root.glob(above or ".") if p.is_dir())
    state = hashlib.sha256(repr((str(root), pattern, [(str(p), p.stat().st_mtime_ns) for p in folders])).encode()).hexdigest()
    key = hashlib.sha256(repr((str(root), pattern)).encode()).hexdigest()[:16]
    cache = cache_for("listings")
    kept = None if cache is None else cache / f"{key}.txt"
    if kept is not None and kept.is_file():
        first, *lines = kept.read_text("utf-8", "surrogateescape").split("\n")
        if first == state:
            return [root / line for line in lines]
    names = [(folder, entry) for folder in folders for entry in sorted(os.listdir(folder))]
    paths = [folder / entry for folder, entry in names if _is_image(entry) and Path(entry).match(name)]
    if len(paths) >= LONG and kept is not None:
        _keep(kept, [state, *(p.relative_to(root).as_posix() for p in paths)])
    return paths


def _keep(kept: Path, lines: list[str]) -> None:
    """Unless the disk is full, or a name has a line's end."""
    if any("\n" in line for line in lines):
        return
    try:
        with written_whole(kept) as part:
            part.write_text("\n".join(lines), "utf-8", "surrogateescape")
    except OSError as error:
        log.warning(f"{printable(kept)}: the list of images is not kept ({error.strerror})")


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES
