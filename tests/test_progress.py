"""What a long work says of itself: a bar in a terminal, lines elsewhere, and at its end what to do next."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import call
from PIL import Image

from lc_bench.callbacks import Progress
from lc_bench.config import compose
from lc_bench.ops import progress
from lc_bench.ops.device import computes_bfloat16, warn_of_slow_bfloat16


def test_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    with progress.progress(unit="images") as bars:
        task = bars.add_task("mbt2018 quality 3", total=24)
        other = bars.add_task("a.zip", total=None)
        for _ in range(6):
            clock.now += 12
            bars.advance(task)
        bars.update(other, completed=1000)
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "mbt2018 quality 3: 3 of 24 images, 0.0833 images/s, 252 s left",
        "mbt2018 quality 3: 6 of 24 images, 0.0833 images/s, 216 s left",
    ]
    with progress.progress(unit="images", show=False) as bars:
        bars.advance(bars.add_task("none", total=1))
    assert capsys.readouterr().err == ""


def test_the_bar_of_a_resumed_run_counts_all_its_steps() -> None:
    bar = Progress()
    shown: list[tuple[Any, ...]] = []
    bar._trainer = SimpleNamespace(max_steps=40, global_step=30, max_epochs=-1, num_training_batches=float("inf"))  # type: ignore[assignment]
    bar._update = lambda *values, **_: shown.append(values)  # type: ignore[method-assign]
    bar._update_metrics = lambda *_: None  # type: ignore[method-assign]
    bar.train_progress_bar_id = 7  # type: ignore[assignment]
    assert bar.total_train_batches == 40
    bar.on_train_batch_end(bar.trainer, None, None, None, 2)  # type: ignore[arg-type]
    assert shown == [(7, 30)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(2):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


def test_a_training_tells_its_steps_and_the_command_that_measures_it(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command is taken apart as a shell does, and run."""
    out = tmp_path / "my run (1)"
    words = ["run=train", "model=bmshj2018-factorized", "model.N=8", "model.M=8", "quality=2", "rate=ms-ssim", "device=cpu", "threads=1"]
    words += ["rate.loss.metric=mse", "run.steps=3", "run.batch=2", "run.crop=64", "run.workers=0", "data=folder", f"data.path={photos}"]
    call(monkeypatch, *words, f"output='{out}'")
    told = capsys.readouterr().out.splitlines()
    steps = [line for line in told if line.startswith("step ")]
    assert steps[0].startswith("step 1 of 3, loss ")
    assert "steps/s, " in steps[0]
    assert " s left" in steps[0]
    assert steps[-1].startswith("step 3 of 3, ")
    (end,) = (place for place, line in enumerate(told) if line.startswith(f"trained, in {out}"))
    assert told[end + 1].startswith("  python -m lc_bench model=bmshj2018-factorized ")
    command = shlex.split(told[end + 1])[3:]
    assert {"model.N=8", "model.M=8", "quality=2", "rate=ms-ssim"} <= set(command)
    assert compose(*command).weights == str(out / "model.safetensors")


def test_bfloat16_of_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "cpuinfo"
    assert computes_bfloat16(file) is None
    for text, known in {
        "flags : avx2 avx512f": False,
        "flags : avx2 avx512_bf16": True,
        "Features : fp asimd bf16": True,
        "x : 1": None,
    }.items():
        file.write_text(f"processor : 0\n{text}\n")
        assert computes_bfloat16(file) is known
    for computes, told in ((True, 0), (None, 0), (False, 1)):
        caplog.clear()
        monkeypatch.setattr("lc_bench.ops.device.computes_bfloat16", lambda computes=computes: computes)
        warn_of_slow_bfloat16()
        assert caplog.text.count("twice as long as with 32-true") == told
