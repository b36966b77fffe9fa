"""RUN/log.txt: a run's messages with their times, to read later; one file for all its sessions."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sdclr.any_progress import AnyProgress
from sdclr.errors import Interrupted, Preempted, SdclrError
from sdclr.processes.signals import StoppedEarly
from sdclr.run.files import LOG_FILE
from sdclr.safe_text import one_line
from sdclr.storage.durable_files import without_links


class LoggedProgress:
    """Forwards everything to another progress display and logs its messages.

    Until :meth:`written_to` names a folder, lines are kept in memory: nothing is written before a run begins. If the
    log cannot be written, the run continues after a single warning.
    """

    def __init__(self, show: AnyProgress) -> None:
        self._show = show
        self._waiting: list[str] = []
        self._file: Path | None = None
        self._titles: dict[int, str] = {}

    def add(self, description: str, total: int, unit: str = "steps", done: int = 0) -> int:
        task = self._show.add(description, total, unit, done)
        self._titles[task] = description
        self._log(f"{description}: {total} {unit}" + (f", {done} of them done" if done else ""))
        return task

    def advance(self, task: int, amount: int = 1, note: str | None = None) -> None:
        self._show.advance(task, amount, note)
        if note is not None:
            self._log(note)

    def finish(self, task: int, note: str | None = None) -> None:
        self._show.finish(task, note)
        self._log(f"{self._titles.get(task, 'task')}: finished" + (f", {note}" if note else ""))

    def print(self, text: str) -> None:
        self._show.print(text)
        self._log(text)

    def announce(self, text: str) -> None:
        self._show.announce(text)  # in a signal handler: nothing is written to disk there

    @contextlib.contextmanager
    def written_to(self, folder: Path) -> Iterator[None]:
        """Write every line to LOG_FILE in ``folder`` at once, including an error that ends the block."""
        # also where a link on the way, or the current folder, leads elsewhere later
        self._file = Path(os.path.realpath(folder)) / LOG_FILE
        waiting, self._waiting = self._waiting, []
        self._append(waiting)
        try:
            yield
        except BaseException as error:
            self._log(_closing_line(error))
            raise
        finally:
            self._file = None

    @contextlib.contextmanager
    def logging_warnings(self) -> Iterator[None]:
        """Log warnings, too, including those before :meth:`written_to`."""
        before = warnings.showwarning

        def show(message: Warning | str, *rest: Any, **named: Any) -> None:
            self._log(f"warning: {message}")
            before(message, *rest, **named)

        warnings.showwarning = show
        try:
            yield
        finally:
            if warnings.showwarning is show:  # otherwise other code has replaced it meanwhile
                warnings.showwarning = before

    def _log(self, text: str) -> None:
        line = f"{datetime.now(UTC).strftime('%Y-%m-%d %H:%M:%S')} {one_line(text)}\n"
        if self._file is None:
            self._waiting.append(line)
        else:
            self._append([line])

    def _append(self, lines: list[str]) -> None:
        if self._file is None or not lines:
            return
        try:
            with open(
                self._file, "a", encoding="utf-8", errors="backslashreplace", opener=without_links
            ) as file:
                file.write("".join(lines))
        except OSError as error:
            refused, self._file = self._file, None
            warnings.warn(
                f"{refused} cannot be written ({error.strerror}); the run continues without it.",
                stacklevel=3,
            )


def _closing_line(error: BaseException) -> str:
    if isinstance(error, Preempted | Interrupted | StoppedEarly | KeyboardInterrupt):
        return f"stopped: {str(error).removeprefix('stopped ')}"
    kind = "error" if isinstance(error, SdclrError) else f"error, {type(error).__name__}"
    return f"{kind}: {error}"
