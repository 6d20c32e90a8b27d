"""Training: it learns, stops cleanly at NaN, and a killed run that is resumed ends with the same weights, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import lc_bench
from lc_bench.__main__ import main


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for i in range(7):
        rows, columns = np.meshgrid(np.linspace(0, 3 + i, 72), np.linspace(0, 6, 80), indexing="ij")
        waves = np.stack([np.sin(rows + c) * np.cos(columns * (c + 1)) for c in range(3)], 2)
        Image.fromarray((128 + 90 * waves + generator.normal(0, 3, waves.shape)).clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def arguments(photos: Path, out: Path, *more: str) -> list[str]:
    base = ["run=train", "model=bmshj2018-hyperprior", "model.N=8", "model.M=12", "quality=3", "data=folder", f"data.path={photos}"]
    run = [
        "run.batch=4",
        "run.crop=64",
        "run.steps=40",
        "run.save_every=8",
        "run.log_every=1",
        "run.workers=1",
        "threads=1",
        "optimizer.lr=1e-3",
    ]
    return [*base, *run, f"hydra.run.dir={out}", "trainer.accelerator=cpu", *more]


def call(monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    monkeypatch.setattr(sys, "argv", ["lc_bench", *more])
    main()


def test_killed_and_resumed_equals_uninterrupted(photos: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "lc_bench"]
    subprocess.run([*command, *arguments(photos, tmp_path / "whole")], check=True, capture_output=True)
    running = subprocess.Popen(
        [*command, *arguments(photos, tmp_path / "cut")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    checkpoint = tmp_path / "cut" / "last.ckpt"
    patience = time.monotonic() + 120
    while not checkpoint.exists() and running.poll() is None and time.monotonic() < patience:
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert checkpoint.exists()
    assert not (tmp_path / "cut" / "model.safetensors").exists(), "it had ended before it was killed"
    done = subprocess.run([*command, *arguments(photos, tmp_path / "cut", "run.resume=auto")], check=True, capture_output=True, text=True)
    assert "resuming" in done.stdout + done.stderr
    assert (tmp_path / "cut" / "metrics-part1.csv").exists(), "the first part of the curve is lost"
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_training_learns_and_its_weights_load(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, *arguments(photos, tmp_path, "run.steps=160", "optimizer.lr=3e-3"))
    loss = pd.read_csv(tmp_path / "metrics.csv")["train/loss"].dropna().to_numpy()
    assert len(loss) == 160
    assert loss[-40:].mean() < 0.5 * loss[:40].mean()
    model = lc_bench.load("bmshj2018-hyperprior", weights=tmp_path / "model.safetensors", N=8, M=12)
    checkpoint = lc_bench.load("bmshj2018-hyperprior", weights=tmp_path / "last.ckpt", N=8, M=12)
    for a, b in zip(model.parameters(), checkpoint.parameters(), strict=True):
        assert torch.equal(a, b)
    with torch.no_grad():
        assert torch.allclose(model.codec.z.prior.logits(model.codec.z.prior.median[:, None]), torch.zeros(8, 1), atol=1e-3)


def test_nan_stops_with_the_batch_that_caused_it(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        call(monkeypatch, *arguments(photos, tmp_path, "optimizer.lr=1e30", "run.clip=0"))
    told = capsys.readouterr().err
    assert "the loss is" in told
    assert ".png" in told
    (kept,) = tmp_path.glob("nan-batch-step*.pt")
    assert torch.load(kept, weights_only=True)["x"].shape == (4, 3, 64, 64)


def test_wandb_writes_offline(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, *arguments(photos, tmp_path, "run.steps=4", "logger=[csv,wandb]"))
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_resume_of_nothing_is_told(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        call(monkeypatch, *arguments(photos, tmp_path, "run.resume=/nowhere.ckpt"))
    assert "no checkpoint there" in capsys.readouterr().err
