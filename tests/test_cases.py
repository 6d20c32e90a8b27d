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
import pandas as pd
import pytest
import tifffile
from conftest import SHARED, call, refused
from forked import start_command

from lc_bench.data import folder
from lc_bench.data.images import read_image
from lc_bench.errors import UserError
from lc_bench.runs.curves import read_curves

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


def test_07_report_fails_at_one_pixel(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    here = take("07_report_fails_at_one_pixel")
    benchmark(monkeypatch, "data.path=set")
    assert (here / "o" / "index.html").is_file()


def test_08_wider_than_webp(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    here = take("08_wider_than_webp")
    benchmark(monkeypatch, "data.path=set", "anchor=[jpeg,webp]")
    assert "wide.png" in (here / "o" / "index.html").read_text()
    records = pd.read_csv(here / "o" / "records.csv")
    assert set(records[records.image == "wide.png"].codec) >= {"jpeg"}
    assert "webp" in set(records[records.image == "a.png"].codec)


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


def test_12_resume_takes_records_of_another_folder(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    here = take("12_resume_takes_records_of_another_folder")
    call(monkeypatch, *TINY, "data=folder", "anchor=[jpeg]", "data.path=A/test", "output=oA")
    resumed = ["data.path=B/test", "output=oB", "run.resume=oA"]
    call(monkeypatch, *TINY, "data=folder", "anchor=[jpeg]", *resumed)
    records = pd.read_csv(here / "oB" / "records.csv")
    assert set(zip(records.width, records.height, strict=True)) == {(240, 224)}


def rates(folder: Path) -> dict[int, float]:
    """Rates of learning by step."""
    named = [row for row in read_curves(folder) if "lr-Adam" in row]
    return {int(row["step"]): row["lr-Adam"] for row in named}


def test_13_and_14_resume(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    """The schedule is one over the new number of steps, and a new rate of learning holds."""
    here = take("13_resume_with_more_steps")
    call(monkeypatch, *TRAIN, "run.steps=4", "output=o")
    more = ["run.steps=12", "run.resume=auto", "output=o"]
    call(monkeypatch, *TRAIN, *more)
    resumed = [rate for step, rate in sorted(rates(here / "o").items()) if step >= 4]
    assert len(resumed) >= 7
    assert resumed == sorted(resumed, reverse=True), "it does not climb back up"
    call(monkeypatch, *TRAIN, *more, "run.steps=16", "optimizer.lr=1e-6")
    assert max(rate for step, rate in rates(here / "o").items() if step >= 12) <= 1e-6


def test_15_resume_from_what_is_no_checkpoint(take: Take, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    take("15_resume_from_what_is_no_checkpoint")
    for name in ("text.ckpt", "empty.ckpt"):
        (told,) = refused(monkeypatch, capsys, *TRAIN, "run.steps=2", "output=o", f"run.resume={name}")
        assert name in told


def test_16_finetune_for_ms_ssim(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    here = take("16_finetune_for_ms_ssim")
    call(monkeypatch, *TRAIN, "run.steps=2", "output=o")
    tuned = ["run.crop=176", "run.steps=2", "rate=ms-ssim", "weights=o/model.safetensors"]
    call(monkeypatch, *TRAIN, *tuned, "output=o2")
    assert (here / "o2" / "model.safetensors").is_file()


def test_17_validate_on_own_folder(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    here = take("17_validate_on_own_folder")
    call(monkeypatch, *TRAIN, "run.steps=2", "run.val=held", "output=o")
    assert any("val/loss" in row for row in read_curves(here / "o"))


def test_18_two_runs_in_one_second(take: Take) -> None:
    here = take("18_two_runs_in_one_second")
    words = [*TINY, "data=folder", "anchor=[jpeg]"]
    running = [start_command([*words, f"data.path={name}"], here / f"{name}.log", here) for name in ("photos", "one")]
    assert [one.wait(300) for one in running] == [0, 0]
    folders = {path.parent for path in here.glob("outputs/**/records.csv")}
    assert len(folders) == 2
    told = {(folder / ".hydra" / "overrides.yaml").read_text() for folder in folders}
    assert len(told) == 2


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


@pytest.mark.parametrize(
    "value",
    [
        *("run.save_every=0", "run.val_every=0", "run.batch=0", "run.workers=-1", "run.crop=-64"),
        *("trainer.accumulate_grad_batches=0", "seed=99999999999999", "optimizer.lr=-1"),
        *("rate.lmbda=-1", "run.steps=-1"),
    ],
)
def test_23_training_values(value: str, take: Take, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    take("23_training_values")
    (told,) = refused(monkeypatch, capsys, *TRAIN, "run.steps=2", "output=o", value)
    assert value.partition("=")[0] in told


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
