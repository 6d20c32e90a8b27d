"""Full disks, folders that cannot be written, users without a home: one line, or no cache, and nothing left behind."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import call, refused
from PIL import Image

from lc_bench.config import explain
from lc_bench.data import folder
from lc_bench.data.decoded import Decoded
from lc_bench.data.pixels import canvas
from lc_bench.errors import UserError
from lc_bench.ops import paths
from lc_bench.ops.whole import make_room, written_whole

TINY = ["model=bmshj2018-factorized", "quality=1", "weights=none", "model.N=8", "model.M=8", "threads=1"]


@pytest.fixture
def photo(here: Path) -> Path:
    (here / "photos").mkdir()
    path = here / "photos" / "a.png"
    Image.fromarray(np.full((90, 120, 3), 99, np.uint8)).save(path)
    return path


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file may become longer: what a full disk is to a writer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", ["npy", "ppm", "png"])
def test_a_full_disk_is_told_and_nothing_is_left(
    kind: str, photo: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Mapped files have their place before they are written to: else the process is ended by a signal."""
    call(monkeypatch, "run=compress", f"input={photo}", "output=a.lcb", *TINY)
    with disk_of(60):
        (told,) = refused(monkeypatch, capsys, "run=decompress", "input=a.lcb", f"output=b.{kind}", *TINY)
    assert "a.lcb" in told
    assert os.strerror(errno.EFBIG) in told
    assert sorted(p.name for p in here.iterdir()) == ["a.lcb", "photos"]


def test_mapped_files_have_their_place(here: Path) -> None:
    for kind in ("npy", "ppm"):
        with canvas(here / f"a.{kind}", (70, 90)) as out:
            (part,) = here.glob(".*.part")
            assert part.stat().st_blocks * 512 >= 70 * 90 * 3
            out[:] = 7
        (here / f"a.{kind}").unlink()
    with disk_of(999), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        (here / "b").touch()
        make_room(here / "b", 1000)


@pytest.mark.parametrize("run", ["export", "script"])
def test_a_file_in_the_place_of_a_folder(
    run: str, photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (told,) = refused(monkeypatch, capsys, *TINY, f"run={run}", f"run.to={photo}/weights.pt")
    assert "a.png: " in told
    assert "Give another path" in told


def test_export_leaves_nothing_on_a_full_disk(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with disk_of(60):
        (told,) = refused(monkeypatch, capsys, *TINY, "run=export", "run.to=weights.pth.tar")
    assert "Make room" in told
    assert not list(here.iterdir())


def test_faults_of_a_disk_are_one_line_wherever_they_come_up() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "o/metrics.csv")
    wrapped = RuntimeError("saving failed")
    wrapped.__cause__ = full
    of_a_library = RuntimeError(
        "[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed writing file data/0: file write failed"
    )
    read_only = PermissionError(errno.EACCES, "Permission denied", "outputs")
    for error in (full, wrapped, of_a_library, read_only, OSError(errno.EROFS, "Read-only file system", "outputs")):
        told = explain(error)
        assert isinstance(told, UserError)
        assert "output=" in str(told)
    for error in (FileNotFoundError(errno.ENOENT, "No such file", "x"), RuntimeError("a fault of the program")):
        assert explain(error) is error


@pytest.mark.parametrize("home", ["/proc/nowhere", None])
def test_without_a_home_nothing_is_kept(
    home: str | None, photo: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("LC_BENCH_CACHE")
    monkeypatch.setattr(paths, "_told", set())
    if home:
        monkeypatch.setenv("HOME", home)
    else:
        monkeypatch.delenv("HOME")
        monkeypatch.setattr("pwd.getpwuid", lambda _: (_ for _ in ()).throw(KeyError("uid not found")))
    assert [paths.cache_for("anchors"), paths.cache_for("anchors")] == [None, None]
    (record,) = [r for r in caplog.records if "not kept" in r.message]
    assert "LC_BENCH_CACHE" in record.message
    images = folder(str(photo.parent), cache=True)
    with pytest.raises(UserError, match="LC_BENCH_CACHE"):
        Decoded(images)
    if not home:
        with pytest.raises(UserError, match="LC_BENCH_CACHE"):
            paths.cache_dir()
        assert paths.expanded("~/x") == Path("~/x")


def test_output_elsewhere_needs_nothing_here(
    photo: Path, here: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hydra's notes go to the folder of output=, and no other is made."""
    out = tmp_path_factory.mktemp("elsewhere")
    call(monkeypatch, *TINY, "data=folder", f"data.path={photo.parent}", "run.anchors=false", f"output={out / 'o'}")
    assert (out / "o" / "records.csv").is_file()
    assert (out / "o" / ".hydra" / "config.yaml").is_file()
    assert sorted(p.name for p in here.iterdir()) == ["photos"]


def test_names_may_be_as_long_as_the_disk_allows(here: Path) -> None:
    for name in ("x" * 250, "é" * 125 + ".npy", "\udce9" * 254):
        with written_whole(here / name) as part:
            part.write_text("there")
        assert (here / name).read_text() == "there"
    assert len(list(here.iterdir())) == 3


def test_pixels_come_back_from_every_kind_of_canvas(here: Path) -> None:
    values = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    for kind in ("npy", "ppm", "png"):
        with canvas(here / f"a.{kind}", (5, 7)) as out:
            out[:] = values
        read = np.load(here / "a.npy") if kind == "npy" else np.asarray(Image.open(here / f"a.{kind}"))
        assert np.array_equal(read, values), kind
    assert torch.equal(torch.from_numpy(np.load(here / "a.npy")), torch.from_numpy(values))


def test_several_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    with written_whole(tmp_path / "a") as first, written_whole(tmp_path / "a") as second:
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
