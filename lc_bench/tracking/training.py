"""What training tells its loggers besides the curves: where it comes from, what it decodes now, and at its end its point of rate and
distortion.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.loggers import Logger
from PIL import Image
from torch import Tensor

from ..data import CloudSet, ImageSet
from ..data.images import to_bytes, to_unit
from ..metrics import psnr
from ..models import PointCode, TransformCode
from ..report.solids import draw_stills
from ..task import Task
from .loggers import close, log_config, log_pictures, log_result, log_table, of_tensorboard, of_wandb

PICTURES = 4  # samples that are watched
SIDE = 256  # pixels: what is cut from the middle of an image to be watched
GAP = 4  # white pixels between original and decoded


class TrackTraining(pl.Callback):
    """told: of origin.told_of; samples: whose first few are watched, by the name of their set; every: steps between pictures, None to
    make them when validation ends. Loggers are told by the first process alone.
    """

    def __init__(self, loggers: Sequence[Logger], told: Mapping[str, Any], samples: ImageSet | CloudSet, every: int | None = None) -> None:
        self.loggers = loggers
        self.told = told
        self.samples = samples
        self.every = every
        self.originals: list[tuple[str, Tensor]] = []
        self.pictured_at = 0

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            log_config(self.loggers, self.told)
            if of_wandb(self.loggers) or of_tensorboard(self.loggers):
                self.originals = [(name, middle(sample)) for name, sample in islice(iter(self.samples), PICTURES)]

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.every is None:
            self._picture(trainer, module)

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        if self.every is not None and trainer.global_step % self.every == 0:
            self._picture(trainer, module)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._picture(trainer, module)
        if trainer.is_global_zero and self.loggers:
            row = rd_row(self.told, trainer)
            log_table(self.loggers, "rd", pd.DataFrame([row]))
            result = {f"rd/{key}": value for key, value in row.items() if isinstance(value, float)}
            log_result(self.loggers, self.told, result)

    def teardown(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        if trainer.is_global_zero:
            close(self.loggers)

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        if trainer.is_global_zero:
            close(self.loggers, failed=True)

    def _picture(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Once for a step. Of a copy in evaluation mode, so that training is what it would be without."""
        if not self.originals or trainer.global_step == self.pictured_at or not isinstance(module, Task):
            return
        self.pictured_at = trainer.global_step
        model = copy.deepcopy(module.model).eval()
        shown = [decoded(model, name, sample) for name, sample in self.originals]
        pictures = {name: picture for (name, _), (picture, _) in zip(self.originals, shown, strict=True)}
        log_pictures(
            self.loggers, "reconstructions", pictures, [caption for _, caption in shown], trainer.global_step - 1
        )  # as curves count


def middle(sample: Tensor) -> Tensor:
    """Of an image (3, H, W) at most SIDE pixels each way; a cloud (N, 3) as it is."""
    if sample.ndim != 3:
        return sample
    top, left = (max(0, size - SIDE) // 2 for size in sample.shape[1:])
    return sample[:, top : top + SIDE, left : left + SIDE]


@torch.no_grad()
def decoded(model: TransformCode, name: str, sample: Tensor) -> tuple[Tensor, str]:
    """Original and decoded side by side (3, H, W) uint8, and a caption. The middle level of a model of variable rate."""
    device = next(model.parameters()).device
    level = (model.ladder.levels - 1) / 2 if model.variable and model.ladder is not None else None
    of_cloud = isinstance(model, PointCode)
    x = (sample if of_cloud else to_unit(sample))[None].to(device)
    out = model(x, level)
    rate = sum(float(bits[0]) for bits in out.bits.values()) / (len(sample) if of_cloud else sample[0].numel())
    if of_cloud:
        caption = f"{name}, {rate:.3f} bpp"
        return cloud_picture(sample, out.x_hat[0].cpu(), caption), caption
    pixels = to_bytes(out.x_hat[0]).cpu()
    gap = sample.new_full((3, sample.shape[1], GAP), 255)
    return torch.cat([sample, gap, pixels], 2), f"{name}, {rate:.3f} bpp, {psnr(pixels, sample):.2f} dB"


def cloud_picture(original: Tensor, points: Tensor, caption: str) -> Tensor:
    with tempfile.TemporaryDirectory() as folder:
        (still,) = draw_stills({"cloud": {"original": original, caption: points}}, Path(folder))
        return torch.from_numpy(np.array(Image.open(still).convert("RGB"))).permute(2, 0, 1)


def rd_row(told: Mapping[str, Any], trainer: pl.Trainer) -> dict[str, Any]:
    """Where training ended: means over the validation set, or without one of the last step that was logged."""
    metrics = {str(key): float(value) for key, value in trainer.callback_metrics.items()}
    kind = "val" if "val/bpp" in metrics else "train"
    of_run = {"model": told["model"]["name"], "quality": str(told["quality"]), "metric": told["rate"]["name"]}
    terms = {name: metrics.get(f"{kind}/{name}", float("nan")) for name in ("bpp", "psnr", "loss")}
    return {**of_run, "measured": kind, "steps": trainer.global_step, **terms}
