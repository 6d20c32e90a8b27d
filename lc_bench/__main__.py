"""The command: compose a configuration, instantiate, run.

python -m lc_bench [run=bench|train|search|report|compress|decompress|inspect|models|data|check|export|script] [model=...] [key=value ...]
"""

from __future__ import annotations

import os
import signal
import sys
from importlib.metadata import version
from pathlib import Path

from . import __version__
from .config import check_choice, choices, conf_dir, explain, given_in, groups, make, own_conf_dir
from .errors import UserError, unknown
from .ops import stopping
from .ops.notices import hide_known
from .runs import folders
from .runs.apart import end_with_parent, leave_cause
from .runs.arguments import in_grammar, text_of
from .runs.settled import settled
from .runs.sweep import Plan, Planner, for_jobs_only, is_job, job
from .runs.values import check_groups, check_keys, check_values, take_aliases


def run(cfg) -> object:  # type: ignore[no-untyped-def]
    """Run what `run` names. A user's mistake is told here, in one line. In a launcher's worker: run one job of a sweep, apart."""
    if is_job():
        return job(cfg)
    try:
        return _run(cfg)
    except Exception as error:
        told = explain(error, sys.argv[1:])
        if not isinstance(told, UserError):
            raise
        leave_cause(told)
        print(f"lc_bench: {told}", file=sys.stderr)
        failures.append(told)
        return None


failures: list[UserError] = []


def _run(cfg) -> object:  # type: ignore[no-untyped-def]
    from hydra.core.hydra_config import HydraConfig

    hide_known()
    check_groups(cfg)
    hydra = HydraConfig.get()
    take_aliases(cfg, hydra.overrides.task)
    check_keys(cfg, hydra.runtime.choices, hydra.overrides.task)
    cfg = settled(cfg)
    check_values(cfg, hydra.overrides.task)
    if cfg.threads is not None:
        import torch

        torch.set_num_threads(cfg.threads)
    # Not get_method, which takes any name: what a configuration may call is for Hydra's instantiate to say.
    run_it = make({"_target_": cfg.run._target_, "_partial_": True})
    with folders.occupied(cfg):
        return run_it(cfg)


def main() -> None:
    """The exit code is 2 after a user's mistake or where a job of a sweep failed, 128 and the number of the signal that ended it."""
    if sys.argv[1:] == ["--version"]:
        print(f"lc_bench {__version__}, torch {version('torch')}, Python {sys.version.partition(' ')[0]}")
        return
    failures.clear()
    end_with_parent()
    Planner.current = None
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, and this function says it in one line
    folder = conf_dir()
    if not folder.is_dir():
        sys.exit(f"{folder}: the configuration is missing from this installation; install lc_bench again")
    try:
        with stopping.listening():
            code = command(folder)
    finally:
        folders.remove_stubs()
    if code:
        sys.exit(code)


def command(folder: Path) -> int:
    """Compose the configuration below `folder` and run it, or a sweep; returns the exit code."""
    import hydra

    given = sys.argv[1:]
    code = 0
    try:
        find_own_conf(sys.argv)
        sys.argv[1:] = in_grammar(sys.argv[1:])
        sys.argv[1:] = check_overrides(sys.argv[1:])
        take_from_weights(sys.argv)
        sys.argv[1:] = for_jobs_only(sys.argv[1:], groups())
        hydra.main(version_base="1.3", config_path=str(folder.resolve()), config_name="config")(run)()
    except KeyboardInterrupt:
        code = stopping.exit_code(stopping.asked() or signal.SIGINT)
    except Exception as error:
        told = explain(error, sys.argv[1:])
        leave_cause(told)
        if not isinstance(told, UserError) and Planner.current is None and not stopping.asked():
            raise
        print(f"lc_bench: {told if isinstance(told, UserError) else repr(told)}", file=sys.stderr)
        code = 2
    code = 2 if failures and not code else code
    if code == 2 and stopping.asked():  # what went wrong, did so because something was ended
        code = stopping.exit_code(stopping.asked())
    if Planner.current is not None and Planner.current.has_begun:
        return end_of_sweep(Planner.current, given, code)
    if stopping.ended():  # it has said so, and what it kept
        return stopping.exit_code(stopping.ended())
    if code > 2:
        print("lc_bench: interrupted", file=sys.stderr)
    return code


def end_of_sweep(plan: Plan, given: list[str], code: int) -> int:
    """What a sweep leaves, also one that was interrupted or whose launcher gave up. Returns the exit code."""
    from .runs.sweep_end import finish

    interrupted = code > 2
    if interrupted:
        plan.stop()
    return max(code, finish(plan, given, interrupted))


def find_own_conf(arguments: list[str]) -> None:
    """--config-dir FOLDER and LC_BENCH_CONF=FOLDER say the same; whichever is given sets the other."""
    for i, argument in enumerate(arguments):
        flag, _, value = argument.partition("=")
        if flag in ("--config-dir", "-cd"):
            os.environ["LC_BENCH_CONF"] = value or (arguments[i + 1] if i + 1 < len(arguments) else "")
            folder = own_conf_dir()
            if folder is not None:  # with ~ replaced
                arguments[i : i + (1 if value else 2)] = ["--config-dir", str(folder)]
            return
    folder = own_conf_dir()
    if folder is not None:
        arguments += ["--config-dir", str(folder)]


def take_from_weights(arguments: list[str]) -> None:
    """A file of weights says which model it is of and for which metric, where the command does not."""
    given = given_in(arguments[1:])
    source = text_of(given.get("weights", "auto"))
    if source in ("auto", "none", "null", "") or "model" in given or not Path(source).expanduser().is_file():
        return
    from .trained import words_for

    known = [word for word in words_for(source) if word.partition("=")[0] not in given]
    for word in known:
        group, _, name = word.partition("=")
        check_choice(group, name)
    arguments += known


SEVERAL = ("anchor", "logger", "experiment", "callbacks")  # groups of which more than one file is taken
NOTHING = {"anchor": "anchor=[]", "logger": "logger=[]", "scheduler": "~scheduler", "experiment": "experiment=[]"}  # for null


def check_overrides(arguments: list[str]) -> list[str]:
    """Choices of groups, before anything is composed; sweeps such as model=a,b are checked one by one. Returns the arguments.

    Hydra takes no null for a group: of those that may be left out, it becomes what leaves them out.
    """
    known = groups()
    checked = []
    for argument in arguments:
        group, is_given, value = argument.partition("=")
        if not is_given or group not in known or "(" in value:
            checked.append(argument)
            continue
        if value == "null" and group in NOTHING:
            checked.append(NOTHING[group])
            continue
        if value.startswith("[") and group not in SEVERAL and (conf_dir() / group).is_dir():
            raise UserError(f"{argument}: takes one, such as {group}={choices(group)[0]}; -m {group}=a,b goes through several")
        for choice in value.strip("[]").split(",") if value != "[]" else ():
            if choice.strip("'\" ") not in choices(group):
                raise unknown(group, choice, choices(group))
        checked.append(argument)
    return checked


if __name__ == "__main__":
    main()
