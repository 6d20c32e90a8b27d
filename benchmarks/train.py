"""Training steps of one thread against those of the reference implementation: same model, batch, crops in memory, one run after the other.

    python benchmarks/train.py IMAGES --peer-python PYTHON --peer-dir DIR [--model mbt2018-mean] [--steps 6] [--rounds 3]

IMAGES: a folder of JPEG files. Ours are steps of a Task under a Lightning Trainer, with everything that a run does between two batches;
the peer's script `train_speed.py` is a bare loop. Both: N = 128, M = 192, eight crops of 256x256. Rounds alternate, medians are told.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

import lc_bench
from lc_bench.data import folder
from lc_bench.data.crops import Batch, training_loader
from lc_bench.losses import RateDistortion
from lc_bench.ops.notices import hide_known, hide_lightnings
from lc_bench.task import Task

WARM_UP, KEPT = 2, 4  # steps that are not counted; batches in memory, as the peer's script has them


class Ticks(pl.Callback):
    """When each step ended."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.at.append(time.perf_counter())

    def seconds(self) -> float:
        return statistics.median(b - a for a, b in zip(self.at[WARM_UP - 1 :], self.at[WARM_UP:], strict=False))


def ours(name: str, batches: list[Batch], steps: int, precision: str) -> float:
    """Seconds of a step."""
    model = lc_bench.build(name, quality=3, N=128, M=192).train()
    turns = [batches[k % KEPT] for k in range(WARM_UP + steps)]
    task = Task(model, RateDistortion("mse", 0.01), lambda parameters: torch.optim.Adam(parameters, lr=1e-4))
    task.train_dataloader = lambda: DataLoader(turns, batch_size=None)  # type: ignore[method-assign,arg-type]
    ticks = Ticks()
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, precision=precision, max_steps=WARM_UP + steps, gradient_clip_val=1.0, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, callbacks=[ticks],
    )  # fmt: skip
    trainer.fit(task)
    return ticks.seconds()


def peer(python: str, directory: Path, name: str, images: Path, steps: int) -> float:
    command = [python, "-W", "ignore", "train_speed.py", "--model", name, "--steps", str(steps), "--warmup", str(WARM_UP)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=directory, env={**os.environ, "LCB_TRAIN": str(images.resolve())}
    )
    return json.loads(done.stdout[done.stdout.index("{") :])["median_wall_s"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--model", default="mbt2018-mean")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--peer-dir", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    hide_known()
    hide_lightnings()
    loader = iter(training_loader(folder(str(arguments.images)), 256, 8, seed=0, step=0, workers=0))
    batches = [next(loader).to(torch.device("cpu")) for _ in range(KEPT)]
    runs: dict[str, list[float]] = {"the reference, fp32": [], "fp32": [], "bf16-mixed": []}
    for _ in range(arguments.rounds):
        runs["the reference, fp32"].append(
            peer(arguments.peer_python, arguments.peer_dir, arguments.model, arguments.images, arguments.steps)
        )
        runs["fp32"].append(ours(arguments.model, batches, arguments.steps, "32-true"))
        runs["bf16-mixed"].append(ours(arguments.model, batches, arguments.steps, "bf16-mixed"))
    base = runs["the reference, fp32"]
    print(f"{arguments.model}, batch of 8, one thread, {arguments.rounds} rounds")
    for name, seconds in runs.items():
        ratios = sorted(b / s for b, s in zip(base, seconds, strict=True))
        middle, ratio, span = statistics.median(seconds), statistics.median(ratios), f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"{name:>20} {middle:6.2f} s/step {8 / middle:5.2f} images/s {ratio:5.2f}x {span}")


if __name__ == "__main__":
    main()
