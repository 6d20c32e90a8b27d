"""Archives, with nothing taken on trust: only the wanted members, inside the folder, not larger in sum than was said."""

from __future__ import annotations

import functools
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import IO

from ..errors import UserError

PIECE = 1 << 20


class DamagedError(UserError):
    """An archive that is not what it should be: cut, altered on its way, or another file."""


def unpack(archive: Path, folder: Path, take: str, strip: int, limit: int) -> int:
    """Files of a zip or tar archive that fit the pattern, into `folder`; how many they were.

    take: pattern of a member's path, in which * goes over folders too; strip: how many leading folders are left out, -1 all, -2 all but
    one; limit: bytes that all may have. UserError for paths that lead out, two files of one name, and archives that cannot be read.
    """
    count = written = 0
    try:
        for name, opened in _members(archive):
            path = PurePosixPath(name.replace("\\", "/"))
            if not fnmatch(str(path), take) or "__MACOSX" in path.parts or path.name.startswith("."):
                continue
            if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
                raise UserError(f"{archive}: holds {name!r}, which leads out of the folder. Get the archive from where it was published")
            target = folder.joinpath(*path.parts[strip:])
            if target.exists():
                raise UserError(f"{archive}: holds two files {target.relative_to(folder)}. Get the archive from where it was published")
            target.parent.mkdir(parents=True, exist_ok=True)
            with opened() as source, target.open("wb") as out:
                while piece := source.read(PIECE):
                    written += len(piece)
                    if written > limit:
                        raise UserError(f"{archive}: unpacks to more than {limit:,} bytes. Get the archive from where it was published")
                    out.write(piece)
            count += 1
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno:  # of the disk; a damaged bz2 has none
            raise UserError(
                f"{folder}: cannot be written ({error.strerror}). Make room, or set LC_BENCH_DATA to a folder of yours"
            ) from None
        raise DamagedError(
            f"{archive}: {archive.stat().st_size:,} bytes, cannot be unpacked ({' '.join(str(error).split())}). Delete it and run again"
        ) from None
    return count


def _members(archive: Path) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    """Path and content of every plain file; links and devices are left."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as whole:
            for info in whole.infolist():
                if not info.is_dir() and stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG):
                    yield info.filename, functools.partial(whole.open, info)
        return
    with tarfile.open(archive) as whole:
        for member in whole:
            if member.isreg():
                content = functools.partial(whole.extractfile, member)
                yield member.name, content  # type: ignore[misc]  # a plain file has content
