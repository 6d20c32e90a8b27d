"""The command: compose a configuration, instantiate, run.

python -m lc_bench [run=bench|train|search|report|compress|decompress|inspect|models|data|check|export|script] [model=...] [key=value ...]
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from .config import choices, conf_dir, explain, groups, own_conf_dir
from .errors import UserError, unknown
from .ops import stopping
from .ops.notices import hide_known
from .runs import folders
from .runs.apart import end_with_parent, leave_cause
from .runs.arguments import in_grammar
from .runs.sweep import Plan, Planner, for_jobs_only, is_job, job


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
    from hydra.utils import get_method

    hide_known()
    for key, least in (("threads", 1), ("seed", 0)):
        value = cfg[key]
        if not (value is None and key == "threads") and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise UserError(f"{key}={value}: give a whole number from {least} on")
    if cfg.threads is not None:
        import torch

        torch.set_num_threads(cfg.threads)
    with folders.occupied(cfg):
        return get_method(cfg.run._target_)(cfg)


def main() -> None:
    """The exit code is 2 after a user's mistake or where a job of a sweep failed, 128 and the number of the signal that ended it."""
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
        check_overrides(sys.argv[1:])
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


def check_overrides(arguments: list[str]) -> None:
    """Wrong names of groups' choices, before anything is composed; sweeps such as model=a,b are checked one by one."""
    known = groups()
    for argument in arguments:
        if argument.startswith("-") or "=" not in argument:
            continue
        group, _, value = argument.partition("=")
        if group in known and value not in ("null", "", "[]") and "(" not in value:
            for choice in value.strip("[]").split(","):
                if choice.strip() not in choices(group):
                    raise unknown(group, choice, choices(group))


if __name__ == "__main__":
    main()
