"""Training: it learns, stops cleanly at NaN, and a killed run that is resumed ends with the same weights, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from forked import command, run_command, start_command, wait_until
from PIL import Image
from safetensors.torch import load_file

import lc_bench
from lc_bench.__main__ import main
from lc_bench.losses import RateDistortion


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


def test_killed_and_resumed_equals_uninterrupted(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, *arguments(photos, tmp_path / "whole"))
    running = start_command(arguments(photos, tmp_path / "cut"), tmp_path / "log")
    wait_until((tmp_path / "cut" / "last.ckpt").exists, running)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert (tmp_path / "cut" / "last.ckpt").exists()
    assert not (tmp_path / "cut" / "model.safetensors").exists(), "it had ended before it was killed"
    code, told = run_command(arguments(photos, tmp_path / "cut", "run.resume=auto"), tmp_path / "log")
    assert code == 0, told
    assert "resuming" in told
    assert (tmp_path / "cut" / "metrics-part1.csv").exists(), "the first part of the curve is lost"
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_training_learns_and_its_weights_load(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, *arguments(photos, tmp_path, "run.steps=100", "optimizer.lr=3e-3"))
    loss = pd.read_csv(tmp_path / "metrics.csv")["train/loss"].dropna().to_numpy()
    assert len(loss) == 100
    assert loss[-25:].mean() < 0.5 * loss[:25].mean()
    model = lc_bench.load("bmshj2018-hyperprior", weights=tmp_path / "model.safetensors", N=8, M=12)
    checkpoint = lc_bench.load("bmshj2018-hyperprior", weights=tmp_path / "last.ckpt", N=8, M=12)
    for key, value in model.state_dict().items():
        assert torch.equal(value, checkpoint.state_dict()[key]), key
    with torch.no_grad():
        assert torch.allclose(model.codec.z.prior.logits(model.codec.z.prior.median[:, None]), torch.zeros(8, 1), atol=1e-3)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_nan_stops_with_the_batch_that_caused_it(where: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One step is made to fail; its batch is named, kept, and the weights stay clean."""

    class Failing(RateDistortion):
        steps = 0

        def forward(self, x, x_hat, bits, units, level=None):  # type: ignore[no-untyped-def]
            terms = super().forward(x, x_hat, bits, units, level)
            self.steps += 1
            if self.steps == 6:
                names.extend(sorted(map(str, x.flatten(1).sum(1).tolist())))
                # sqrt has an infinite slope at 0: the loss stays finite, its gradient does not
                terms.loss = terms.loss * torch.nan if where == "loss" else terms.loss + (0 * x_hat.sum()).sqrt()
            return terms

    names: list[str] = []
    monkeypatch.setattr("lc_bench.losses.RateDistortion", Failing)
    told: list[str] = []
    monkeypatch.setattr("builtins.print", lambda *words, **_: told.append(" ".join(map(str, words))))
    with pytest.raises(SystemExit):
        call(monkeypatch, *arguments(photos, tmp_path, "run.save_every=1"))
    assert any(f"the {where} is" in line and "at step 5 on" in line and ".png" in line for line in told)
    (kept,) = tmp_path.glob("nan-batch-step5.pt")
    assert sorted(map(str, torch.load(kept, weights_only=True)["x"].flatten(1).sum(1).tolist())) == names
    model = lc_bench.load("bmshj2018-hyperprior", weights=tmp_path / "last.ckpt", N=8, M=12)
    assert all(p.isfinite().all() for p in model.parameters())


def test_ctrl_c_saves_and_tells_how_to_go_on(photos: Path, tmp_path: Path) -> None:
    """In a new interpreter, as users start it."""
    words = arguments(photos, tmp_path, "run.steps=100000", "run.save_every=90000")
    running = subprocess.Popen(command(words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_until((tmp_path / "metrics.csv").exists, running, 120)
    running.send_signal(signal.SIGINT)
    told = running.communicate(timeout=60)[0]
    assert running.returncode == 130, told
    assert "interrupted at step" in told
    assert (tmp_path / "last.ckpt").exists()
    assert (tmp_path / "model.safetensors").exists()


def test_errors_of_loader_workers_are_one_line(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        call(monkeypatch, *arguments(photos, tmp_path, "run.crop=75", "run.workers=1"))
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("lc_bench: ")]
    assert len(told) == 1
    assert "under crops of 75" in told[0]
    assert "Traceback" not in told[0]


def test_wandb_writes_offline(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, *arguments(photos, tmp_path, "run.steps=4", "logger=[csv,wandb]"))
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_validation_is_logged_and_changes_nothing(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_BENCH_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "bsds500" / "val").mkdir(parents=True)
    for image in list(photos.glob("*.png"))[:2]:
        (tmp_path / "data" / "bsds500" / "val" / f"{image.stem}.jpg").write_bytes(image.read_bytes())
    call(monkeypatch, *arguments(photos, tmp_path / "a", "run.steps=6"))
    call(monkeypatch, *arguments(photos, tmp_path / "b", "run.steps=6", "run.val=bsds500", "run.val_every=2"))
    logged = pd.read_csv(tmp_path / "b" / "metrics.csv")["val/loss"].dropna()
    assert len(logged) == 3
    assert logged.iloc[-1] < logged.iloc[0]
    plain, validated = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert all(torch.equal(plain[k], validated[k]) for k in plain)


def test_resume_of_nothing_is_told(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        call(monkeypatch, *arguments(photos, tmp_path, "run.resume=/nowhere.ckpt"))
    assert "no checkpoint there" in capsys.readouterr().err


def test_two_stages_of_variable_rate(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stage 1 trains one rate; stage 2 starts from its weights and trains all rates, ladder and offsets included."""
    own = ["model=mbt2018-mean-vbr", "model.N=8", "model.M=12", "run.steps=6"]
    call(monkeypatch, *arguments(photos, tmp_path / "one", "model.stage=1", "quality=8"), *own)
    first = load_file(tmp_path / "one" / "model.safetensors")
    more = ["run.quantiser=mixed", f"weights={tmp_path / 'one' / 'model.safetensors'}", "quality=all"]
    call(monkeypatch, *arguments(photos, tmp_path / "two"), *own, *more)
    second = load_file(tmp_path / "two" / "model.safetensors")
    untrained = lc_bench.build("mbt2018-mean-vbr", N=8, M=12).state_dict()
    for key in ("ladder.log_step", "ladder.offset_net.0.weight"):
        assert torch.equal(first[key], untrained[key]), "stage 1 moved what it does not use"
        assert not torch.equal(second[key], first[key]), "stage 2 left the ladder alone"
    change = (second["g_a.0.weight"] - first["g_a.0.weight"]).abs().max()
    assert 0 < change < 0.02, "stage 2 did not start from stage 1"
