"""Commands in processes of their own that need not load torch and Lightning, for 5 to 9 seconds each.

A fork of the test's process has both already. It lacks nothing that the tests of sweeps, searches
and signals look at: a process number, an exit code, streams, a session and memory of its own. One
test of each kind starts a real interpreter all the same.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import pytest
import torch

from lc_bench.ops import stopping

ROOT = Path(__file__).parent.parent
STEP = 0.01  # seconds between two looks at a process that is waited for


class Forked:
    """As much of subprocess.Popen as those take who start `python ... -m lc_bench ARGUMENTS`."""

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: int | None = None,
        stdout: IO | None = None,
        stderr: IO | int | None = None,
        start_new_session: bool = False,
        pass_fds: Sequence[int] = (),
    ) -> None:
        importlib.import_module("lightning.pytorch")  # once, for all forks to come
        arguments = list(command[list(command).index("lc_bench") + 1 :])
        self.args = command
        self.returncode: int | None = None
        # A signal in the middle of a fork would be an exception where nobody can catch it.
        signals = signal.pthread_sigmask(signal.SIG_BLOCK, stopping.SIGNALS)
        self.pid = os.fork()
        if self.pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, signals)
            return
        code = 1
        try:
            if start_new_session:
                os.setsid()
            if stdout is not None:
                os.dup2(stdout.fileno(), 1)
            if stderr is not None:
                os.dup2(1 if stderr == subprocess.STDOUT else stderr.fileno(), 2)  # type: ignore[union-attr]
            if cwd is not None:
                os.chdir(cwd)
            _forget(os.environ if env is None else env, pass_fds)
            code = _main(arguments)
        finally:
            os._exit(code)

    def poll(self) -> int | None:
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float = 600) -> int:
        wait_until(lambda: False, self, timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def _forget(environment: Mapping[str, str], keep_open: Sequence[int]) -> None:
    """Leave behind what this process has of the test's: streams, handlers of signals and logs,
    locks, and what Hydra knows.
    """
    from hydra.core.global_hydra import GlobalHydra

    for place in Path("/proc/self/fdinfo").iterdir():
        descriptor = int(place.name)
        with contextlib.suppress(OSError):  # the one that lists them
            if "lock:" in place.read_text() and descriptor not in keep_open:
                os.dup2(os.open(os.devnull, os.O_RDONLY), descriptor)
    environment = dict(environment)  # which may be this process's own
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    for number in (*stopping.SIGNALS, signal.SIGSEGV):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stopping.SIGNALS)
    logging.getLogger().handlers.clear()
    warnings.simplefilter("ignore")
    GlobalHydra.instance().clear()
    torch.set_num_threads(1)


def _main(arguments: list[str]) -> int:
    """The exit code of `python -m lc_bench ARGUMENTS`."""
    from lc_bench.__main__ import main

    sys.argv = ["lc_bench", *arguments]
    try:
        main()
        return 0
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
            return 1
        return ended.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def can_fork() -> bool:
    """Whether forks are as good as new processes here; a process that has used CUDA can't be forked."""
    return hasattr(os, "fork") and Path("/proc/self/fdinfo").is_dir() and not torch.cuda.is_initialized()


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of sweeps, trials of searches and ranks are forks too, of whatever process starts them."""
    if can_fork():
        names = ("DEVNULL", "STDOUT", "TimeoutExpired")
        known = {name: getattr(subprocess, name) for name in names}
        monkeypatch.setattr("lc_bench.runs.apart.subprocess", SimpleNamespace(Popen=Forked, **known))
        monkeypatch.setattr("lc_bench.runs.ranks.START", "fork")


def command(words: Sequence[str]) -> list[str]:
    """Return the command line of `python -m lc_bench WORDS`."""
    return [sys.executable, "-W", "ignore", "-m", "lc_bench", *words]


def start_command(words: Sequence[str], log: Path, folder: Path = ROOT) -> Forked | subprocess.Popen:
    """`python -m lc_bench WORDS` at work in a folder, in a session of its own; log takes what it prints."""
    begin = Forked if can_fork() else subprocess.Popen
    with open(log, "w") as out:
        return begin(command(words), cwd=folder, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)


def run_command(words: Sequence[str], log: Path, timeout: float = 400) -> tuple[int, str]:
    """The exit code of `python -m lc_bench WORDS` and what it printed."""
    code = start_command(words, log).wait(timeout)
    return code, log.read_text()


def wait_until(happens: Callable[[], bool], running: Forked | subprocess.Popen, patience: float = 240) -> None:
    """Wait until something happens, or the process has ended, but at most so many seconds."""
    until = time.monotonic() + patience
    while not happens() and running.poll() is None and time.monotonic() < until:
        time.sleep(STEP)
