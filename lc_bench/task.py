"""The one LightningModule: a model, a loss, an optimiser. Every step is a function of the weights, the seed and its number."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from .data.crops import Batch
from .entropy import FactorizedPrior
from .errors import UserError
from .losses import Terms
from .models import TransformCode
from .ops import stopping
from .ops.means import Means

log = logging.getLogger(__name__)

TERMS = ("loss", "bpp", "psnr", "distortion")  # what validation is the mean of
MEDIAN_EVERY = 100  # steps, when training with rounding
SETTINGS = "lc_bench"  # under which a checkpoint keeps what the run was made with
SEEDS = 2**63
REPLAYED = 100_000  # steps of a schedule that are gone through one by one: a second or two


def hold_then_decay(optimizer: torch.optim.Optimizer, steps: int, decay: int, warmup: int = 0) -> torch.optim.lr_scheduler.LRScheduler:
    """Linear warm-up, a constant rate, and over the last `decay` of `steps` a straight line to (almost) zero.

    A run that is to go on longer resumes from a checkpoint before its decay, with more steps: nothing else changes. In a run that
    is shorter than warm-up and decay together, both are shortened alike, so that it reaches the full rate all the same.
    """
    if min(decay, warmup) < 0:
        raise UserError(f"scheduler.decay={decay}, scheduler.warmup={warmup}: numbers of steps, 0 or more")
    if warmup + decay > steps:
        warmup, decay = (part * max(steps, 0) // (warmup + decay) for part in (warmup, decay))

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / (warmup + 1), max(0.0, steps - step) / max(decay, 1))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def advance(scheduler: torch.optim.lr_scheduler.LRScheduler, step: int) -> None:
    """Bring a new schedule to a step: as going through all of them does, which far on would take minutes."""
    has_formula = isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR) or hasattr(scheduler, "_get_closed_form_lr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch wants a step of the optimiser before, and no number given
        if has_formula and step > REPLAYED:
            scheduler.step(step)
            return
        for _ in range(step):
            scheduler.step()


def update_medians(model: nn.Module) -> None:
    """Rounding is about the medians, which move while training goes on."""
    for module in model.modules():
        if isinstance(module, FactorizedPrior):
            module.update_median()


OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
SchedulerFactory = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]


class Task(pl.LightningModule):
    """loss: takes (x, x_hat, bits, units, level), and extras if the model has any, and returns Terms.

    One optimiser: medians and tables need none.
    """

    def __init__(
        self,
        model: TransformCode,
        loss: Callable[..., Terms],
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        seed: int = 0,
        quantiser: str = "noise",
        round_from: int | None = None,
        output: str = ".",
    ) -> None:
        super().__init__()
        lmbdas = getattr(loss, "lmbdas", None)
        if model.variable and model.ladder is not None and lmbdas is not None and len(lmbdas) != model.ladder.levels:
            raise UserError(
                f"rate.lmbda has {len(lmbdas)} values, the model {model.ladder.levels} levels: give one for each, as in "
                "rate.lmbda=[0.002,0.01,0.05], or leave it out"
            )
        self.model = model
        self.loss = loss
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.seed = seed
        self.quantiser = quantiser
        self.round_from = round_from  # step from which rounding replaces noise
        self.output = Path(output)
        self.metadata: dict[str, Any] = {}  # of the weights that come out
        self.settings: dict[str, Any] = {}  # kept in checkpoints
        self.validated = False  # whether the last validation was not cut short
        self.retaken = False  # whether the rate of learning leaves the checkpoint's course for the one configured now
        self.final: Callable[[], TransformCode] = lambda: self.model  # whose weights are the result: of an average, if one is kept

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(self.model.parameters())
        if self.make_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.make_scheduler(optimizer), "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        try:
            super().lr_scheduler_step(scheduler, metric)
        except ValueError as error:  # of one that was made for fewer steps
            raise UserError(f"scheduler: {type(scheduler).__name__} at step {self.global_step}: {error}") from None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[SETTINGS] = self.settings

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.retaken:
            checkpoint["lr_schedulers"] = []  # the course of another configuration
        self._count_batches_anew(checkpoint)

    def _count_batches_anew(self, checkpoint: dict[str, Any]) -> None:
        """A resumed run begins with the first batch of a step, of which there may be another number now than there was."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        batches = checkpoint["global_step"] * self.trainer.accumulate_grad_batches
        more = batches - progress["total"]["ready"]
        for counts in (progress["total"], progress["current"]):
            counts.update({name: count + more for name, count in counts.items()})

    def on_train_start(self) -> None:
        if self.retaken:
            self._retake_course()

    def _retake_course(self) -> None:
        """Rate of learning and the optimiser's other settings as a run has them at this step that had the present ones all along.

        Moments stay as the checkpoint has them.
        """
        optimizer = self.optimizers(use_pl_optimizer=False)
        scheduler = self.lr_schedulers()
        assert isinstance(optimizer, torch.optim.Optimizer)
        fresh = self.make_optimizer(self.model.parameters())
        if self.make_scheduler is not None:
            assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
            course = self.make_scheduler(fresh)
            advance(course, self.global_step)
            scheduler.load_state_dict(course.state_dict())
        before = optimizer.param_groups[0]["lr"]
        for group, new in zip(optimizer.param_groups, fresh.param_groups, strict=True):
            group.update({key: value for key, value in new.items() if key != "params"})
        log.info(f"rate of learning at step {self.global_step}: {float(optimizer.param_groups[0]['lr']):.6g} (it was {float(before):.6g})")

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # The noise of a step depends on its number, not on what ran before: a resumed run draws the same.
        parts = self.trainer.accumulate_grad_batches
        self.trainer.fit_loop.epoch_loop._batches_that_stepped = self.global_step  # by which Lightning numbers what is logged
        number = ((self.seed * 1_000_003 + self.global_step) * parts + batch_idx % parts) * 4096 + self.global_rank
        torch.manual_seed(number % SEEDS)
        late = self.round_from is not None and self.global_step >= self.round_from
        self.model.quantiser = "round" if late else self.quantiser
        if self.model.quantiser != "noise" and self.global_step % MEDIAN_EVERY == 0:
            update_medians(self.model)
        self._batch = batch

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # Before the step: after it, NaN would be in every weight and the next batch would be blamed.
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), torch.inf)
        if not bool(norm.isfinite()):
            self._stop_at(self._batch, f"the gradient is {norm.item()}")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        terms = self._terms(batch)
        if not bool(terms.loss.isfinite()):
            values = f"bpp {terms.bpp.item():.4g}, distortion {terms.distortion.item():.4g}"
            self._stop_at(batch, f"the loss is {terms.loss.item()} ({values})")
        for name in ("loss", "bpp", "psnr"):
            self.log(f"train/{name}", getattr(terms, name).detach(), prog_bar=True)
        self.log("train/distortion", terms.distortion.detach())
        return terms.loss

    def on_validation_epoch_start(self) -> None:
        self.means = Means()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        if stopping.asked():  # what is waited for is the checkpoint
            self.means.complete = False
            return
        terms = self._terms(batch)
        for name in TERMS:
            self.means.add(f"val/{name}", getattr(terms, name), len(batch.x))

    def on_validation_epoch_end(self) -> None:
        """Log means over all samples of all processes, of which each may have had another number."""
        whole = self.means.over_all()
        self.validated = whole.complete
        for name, mean in whole.values.items() if whole.complete else ():
            self.log(name, mean, batch_size=1, prog_bar=name == "val/loss")
        if not whole.complete and "val/loss" not in self.trainer.callback_metrics:
            for name in TERMS:  # callbacks may insist on a figure; curves are told of none
                self.log(f"val/{name}", math.nan, batch_size=1, logger=False)

    def _terms(self, batch: Batch) -> Terms:
        level = self._levels(batch)
        out = self.model(batch.x, level)
        for name, bits in out.bits.items():
            bpp = bits.detach().mean() / batch.units
            if self.training:
                self.log(f"train/bpp_{name}", bpp, batch_size=len(batch.x))
            else:
                self.means.add(f"val/bpp_{name}", bpp, len(batch.x))
        extras = {"extras": out.extras} if out.extras else {}
        with torch.autocast(batch.x.device.type, enabled=False):
            return self.loss(batch.x, out.x_hat, out.bits, batch.units, level, **extras)

    def _levels(self, batch: Batch) -> Tensor | None:
        """For a model of variable rate: a level for each sample, drawn evenly in training, the middle one in validation."""
        if self.model.ladder is None or not self.model.variable:
            return None
        highest = self.model.ladder.levels - 1
        if not self.training:
            return batch.x.new_full((len(batch.x),), highest / 2)
        return highest * torch.rand(len(batch.x)).to(batch.x)

    def _stop_at(self, batch: Batch, what: str) -> None:
        """Keep the batch that broke the loss, and end with its names."""
        rank = f"-rank{self.global_rank}" if self.trainer.world_size > 1 else ""
        path = self.output / f"nan-batch-step{self.global_step}{rank}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"x": batch.x.cpu(), "names": batch.names, "step": self.global_step}, path)
        raise UserError(
            f"{what} at step {self.global_step} on {', '.join(batch.names)}; the batch is in {path}. "
            f"Lower optimizer.lr or run.clip, and go on from the last checkpoint with run.resume={self.output / 'last.ckpt'}"
        )
