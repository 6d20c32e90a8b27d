"""run=train: a Task under a Lightning Trainer, from a configuration; resumes exactly where the last checkpoint was."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..api import as_trained, build_from, give_weights
from ..config import at_quality, check_choice, compose, is_variable, make, qualities_of
from ..errors import UserError, unknown
from ..ops import stopping
from ..ops.device import warn_of_slow_bfloat16
from ..ops.notices import hide_lightnings
from ..tracking import make_loggers, told_of
from . import ranks
from .command import benchmark_of

log = logging.getLogger(__name__)


PRECISIONS = ("32-true", "bf16-mixed")


def main(cfg: DictConfig) -> float:
    """Train one model at one quality; returns the last loss. Writes last.ckpt, metrics.csv and model.safetensors."""
    if cfg.trainer.precision not in PRECISIONS:
        raise unknown("trainer.precision", str(cfg.trainer.precision), PRECISIONS)
    return ranks.launch(run, cfg)


def run(cfg: DictConfig) -> float:
    """Of one rank."""
    import lightning.pytorch as pl
    import torch
    from lightning.pytorch.callbacks import LearningRateMonitor

    from ..callbacks import AtomicCheckpoints, Snapshots, fit, progress_of_training
    from ..data import CloudSet
    from ..data.cloud_batches import cloud_loader, cloud_validation
    from ..data.crops import training_loader, validation_loader
    from ..task import Task
    from ..tracking.training import TrackTraining

    hide_lightnings()
    qualities = qualities_of(cfg)
    if len(qualities) > 1 and not is_variable(cfg):
        raise UserError(f"quality={cfg.quality}: training takes one, such as quality=3; sweep over several with -m quality=1,2,3")
    cfg = as_trained(at_quality(cfg, qualities[0]))
    run = cfg.run
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    model = build_from(cfg, cfg.seed)
    if str(cfg.weights) not in ("auto", "none"):
        give_weights(model, cfg, cfg.weights)  # fine-tuning starts from them; auto and none from scratch
    images = make(cfg.data)
    us = ranks.join(cfg)
    output = Path(cfg.output)
    checkpoint = find_checkpoint(run.resume, output)
    scheduler = make(cfg.scheduler, _partial_=True) if cfg.get("scheduler") else None
    task = Task(
        model, make(cfg.rate.loss), make(cfg.optimizer, _partial_=True), scheduler, cfg.seed, run.quantiser, run.round_from, str(output)
    )
    clouds = isinstance(images, CloudSet)
    draw = functools.partial(cloud_loader, images, run.turn) if clouds else functools.partial(training_loader, images, run.crop)
    loader = functools.partial(draw, batch=run.batch, seed=cfg.seed, workers=run.workers)
    if clouds and cfg.trainer.precision != PRECISIONS[0]:
        raise UserError(f"trainer.precision={cfg.trainer.precision}: distances between points need {PRECISIONS[0]}; images train in either")
    if us.first and cfg.trainer.precision == "bf16-mixed" and us.device.type == "cpu":
        warn_of_slow_bfloat16()
    if run.compile:
        model.g_a.compile()
        model.g_s.compile()
    parts = cfg.trainer.accumulate_grad_batches  # batches to a step
    # The loader is made after a checkpoint was loaded, so it starts at the step where the run stood.
    task.train_dataloader = lambda: loader(step=task.global_step * parts, rank=task.global_rank, world=task.trainer.world_size)  # type: ignore[method-assign]
    if run.val is not None:
        check_choice("data", run.val)
    own_points = [f"model.num_points={cfg.model.num_points}"] if "num_points" in cfg.model else []
    held_out = make(compose(f"data={run.val}", f"model={cfg.model.name}", *own_points).data) if run.val is not None else None
    if held_out is not None:
        shared = functools.partial(cloud_validation, held_out, run.batch) if clouds else functools.partial(validation_loader, held_out)
        task.val_dataloader = lambda: shared(rank=task.global_rank, world=task.trainer.world_size)  # type: ignore[method-assign]
    quality = "all" if is_variable(cfg) else cfg.quality
    metadata = {"model": cfg.model.name, "quality": quality, "metric": cfg.rate.name, "lmbda": cfg.rate.lmbda, "data": images.name}
    if us.first:
        keep_metrics(output)
    resumed_at = torch.load(checkpoint, map_location="cpu", weights_only=False)["global_step"] if checkpoint else 0
    loggers = make_loggers(cfg, output, f"{cfg.model.name} quality {quality}", resumed_at)
    watched = (images, run.val_every) if held_out is None else (held_out, None)
    snapshots = Snapshots(output, run.save_every, metadata)
    trainer = pl.Trainer(
        **OmegaConf.to_container(cfg.trainer, resolve=True),  # type: ignore[arg-type]
        max_steps=run.steps,
        max_epochs=-1,
        gradient_clip_val=run.clip,
        log_every_n_steps=run.log_every,
        val_check_interval=run.val_every * parts,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=loggers,
        default_root_dir=output,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        plugins=[AtomicCheckpoints()],
        callbacks=[
            snapshots,
            progress_of_training(),
            TrackTraining(loggers, told_of(cfg), *watched),
            *([LearningRateMonitor("step")] if loggers else []),
        ],
    )
    log.info(
        f"training {cfg.model.name} quality {quality} (lambda {cfg.rate.lmbda}) on {len(images)} samples of {images.name}, in {output}"
    )
    if checkpoint is not None:
        log.info(f"resuming {checkpoint} at step {resumed_at} of {run.steps}")
    model.train()  # Lightning keeps the mode it finds
    fit(trainer, task, checkpoint)
    if snapshots.interrupted:
        stopping.note_end(snapshots.interrupted)
        log.info(f"interrupted at step {trainer.global_step} of {run.steps}; continue with run.resume={output / 'last.ckpt'}")
    elif us.first:
        log.info(f"trained, in {output}; benchmark it with\n  {benchmark_of(cfg, output)}")
    return float(trainer.callback_metrics.get("train/loss", float("nan")))


def find_checkpoint(resume: Any, output: Path) -> Path | None:
    """run.resume: null, a checkpoint, a folder that holds last.ckpt, or `auto` (this output folder's, if there is one)."""
    if resume is None:
        return None
    path = output / "last.ckpt" if resume == "auto" else Path(resume).expanduser()
    path = path / "last.ckpt" if path.is_dir() else path
    if path.is_file():
        return path
    if resume == "auto":
        return None
    raise UserError(f"run.resume={resume}: no checkpoint there. Give a .ckpt file, a folder with last.ckpt, auto or null")


def keep_metrics(output: Path) -> None:
    """Move the metrics of an earlier part of the run aside: the logger starts its file anew."""
    file = output / "metrics.csv"
    if file.is_file():
        parts = len(list(output.glob("metrics-part*.csv")))
        file.rename(output / f"metrics-part{parts + 1}.csv")
