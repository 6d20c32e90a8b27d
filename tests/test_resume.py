"""What a resumed training takes over, what it refuses, and that a checkpoint of a stranger runs no code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import call, refused
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from lc_bench.errors import UserError
from lc_bench.runs.resume import read_checkpoint
from lc_bench.task import SETTINGS, Task, advance


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures of noise, 72 x 80."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(3)
    for i in range(5):
        Image.fromarray(generator.integers(0, 255, (72, 80, 3), np.uint8)).save(folder / f"{i}.png")
    return folder


def words(photos: Path, out: Path, *more: str) -> list[str]:
    own = ["run=train", "model=bmshj2018-factorized", "model.N=4", "model.M=4", "quality=3", "data=folder", f"data.path={photos}"]
    run = ["run.batch=2", "run.crop=64", "run.steps=4", "run.log_every=1", "run.workers=0", "threads=1"]
    return [*own, *run, f"hydra.run.dir={out}", "trainer.accelerator=cpu", *more]


@pytest.fixture(scope="module")
def four(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps with a cosine."""
    out = tmp_path_factory.mktemp("four")
    with pytest.MonkeyPatch.context() as patch:
        call(patch, *words(photos, out))
    return out


def rates(out: Path) -> list[float]:
    return pd.read_csv(out / "metrics.csv")["lr-Adam"].dropna().tolist()


def cosine(step: int, steps: int, rate: float) -> float:
    return 1e-6 + (rate - 1e-6) * (1 + np.cos(np.pi * step / steps)) / 2


def test_more_steps_follow_a_cosine_over_all_of_them(photos: Path, four: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, *words(photos, tmp_path, f"run.resume={four}", "run.steps=10"))
    assert np.allclose(rates(tmp_path), [cosine(step, 10, 1e-4) for step in range(4, 10)])


def test_another_rate_holds(photos: Path, four: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told with a new decay of weights and another schedule; moments stay."""
    more = ["optimizer.lr=2e-5", "+optimizer.weight_decay=0.01", "scheduler=halve", "run.steps=10"]
    call(monkeypatch, *words(photos, tmp_path, f"ckpt_path={four / 'last.ckpt'}", *more))
    assert np.allclose(rates(tmp_path), [1e-5, 5e-6, 2.5e-6, 1.25e-6, 6.25e-7, 3.125e-7])
    group = torch.load(tmp_path / "last.ckpt", weights_only=True)["optimizer_states"][0]["param_groups"][0]
    assert group["weight_decay"] == 0.01
    assert group["initial_lr"] == 2e-5


def test_a_schedule_far_on_is_what_its_steps_give() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    courses = []
    for _ in range(2):
        optimizer = torch.optim.Adam([parameter], 1e-3)
        courses.append(torch.optim.lr_scheduler.MultiStepLR(optimizer, [10, 100_002], 0.5))
    advance(courses[0], 99_999)
    advance(courses[1], 100_001)
    assert courses[0].get_last_lr() == courses[1].get_last_lr() == [5e-4]
    for _ in range(3):
        courses[0].step()
    courses[1].step()
    assert courses[0].get_last_lr() == courses[1].get_last_lr() == [2.5e-4]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["model.N=8"], "model.N 4 -> 8"),
        (["rate.lmbda=0.5"], "rate.lmbda 0.0067 -> 0.5"),
        (["seed=1"], "seed 0 -> 1"),
        (["run.batch=3"], "2 -> 3"),
        (["run.crop=72"], "run.crop 64 -> 72"),
        (["run.quantiser=mixed"], "run.quantiser noise -> mixed"),
        (["callbacks=[ema]"], "callbacks.ema.decay null -> 0.999"),
        (["run.steps=3"], "is at step 4 already"),
    ],
)
def test_another_run_is_refused_with_the_difference(
    more: list[str],
    told: str,
    photos: Path,
    four: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (line,) = refused(monkeypatch, capsys, *words(photos, tmp_path, f"run.resume={four}", *more))
    assert told in line
    assert not (tmp_path / "last.ckpt").exists()


def test_other_data_of_one_name_is_refused_and_a_moved_folder_or_batches_in_parts_taken(
    photos: Path, four: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    moved, other = tmp_path / "moved", tmp_path / "elsewhere" / photos.name
    moved.mkdir()
    other.mkdir(parents=True)
    for path in photos.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
        Image.new("RGB", (72, 72)).save(other / path.name)
    (line,) = refused(monkeypatch, capsys, *words(other, tmp_path / "o", f"run.resume={four}"))
    assert "data 5 samples" in line
    parts = ["run.batch=1", "trainer.accumulate_grad_batches=2"]
    call(monkeypatch, *words(moved, tmp_path / "m", f"run.resume={four}", "run.steps=5", *parts))
    content = torch.load(tmp_path / "m" / "last.ckpt", weights_only=True)
    assert content["global_step"] == 5
    assert content["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"] == 5 * 2


def test_a_checkpoint_amid_a_step_goes_on_at_its_first_batch() -> None:
    counts = {"ready": 8, "started": 8, "processed": 8, "completed": 7}
    progress = {"total": counts, "current": dict(counts)}
    checkpoint = {"global_step": 2, "loops": {"fit_loop": {"epoch_loop.batch_progress": progress}}}
    trainer = SimpleNamespace(accumulate_grad_batches=3)
    Task._count_batches_anew(SimpleNamespace(trainer=trainer), checkpoint)  # type: ignore[arg-type]
    assert progress["total"] == progress["current"] == {"ready": 6, "started": 6, "processed": 6, "completed": 5}


class Runs:
    """Creates a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("key", ["run.resume", "weights"])
@pytest.mark.parametrize("kind", ["pickle", "text", "empty", "cut", "weights", "other"])
def test_what_is_no_checkpoint_is_one_line(
    key: str, kind: str, photos: Path, four: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.ckpt"
    whole = torch.load(four / "last.ckpt", weights_only=True)
    if kind == "pickle":
        torch.save({**whole, "more": Runs(tmp_path / "ran")}, path)
    elif kind == "weights":
        path = tmp_path / "a.safetensors"
        path.write_bytes((four / "model.safetensors").read_bytes()[: None if key == "run.resume" else 90])
    elif kind == "other":
        torch.save([1, 2], path)
    else:
        path.write_bytes({"text": b"hello", "empty": b"", "cut": (four / "last.ckpt").read_bytes()[:3000]}[kind])
    if key == "run.resume":
        with pytest.raises(UserError, match=f"{key}={path}: ") as told:
            read_checkpoint(path)
        assert "\n" not in str(told.value)
    else:
        (line,) = refused(monkeypatch, capsys, *words(photos, tmp_path / "o", f"{key}={path}"))
        assert f"{key}={path}: " in line
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_of_an_earlier_version_resumes_or_says_what_differs(
    photos: Path, four: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(four / "last.ckpt", weights_only=True)
    del content[SETTINGS]
    torch.save(content, tmp_path / "old.ckpt")
    call(monkeypatch, *words(photos, tmp_path / "a", f"run.resume={tmp_path / 'old.ckpt'}", "run.steps=6"))
    call(monkeypatch, *words(photos, tmp_path / "b", f"run.resume={four}", "run.steps=6"))
    old, new = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert all(torch.equal(old[k], new[k]) for k in new)
    (line,) = refused(monkeypatch, capsys, *words(photos, tmp_path / "c", f"run.resume={tmp_path / 'old.ckpt'}", "model.N=8"))
    assert "of another model" in line


def test_fine_tuning_for_another_metric_says_where_it_started(
    photos: Path, four: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a resume, where weights= is not read again."""
    for i in range(2):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (176, 176, 3), np.uint8)).save(tmp_path / f"{i}.png")
    more = ["rate=ms-ssim", "run.crop=176", "run.batch=1", f"weights={four / 'model.safetensors'}"]
    call(monkeypatch, *words(tmp_path, tmp_path / "o", *more, "run.steps=1"))
    call(monkeypatch, *words(tmp_path, tmp_path / "o", *more[:3], "weights=none", "run.steps=2", "run.resume=auto"))
    with safe_open(tmp_path / "o" / "model.safetensors", "pt") as file:
        told = file.metadata()
    assert told["metric"] == "ms-ssim"
    start = json.loads(told["initialised_from"])
    assert start["metric"] == "mse"
    assert start["weights"] == f"{four.name}/model.safetensors"
