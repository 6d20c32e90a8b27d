"""Being asked to end: Ctrl-C, and the signals by which schedulers, containers and systems end a process.

All of them are one request, which a run takes in one of two ways. Mostly it is an exception, a KeyboardInterrupt, raised where
the process stands. A training, which may only end between two steps, says `be_gentle` and looks at `asked` itself.

One request may come as several signals: a terminal and a scheduler tell the whole group of processes, and the process that started
this one hands on what it was told. So what comes within BURST seconds of the one before counts as the same.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

log = logging.getLogger(__name__)

# SIGTERM: time limits, scancel, docker stop, shutdown. SIGUSR1, SIGUSR2: the warnings of SLURM (--signal), SGE and LSF before it.
# SIGHUP: the terminal or the connection to it was closed.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
BURST = 1.0  # seconds


class Interrupted(KeyboardInterrupt):
    """Raised in the main thread by any of SIGNALS."""


@dataclass
class _State:
    """Of this process."""

    asked: int = 0  # the first signal that came
    ended: int = 0  # the signal for which a run ended early
    last: float = -BURST  # when the latest came
    requests: int = 0  # bursts, while it is taken gently
    gentle: bool = False


_state = _State()


@contextmanager
def listening(take_over: bool = True) -> Iterator[None]:
    """Take SIGNALS in this process, and nothing has been asked yet; as it was before at the end.

    take_over: also those that another library listens to, which else keeps them. Outside of the main thread nothing is taken.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler)
    before = {one: signal.getsignal(one) for one in _heeded()}
    taken = [one for one in before if take_over or before[one] in usual]
    if taken:
        _state.__init__()
    for one in taken:
        signal.signal(one, _receive)
    try:
        yield
    finally:
        for one in taken:
            signal.signal(one, before[one] if before[one] is not None else signal.SIG_DFL)


@contextmanager
def handing_on(tell: Callable[[int], None]) -> Iterator[None]:
    """Within, a request is handed to other processes by `tell`, and this one, which waits for them, only notes it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def hand_on(number: int, frame: FrameType | None) -> None:
        _state.asked = _state.asked or number
        tell(number)

    before = {one: signal.signal(one, hand_on) for one in _heeded()}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler if handler is not None else signal.SIG_DFL)


def leave_to_parent(_: int = 0) -> None:
    """In a process that another one ends in its own way, such as a data loader's worker: signals to the whole group do not end it.

    It would be missing for the step in work. The number is that of the worker.
    """
    for one in SIGNALS:
        signal.signal(one, signal.SIG_IGN)


def _heeded() -> list[signal.Signals]:
    """SIGNALS, without a SIGHUP that `nohup` has this process ignore: such a run outlives its terminal."""
    deaf = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [one for one in SIGNALS if not (one is signal.SIGHUP and deaf)]


def _receive(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    same, _state.last = now - _state.last < BURST, now
    _state.asked = _state.asked or number
    if same and _state.requests:
        return
    _state.requests += 1
    if _state.gentle and _state.requests <= 2:
        if _state.requests == 2:
            log.info("ends after the step in work, with a checkpoint; asked once more it gives that step up")
        return
    raise Interrupted(signal.Signals(number).name)


def be_gentle(gentle: bool) -> None:
    """From now on the first two requests are only noted, and the third raises; False: each raises."""
    _state.gentle = gentle


def asked() -> int:
    """The number of the signal by which this process was asked to end; 0: it was not."""
    return _state.asked


def note_end(number: int) -> None:
    """Say that a run ended early because of signal `number`; 0: because of another process that was asked."""
    _state.ended = number or _state.asked or signal.SIGINT


def ended() -> int:
    """The number of the signal for which a run ended early; 0: none did."""
    return _state.ended


def exit_code(number: int) -> int:
    """As shells count: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + number


def is_interruption(code: int) -> bool:
    """Whether a process with this exit code (negative: killed by that signal) was asked to end, by whichever of SIGNALS."""
    return code in {exit_code(one) for one in SIGNALS} | {-one for one in SIGNALS}


def signal_of(code: int) -> int:
    """The signal behind such an exit code."""
    return abs(code) % 128
