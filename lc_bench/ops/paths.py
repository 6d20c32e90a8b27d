"""Where things are kept on this machine, and how paths are read and shown."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

from ..errors import UserError

log = logging.getLogger(__name__)

# What is wrong with a user's disk or rights, and not with the program.
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EIO, errno.ENXIO)
IN_THE_WAY = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)  # a file where a folder is needed, and the like
# As libraries pass it on.
FULL = (
    *("No space left on device", "Disk quota exceeded"),
    *("PytorchStreamWriter failed writing", "open file failed with strerror", "iostream error", ". unexpected pos "),  # torch.save
)


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with `~` and `~user` replaced by a home; as it is where that home is not known."""
    return Path(os.path.expanduser(path))


def printable(name: str | os.PathLike[str]) -> str:
    """A file's name as text that can be printed and written as UTF-8 on one line.

    Bytes that are no UTF-8, and control characters, come out as escapes such as `caf\\xe9.png`; all other names as they are.
    """
    text = os.fspath(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def cache_dir() -> Path:
    """LC_BENCH_CACHE, else ~/.cache/lc_bench: weights and results of anchors. UserError where there is no home."""
    given = os.environ.get("LC_BENCH_CACHE")
    if given:
        return expanded(given)
    home = expanded("~")
    if not home.is_absolute():
        raise UserError("no home folder is known for this user; set LC_BENCH_CACHE to a folder that can be written")
    return home / ".cache" / "lc_bench"


def cache_for(what: str) -> Path | None:
    """The folder `what` of the cache, made if need be; None, and a notice, where nothing can be kept there.

    For what only saves time. Whatever needs a place to be at all takes `cache_dir`.
    """
    try:
        folder = cache_dir() / what
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
        reason = f"{printable(folder)} cannot be written"
    except UserError as error:
        reason = str(error)
    except OSError as error:
        reason = f"{printable(error.filename or what)}: {error.strerror}"
    if what not in _told:
        _told.add(what)
        log.warning(f"{what} are not kept from run to run: {reason}. LC_BENCH_CACHE names another folder")
    return None


_told: set[str] = set()


def data_root() -> Path:
    """LC_BENCH_DATA, else `data` in the cache: the folder that holds data sets."""
    given = os.environ.get("LC_BENCH_DATA")
    return expanded(given) if given else cache_dir() / "data"


def disk_fault(error: BaseException) -> UserError | None:
    """One line for a full or read-only disk, missing rights, a file in the place of a folder and the like, behind an error or those
    that it came of; else None.
    """
    cause: BaseException | None = error
    while cause is not None:
        about = ""
        if isinstance(cause, OSError) and isinstance(cause.filename, str | bytes):
            about = printable(os.fsdecode(cause.filename))
        if isinstance(cause, OSError) and cause.errno in IN_THE_WAY and about:
            return UserError(f"{about}: {cause.strerror}. Give another path, or remove what is there")
        if isinstance(cause, OSError) and cause.errno in DISK:
            return UserError(f"{about or 'writing'}: {cause.strerror}. Make room, or give output= another folder")
        if any(words in str(cause) for words in FULL):
            return UserError(f"writing: {' '.join(str(cause).split())[:200]}. Make room, or give output= another folder")
        cause = cause.__cause__ or cause.__context__
    return None
