"""Inputs of images and training that failed once, kept beside the repository: each ends as its README there expects.

The same kinds of input are made by the tests of each part; these are the originals. Where they are not, everything is skipped.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SHARED, call

CASES = SHARED / "cases" / "images"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason=f"no reported cases in {CASES} (set LC_BENCH_SHARED)")
TINY = ["model=bmshj2018-factorized", "quality=1", "weights=none", "model.N=8", "model.M=8", "threads=1"]
TRAIN = [
    *("run=train", "model=mbt2018-mean", "quality=1", "model.N=8", "model.M=8", "data=folder", "data.path=photos"),
    *("run.crop=64", "run.batch=2", "run.workers=0", "run.log_every=1", "threads=1"),
]

Take = Callable[[str], Path]


@pytest.fixture
def take(here: Path) -> Take:
    """Copies what a case consists of into the folder in which commands run, and gives that folder."""

    def copy(case: str) -> Path:
        found = CASES / case
        if not found.is_dir():
            pytest.skip(f"{found} is not there")
        for entry in found.iterdir():
            if entry.is_dir():
                shutil.copytree(entry, here / entry.name)
            elif entry.name != "README":
                shutil.copyfile(entry, here / entry.name)
        return here

    return copy


def benchmark(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    call(monkeypatch, *TINY, "data=folder", "anchor=[jpeg]", "output=o", *arguments)


def test_21_linked_folder(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = take("21_linked_folder")
    (folder / "set").mkdir()
    (folder / "set" / "train").symlink_to("../real")
    call(monkeypatch, "run=compress", "input=set", "output=coded", *TINY)
    assert sorted(p.name for p in (folder / "coded" / "train").iterdir()) == ["0.lcb", "1.lcb", "2.lcb", "3.lcb"]


def test_22_apple_double(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = take("22_apple_double") / "set"
    (folder / "._p.png").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        ")
    benchmark(monkeypatch, "data.path=set", "run.images=1")
