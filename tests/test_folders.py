"""Where runs write: a folder of its own for each, and nothing is written over unasked."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from conftest import call, refused
from filelock import FileLock
from omegaconf import OmegaConf
from PIL import Image

from lc_bench.runs import folders

BENCH = ["model=bmshj2018-factorized", "quality=1", "weights=none", "model.N=8", "model.M=8", "run.anchors=false", "threads=1"]


@pytest.fixture
def bench(here: Path) -> list[str]:
    (here / "photos").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(here / "photos" / "a.png")
    return [*BENCH, "data=folder", "data.path=photos"]


def test_runs_of_one_second_have_folders_of_their_own(here: Path, bench: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock stands, as for two processes that start at once."""

    class Stopped(datetime):
        @classmethod
        def now(cls, tz=None):  # type: ignore[no-untyped-def]
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr("hydra.core.utils.datetime", Stopped)
    for seed in (1, 2):
        call(monkeypatch, *bench, f"seed={seed}")
    first, second = sorted((here / "outputs" / "2026-01-02").iterdir())
    assert (first.name, second.name) == ("03-04-05", "03-04-05-2")
    for folder, seed in ((first, 1), (second, 2)):
        assert OmegaConf.load(folder / ".hydra" / "config.yaml").seed == seed  # type: ignore[union-attr]
        assert (folder / "records.csv").is_file()


def test_new_folders_are_nobody_elses(tmp_path: Path) -> None:
    made = [folders.new_folder(tmp_path / "day" / "time") for _ in range(3)]
    assert [folder.name for folder in made] == ["time", "time-2", "time-3"]
    assert all(folder.is_dir() for folder in made)


def test_a_used_folder_asks_first(
    here: Path, bench: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, *bench, "output=out")
    assert (here / "out" / ".hydra" / "config.yaml").is_file()
    assert not (here / "outputs").exists(), "Hydra's files have a folder of their own"
    before = (here / "out" / "records.csv").read_bytes()
    (told,) = refused(monkeypatch, capsys, *bench, "output=out")
    assert "holds records.csv of an earlier benchmark. run.resume=auto goes on with it, overwrite=true replaces it" in told
    assert (here / "out" / "records.csv").read_bytes() == before
    call(monkeypatch, *bench, "output=out", "run.resume=auto")
    assert (here / "out" / "records.csv").read_bytes() == before
    call(monkeypatch, *bench, "output=out", "overwrite=true")
    assert (here / "out" / "records.csv").read_bytes() != before


@pytest.mark.parametrize("kind", ["bench", "train", "search"])
def test_a_folder_in_which_another_run_is_at_work_is_refused(
    kind: str, here: Path, bench: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(folders, "WAIT", 0)
    search = ["run.name=mine", "run.val=kodak", "run.space={optimizer.lr: log 1e-4 1e-3}"]
    where = {"bench": "output=out", "train": "hydra.run.dir=out", "search": "run.dir=out"}[kind]
    words = [word for word in bench if kind == "bench" or not word.startswith("run.")]
    (here / "out").mkdir()
    with FileLock(here / "out" / folders.LOCK):
        (told,) = refused(monkeypatch, capsys, f"run={kind}", *words, where, *(search if kind == "search" else []))
    assert "another run is at work there" in told


def test_a_used_folder_of_a_training(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    cfg = OmegaConf.create({"run": {"resume": None}, "overwrite": False})
    with pytest.raises(folders.UserError, match="model.safetensors of an earlier training"):
        folders.check_unused(cfg, "train", tmp_path)
    folders.check_unused(cfg, "bench", tmp_path)
    for resume in ("auto", str(tmp_path), str(tmp_path / "last.ckpt")):
        folders.check_unused(OmegaConf.create({"run": {"resume": resume}}), "train", tmp_path)
    with pytest.raises(folders.UserError, match="overwrite=true"):
        folders.check_unused(OmegaConf.create({"run": {"resume": "elsewhere"}}), "train", tmp_path)
    for resume in ("auto", str(tmp_path / "last.ckpt")):
        with pytest.raises(folders.UserError, match="give one of them"):
            folders.check_unused(OmegaConf.create({"run": {"resume": resume}, "overwrite": True}), "train", tmp_path)
    replacing = OmegaConf.create({"run": {"resume": None, "_target_": "lc_bench.runs.train.main"}, "overwrite": True})
    folders.check_unused(replacing, "train", tmp_path)
    assert list(tmp_path.iterdir())
    folders.remove_replaced(replacing, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_refused_replaces_nothing(
    here: Path, bench: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "out").mkdir()
    (here / "out" / "records.csv").write_text("kept")
    refused(monkeypatch, capsys, *bench, "output=out", "overwrite=true", "data.path=nowhere")
    assert (here / "out" / "records.csv").read_text() == "kept"


@pytest.mark.parametrize(
    "arguments", [["run=data"], ["run=train", "data=folder", "quality=1"], ["quality=77"], ["data=folder", "output=stub"], ["data=nothing"]]
)
def test_nothing_is_left_of_what_writes_nothing(
    arguments: list[str], here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lc_bench.runs.data.main", lambda cfg: None)
    if arguments == ["run=data"]:
        call(monkeypatch, *arguments)
    else:
        refused(monkeypatch, capsys, *arguments)
    assert [path for path in here.rglob("*") if path.name != "outputs"] == []


def test_two_sweeps_of_one_second(here: Path) -> None:
    from types import SimpleNamespace

    from lc_bench.runs.sweep import Planner

    made = []
    for _ in range(2):
        config = OmegaConf.create(
            {
                "threads": 1,
                "hydra": {
                    "sweep": {"dir": "outputs/sweep/now"},
                    "overrides": {"hydra": [], "task": ["quality=1,2"]},
                    "launcher": {"_target_": "BasicLauncher"},
                    "sweeper": {"params": None},
                },
            }
        )
        Planner().on_multirun_start(config)
        made.append(SimpleNamespace(dir=config.hydra.sweep.dir, words=list(config.hydra.overrides.hydra)))
    assert [one.dir for one in made] == ["outputs/sweep/now", "outputs/sweep/now-2"]
    assert "hydra.sweep.dir='outputs/sweep/now-2'" in made[1].words


def test_two_commands_do_not_write_one_folder_of_files(
    here: Path, bench: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And none leaves anything there but its files."""
    monkeypatch.setattr(folders, "WAIT", 0)
    words = ["run=compress", "input=photos", "output=coded", *(word for word in bench if word.startswith(("model", "quality", "weights")))]
    with folders.alone_in(here / "coded"):
        (told,) = refused(monkeypatch, capsys, *words)
    assert "another command is writing there" in told
    call(monkeypatch, *words)
    assert [path.name for path in (here / "coded").iterdir()] == ["a.lcb"]
    monkeypatch.setenv("LC_BENCH_CACHE", str(here / "photos" / "a.png"))
    call(monkeypatch, *words, "overwrite=true")
