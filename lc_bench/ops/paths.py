"""Where things are kept on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """LC_BENCH_CACHE, else ~/.cache/lc_bench: weights and results of anchors."""
    return Path(os.environ.get("LC_BENCH_CACHE") or Path.home() / ".cache" / "lc_bench").expanduser()


def data_root() -> Path:
    """LC_BENCH_DATA, else `data` in the cache: the folder that holds data sets."""
    return Path(os.environ.get("LC_BENCH_DATA") or cache_dir() / "data").expanduser()
