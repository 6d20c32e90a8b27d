"""Where runs write: a folder of its own for each, and no two runs at a time in one.

A run that was given no folder gets a new one, made so that of two runs started at the same moment each has its own. In a folder that
was given (`output=`, `hydra.run.dir=`) a run holds a lock until it ends, however it ends.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from ..errors import UserError
from ..ops.paths import cache_dir

LOCK = ".in-use.lock"
WAIT_APART = 90  # seconds that a job of a sweep or a search waits for what an interrupted one left behind
WAIT = 2  # seconds for the workers of a run that was killed
# What a run leaves, by kind: where one of these is, an earlier run of the kind was at work.
RESULTS = {
    "train": (
        "last.ckpt",
        "model.safetensors",
        "best.safetensors",
        "metrics.csv",
        "metrics-part*.csv",
        "hparams.yaml",
        "wandb-id",
        "nan-batch-*.pt",
        "tensorboard/events.out.tfevents.*",
    ),
    "bench": ("records.csv", "records-rank*.csv", "index.html", "rd-*.png", "cloud-*.png", "summary/*.json"),
}
LOCKED = (*RESULTS, "search", "report")

_made: list[Path] = []  # by this process, not given


def kind_of(cfg: DictConfig) -> str:
    """train, bench, ...: the file in runs/ whose main the run is."""
    return str(OmegaConf.to_container(cfg, resolve=False)["run"]["_target_"]).split(".")[-2]  # type: ignore[index,call-overload]


def place(config: DictConfig) -> None:
    """Before Hydra writes anything: let its own files go where the run's go, and make a folder where none was given.

    config: the whole of it, with Hydra's part; its `hydra.run.dir` and `run.name` are set.
    """
    if kind_of(config) not in LOCKED:
        return  # it has run.dir: .
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    by_output = str(plain["output"]) != "${hydra:runtime.output_dir}"
    given = by_output or any(is_given(config, key) for key in ("hydra.run.dir", "run.dir", "run.name"))
    if not given and not is_first():
        # Of several processes the first one's folder is everybody's; Hydra's files are written by that one too.
        _set(config, ".")
        with read_write(config.hydra):
            config.hydra.output_subdir = None
        return
    folder = Path(str(config.output if by_output else config.hydra.run.dir)).expanduser()
    if not given:
        folder = new_folder(folder)
    if not given or not folder.exists():
        _made.append(folder)
    if not given and "name" in config.run:
        with read_write(config), open_dict(config):
            config.run.name = str(folder.relative_to("outputs/search"))
    if by_output:
        with read_write(config), open_dict(config):
            config.output = str(folder)
    _set(config, str(folder))


def _set(config: DictConfig, folder: str) -> None:
    with read_write(config.hydra):
        config.hydra.run.dir = folder


def is_given(config: DictConfig, key: str) -> bool:
    """Whether the command line says it."""
    words = [*config.hydra.overrides.hydra, *config.hydra.overrides.task]
    return any(word.lstrip("+~").partition("=")[0] == key for word in words)


def is_first() -> bool:
    """Whether this is the only process of its run, or the first of those that torchrun or srun started."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return os.environ.get("RANK", "0") == "0"
    return "SLURM_STEP_ID" not in os.environ or os.environ.get("SLURM_PROCID", "0") == "0"


def new_folder(wanted: Path) -> Path:
    """`wanted`, or `wanted`-2 and so on: one that was not there before, and is nobody else's."""
    wanted.parent.mkdir(parents=True, exist_ok=True)
    count = 1
    while True:
        folder = wanted if count == 1 else wanted.with_name(f"{wanted.name}-{count}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            count += 1


def remove_stubs() -> None:
    """Folders that this process made and in which nothing was written but Hydra's own files: of runs that were refused, say."""
    while _made:
        folder = _made.pop()
        if folder.is_dir() and {path.name for path in folder.iterdir()} <= {".hydra", LOCK}:
            shutil.rmtree(folder)
            if folder.parent.parent.name == "outputs" and not any(folder.parent.iterdir()):
                folder.parent.rmdir()  # of the day


@contextmanager
def occupied(cfg: DictConfig) -> Iterator[None]:
    """Hold the output folder of a run; UserError where another run is at work there, or has left results that it would write over."""
    kind = kind_of(cfg)
    if kind not in LOCKED or not is_first():
        yield
        return
    from filelock import FileLock, Timeout

    output = Path(str(cfg.output)).expanduser()
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock = FileLock(output / LOCK)
        lock.acquire(timeout=WAIT_APART if "LC_BENCH_JOB" in os.environ else WAIT)
    except Timeout:
        raise UserError(f"output={output}: another run is at work there; wait for it, or give another folder") from None
    except OSError as error:
        raise UserError(f"output={output}: cannot be written ({error}); give another folder") from None
    try:
        check_unused(cfg, kind, output)
        yield
    finally:
        lock.release()


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder of a user's files, without leaving anything in it: the lock is in the cache, and holds on this machine.

    UserError where another command writes into it. Where there can be no cache, nothing is held.
    """
    from filelock import FileLock, Timeout

    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
    try:
        locks = cache_dir() / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(locks / f"{name}.lock")
        lock.acquire(timeout=WAIT)
    except Timeout:
        raise UserError(f"output={folder}: another command is writing there; wait for it, or give another folder") from None
    except (OSError, UserError):
        yield
        return
    try:
        yield
    finally:
        lock.release()


def check_unused(cfg: DictConfig, kind: str, output: Path) -> None:
    """UserError where results of an earlier run would be written over unasked, or asked both to go and to be gone on with."""
    found = results_in(output, kind)
    if not found:
        return
    resume = cfg.run.get("resume")
    going_on = goes_on_here(resume, output)
    if cfg.get("overwrite") and going_on:
        raise UserError(f"overwrite=true and run.resume={resume}: the one removes what the other goes on from; give one of them")
    if not cfg.get("overwrite") and not going_on:
        what = {"train": "training", "bench": "benchmark"}[kind]
        raise UserError(
            f"output={output}: holds {found[0].name} of an earlier {what}. run.resume=auto goes on with it, overwrite=true replaces it; "
            "or give another folder"
        )


def results_in(output: Path, kind: str) -> list[Path]:
    """Files of earlier runs of that kind."""
    return [path for pattern in RESULTS.get(kind, ()) for path in sorted(output.glob(pattern))]


def remove_replaced(cfg: DictConfig, output: Path) -> None:
    """With overwrite=true, results of an earlier run. Called when a run has read all that it needs: what is refused removes nothing."""
    if cfg.get("overwrite"):
        for path in results_in(output, kind_of(cfg)):
            path.unlink(missing_ok=True)


def goes_on_here(resume: object, output: Path) -> bool:
    """Whether what is resumed lies in this folder."""
    if resume is None or resume == "auto":
        return resume == "auto"
    return Path(str(resume)).expanduser().resolve().is_relative_to(output.resolve())
