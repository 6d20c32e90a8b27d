"""Which weights a training ends with, and when it ends: callbacks of conf/callbacks, which survive that a run is resumed."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging

from .errors import UserError, unknown
from .models import TransformCode, weights
from .task import Task, update_medians

log = logging.getLogger(__name__)


class ValidateAtEnd(pl.Callback):
    """The last step is followed by a validation, wherever the interval between them falls."""

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        if trainer.max_steps > 0 and trainer.global_step >= trainer.max_steps:
            trainer.should_stop = True  # Lightning validates before it stops, and not where it just runs out of steps


class Best(pl.Callback):
    """`best.safetensors`: the weights of the best validation so far. Its metadata has the step and the value.

    A resumed run reads the value to beat from that file, which a kill at any moment leaves whole.
    """

    def __init__(self, folder: str, monitor: str = "val/loss", mode: str = "min") -> None:
        check_mode("best", mode)
        self.file = Path(folder) / "best.safetensors"
        self.monitor = monitor
        self.mode = mode
        self.value: float | None = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.global_step and self.file.is_file():
            kept = weights.read_metadata(self.file)
            if kept.get("monitor") == self.monitor and "value" in kept:
                self.value = float(json.loads(kept["value"]))

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if is_cut_short(module):
            return
        value = measured(trainer, "best", self.monitor)
        better = self.value is None or (value < self.value if self.mode == "min" else value > self.value)
        if not math.isfinite(value) or not better:
            return
        self.value = value
        if trainer.is_global_zero and isinstance(module, Task):
            notes = {"monitor": self.monitor, "value": value, "steps": trainer.global_step}
            weights.save(module.final(), self.file, **{**module.metadata, **notes})


class Average(EMAWeightAveraging):
    """An exponential moving average of the weights: it is what is validated, and the result. Training goes on with its own weights.

    decay: what stays of the average at each step; start: the step from which on it is kept.
    """

    def __init__(self, decay: float = 0.999, start: int = 0) -> None:
        if isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 <= decay < 1:
            raise UserError(f"callbacks.ema.decay={decay}: give a number from 0 to below 1, such as 0.999")
        if isinstance(start, bool) or not isinstance(start, int) or start < 0:
            raise UserError(f"callbacks.ema.start={start}: give a whole number from 0 on")
        super().__init__(use_buffers=False, decay=decay, update_starting_at_step=start)
        self.settings = {"ema.decay": decay, "ema.start": start}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        average = self._average_model
        if average is None or not isinstance(pl_module, Task):
            return
        kept = average.module
        assert isinstance(kept, Task)

        def final() -> TransformCode:
            self._follow(pl_module)
            return kept.model

        pl_module.final = final

    def _follow(self, pl_module: pl.LightningModule) -> None:
        """Until the average is begun, it is the weights as they are; Lightning's stays at those that training began with."""
        average = self._average_model
        if average is not None and int(average.n_averaged) == 0:
            average.module.load_state_dict(pl_module.state_dict())

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._follow(pl_module)
        super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._follow(pl_module)
        super().on_validation_epoch_start(trainer, pl_module)
        if isinstance(pl_module, Task):
            update_medians(pl_module.model)  # of the weights that are there now

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The weights that training goes on with stay in their place, for the checkpoint; `Task.final` has the average."""


class Patience(EarlyStopping):
    """Ends a training whose validation has not become better so many times in a row; resumed, it has ended."""

    def __init__(self, monitor: str = "val/loss", mode: str = "min", patience: int = 10, min_delta: float = 0.0) -> None:
        check_mode("early_stopping", mode)
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
            raise UserError(f"callbacks.early_stopping.patience={patience}: give a whole number from 1 on")
        if isinstance(min_delta, bool) or not isinstance(min_delta, int | float) or not 0 <= min_delta < math.inf:
            raise UserError(f"callbacks.early_stopping.min_delta={min_delta}: give a number from 0 on")
        super().__init__(monitor, min_delta, patience, mode=mode, check_on_train_epoch_end=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """How often it was no better. The patience is that of the configuration, which a resumed run may change."""
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if is_cut_short(pl_module):
            return
        measured(trainer, "early_stopping", self.monitor)
        super().on_validation_end(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.wait_count >= self.patience and trainer.is_global_zero:
            log.info(f"{self.monitor} has not become better in {self.wait_count} validations: stopped at step {trainer.global_step}")


def is_cut_short(module: pl.LightningModule) -> bool:
    """Whether the validation that has just ended was given up, because the run was asked to end: it measured nothing."""
    return isinstance(module, Task) and not module.validated


def check_mode(name: str, mode: str) -> None:
    if mode not in ("min", "max"):
        raise unknown(f"callbacks.{name}.mode", mode, ("min", "max"))


def measured(trainer: pl.Trainer, name: str, monitor: str) -> float:
    """The value of the last validation by that name; UserError if there is none."""
    metrics = trainer.callback_metrics
    if monitor not in metrics:
        raise unknown(f"callbacks.{name}.monitor", monitor, sorted(str(key) for key in metrics if str(key).startswith("val/")))
    return float(metrics[monitor])
