"""The progress of long tasks: live bars on a terminal, occasional lines in a log file.

Both show what is done, the rate and the time left. Nothing is written to standard output, which is for results.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from contextvars import Token
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Self, cast

import rich.progress
from rich.console import Console
from rich.table import Column
from rich.text import Text

from sdclr.any_progress import AnyProgress as AnyProgress  # re-exported
from sdclr.any_progress import NoProgress as NoProgress
from sdclr.any_progress import closed, opened
from sdclr.output_streams import EnduringStream
from sdclr.safe_text import clock, one_line, shown

LINE_INTERVAL_SECONDS = 10.0
"""At most one plain line per task in this time, besides its first and last."""


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
    bar: rich.progress.TaskID | None = None
    """On a terminal, while the task runs."""
    finished: bool = False
    finished_seconds: float = 0.0
    printed_seconds: float = 0.0

    def summary(self, now: float) -> str:
        """For example "300/1200 steps, 25 %, loss 4.91, 0:00:30 left, 29.8 steps/s"; the rate is that of this session.

        The most important parts come first: a narrow terminal cuts the end.
        """
        elapsed, new = now - self.started_seconds, self.done - self.initial
        parts = [f"{self.done}/{self.total} {self.unit}"]
        if self.total > 0:
            parts.append(f"{100 * self.done // self.total} %")
        if self.note:
            parts.append(self.note)
        if self.finished:
            parts.append(f"took {clock(elapsed)}")
        if new > 0 and elapsed > 0:
            rate = new / elapsed
            if not self.finished:
                parts.append(f"{clock(max(0, self.total - self.done) / rate)} left")
            parts.append(f"{rate:.3g} {self.unit}/s" if rate < 100 else f"{rate:.0f} {self.unit}/s")
        return ", ".join(parts)


class _StatusColumn(rich.progress.ProgressColumn):
    """The task's summary, with the same text as in a log file."""

    max_refresh = 0.25

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))
        self._now = now

    def render(self, task: rich.progress.Task) -> Text:
        ours: Task = task.fields["ours"]
        return Text(ours.summary(self._now()))


class Progress:
    """Shows tasks while they run; a context manager.

        with Progress() as progress:
            task = progress.add("SimCLR, split 1", total=1200, unit="steps")
            progress.advance(task, note="loss 4.91")

    Bars if ``console`` (standard error by default) is a terminal, plain lines otherwise. A bar is shown while its
    task runs; then one line replaces it, so that later results are printed on a terminal without moving bars.
    ``now`` is the time source, in seconds. If the output cannot be written (a closed pipe, a full log disk), it goes
    quiet, and the work continues.
    """

    def __init__(
        self, console: Console | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console or Console(file=cast(IO[str], EnduringStream(sys.stderr)))
        self._quiet = False
        self._now = now
        self._tasks: list[Task] = []
        self._before: list[Token[AnyProgress | None]] = []
        self._bars: rich.progress.Progress | None = None
        if self._console.is_terminal:
            self._bars = rich.progress.Progress(
                rich.progress.TextColumn(
                    "{task.description}",
                    markup=False,
                    table_column=Column(no_wrap=True, overflow="ellipsis"),
                ),
                rich.progress.BarColumn(bar_width=min(30, max(8, self._console.width // 2 - 35))),
                _StatusColumn(now),
                console=self._console,
                refresh_per_second=4,
                redirect_stdout=sys.stdout.isatty(),  # results piped elsewhere must stay on standard output
                expand=True,
                transient=True,  # the last line of a task is printed above, once
            )

    def __enter__(self) -> Self:
        self._before.append(opened(self))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        closed(self._before.pop())
        for index, task in enumerate(self._tasks):
            if not task.finished:
                self._end(index, "finished" if task.done >= task.total else "stopped")

    def add(self, description: str, total: int, unit: str = "steps", done: int = 0) -> int:
        """Start a task of ``total`` units, ``done`` of which an earlier session has finished. Returns its handle."""
        now, description = self._now(), shown(description)
        task = Task(description, total, unit, now, initial=done, done=done, printed_seconds=now)
        self._tasks.append(task)
        if self._bars:
            task.bar = self._bars.add_task(description, total=total, completed=done, ours=task)
            self._show_bars()
        else:
            self._line(task, task.summary(now))
        return len(self._tasks) - 1

    def advance(self, task: int, amount: int = 1, note: str | None = None) -> None:
        """Count ``amount`` more units; ``note`` (loss, learning rate, ...) is shown until the next one."""
        ours = self._tasks[task]
        ours.done += amount
        if note is not None:
            ours.note = note
        if self._bars and ours.bar is not None:
            self._bars.update(ours.bar, completed=ours.done)
        elif (
            not self._bars
            and (now := self._now()) - ours.printed_seconds >= LINE_INTERVAL_SECONDS
            and ours.done < ours.total
        ):
            ours.printed_seconds = now
            self._line(ours, ours.summary(now))

    def finish(self, task: int, note: str | None = None) -> None:
        """End the task: the units counted so far are all there were. Its last line remains."""
        ours = self._tasks[task]
        if note is not None:
            ours.note = note
        if not ours.finished and ours.done < ours.total:
            ours.total = ours.done
        self._end(task, "finished")

    def print(self, text: str) -> None:
        """Print a line of plain text above the bars."""
        if self._quiet:
            return
        try:
            self._console.print(Text(one_line(text)), soft_wrap=True)
        except (OSError, ValueError):  # unreadable output is no reason to end the work
            self._quiet = True

    def announce(self, text: str) -> None:
        """Write a line from a signal handler, whatever the process is doing.

        It takes no lock and bypasses every buffer, straight to the file.
        """
        bars = sum(task.bar is not None for task in self._tasks)
        # below the bars, followed by as many empty lines as they take when they are redrawn
        line = f"\r\x1b[2K{one_line(text)}" + "\n" * bars if bars else f"{one_line(text)}\n"
        with contextlib.suppress(OSError, ValueError):
            os.write(self._console.file.fileno(), line.encode(errors="replace"))

    def _end(self, index: int, word: str) -> None:
        task = self._tasks[index]
        if task.finished:
            return
        task.finished, task.finished_seconds = True, self._now()
        if self._bars and task.bar is not None:
            self._bars.remove_task(task.bar)
            task.bar = None
            if all(one.bar is None for one in self._tasks):
                self._hide_bars()
        self._line(task, f"{word}, {task.summary(task.finished_seconds)}")

    def _show_bars(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self._bars:
                self._bars.start()

    def _hide_bars(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self._bars:
                self._bars.stop()

    def _line(self, task: Task, text: str) -> None:
        self.print(f"{task.description}: {text}")
