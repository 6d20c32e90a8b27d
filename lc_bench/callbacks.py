"""What training keeps on disk, in files that a kill at any moment leaves whole."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import RichProgressBar
from rich.console import Console

from .models import weights
from .ops import stopping
from .ops.progress import Pace, rate_and_rest
from .task import Task, update_medians

log = logging.getLogger(__name__)


class Progress(RichProgressBar):
    """Steps are what is counted here; an epoch has no end of its own."""

    def _get_train_description(self, current_epoch: int) -> str:
        return "training"

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Without the name of a logger's version, which says nothing here."""
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}  # type: ignore[return-value]

    @property
    def total_train_batches(self) -> int:
        """Steps of the whole run, of a resumed one too."""
        return self.trainer.max_steps

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        self._update(self.train_progress_bar_id, trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, trainer.global_step - 1)


class ProgressLines(pl.Callback):
    """Where nobody sees a bar: a line at the first step, then every so often, and at the last."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.pace = Pace()
        self.first_step, self.began = trainer.global_step, time.monotonic()
        self.told_at = -1

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        at_an_end = step in (self.first_step + 1, trainer.max_steps)
        if not trainer.is_global_zero or step == self.told_at or not (at_an_end or self.pace.is_due()):
            return
        self.told_at = step
        figures = [(name, trainer.callback_metrics.get(f"train/{name}")) for name in ("loss", "bpp", "psnr")]
        told = "".join(f", {name} {float(value):.4g}" for name, value in figures if value is not None)
        rest = rate_and_rest(step - self.first_step, time.monotonic() - self.began, trainer.max_steps - step, "steps")
        log.info(f"step {step} of {trainer.max_steps}{told}, {rest}")


def progress_of_training() -> pl.Callback:
    """A bar in a terminal, else lines."""
    console = Console()
    return Progress() if console.is_terminal or console.is_jupyter else ProgressLines()


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes beside the target and moves it in place, so that the file of that name is always a whole one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None) -> None:
        part = f"{path}.part"
        super().save_checkpoint(checkpoint, part, storage_options)
        os.replace(part, path)


class Snapshots(pl.Callback):
    """`last.ckpt` every so many steps and where training ends; then also `model.safetensors`.

    A run that is asked to end (Ctrl-C, SIGTERM and so on: ops/stopping.py) ends after the step in work, so that what is saved is what
    an uninterrupted run would have had then. `interrupted` is the number of that signal, 0 for a run that came to its end.
    """

    def __init__(self, folder: Path, every: int, metadata: dict[str, Any]) -> None:
        self.folder = folder
        self.every = every
        self.metadata = metadata
        self.saved_at = -1
        self.interrupted = 0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        stopping.be_gentle(True)

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # amid a step, which a resumed run could not finish
        self._stop_if_asked(trainer)
        if trainer.global_step % self.every == 0:
            self._save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._stop_if_asked(trainer)

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """A checkpoint says of which model it is, and with which sizes, as model.safetensors does."""
        if isinstance(module, Task):
            checkpoint[weights.NOTES] = weights.notes_of(module.model, steps=trainer.global_step, **self.metadata)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._save(trainer)

    def on_fit_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Also of a run that had trained to its end before and was killed before its weights were written."""
        if trainer.is_global_zero and isinstance(module, Task):
            result = module.final().eval()
            update_medians(result)  # a checkpoint has none
            weights.save(result, self.folder / "model.safetensors", steps=trainer.global_step, **self.metadata)

    def teardown(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        stopping.be_gentle(False)

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        stopping.be_gentle(False)

    def _stop_if_asked(self, trainer: pl.Trainer) -> None:
        """All ranks end at the same step, or one would wait for another's gradients."""
        number = stopping.asked()
        if trainer.world_size > 1:
            everyone = torch.tensor(number, device=trainer.strategy.root_device)
            number = int(trainer.strategy.reduce(everyone, reduce_op="max"))
        if number and trainer.global_step < trainer.max_steps:
            self.interrupted = number
            trainer.should_stop = True

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.global_step != self.saved_at:
            trainer.save_checkpoint(self.folder / "last.ckpt", weights_only=False)
            self.saved_at = trainer.global_step


def fit(trainer: pl.Trainer, task: Task, checkpoint: Path | None) -> None:
    """Train; raises stopping.Interrupted when a step was given up amid its work.

    Lightning's own handlers of signals stay away: they would answer SIGTERM with a broadcast amid whatever the ranks exchange, end
    without a checkpoint, and under SLURM put the job into the queue again.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer._signal_connector.teardown = lambda: None  # type: ignore[method-assign]
    before = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(task, ckpt_path=checkpoint, weights_only=True)
    except SystemExit:
        if not stopping.asked():
            raise
        # Lightning ends so at a KeyboardInterrupt, and leaves the process deaf to the next one.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)
        raise stopping.Interrupted(signal.Signals(stopping.asked()).name) from None
