"""run.resume: a checkpoint is read without running code from it, and the run goes on only as the run that it is of.

A checkpoint keeps the settings that decide what a step does. Those that may change on the way (the optimiser's and its schedule's, the
number of steps, clipping, precision) are taken over; of the others any difference is told.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from ..data import CloudSet, ImageSet
from ..errors import UserError
from ..task import SETTINGS, Task
from .training_data import identity

log = logging.getLogger(__name__)

NEEDED = {"state_dict", "optimizer_states", "lr_schedulers", "loops", "global_step"}
ASIDE = ("published", "reference_names", "bd_anchor", "qualities")  # of a model's YAML: they change no step
COURSE = ("optimizer", "scheduler")  # what the rate of learning follows
SHOWN = 4  # differences that are told


@dataclass(frozen=True)
class Checkpoint:
    """step: of the optimiser; retaken: the rate of learning has another course from here on."""

    path: Path
    step: int
    retaken: bool
    start: dict[str, Any]  # what the run was initialised from


def find_checkpoint(resume: Any, output: Path) -> Path | None:
    """run.resume: null, a checkpoint, a folder that holds last.ckpt, or `auto` (this output folder's, if there is one)."""
    if resume is None:
        return None
    path = output / "last.ckpt" if resume == "auto" else Path(str(resume)).expanduser()
    path = path / "last.ckpt" if path.is_dir() else path
    if path.is_file():
        return path
    if resume == "auto":
        return None
    raise UserError(f"run.resume={resume}: no checkpoint there. Give a .ckpt file, a folder with last.ckpt, auto or null")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a training checkpoint; UserError for any other file, and for one that would have to run code."""
    if path.suffix == ".safetensors":
        raise UserError(
            f"run.resume={path}: weights alone, without the state of a training. weights={path} starts a new training from them"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or strange file brings torch to
        raise UserError(
            f"run.resume={path}: cannot be read as a checkpoint without running code from it ({path.stat().st_size} bytes, "
            f"{type(error).__name__}). Give last.ckpt of a run of lc_bench"
        ) from None
    if not isinstance(content, dict) or not content.keys() >= NEEDED or not isinstance(content["global_step"], int):
        raise UserError(
            f"run.resume={path}: not a checkpoint of a training. Give last.ckpt of a run; weights={path} starts a new training from weights"
        )
    return content


def settings(
    cfg: DictConfig, data: ImageSet | CloudSet, quality: Any, world: int, averages: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """By dotted key: `fixed`, which decide what a step does, and `taken`, which may change on the way. averages: of the callbacks."""
    run, trainer = cfg.run, cfg.trainer
    model = {key: value for key, value in flat(cfg.model, "model").items() if key.split(".")[1] not in ASIDE}
    of_kind = {"run.turn": run.turn} if isinstance(data, CloudSet) else {"run.crop": run.crop}
    fixed = {
        **model,
        **flat(cfg.rate, "rate"),
        "quality": quality,
        "seed": cfg.seed,
        "data": identity(data),
        "samples of a step (run.batch, accumulated, over all processes)": run.batch * trainer.accumulate_grad_batches * world,
        **of_kind,
        "run.quantiser": run.quantiser,
        "run.round_from": run.round_from,
        "run.overfit": run.overfit,
        "optimizer._target_": cfg.optimizer._target_,
        **{f"callbacks.{key}": value for key, value in averages.items()},
    }
    taken = {
        **flat(cfg.optimizer, "optimizer"),
        **(flat(cfg.scheduler, "scheduler") if cfg.get("scheduler") else {"scheduler": None}),
        "run.steps": run.steps,
        "run.clip": run.clip,
        "trainer.precision": trainer.precision,
    }
    return {"fixed": fixed, "taken": taken}


def flat(node: Any, prefix: str) -> dict[str, Any]:
    """Leaves by dotted key, as Python's own."""
    value = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    if not isinstance(value, dict):
        return {prefix: value}
    leaves: dict[str, Any] = {}
    for key, inner in value.items():
        leaves |= flat(inner, f"{prefix}.{key}")
    return leaves


def continued(path: Path, task: Task, now: Mapping[str, Mapping[str, Any]]) -> Checkpoint:
    """The checkpoint, to go on from with the settings `now`; UserError for what cannot be taken over."""
    content = read_checkpoint(path)
    step = content["global_step"]
    kept = content.get(SETTINGS)
    if kept is None:
        log.warning(f"{path} is of an earlier version and does not say what it was trained with; it has to be what is given now")
        kept = {"fixed": now["fixed"], "taken": {}, "start": {}}
    told = differences(kept["fixed"], now["fixed"])
    if told:
        more = f" and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
        raise UserError(
            f"run.resume={path}: that run was another: {'; '.join(told[:SHOWN])}{more}. Give what it had, "
            f"or weights={path} (without run.resume, into another folder) for a new training that starts from its weights"
        )
    check_state(path, content, task)
    steps = now["taken"]["run.steps"]
    if step > steps:
        raise UserError(f"run.steps={steps}: {path} is at step {step} already. Give more steps")
    changed = differences(kept["taken"], now["taken"]) if kept["taken"] else []
    if changed:
        log.info(f"from step {step} on: {'; '.join(changed)}")
    retaken = not kept["taken"] or any(line.partition(".")[0].partition(" ")[0] in COURSE for line in changed)
    return Checkpoint(path, step, retaken, dict(kept["start"]))


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`key 3 -> 4`, the shortest keys first: N and M before the layers that they make."""
    keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    keys.sort(key=lambda key: key.count("."))
    return [f"{key} {_told(then.get(key))} -> {_told(now.get(key))}" for key in keys]


def _told(value: Any) -> str:
    return "null" if value is None else str(value)


def check_state(path: Path, content: Mapping[str, Any], task: Task) -> None:
    """UserError for tensors of another model, which a checkpoint of an earlier version can hold unsaid."""
    own = task.state_dict()
    state = content.get("current_model_state", content["state_dict"])
    different = sorted(own.keys() ^ state.keys()) or [key for key in own if own[key].shape != state[key].shape]
    if different:
        key = different[0]
        shapes = [str(tuple(held[key].shape)) if key in held else "absent" for held in (state, own)]
        raise UserError(f"run.resume={path}: of another model than {task.model.name}: {key} is {shapes[0]} there, {shapes[1]} here")
