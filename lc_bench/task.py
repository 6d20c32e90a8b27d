"""The one LightningModule: a model, a loss, an optimiser. Every step is a function of the weights, the seed and its number."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from .data.crops import Batch
from .errors import UserError
from .losses import Terms
from .models import TransformCode

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
SchedulerFactory = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]


class Task(pl.LightningModule):
    """loss: takes (x, x_hat, bits, units) and returns Terms. One optimiser: medians and tables need none."""

    def __init__(
        self,
        model: TransformCode,
        loss: Callable[[Tensor, Tensor, dict[str, Tensor], int], Terms],
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        seed: int = 0,
        round_from: int | None = None,
        output: str = ".",
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.seed = seed
        self.round_from = round_from  # step from which rounding replaces noise
        self.output = Path(output)

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(self.model.parameters())
        if self.make_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.make_scheduler(optimizer), "interval": "step"}}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # The noise of a step depends on its number, not on what ran before: a resumed run draws the same.
        torch.manual_seed((self.seed * 1_000_003 + self.global_step) * 4096 + self.global_rank)
        late = self.round_from is not None and self.global_step >= self.round_from
        self.model.quantiser = "round" if late else "noise"

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        terms = self._terms(batch)
        if not bool(terms.loss.isfinite()):
            self._stop_at(batch, terms)
        for name in ("loss", "bpp", "psnr"):
            self.log(f"train/{name}", getattr(terms, name).detach(), prog_bar=True)
        self.log("train/distortion", terms.distortion.detach())
        return terms.loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        terms = self._terms(batch)
        for name in ("loss", "bpp", "psnr"):
            self.log(f"val/{name}", getattr(terms, name), batch_size=len(batch.x), sync_dist=True, prog_bar=name == "loss")

    def _terms(self, batch: Batch) -> Terms:
        out = self.model(batch.x)
        return self.loss(batch.x, out.x_hat, out.bits, batch.units)

    def _stop_at(self, batch: Batch, terms: Terms) -> None:
        """Keep the batch that broke the loss, and end with its names."""
        path = self.output / f"nan-batch-step{self.global_step}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"x": batch.x.cpu(), "names": batch.names, "step": self.global_step}, path)
        values = f"bpp {terms.bpp.item():.4g}, distortion {terms.distortion.item():.4g}"
        raise UserError(
            f"the loss is {terms.loss.item()} at step {self.global_step} ({values}) on {', '.join(batch.names)}; the batch is in {path}. "
            "Lower the learning rate (optimizer.lr) or the gradient clip (train.clip), and resume from the last checkpoint"
        )
