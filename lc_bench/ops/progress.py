"""How far a long work is: a bar in a terminal, and where nobody sees one (a log, a pipe) a line every so often."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

EVERY = 30.0  # seconds between lines


class Pace:
    """When the next line is due."""

    def __init__(self, every: float | None = None) -> None:
        self.every = EVERY if every is None else every
        self.last = time.monotonic()

    def is_due(self) -> bool:
        """Whether so much time has passed; if so, it counts anew."""
        now = time.monotonic()
        if now - self.last < self.every:
            return False
        self.last = now
        return True


def rate_and_rest(done: float, seconds: float, rest: float, unit: str) -> str:
    """`3.4 steps/s, 553 s left`, of what was done in so many seconds and what is left to do."""
    if done <= 0 or seconds <= 0:
        return f"rate of {unit} not known yet"
    return f"{done / seconds:.3g} {unit}/s, {rest * seconds / done:,.0f} s left"


class Bars(Protocol):
    """What is used of rich's Progress."""

    def add_task(self, description: str, *, total: float | None, completed: int = 0) -> int: ...
    def advance(self, task: int, advance: float = 1) -> None: ...
    def update(self, task: int, *, completed: float | None = None, description: str | None = None) -> None: ...


class Lines:
    """The same as lines on stderr, none before EVERY seconds have passed."""

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.tasks: list[_Task] = []
        self.pace = Pace()

    def add_task(self, description: str, *, total: float | None, completed: int = 0) -> int:
        self.tasks.append(_Task(description, total, completed))
        return len(self.tasks) - 1

    def advance(self, task: int, advance: float = 1) -> None:
        self.update(task, completed=self.tasks[task].completed + advance)

    def update(self, task: int, *, completed: float | None = None, description: str | None = None) -> None:
        one = self.tasks[task]
        one.completed = one.completed if completed is None else completed
        one.description = one.description if description is None else description
        if self.pace.is_due():
            print(one.line(self.unit), file=sys.stderr, flush=True)


class _Task:
    def __init__(self, description: str, total: float | None, completed: float) -> None:
        self.description, self.total = description, total
        self.start, self.completed = completed, completed
        self.began = time.monotonic()

    def line(self, unit: str) -> str:
        done, seconds = self.completed - self.start, time.monotonic() - self.began
        if self.total is None:
            return f"{self.description}: {self.completed:,.0f} {unit}"
        rest = rate_and_rest(done, seconds, self.total - self.completed, unit)
        return f"{self.description}: {self.completed:,.0f} of {self.total:,.0f} {unit}, {rest}"


@contextmanager
def progress(*columns: str | ProgressColumn, unit: str, show: bool = True) -> Iterator[Bars]:
    """Bars with rich's columns on stderr, which leave nothing behind; lines where stderr is no terminal. show=False: nothing at all."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if show and not console.is_terminal and not console.is_jupyter:
        yield Lines(unit)
        return
    with Progress(*columns, console=console, transient=True, disable=not show) as bars:
        yield bars  # type: ignore[misc]
