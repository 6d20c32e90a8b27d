"""Inputs of images and training that failed once, kept beside the repository: each ends as its README there expects.

The same kinds of input are made by the tests of each part; these are the originals. Where they are not, everything is skipped.
"""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import SHARED, call, refused

from lc_bench.data import folder
from lc_bench.data.images import read_image
from lc_bench.errors import UserError

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


def test_01_png16_exif(take: Take) -> None:
    assert read_image(take("01_png16_exif") / "turned.png").shape == (3, 160, 96)


@pytest.mark.parametrize("case", ["02_damaged_avif_ends_folder", "03_npy_header_ends_folder"])
def test_02_and_03_one_bad_file(case: str, take: Take, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    take(case)
    told = refused(monkeypatch, capsys, "run=compress", "input=set", "output=coded", *TINY)
    assert len(told) == 2
    assert told[0].startswith("lc_bench: set/b.")
    assert sorted(p.name for p in Path("coded").iterdir()) == ["a.lcb", "c.lcb"]
    assert [name for name, _ in folder("set", on_error="skip")] == ["a.png", "c.png"]


def test_04_npz_named_npy(take: Take, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    take("04_npz_named_npy")
    (told,) = refused(monkeypatch, capsys, "run=compress", "input=image.npy", "output=x.lcb", *TINY)
    assert "image.npy" in told


def test_05_png_short_exif(take: Take) -> None:
    assert read_image(take("05_png_short_exif") / "photo.png").shape == (3, 96, 160)


@pytest.mark.parametrize("name", ["black.png", "header_only.png"])
def test_06_png16_without_size_guard(name: str, take: Take) -> None:
    with pytest.raises(UserError, match=f"{name}: .* at most"):
        read_image(take("06_png16_without_size_guard") / name)


def test_09_file_name_not_utf8(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    here = take("09_file_name_not_utf8")
    (here / "set").mkdir()
    shutil.copyfile(CASES / "10_tilde_and_other_letters" / "photo.png", os.fsencode(here / "set") + b"/caf\xe9.png")
    benchmark(monkeypatch, "data.path=set")
    assert "caf\\xe9.png" in (here / "o" / "records.csv").read_text()


@pytest.mark.parametrize("name", ["été.png", "photo (1).png", "a=b.png", "~/photo.png"])
def test_10_tilde_and_other_letters(name: str, take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    here = take("10_tilde_and_other_letters")
    monkeypatch.setenv("HOME", str(here))
    if name != "~/photo.png":
        (here / "photo.png").rename(here / name)
    call(monkeypatch, "run=compress", f"input={name}", "output=x.lcb", *TINY)
    assert (here / "x.lcb").is_file()


@pytest.mark.parametrize("name", ["2024", "1e5", "null", "true", "[set]", "001", "NA"])
def test_11_folder_named_by_a_number(name: str, take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    here = take("11_folder_named_by_a_number")
    if name != "2024":
        (here / "2024").rename(here / name)
    benchmark(monkeypatch, f"data.path={name}", "run.anchors=false")


def test_19_full_disk_npy(take: Take, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """No file may become longer than 10 kB: a full disk."""
    take("19_full_disk_npy")
    call(monkeypatch, "run=compress", "input=photo.png", "output=p.lcb", *TINY)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        (told,) = refused(monkeypatch, capsys, "run=decompress", "input=p.lcb", "output=out/o.npy", *TINY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "p.lcb" in told
    assert not list(Path("out").iterdir())


def test_20_cache_or_home_not_writable(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    take("20_cache_or_home_not_writable")
    monkeypatch.delenv("LC_BENCH_CACHE")
    monkeypatch.setenv("HOME", "/proc/nowhere")
    benchmark(monkeypatch, "data.path=set")


def test_21_linked_folder(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    here = take("21_linked_folder")
    (here / "set").mkdir()
    (here / "set" / "train").symlink_to("../real")
    call(monkeypatch, "run=compress", "input=set", "output=coded", *TINY)
    assert sorted(p.name for p in (here / "coded" / "train").iterdir()) == ["0.lcb", "1.lcb", "2.lcb", "3.lcb"]


def test_22_apple_double(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    here = take("22_apple_double") / "set"
    (here / "._p.png").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        ")
    benchmark(monkeypatch, "data.path=set", "run.images=1")


def test_24_integer_and_planar_tiff(take: Take) -> None:
    """Made of values of 30 to 200 of 255 or so, which is what has to come out."""
    here = take("24_integer_and_planar_tiff")
    with pytest.raises(UserError, match=r"u32.tif: .*32 bits"):
        read_image(here / "u32.tif")
    for name in ("minwhite16.tif", "planar16.tif", "rgb16.tif"):
        stored = tifffile.imread(here / name)
        stored = stored.transpose(1, 2, 0) if name.startswith("planar") else stored
        values = 65535 - stored[..., None] if name.startswith("min") else stored
        expected = np.broadcast_to(np.round(values / 257.0), (*values.shape[:2], 3))
        assert np.array_equal(read_image(here / name).permute(1, 2, 0).numpy(), expected), name
