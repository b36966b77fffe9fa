"""The interface of a progress display, a display that shows nothing, and the open display."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Protocol, Self

from sdclr.processes.environment import is_first

PATIENCE_SECONDS = 2.0
"""How long work that is usually short runs before it is displayed."""


class AnyProgress(Protocol):
    """The interface that a job needs of a progress display."""

    def add(self, description: str, total: int, unit: str = "steps", done: int = 0) -> int: ...

    def advance(self, task: int, amount: int = 1, note: str | None = None) -> None: ...

    def finish(self, task: int, note: str | None = None) -> None: ...

    def print(self, text: str) -> None: ...

    def announce(self, text: str) -> None: ...


class NoProgress:
    """The interface of Progress, silent: for use as a library."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def add(self, description: str, total: int, unit: str = "steps", done: int = 0) -> int:
        return 0

    def advance(self, task: int, amount: int = 1, note: str | None = None) -> None:
        pass

    def finish(self, task: int, note: str | None = None) -> None:
        pass

    def print(self, text: str) -> None:
        pass

    def announce(self, text: str) -> None:
        pass


_OPEN: ContextVar[AnyProgress | None] = ContextVar("progress", default=None)


def opened(show: AnyProgress) -> Token[AnyProgress | None]:
    """Make ``show`` the open display, until :func:`closed` receives the returned token."""
    return _OPEN.set(show)


def closed(before: Token[AnyProgress | None]) -> None:
    _OPEN.reset(before)


def open_progress() -> AnyProgress:
    """The open display; one that shows nothing if there is none, and in all processes but the first."""
    show = _OPEN.get()
    return show if show is not None and is_first() else NoProgress()


class LateTask:
    """Counted work of any number of threads, shown once it has taken ``PATIENCE_SECONDS``, done or not."""

    def __init__(
        self, show: AnyProgress, description: str, total: int, unit: str, done: int
    ) -> None:
        self._show = show
        self._facts = description, total, unit, done
        self._new = 0
        """Counted, but not yet shown."""
        self._task: int | None = None
        self._is_over = False
        self._lock = threading.Lock()
        self._timer = threading.Timer(PATIENCE_SECONDS, self.begin)
        self._timer.daemon = True
        self._timer.start()

    def begin(self) -> None:
        """Show it from here on."""
        with self._lock:
            if self._task is None and not self._is_over:
                description, total, unit, done = self._facts
                # units counted before it is shown are not part of the rate
                self._task = self._show.add(description, total, unit, done + self._new)
                self._new = 0

    def advance(self, amount: int = 1) -> None:
        """Count ``amount`` more units."""
        with self._lock:
            self._new += amount
            self._show_new()

    def _show_new(self) -> None:
        if self._task is not None and self._new:
            self._show.advance(self._task, self._new)
            self._new = 0

    def end(self, *, finished: bool) -> None:
        """End the work; after an error, the task is left to the display."""
        self._timer.cancel()
        with self._lock:
            self._is_over = True
            if finished and self._task is not None:
                self._show.finish(self._task)


@contextmanager
def late_task(description: str, total: int, unit: str, done: int = 0) -> Iterator[LateTask]:
    """A task on the open display, which is shown if it takes long."""
    task, finished = LateTask(open_progress(), description, total, unit, done), False
    if PATIENCE_SECONDS <= 0:
        task.begin()
    try:
        yield task
        finished = True
    finally:
        task.end(finished=finished)
