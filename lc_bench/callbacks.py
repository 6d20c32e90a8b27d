"""What training keeps on disk, in files that a kill at any moment leaves whole."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import RichProgressBar

from .models import weights
from .task import Task


class Progress(RichProgressBar):
    """Steps are what is counted here; an epoch has no end of its own."""

    def _get_train_description(self, current_epoch: int) -> str:
        return "training"


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes beside the target and moves it in place, so that the file of that name is always a whole one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None) -> None:
        part = f"{path}.part"
        super().save_checkpoint(checkpoint, part, storage_options)
        os.replace(part, path)


class Snapshots(pl.Callback):
    """`last.ckpt` every so many steps; at the end, and at Ctrl-C, also `model.safetensors`.

    The first Ctrl-C lets the step in work end, so that what is saved is what an uninterrupted run would have had then.
    """

    def __init__(self, folder: Path, every: int, metadata: dict[str, Any]) -> None:
        self.folder = folder
        self.every = every
        self.metadata = metadata
        self.saved_at = -1
        self.interrupted = False
        self._before: Any = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():

            def stop(*_: Any) -> None:
                self.interrupted = True
                signal.signal(signal.SIGINT, self._before)

            self._before = signal.signal(signal.SIGINT, stop)

    def teardown(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        # All ranks end at the same step, or one would wait for another's gradients.
        self.interrupted = trainer.strategy.reduce_boolean_decision(self.interrupted, all=False)
        trainer.should_stop |= self.interrupted
        if trainer.global_step % self.every == 0:
            self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._save(trainer)
        if trainer.is_global_zero and isinstance(module, Task):
            module.model.eval()  # finds the medians
            weights.save(module.model, self.folder / "model.safetensors", steps=trainer.global_step, **self.metadata)

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.global_step != self.saved_at:
            trainer.save_checkpoint(self.folder / "last.ckpt", weights_only=False)
            self.saved_at = trainer.global_step
