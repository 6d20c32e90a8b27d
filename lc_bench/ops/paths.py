"""Where things are kept on this machine, and how paths are read and shown."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import UserError


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


def data_root() -> Path:
    """LC_BENCH_DATA, else `data` in the cache: the folder that holds data sets."""
    given = os.environ.get("LC_BENCH_DATA")
    return expanded(given) if given else cache_dir() / "data"
