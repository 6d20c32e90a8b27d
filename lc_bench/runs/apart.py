"""A run in a process of its own: its crash, its memory and its threads are its own, and how it ended is one line.

The process is told a folder (LC_BENCH_JOB), where it leaves the cause of its failure, and ends when its parent is gone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import UserError
from ..ops import stopping

FAILURE = "failure.txt"  # the cause in one line; after a crash its traceback
PATIENCE = 60  # seconds that an interrupted run has to write what it knows


class Apart:
    """`python -m lc_bench ARGUMENTS`, at work. log: takes what it prints; None: the terminal does."""

    def __init__(
        self, arguments: Sequence[str], folder: Path, log: Path | None, keep_open: Sequence[int] = (), threads: int | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.log = folder, log
        (folder / FAILURE).unlink(missing_ok=True)
        environment = {"PYTHONFAULTHANDLER": "1", **os.environ, "LC_BENCH_JOB": str(folder.resolve())}
        for name in ("LC_BENCH_SWEEP", "SLURM_STEP_ID"):  # it is neither a launcher's worker nor a task of srun
            environment.pop(name, None)
        if threads is not None:
            environment["OMP_NUM_THREADS"] = str(threads)
        out = open(log, "ab") if log else None  # noqa: SIM115 - the process keeps it
        try:
            # A session of its own: what it started (ranks, loaders) can be ended with it, and Ctrl-C comes from here, once.
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lc_bench", *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT if out else None,
                start_new_session=True,
                pass_fds=keep_open,
            )
        finally:
            if out:
                out.close()

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def wait(self, stop: Callable[[], bool]) -> bool:
        """Wait for its end; True if it was interrupted on the way, by Ctrl-C or because `stop` said so."""
        try:
            while not self.ended:
                if stop():
                    self.interrupt()
                    return True
                time.sleep(0.1)
        except KeyboardInterrupt:
            self.interrupt()
            return True
        return False

    def interrupt(self) -> None:
        """As Ctrl-C does; what does not end within PATIENCE is killed."""
        self.interrupt_all([self])

    @staticmethod
    def interrupt_all(several: Sequence[Apart]) -> None:
        """All at once, so that together they take no longer than one."""
        for one in several:
            one._send(signal.SIGINT, to_group=False)
        patience = time.monotonic() + PATIENCE
        for one in several:
            try:
                one.process.wait(max(0.0, patience - time.monotonic()))
            except subprocess.TimeoutExpired:
                one.kill()

    def kill(self) -> None:
        self._send(signal.SIGKILL, to_group=True)
        self.process.wait()

    def _send(self, what: signal.Signals, to_group: bool) -> None:
        if not self.ended:
            (os.killpg if to_group else os.kill)(self.process.pid, what)

    @property
    def interrupted(self) -> bool:
        """Whether it was asked to end, by this process or by anybody, and did so before its end."""
        return stopping.is_interruption(self.process.returncode)

    @property
    def cause(self) -> str | None:
        """Why it failed, in one line; None if it did not."""
        code = self.process.returncode
        if code == 0:
            return None
        told = self.folder / FAILURE
        if told.is_file():
            return told.read_text().partition("\n")[0]
        where = f"; see {self.log}" if self.log else ""
        if code < 0:
            advice = " (out of memory?)" if code == -signal.SIGKILL else ""
            return f"killed by {signal.Signals(-code).name}{advice}{where}"
        return f"ended with exit code {code}{where}"


def threads_beside(count: int) -> int | None:
    """Threads for each of `count` processes that share this machine's cores; None where the user has said how many."""
    if "OMP_NUM_THREADS" in os.environ:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(1, count))


def leave_cause(error: BaseException) -> None:
    """In the process apart: say to the one that started it why this one failed. The first of several ranks is the cause."""
    folder = os.environ.get("LC_BENCH_JOB")
    if not folder:
        return
    if isinstance(error, UserError):
        text = " ".join(str(error).split())
    else:
        last = " ".join("".join(traceback.format_exception_only(error)).split())
        text = f"{last}\n\n{''.join(traceback.format_exception(error))}"
    try:
        with open(Path(folder) / FAILURE, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return


def end_with_parent() -> None:
    """In the process apart: end as by Ctrl-C when the process that started it is gone, however it went."""
    if not os.environ.get("LC_BENCH_JOB"):
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(PATIENCE)
        os._exit(130)

    threading.Thread(target=watch, daemon=True).start()
