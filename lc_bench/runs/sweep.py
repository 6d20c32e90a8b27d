"""Sweeps: `-m` with several values. Every job runs apart, in a folder named by its choices that says how it ended.

So any launcher of Hydra's will do (basic, joblib, submitit), a crash ends one job only, and the same sweep called again does what is left.
What launchers start in their workers is `job`, which starts the run proper and waits; `Plan` is made where the command was called.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, read_write

from ..config import given_in, job_folder
from ..errors import UserError
from ..ops import stopping
from ..ops.whole import written_whole
from . import folders
from .apart import Apart, threads_beside

STATUS, LOCK, LOG = ".status.json", ".lock", "output.log"
STOP = ".stop"  # in the sweep's folder: jobs are to end, and none is to start
UNRELATED = ("sweep", "threads", "output", "overwrite", "logger")  # keys that move no result
HELD_FOR = 90  # seconds to wait for what an interrupted sweep left behind; more than apart.PATIENCE
# Settings of Hydra's that are the sweep's own and not those of a job's process.
OURS = (
    "hydra.run.",
    "hydra.sweep.",
    "hydra.sweeper",
    "hydra/sweeper",
    "hydra.launcher",
    "hydra/launcher",
    "hydra.mode",
    "hydra.job.env_set",
)


@dataclass
class Status:
    """How a job stands. Written whole or not at all."""

    state: str = "not run"  # not run, running, interrupted, failed, ok
    cause: str = ""
    digest: str = ""  # of its configuration
    overrides: list[str] = field(default_factory=list)
    run: str = ""  # bench, train, ...
    output: str = ""  # where its results are
    settings: dict[str, Any] = field(default_factory=dict)  # bd_anchor, published, steps
    seconds: float = 0.0

    def write(self, folder: Path) -> None:
        with written_whole(folder / STATUS) as part:
            part.write_text(json.dumps(asdict(self), indent=1))


def read_status(folder: Path) -> Status:
    file = folder / STATUS
    return Status(**json.loads(file.read_text())) if file.is_file() else Status()


def digest(cfg: DictConfig, without: Sequence[str] = UNRELATED) -> str:
    """Of a configuration as it was composed, before interpolation: the same on every machine and in every folder."""
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    kept = {key: value for key, value in plain.items() if key not in without}
    if isinstance(kept.get("run"), dict):
        kept["run"] = {k: v for k, v in kept["run"].items() if k != "resume"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:16]


def is_job() -> bool:
    """Whether this is a launcher's worker, which is to start one run of a sweep."""
    return "LC_BENCH_SWEEP" in os.environ


def job(cfg: DictConfig) -> None:
    """Run one job of a sweep apart, unless it is done, and leave its status. Nothing that happens in it is raised here."""
    with stopping.listening(take_over=False):  # a launcher's worker, which may have handlers of its own
        _job(cfg)


def _job(cfg: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig

    hydra: Any = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    if (folder.parent / STOP).exists():
        return
    status = Status(digest=digest(cfg), overrides=list(hydra.overrides.task), run=folders.kind_of(cfg))
    try:
        with held(folder) as lock:
            before = read_status(folder)
            if before.state == "ok" and before.digest == status.digest:
                say(folder, "done before")
                return
            told = given_in(status.overrides)
            check_same(before, status, folder, given="output" in told)
            status.output = str(Path(cfg.output))
            status.settings = settings_of(cfg)
            status.state = "running"
            status.write(folder)
            run_apart(status, folder, arguments_of(cfg, hydra, folder, told), lock, is_basic(hydra))
    except UserError as error:
        status = read_status(folder)  # what it was of stays known, so that the folder is not continued as another job
        status.state, status.cause = "failed", str(error)
        status.overrides = status.overrides or list(hydra.overrides.task)
    status.write(folder)
    say(folder, f"{status.state}, {status.seconds:.0f} s" if status.state != "failed" else f"failed: {status.cause}")


def run_apart(status: Status, folder: Path, arguments: list[str], lock: int, in_terminal: bool) -> None:
    """Fills in how it ended. Only one at a time may have the terminal; the others write a log."""
    start = time.perf_counter()
    say(folder, "starts")
    process = Apart(arguments, folder, None if in_terminal else folder / LOG, keep_open=[lock])
    interrupted = process.wait(stop=(folder.parent / STOP).exists)
    status.seconds = round(time.perf_counter() - start, 2)
    status.cause = process.cause or ""
    if interrupted or process.interrupted:
        status.state, status.cause = "interrupted", ""
    else:
        status.state = "failed" if status.cause else "ok"
    if interrupted:
        (folder.parent / STOP).touch()  # a worker that was told alone tells the others


def arguments_of(cfg: DictConfig, hydra: DictConfig, folder: Path, told: Mapping[str, str]) -> list[str]:
    """The command line of a job's process: what the sweep says of it, its folder, and to go on where it stood."""
    source = told.get("run.resume", told.get("ckpt_path", "auto"))
    resume = []
    if "resume" in cfg.run:  # where the user says from what, the job's own folder is begun anew
        resume = ["run.resume=auto"] if source == "auto" else ["overwrite=true"]
    own = ["overwrite", *(["run.resume", "ckpt_path"] if source == "auto" else [])]
    words = [word for word in hydra.overrides.task if word.lstrip("+~").partition("=")[0] not in own]
    return [*own_overrides(hydra), *words, *resume, f"hydra.run.dir={quoted(folder)}"]


def own_overrides(hydra: DictConfig) -> list[str]:
    """Settings of Hydra's on the command line that hold for a process apart as well."""
    return [word for word in hydra.overrides.hydra if not word.lstrip("+~").startswith(OURS)]


def quoted(value: object) -> str:
    """As a value in Hydra's grammar, whatever characters it has."""
    escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def check_same(before: Status, status: Status, folder: Path, given: bool) -> None:
    """UserError where results of one configuration would be continued or shown as those of another."""
    if given and status.run in ("bench", "train"):
        raise UserError("output=...: jobs of a sweep have folders of their own; name the sweep's with sweep=NAME")
    leftover = [name for name in ("records.csv", "last.ckpt") if (folder / name).exists()]
    if before.digest and before.digest != status.digest and leftover:
        raise UserError(f"{folder} holds {leftover[0]} of another configuration: give another sweep=NAME, or remove that folder")


def settings_of(cfg: DictConfig) -> dict[str, Any]:
    """What the sweep's end needs to know of a job."""
    found = {}
    for key in ("bd_anchor", "published", "steps"):
        value = OmegaConf.select(cfg, f"run.{key}")
        if value is not None:
            found[key] = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return found


def is_basic(hydra: DictConfig) -> bool:
    return str(hydra.launcher._target_).endswith(".BasicLauncher")


def say(folder: Path, what: str) -> None:
    print(f"{folder.name}: {what}", flush=True)


@contextmanager
def held(folder: Path) -> Iterator[int]:
    """A lock on a job's folder, which its process takes over: it is free when both are gone, killed or not. Yields its descriptor."""
    import fcntl

    with open(folder / LOCK, "w") as file:
        patience = time.monotonic() + HELD_FOR
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > patience:
                    raise UserError(f"{folder}: another process works there; wait for it, or give another sweep=NAME") from None
                time.sleep(0.2)
        yield file.fileno()


@dataclass
class Plan:
    """A sweep as it was asked for: its folder, and its jobs by the names of their folders with what was chosen for each."""

    folder: Path
    jobs: dict[str, list[str]]

    @property
    def statuses(self) -> dict[str, Status]:
        """Of all jobs that were asked for, whether they began or not."""
        return {name: read_status(self.folder / name) for name in self.jobs}

    @property
    def earlier(self) -> dict[str, Status]:
        """Of other jobs in the same folder, which an earlier command asked for."""
        found = {path.parent.name: path.parent for path in sorted(self.folder.glob(f"*/{STATUS}"))}
        return {name: read_status(folder) for name, folder in found.items() if name not in self.jobs}

    @property
    def has_begun(self) -> bool:
        return any((self.folder / name).is_dir() for name in self.jobs)

    def stop(self) -> None:
        """Tell jobs that are at work, wherever they are, to end."""
        (self.folder / STOP).touch()

    def to_go_on(self, arguments: Sequence[str]) -> str:
        """The command that does what is left."""
        named = any(word.startswith(("sweep=", "hydra.sweep.dir=")) for word in arguments)
        own = [] if named else [f"sweep={self.folder.relative_to('outputs/sweep')}"]
        return shlex.join(["python", "-m", "lc_bench", *arguments, *own])


def for_jobs_only(arguments: Sequence[str], known_groups: Sequence[str]) -> list[str]:
    """Arguments of a sweep over choices of a group, so that its keys are looked for in the jobs' configurations.

    `-m model=a,b model.N=8`: Hydra first composes a configuration without what is swept, and would look for N in another model.
    What is itself a sweep, of one value, it leaves to the jobs.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if not {"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(arguments):
        return list(arguments)
    parser = OverridesParser.create()
    try:
        parsed = {word: parser.parse_override(word) for word in arguments if not word.startswith("-") and "=" in word}
    except HydraException:
        return list(arguments)  # Hydra says what is wrong with it
    if not any(o.is_sweep_override() and o.key_or_group in known_groups for o in parsed.values()):
        return list(arguments)

    def one_choice(word: str) -> str:
        override = parsed.get(word)
        key, _, value = word.partition("=")
        plain = override is not None and not override.is_sweep_override() and word[0] not in "+~"
        if not plain or "." not in key or key.startswith("hydra."):
            return word
        try:
            parser.parse_override(f"{key}=choice({value})")
        except HydraException:  # null, which is no choice
            return word
        return f"{key}=choice({value})"

    return [one_choice(word) for word in arguments]


class Planner:
    """Hydra's callback: before a run begins, find its folder; before a sweep does, see what there is to do and what jobs share."""

    current: Plan | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
        from hydra.core.override_parser.overrides_parser import OverridesParser
        from hydra.errors import HydraException

        parser = OverridesParser.create()
        words = [f"{k}={v}" for k, v in (OmegaConf.select(config, "hydra.sweeper.params") or {}).items()]
        try:
            parsed = parser.parse_overrides([*words, *config.hydra.overrides.task])
            (chosen,) = BasicSweeper.split_arguments(parsed, None)
        except HydraException:
            return  # the sweeper, whose turn is next, says what is wrong
        swept = [str(o.key_or_group) for o in parsed if o.is_sweep_override() and len(list(o.sweep_string_iterator())) > 1]
        folder = Path(config.hydra.sweep.dir)
        if not any(folders.is_given(config, key) for key in ("sweep", "hydra.sweep.dir")):
            folder = folders.new_folder(folder)
            with read_write(config.hydra):
                config.hydra.sweep.dir = str(folder)
                config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(folder)}")
        Planner.current = Plan(folder, {job_folder(overrides, swept): list(overrides) for overrides in chosen})
        (folder / STOP).unlink(missing_ok=True)
        shared = {"LC_BENCH_SWEEP": ",".join(swept) or "-", **threads_of(config, len(chosen))}
        with read_write(config):
            config.hydra.overrides.hydra.extend([f"+hydra.job.env_set.{k}={quoted(v)}" for k, v in shared.items()])

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        if OmegaConf.is_dict(config.get("run")):  # else the run itself says what is wrong
            folders.place(config)

    def __getattr__(self, name: str) -> Any:
        """Hydra calls every hook of a callback; the others do nothing here."""
        if name.startswith("on_"):
            return lambda **_: None
        raise AttributeError(name)


def threads_of(config: DictConfig, jobs: int) -> dict[str, str]:
    """Jobs that run side by side on this machine share its cores; where the user said something, that holds."""
    launcher, beside = str(config.hydra.launcher._target_), 0
    if launcher.endswith(".JoblibLauncher"):
        asked = int(config.hydra.launcher.n_jobs)
        beside = asked if asked > 0 else (os.cpu_count() or 1) + 1 + asked
    elif launcher.endswith(".LocalLauncher"):  # submitit_local starts all at once
        beside = OmegaConf.select(config, "hydra.sweeper.max_batch_size") or jobs
    threads = threads_beside(min(beside, jobs)) if beside and config.threads is None else None
    return {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
