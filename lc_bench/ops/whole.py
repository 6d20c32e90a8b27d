"""Files that are whole or not there: written beside their place, then moved into it."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST = 255  # bytes of a file's name, with most systems
PIECE = 1 << 20


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Where to write; it becomes `path` when the block ends well, and is removed when it does not.

    Each writer has a place of its own: of several threads, or processes on machines that share a disk, the last one stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    own = secrets.token_hex(4)
    name = f".{path.name}.{own}.part"
    if len(os.fsencode(name)) > LONGEST:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.{own}.part"
    part = path.with_name(name)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def make_room(path: Path, size: int) -> None:
    """Let the file take up `size` bytes on its disk, zeros where nothing was. OSError where the disk is full.

    To be called before a file is mapped: a page that has no place on the disk would end the process when it is written to.
    """
    with path.open("r+b") as file:
        present = os.fstat(file.fileno()).st_size
        if size <= present:
            return
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
            return
        file.seek(present)
        for start in range(present, size, PIECE):
            file.write(bytes(min(PIECE, size - start)))
