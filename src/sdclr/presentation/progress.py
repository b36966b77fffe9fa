"""How far a long task is: live bars on a terminal, a line now and then in a log file.

Both show what is done, the rate and the time left. Nothing is written to standard output, which belongs to results.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import rich.progress
from rich.console import Console
from rich.table import Column
from rich.text import Text

LINE_INTERVAL_SECONDS = 10.0
"""At most one plain line for each task in this time, besides its first and last."""


@dataclass
class Task:
    """One counted piece of work, owned by a Progress."""

    description: str
    total: int
    unit: str
    started_seconds: float
    initial: int
    done: int
    note: str = ""
    finished: bool = False
    finished_seconds: float = 0.0
    printed_seconds: float = 0.0

    def summary(self, now: float) -> str:
        """ "300/1200 steps, 25 %, 29.8 steps/s, 0:00:30 left, loss 4.91"; the rate counts this sitting only."""
        elapsed, new = now - self.started_seconds, self.done - self.initial
        parts = [f"{self.done}/{self.total} {self.unit}"]
        if self.total > 0:
            parts.append(f"{100 * self.done // self.total} %")
        if new > 0 and elapsed > 0:
            rate = new / elapsed
            parts.append(f"{rate:.3g} {self.unit}/s" if rate < 100 else f"{rate:.0f} {self.unit}/s")
            if not self.finished:
                parts.append(f"{_clock(max(0, self.total - self.done) / rate)} left")
        if self.finished:
            parts.append(f"took {_clock(elapsed)}")
        return ", ".join([*parts, self.note] if self.note else parts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


class _StatusColumn(rich.progress.ProgressColumn):
    """The task's summary, the same words as in a log file."""

    max_refresh = 0.25

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))
        self._now = now

    def render(self, task: rich.progress.Task) -> Text:
        ours: Task = task.fields["ours"]
        return Text(ours.summary(ours.finished_seconds if ours.finished else self._now()))


@dataclass
class Progress:
    """Shows tasks while they run; use it as a context manager.

        with Progress() as progress:
            task = progress.add("SimCLR, split 1", total=1200, unit="steps")
            progress.advance(task, note="loss 4.91")

    ``console`` defaults to standard error; bars appear where it is a terminal. ``now`` is the time source [seconds].
    """

    console: Console = field(default_factory=lambda: Console(stderr=True))
    now: Callable[[], float] = time.monotonic
    _tasks: list[Task] = field(default_factory=list, init=False)
    _bars: rich.progress.Progress | None = field(default=None, init=False)

