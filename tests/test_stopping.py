"""Being asked to end: by which signals, how often, and what a run has kept then."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import call
from PIL import Image
from safetensors.torch import load_file

import lc_bench.callbacks
from lc_bench.ops import stopping
from lc_bench.runs.curves import read_curves
from lc_bench.runs.ledger import Ledger


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(generator.integers(0, 256, (72, 80, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


def training(photos: Path, out: Path, *more: str) -> list[str]:
    model = ["run=train", "model=bmshj2018-factorized", "model.N=8", "model.M=8", "quality=1"]
    steps = ["run.steps=6", "run.save_every=100", "run.log_every=1", "run.batch=2", "run.crop=64", "run.workers=0"]
    return [*model, *steps, "data=folder", f"data.path={photos}", "device=cpu", "threads=1", f"output={out}", *more]


def ask_at(monkeypatch: pytest.MonkeyPatch, hook: str, step: int, *numbers: int, pause: float = 0) -> None:
    """Let signals come to this process at a step, in a hook of the training."""
    usual = getattr(lc_bench.callbacks.Snapshots, hook)

    def asked(self, trainer, *more, **named):  # type: ignore[no-untyped-def]
        if trainer.global_step == step:
            for number in numbers:
                os.kill(os.getpid(), number)
                time.sleep(pause)
        usual(self, trainer, *more, **named)

    monkeypatch.setattr(lc_bench.callbacks.Snapshots, hook, asked)


def code_of(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> object:
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, *arguments)
    return ended.value.code


def step_in(checkpoint: Path) -> int:
    return torch.load(checkpoint, weights_only=False)["global_step"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_training_that_is_asked_to_end_saves_says_so_and_goes_on(
    number: int, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twice in a row, as from a scheduler and the process that started it."""
    with monkeypatch.context() as patch:
        ask_at(patch, "on_train_batch_end", 2, number, number)
        assert code_of(patch, training(photos, tmp_path)) == 128 + number
    assert "interrupted at step 2 of 6" in capsys.readouterr().out
    assert step_in(tmp_path / "last.ckpt") == 2
    assert (tmp_path / "model.safetensors").is_file()
    call(monkeypatch, *training(photos, tmp_path, "run.resume=auto"))
    assert step_in(tmp_path / "last.ckpt") == 6


def test_asked_before_the_first_step(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask_at(monkeypatch, "setup", 0, signal.SIGTERM)
    assert code_of(monkeypatch, training(photos, tmp_path)) == 143
    assert "interrupted" in capsys.readouterr().err
    assert not (tmp_path / "last.ckpt").exists()


def test_a_validation_that_is_cut_off_is_no_figure(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_BENCH_DATA", str(tmp_path / "data"))
    held_out = tmp_path / "data" / "bsds500" / "val"
    held_out.mkdir(parents=True)
    for image in photos.glob("*.png"):
        (held_out / f"{image.stem}.jpg").write_bytes(image.read_bytes())
    ask_at(monkeypatch, "on_validation_batch_end", 4, signal.SIGTERM)
    arguments = training(photos, tmp_path / "out", "run.val=bsds500", "run.val_every=2")
    assert code_of(monkeypatch, arguments) == 143
    validated = [row["step"] for row in read_curves(tmp_path / "out") if "val/loss" in row]
    assert validated == [1]
    assert step_in(tmp_path / "out" / "last.ckpt") == 4


def test_a_step_is_given_up_when_asked_for_the_third_time(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "BURST", 0.0)
    ask_at(monkeypatch, "on_train_batch_end", 3, signal.SIGINT, signal.SIGINT, signal.SIGINT)
    assert code_of(monkeypatch, training(photos, tmp_path, "run.save_every=2")) == 130
    assert step_in(tmp_path / "last.ckpt") == 2


def test_weights_are_written_where_a_kill_came_before_them(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, *training(photos, tmp_path))
    whole = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    call(monkeypatch, *training(photos, tmp_path, "run.resume=auto"))
    again = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(whole[key], again[key]) for key in whole)


def test_workers_of_loaders_outlive_signals_to_the_group(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = lc_bench.callbacks.Snapshots.on_train_batch_end

    def told_all(self, trainer, *more, **named):  # type: ignore[no-untyped-def]
        if trainer.global_step == 2:
            for process in (*multiprocessing.active_children(), multiprocessing.current_process()):
                os.kill(int(process.pid or 0), signal.SIGTERM)
        usual(self, trainer, *more, **named)

    monkeypatch.setattr(lc_bench.callbacks.Snapshots, "on_train_batch_end", told_all)
    assert code_of(monkeypatch, training(photos, tmp_path, "run.workers=1")) == 143
    assert step_in(tmp_path / "last.ckpt") == 2


def test_an_interrupted_benchmark_keeps_its_records_and_ends_with_the_signals_code(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = Ledger.add

    def asked(self, record):  # type: ignore[no-untyped-def]
        usual(self, record)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Ledger, "add", asked)
    arguments = ["model=bmshj2018-factorized", "model.N=8", "model.M=8", "quality=1", "weights=none", "anchor=[jpeg]"]
    assert code_of(monkeypatch, [*arguments, "data=folder", f"data.path={photos}", "threads=1", f"output={tmp_path}"]) == 143
    assert len((tmp_path / "records.csv").read_text().splitlines()) == 2
    assert (tmp_path / "index.html").is_file()


def test_signals_are_taken_and_given_back() -> None:
    before = [signal.getsignal(one) for one in stopping.SIGNALS]
    for number in stopping.SIGNALS:
        with pytest.raises(KeyboardInterrupt), stopping.listening():
            os.kill(os.getpid(), number)
            time.sleep(1)
        assert stopping.asked() == number
    assert [signal.getsignal(one) for one in stopping.SIGNALS] == before
    assert [stopping.is_interruption(code) for code in (143, 130, 138, -15, -2, 0, 1, 2, -9, -11, 137)] == [True] * 5 + [False] * 6


def test_a_run_under_nohup_outlives_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping.listening():
            os.kill(os.getpid(), signal.SIGHUP)
        assert not stopping.asked()
    finally:
        signal.signal(signal.SIGHUP, before)
