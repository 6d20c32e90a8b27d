"""run=train: a Task under a Lightning Trainer, from a configuration; resumes exactly where the last checkpoint was."""

from __future__ import annotations

import functools
import inspect
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from ..api import as_trained, build_from
from ..bench.learned import check_kind
from ..config import at_quality, is_variable, make, qualities_of
from ..errors import UserError, unknown
from ..ops import stopping
from ..ops.device import warn_of_slow_bfloat16
from ..ops.notices import hide_lightnings
from ..tracking import make_loggers, told_of
from ..trained import path_of
from . import ranks
from .command import benchmark_of
from .folders import remove_replaced
from .resume import continued, find_checkpoint, settings
from .training_data import training_set, validation_set, warn_of_overlap
from .values import check_training_values

if TYPE_CHECKING:
    import lightning.pytorch as pl

    from ..models import TransformCode

log = logging.getLogger(__name__)


PRECISIONS = ("32-true", "bf16-mixed")
# Arguments of Lightning's Trainer that have a key of their own here.
ELSEWHERE = {
    "max_epochs": "run.steps counts steps, epochs have no end",
    "min_epochs": "run.steps counts steps, epochs have no end",
    "limit_train_batches": "run.steps counts steps, epochs have no end",
    "check_val_every_n_epoch": "run.val_every counts steps",
    "fast_dev_run": "debug=fast_dev_run",
    "overfit_batches": "debug=overfit",
    "logger": "logger=",
    "callbacks": "callbacks=",
    "default_root_dir": "output=",
    "enable_checkpointing": "callbacks=best, run.save_every",
    "plugins": "run.resume needs those that are set here",
    "use_distributed_sampler": "positions are shared by the ranks already",
    "reload_dataloaders_every_n_epochs": "epochs have no end",
    "barebones": "trainer.enable_progress_bar=false logger=[]",
}


# Callbacks of Lightning's that change on the way what a step is.
NOT_WITH_US = {
    "GradientAccumulationScheduler": "trainer.accumulate_grad_batches holds for all steps",
    "BatchSizeFinder": "run.batch is for all steps",
    "LearningRateFinder": "run=search with run.space={optimizer.lr: log 1e-5 1e-3} looks for a rate",
    "StochasticWeightAveraging": "callbacks=[ema] averages weights",
}


def main(cfg: DictConfig) -> float:
    """Train one model at one quality; returns the last loss. Writes last.ckpt, metrics.csv and model.safetensors."""
    if cfg.trainer.precision not in PRECISIONS:
        raise unknown("trainer.precision", str(cfg.trainer.precision), PRECISIONS)
    return ranks.launch(run, cfg)


def run(cfg: DictConfig) -> float:
    """Of one rank."""
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import Checkpoint, LearningRateMonitor, ProgressBar, Timer

    from ..callbacks import AtomicCheckpoints, Snapshots, fit, progress_of_training
    from ..data import CloudSet
    from ..selection import ValidateAtEnd
    from ..task import Task
    from ..tracking.training import TrackTraining

    hide_lightnings()
    qualities = qualities_of(cfg)
    if len(qualities) > 1 and not is_variable(cfg):
        raise UserError(f"quality={cfg.quality}: training takes one, such as quality=3; sweep over several with -m quality=1,2,3")
    cfg = as_trained(at_quality(cfg, qualities[0]))
    check_training_values(cfg)
    run = cfg.run
    quality = "all" if is_variable(cfg) else cfg.quality
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    model = build_from(cfg, cfg.seed)
    images = training_set(cfg)
    check_kind(model, images)
    clouds = isinstance(images, CloudSet)
    if clouds and cfg.trainer.precision != PRECISIONS[0]:
        raise UserError(f"trainer.precision={cfg.trainer.precision}: distances between points need {PRECISIONS[0]}; images train in either")
    held_out = validation_set(cfg, clouds)
    if held_out is not None:
        check_kind(model, held_out)
    us = ranks.join(cfg)
    if us.first and cfg.trainer.precision == "bf16-mixed" and us.device.type == "cpu":
        warn_of_slow_bfloat16()
    output = Path(cfg.output)
    loss = make(cfg.rate.loss)
    check_loss(loss, cfg, clouds)
    optimizer, scheduler = course_of(cfg)
    task = Task(model, loss, optimizer, scheduler, cfg.seed, run.quantiser, run.round_from, str(output))
    chosen = make_callbacks(cfg, has_validation=held_out is not None)
    averages = {key: value for callback in chosen for key, value in getattr(callback, "settings", {}).items()}
    now = settings(cfg, images, quality, us.world, averages)
    path = find_checkpoint(run.resume, output)
    checkpoint = continued(path, task, now) if path is not None else None
    start = start_from(model, cfg) if checkpoint is None else checkpoint.start
    task.retaken = checkpoint is not None and checkpoint.retaken
    task.settings = {**now, "start": start}
    lmbda = cfg.rate.lmbda
    task.metadata = {
        "model": cfg.model.name,
        "quality": quality,
        "metric": cfg.rate.name,
        "lmbda": list(lmbda) if OmegaConf.is_list(lmbda) else lmbda,
        "data": images.name,
        **start,
    }
    give_data(task, cfg, images, held_out)
    if held_out is not None and us.first:
        warn_of_overlap(images, held_out)
    if run.compile:
        model.g_a.compile()
        model.g_s.compile()
    trainer_keys = arguments_of_trainer(cfg)
    us.gather(None)  # all have read the weights to start from, which may lie in the folder
    if us.first:
        remove_replaced(cfg, output)
        keep_metrics(output)
    resumed_at = checkpoint.step if checkpoint is not None else 0
    loggers = make_loggers(cfg, output, f"{cfg.model.name} quality {quality}", resumed_at)
    watched = (images, run.val_every) if held_out is None else (held_out, None)
    snapshots = Snapshots(output, run.save_every, task.metadata)
    progress = progress_of_training()
    trainer_keys.setdefault("enable_progress_bar", isinstance(progress, ProgressBar))
    callbacks = [
        *chosen,
        snapshots,
        ValidateAtEnd(),
        *([progress] if trainer_keys["enable_progress_bar"] or not isinstance(progress, ProgressBar) else []),
        TrackTraining(loggers, told_of(cfg), *watched),
        *([LearningRateMonitor("step")] if loggers else []),
    ]
    try:
        trainer = pl.Trainer(
            **trainer_keys,
            max_epochs=-1,
            check_val_every_n_epoch=None,
            logger=loggers,
            default_root_dir=output,
            enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in chosen),
            use_distributed_sampler=False,
            plugins=[AtomicCheckpoints()],
            callbacks=callbacks,
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"trainer: {error}") from None
    log.info(
        f"training {cfg.model.name} quality {quality} (lambda {cfg.rate.lmbda}) on {len(images)} samples of {images.name}, in {output}"
    )
    if checkpoint is not None:
        log.info(f"resuming {checkpoint.path} at step {resumed_at} of {run.steps}")
    model.train()  # Lightning keeps the mode it finds
    fit(trainer, task, checkpoint.path if checkpoint is not None else None)
    if snapshots.interrupted:
        stopping.note_end(snapshots.interrupted)
        log.info(f"interrupted at step {trainer.global_step} of {run.steps}; continue with run.resume={output / 'last.ckpt'}")
    elif us.first:
        timer = next((callback for callback in trainer.callbacks if isinstance(callback, Timer)), None)  # type: ignore[attr-defined]
        if timer is not None and trainer.global_step < run.steps:
            log.info(
                f"step {trainer.global_step} of {run.steps}: the time of trainer.max_time={cfg.trainer.max_time}, "
                "of all parts of a run together, is over. With more of it, run.resume=auto goes on"
            )
        log.info(f"trained, in {output}; benchmark it with\n  {benchmark_of(cfg, output)}")
    return float(trainer.callback_metrics.get("train/loss", float("nan")))


def give_data(task: Any, cfg: DictConfig, images: Any, held_out: Any) -> None:
    """The task's loaders. They are made after a checkpoint was loaded, so training starts at the step where the run stood."""
    from ..data import CloudSet
    from ..data.cloud_batches import cloud_loader, cloud_validation
    from ..data.crops import training_loader, validation_loader

    run = cfg.run
    clouds = isinstance(images, CloudSet)
    draw = functools.partial(cloud_loader, images, run.turn) if clouds else functools.partial(training_loader, images, run.crop)
    loader = functools.partial(draw, batch=run.batch, seed=cfg.seed, workers=run.workers, period=run.overfit)
    parts = cfg.trainer.accumulate_grad_batches  # batches to a step
    task.train_dataloader = lambda: loader(step=task.global_step * parts, rank=task.global_rank, world=task.trainer.world_size)
    if held_out is not None:
        shared = functools.partial(cloud_validation, held_out, run.batch) if clouds else functools.partial(validation_loader, held_out)
        task.val_dataloader = lambda: shared(rank=task.global_rank, world=task.trainer.world_size)


def check_loss(loss: Any, cfg: DictConfig, clouds: bool) -> None:
    """UserError for a loss of ours that is of images where clouds are learned, or the other way round."""
    if type(loss).__module__ == f"lc_bench.losses.{'images' if clouds else 'points'}":
        holds, other = ("clouds", "images") if clouds else ("images", "clouds")
        usual = "rate=chamfer" if clouds else "rate=mse"
        raise UserError(f"rate={cfg.rate.name}: a loss of {other}, and {cfg.model.name} takes {holds}; give one of theirs, such as {usual}")


def course_of(cfg: DictConfig) -> tuple[Any, Any]:
    """Optimiser and schedule as functions, tried once: what they cannot be made with is a UserError now, not amid the run."""
    import torch

    if not cfg.get("optimizer"):
        raise UserError("optimizer=null: training needs one, such as optimizer=adam")
    optimizer = make(cfg.optimizer, _partial_=True)
    scheduler = make(cfg.scheduler, _partial_=True) if cfg.get("scheduler") else None
    group = "optimizer"
    try:
        tried = optimizer([torch.nn.Parameter(torch.zeros(1))])
        if not isinstance(tried, torch.optim.Optimizer):
            raise UserError(f"optimizer: {cfg.optimizer._target_} gives no torch.optim.Optimizer")
        group = "scheduler"
        course = scheduler(tried) if scheduler is not None else None
    except UserError:
        raise
    except Exception as error:  # of whatever class was named, with whatever it was given
        raise UserError(f"{group}={cfg[group]}: {type(error).__name__}: {' '.join(str(error).split())}") from None
    if course is not None and not isinstance(course, torch.optim.lr_scheduler.LRScheduler):
        raise UserError(f"scheduler: {cfg.scheduler._target_} gives no schedule of torch.optim.lr_scheduler")
    if isinstance(course, torch.optim.lr_scheduler.ReduceLROnPlateau):
        raise UserError("scheduler: one that waits for a plateau cannot be resumed exactly; scheduler=halve halves at fixed steps")
    return optimizer, scheduler


def make_callbacks(cfg: DictConfig, has_validation: bool) -> list[pl.Callback]:
    """Those of `callbacks=`."""
    from lightning.pytorch import Callback

    made = []
    for name, node in (cfg.get("callbacks") or {}).items():
        if not OmegaConf.is_dict(node) or "_target_" not in node:
            raise UserError(f"callbacks.{name}: give a mapping with _target_, as in conf/callbacks/best.yaml")
        if "monitor" in node and str(node.monitor).startswith("val/") and not has_validation:
            raise UserError(f"callbacks={name}: it watches {node.monitor}, and nothing is validated. Give run.val, such as run.val=kodak")
        callback = make(node)
        kind = type(callback).__name__
        if not isinstance(callback, Callback):
            raise UserError(f"callbacks.{name}: {node._target_} gives no Callback of Lightning")
        if kind in NOT_WITH_US:
            raise UserError(f"callbacks.{name}: {kind} would make a run that cannot be resumed exactly; {NOT_WITH_US[kind]}")
        made.append(callback)
    return made


def start_from(model: TransformCode, cfg: DictConfig) -> dict[str, Any]:
    """Load what `weights` says; auto and none start from scratch. What the run was initialised from, for the metadata of its result.

    Weights that were trained for another metric or quality will do: that is fine-tuning.
    """
    from ..models import weights

    path = path_of(cfg.weights)
    if path is None:
        return {}
    told = weights.load_file(model, path)
    was = {key: told[key] for key in ("metric", "quality", "steps", "data") if key in told}
    log.info(f"starting from {path}" + (f", trained for {was['metric']}, quality {was.get('quality')}" if "metric" in was else ""))
    return {"initialised_from": {"weights": f"{path.resolve().parent.name}/{path.name}", **was}}


def arguments_of_trainer(cfg: DictConfig) -> dict[str, Any]:
    """What pl.Trainer is called with, of the keys of run= and those of trainer= that are not null."""
    import lightning.pytorch as pl

    given = {str(key): value for key, value in OmegaConf.to_container(cfg.trainer, resolve=True).items() if value is not None}  # type: ignore[union-attr]
    known = inspect.signature(pl.Trainer.__init__).parameters
    for key, value in given.items():
        if key in ELSEWHERE:
            raise UserError(f"trainer.{key}={value}: {ELSEWHERE[key]}")
        if key not in known:
            raise unknown(f"trainer.{key}", value, (name for name in known if name != "self" and name not in ELSEWHERE))
    run = cfg.run
    ours = {
        "max_steps": run.steps,
        "gradient_clip_val": run.clip,
        "log_every_n_steps": run.log_every,
        "val_check_interval": (run.val_every or run.steps) * cfg.trainer.accumulate_grad_batches,
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
    }
    return {**ours, **given}


def keep_metrics(output: Path) -> None:
    """Move the metrics of an earlier part of the run aside: the logger starts its file anew."""
    file = output / "metrics.csv"
    if file.is_file():
        parts = len(list(output.glob("metrics-part*.csv")))
        file.rename(output / f"metrics-part{parts + 1}.csv")
