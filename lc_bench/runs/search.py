"""run=search: Optuna proposes settings, each trial is a training in a process of its own, and what it found is kept in a file.

A trial that crashes is one failed trial. A search that was killed goes on where it stood: its running trials from their checkpoints.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import DictConfig, OmegaConf

from ..config import check_choice, choices, compose, groups, own_conf_dir, typed
from ..errors import UserError, unknown
from ..ops import stopping
from .apart import Apart, threads_beside
from .curves import read_curves
from .search_end import finish
from .space import Range, parse_space
from .sweep import LOG, digest, own_overrides, quoted
from .values import ALIASES

if TYPE_CHECKING:
    from optuna import Study, Trial

log = logging.getLogger(__name__)

DIRECTIONS: dict[str, Literal["minimize", "maximize"]] = {"loss": "minimize", "bpp": "minimize", "psnr": "maximize"}
OWN = (
    "name",
    "dir",
    "space",
    "objective",
    "trials",
    "jobs",
    "prune",
    "resume",
    "val_every",
)  # keys of run= that training has not, or that are set here
ATTEMPTS = 3  # at one trial: one that takes the search down each time ends it for itself only
WATCH = 0.2  # seconds between looks at what runs


@dataclass
class Running:
    trial: Trial
    process: Apart
    start: float
    told: set[int] = field(default_factory=set)  # steps whose validation Optuna knows


def main(cfg: DictConfig) -> float:
    """Run trials until there are run.trials of them; returns the best value of the first objective."""
    objectives = objectives_of(cfg)
    if OmegaConf.is_missing(cfg.run, "space"):
        raise UserError("run.space: has to be given, such as 'run.space={optimizer.lr: log 1e-5 1e-3}'")
    space = parse_space(OmegaConf.to_container(cfg.run.space) if OmegaConf.is_config(cfg.run.space) else cfg.run.space)  # type: ignore[arg-type]
    fixed = fixed_overrides(cfg, space)
    check_space(cfg, space, objectives, fixed)
    output = Path(cfg.output)
    output.mkdir(parents=True, exist_ok=True)
    study = open_study(cfg, objectives, output)
    interrupted = False
    try:
        run_trials(cfg, study, space, objectives, fixed, output)
    except KeyboardInterrupt:
        interrupted = True
    own = own_conf_dir()
    words = [*(["--config-dir", str(own)] if own else []), *(word for word in fixed if not word.startswith("hydra"))]
    try:
        return finish(study, objectives, output, words)
    except UserError as error:
        if not interrupted:
            raise
        log.info(str(error))
        return math.nan
    finally:
        if interrupted:
            stopping.note_end(stopping.asked())
            log.info(f"interrupted; continue with the same command and run.name={cfg.run.name}")


def objectives_of(cfg: DictConfig) -> list[str]:
    given = cfg.run.objective
    listed = [given] if isinstance(given, str) else list(given or [])
    for name in listed:
        if name not in DIRECTIONS:
            raise unknown("run.objective", name, DIRECTIONS, "One, or several as [bpp,psnr].")
    if not listed:
        raise UserError("run.objective: give loss, or several such as [bpp,psnr]")
    if len(listed) > 1 and cfg.run.prune:
        raise UserError(f"run.prune=true: with several objectives ({', '.join(listed)}) Optuna cannot prune; leave it out")
    return listed


def fixed_overrides(cfg: DictConfig, space: Mapping[str, Range]) -> list[str]:
    """What all trials share: the command line of the search as that of a training."""
    from hydra.core.hydra_config import HydraConfig

    hydra: Any = HydraConfig.get()
    own = {"run", "output", "overwrite", "sweep", *space, *(f"run.{key}" for key in OWN)}
    own |= {alias for alias, key in ALIASES.items() if key in own}
    words = [word for word in hydra.overrides.task if word.lstrip("+~").partition("=")[0] not in own]
    loggers = with_csv(cfg)
    if loggers:
        words = [word for word in words if word.lstrip("+~").partition("=")[0] != "logger"]
    return ["run=train", *own_overrides(hydra), *words, *loggers, f"run.val_every={val_every(cfg)}"]


def with_csv(cfg: DictConfig) -> list[str]:
    """What makes trials write metrics.csv, which the search reads, beside the loggers that were chosen."""
    chosen = [str(name) for name in cfg.get("logger") or {}]
    if "csv" in chosen:
        return []
    return [f"logger=[{','.join(['csv', *(name for name in chosen if name in choices('logger'))])}]"]


def val_every(cfg: DictConfig) -> int:
    """Steps between validations: about ten in a trial, the last one at its end."""
    steps, given = cfg.run.steps, cfg.run.val_every
    if given is not None:
        return given
    return next(every for every in range(max(1, steps // 10), steps + 1) if steps % every == 0)


def check_space(cfg: DictConfig, space: Mapping[str, Range], objectives: Sequence[str], fixed: Sequence[str]) -> None:
    """UserError before the first trial: for what is not known, and for values that could not be compared."""
    if cfg.run.resume != "auto":
        raise UserError(
            f"run.resume={typed(cfg.run.resume)}: each trial is a run of its own, and goes on from its own checkpoint. "
            "Leave it out; weights=PATH starts all trials from weights"
        )
    if cfg.run.val is None:
        raise UserError("run.val: a search compares trials on images they were not trained on; give a data set, such as run.val=kodak")
    moves_loss = [key for key in space if key == "quality" or key.split(".")[0] == "rate"]
    if "loss" in objectives and moves_loss:
        raise UserError(f"run.space: {moves_loss[0]} changes the loss itself; search over it with run.objective=[bpp,psnr]")
    known = groups()
    first = {key: values.samples[0] for key, values in space.items()}
    for key, values in space.items():
        for value in values.samples:
            if key in known:
                check_choice(key, value)
            compose(*fixed, *(f"{k}={v}" for k, v in {**first, key: value}.items()))


def open_study(cfg: DictConfig, objectives: Sequence[str], output: Path) -> Study:
    """The study of this folder, new or continued; UserError if it was about something else."""
    try:
        import optuna
    except ImportError:
        raise UserError("run=search needs Optuna: pip install 'lc_bench[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = f"sqlite:///{output.resolve() / 'study.db'}"
    study = optuna.create_study(
        storage=storage, study_name="search", directions=[DIRECTIONS[name] for name in objectives], load_if_exists=True
    )
    same = cfg.copy()
    OmegaConf.set_struct(same, False)
    same.run = {key: value for key, value in same.run.items_ex(resolve=False) if key not in ("name", "dir", "trials", "jobs", "prune")}
    mark = digest(same)
    if study.user_attrs.get("digest", mark) != mark:
        raise UserError(f"{output} holds a search over something else: give another run.name, or the command of that one")
    study.set_user_attr("digest", mark)
    trials = cfg.run.trials
    begun = len(study.trials)  # a search that goes on draws anew
    study.sampler = optuna.samplers.TPESampler(seed=cfg.seed + begun, n_startup_trials=max(2, min(10, trials // 3)), constant_liar=True)
    prune = len(objectives) == 1 if cfg.run.prune is None else cfg.run.prune
    median = optuna.pruners.MedianPruner(n_startup_trials=max(2, min(5, trials // 3)), n_warmup_steps=cfg.run.steps // 4)
    study.pruner = median if prune else optuna.pruners.NopPruner()
    return study


def run_trials(
    cfg: DictConfig, study: Study, space: Mapping[str, Range], objectives: Sequence[str], fixed: Sequence[str], output: Path
) -> None:
    """Keep run.jobs trials at work until there are run.trials. On the way out, whatever the reason, none is left at work."""
    from optuna.trial import Trial, TrialState

    threads = threads_beside(cfg.run.jobs) if cfg.threads is None else None
    # Killed with an earlier call: they go on from their checkpoints, under their numbers.
    waiting = [Trial(study, t._trial_id) for t in study.get_trials(deepcopy=False, states=[TrialState.RUNNING])]
    running: list[Running] = []

    def goes_on(one: Running) -> bool:
        """Look at it; one that somebody else ended is to go on when there is a place for it."""
        state = look_at(one, study, objectives)
        if state == "interrupted":
            waiting.append(one.trial)
        return state == "at work"

    try:
        while True:
            while len(running) < cfg.run.jobs and (waiting or len(study.get_trials(deepcopy=False)) < cfg.run.trials):
                started = start(waiting.pop(0) if waiting else study.ask(), study, space, fixed, output, threads)
                running += [started] if started else []
            if not running:
                return
            time.sleep(WATCH)
            running = [one for one in running if goes_on(one)]
    except KeyboardInterrupt:
        Apart.interrupt_all([one.process for one in running])
        for one in running:  # it did not take the search down
            one.trial.set_user_attr("attempts", one.trial.user_attrs["attempts"] - 1)
        raise
    finally:
        for one in running:
            one.process.kill()


def start(
    trial: Trial, study: Study, space: Mapping[str, Range], fixed: Sequence[str], output: Path, threads: int | None
) -> Running | None:
    """Begin a trial, or go on with it. None if it was tried too often."""
    from optuna.trial import TrialState

    folder = output / f"trial-{trial.number}"
    reached = progress_of(folder)
    came_further = reached != trial.user_attrs.get("reached", 0)
    attempts = 1 if came_further else trial.user_attrs.get("attempts", 0) + 1
    continued = bool(trial.user_attrs)
    values = {key: values.suggest(trial, key) for key, values in space.items()}
    chosen = [f"{key}={value}" for key, value in values.items()]
    for name, value in (("attempts", attempts), ("reached", reached), ("overrides", chosen)):
        trial.set_user_attr(name, value)
    if attempts > ATTEMPTS:
        trial.set_user_attr("cause", f"began {ATTEMPTS} times, and each time ended with the search or before its first new checkpoint")
        study.tell(trial, state=TrialState.FAIL)
        return None
    log.info(f"trial {trial.number}: {', '.join(chosen)}" + (" (continued)" if continued else ""))
    # Validations are to be seen at once, not in blocks of 100 logged steps.
    words = [*fixed, *chosen, "run.resume=auto", "++logger.csv.flush_logs_every_n_steps=1", f"hydra.run.dir={quoted(folder)}"]
    known = set(study.get_trials(deepcopy=False)[trial.number].intermediate_values)
    return Running(trial, Apart(words, folder, folder_log(folder), threads=threads), time.perf_counter(), known)


def progress_of(folder: Path) -> int:
    """What changes whenever a trial comes to another checkpoint; 0: there is none."""
    checkpoint = folder / "last.ckpt"
    return checkpoint.stat().st_mtime_ns if checkpoint.is_file() else 0


def folder_log(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder / LOG


def look_at(one: Running, study: Study, objectives: Sequence[str]) -> Literal["at work", "ended", "interrupted"]:
    """Tell Optuna what is new of a trial. An interrupted one stays open, as one that is to go on from its checkpoint."""
    from optuna.trial import TrialState

    ended = one.process.ended  # before its figures are read: none are written after that
    trial, figures = one.trial, validations(one.process.folder)
    if len(objectives) == 1:
        for step in [s for s in figures if s not in one.told and objectives[0] in figures[s]]:
            trial.report(figures[step][objectives[0]], step)
            one.told.add(step)
            if not ended and trial.should_prune():
                one.process.kill()
                study.tell(trial, state=TrialState.PRUNED)
                log.info(f"trial {trial.number}: pruned at step {step}, {objectives[0]} {figures[step][objectives[0]]:.4g}")
                return "ended"
    if not ended:
        return "at work"
    if one.process.interrupted:
        log.info(f"trial {trial.number}: interrupted")
        return "interrupted"
    trial.set_user_attr("seconds", round(time.perf_counter() - one.start, 1))
    last = figures[max(figures)] if figures else {}
    values = [last.get(name, math.nan) for name in objectives]
    absent = [name for name, value in zip(objectives, values, strict=True) if not math.isfinite(value)]
    cause = one.process.cause or (f"val/{absent[0]} was not measured, or is not finite" if absent else None)
    if cause:
        trial.set_user_attr("cause", cause)
        study.tell(trial, state=TrialState.FAIL)
        log.info(f"trial {trial.number}: failed: {cause}")
    else:
        study.tell(trial, values)
        log.info(f"trial {trial.number}: " + ", ".join(f"{name} {value:.4g}" for name, value in zip(objectives, values, strict=True)))
    return "ended"


def validations(folder: Path) -> dict[int, dict[str, float]]:
    """Figures of validation by step, of all parts of a run; of one step the latest."""
    found: dict[int, dict[str, float]] = {}
    for row in read_curves(folder):
        figures = {name: row[f"val/{name}"] for name in DIRECTIONS if f"val/{name}" in row}
        if "loss" in figures:
            found[int(row["step"])] = figures
    return dict(sorted(found.items()))
