"""The progress of long commands, on stderr so that it never mixes with their output: a bar, or one line per minute."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from types import TracebackType

#: Seconds between two lines if there is no terminal for a bar.
SECONDS_A_LINE = 60.0


class Progress(Protocol):
    """Counts finished work."""

    def __enter__(self) -> Progress: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def add_task(self, description: str, *, total: float | None, completed: float = 0) -> int:
        """Start counting, up to ``total`` if it is known; returns the number of the task."""

    def update(
        self, task: int, *, advance: float = 0, completed: float | None = None, total: float | None = None
    ) -> None:
        """Advance by ``advance``, or to ``completed``."""


def progress_bar(unit: str) -> Progress:
    """A bar that counts ``unit`` on a terminal, and one line per minute elsewhere; bytes are shown as sizes."""
    if not sys.stderr.isatty():
        return ProgressLog(unit)
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as RichProgress

    class RateColumn(ProgressColumn):
        def render(self, task: Task) -> str:
            return f"{task.speed:,.0f} {unit}/s" if task.speed else ""

    counts = (MofNCompleteColumn(), TextColumn(unit), RateColumn())
    count = (DownloadColumn(), TransferSpeedColumn()) if unit == "bytes" else counts
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    bar = RichProgress(TextColumn("{task.description}"), BarColumn(), *count, *times, console=Console(file=sys.stderr))
    return cast("Progress", bar)  # its annotations allow no fractions of a unit


class ProgressLog:
    """Lines for a log file: one per minute, and none for what takes less."""

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.tasks: list[LoggedTask] = []

    def __enter__(self) -> ProgressLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def add_task(self, description: str, *, total: float | None, completed: float = 0) -> int:
        self.tasks.append(LoggedTask(description, total, completed, self.unit))
        return len(self.tasks) - 1

    def update(
        self, task: int, *, advance: float = 0, completed: float | None = None, total: float | None = None
    ) -> None:
        counted = self.tasks[task]
        counted.total = counted.total if total is None else total
        counted.done = counted.done + advance if completed is None else completed
        if (now := time.monotonic()) - counted.said >= SECONDS_A_LINE:
            counted.said = now
            print(counted.line(now), file=sys.stderr, flush=True)


class LoggedTask:
    """One task of a `ProgressLog`: what was done at its start, what is done now, and the time of its last line."""

    def __init__(self, description: str, total: float | None, done: float, unit: str) -> None:
        self.description, self.total, self.done, self.unit = description, total, done, unit
        self.at_start = done
        self.start = self.said = time.monotonic()

    def line(self, now: float) -> str:
        """How much of it is done, how fast, and how long the rest will take."""
        rate = (self.done - self.at_start) / (now - self.start)
        of = "" if self.total is None else f" of {self.total:,.0f}"
        line = f"{self.description}: {self.done:,.0f}{of} {self.unit}, {rate:,.0f} {self.unit}/s"
        if self.total is None or rate <= 0:
            return line
        return f"{line}, {duration((self.total - self.done) / rate)} left"


def duration(seconds: float) -> str:
    """Minutes, or hours and minutes, in words."""
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
