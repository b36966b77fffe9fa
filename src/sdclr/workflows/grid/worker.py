"""The process of one worker: reads its job from standard input, writes events to standard output.

    python -m sdclr.workflows.grid.worker

The first line of standard input is the job as JSON; when standard input ends, the parent process has exited, and the
worker stops as after a signal. Standard output has one JSON object per line.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

from sdclr.addresses import remember_secrets
from sdclr.any_progress import NoProgress
from sdclr.compute.process_state import keep_freed_memory
from sdclr.errors import Interrupted, Preempted
from sdclr.workflows.grid.cells import GridCells
from sdclr.workflows.grid.file import parse_grid
from sdclr.workflows.grid.records import Records
from sdclr.workflows.grid.work import work

INTERVAL_SECONDS = 0.5
"""Interval between two progress events of a task."""


class EventProgress(NoProgress):
    """Progress as events, which the parent process shows."""

    def __init__(self, emit: Any, *, detailed: bool) -> None:
        self._emit, self._detailed = emit, detailed
        self._tasks: list[dict[str, Any]] = []
        self._emitted_at: list[float] = []

    def add(self, description: str, total: int, unit: str = "steps", done: int = 0) -> int:
        task = {"task": len(self._tasks), "description": description, "total": total}
        self._tasks.append(task | {"unit": unit, "done": done, "note": None, "over": False})
        self._emitted_at.append(-INTERVAL_SECONDS)
        self._emit_progress(len(self._tasks) - 1)
        return len(self._tasks) - 1

    def advance(self, task: int, amount: int = 1, note: str | None = None) -> None:
        ours = self._tasks[task]
        ours["done"] += amount
        ours["note"] = ours["note"] if note is None else note
        if time.monotonic() - self._emitted_at[task] >= INTERVAL_SECONDS:
            self._emit_progress(task)

    def finish(self, task: int, note: str | None = None) -> None:
        ours = self._tasks[task]
        ours["over"], ours["note"] = True, ours["note"] if note is None else note
        self._emit_progress(task)

    def _emit_progress(self, task: int) -> None:
        self._emitted_at[task] = time.monotonic()
        if self._detailed:
            self._emit({"event": "progress", **self._tasks[task]})


def main() -> int:
    """Run the worker; return the exit code."""
    # a private copy of standard output, which nothing else in this process can write to
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    lock = threading.Lock()

    def emit(event: dict[str, Any]) -> None:
        with lock:
            events.write(json.dumps(event) + "\n")
            events.flush()

    def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
        emit({"event": "warning", "text": str(message)})

    warnings.showwarning = show_warning
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_stop_when_alone, daemon=True).start()
    keep_freed_memory()
    _share_threads(int(job["threads"]))
    remember_secrets(job["secrets"])
    if job["use"]:
        from sdclr.workflows.own_entries import use

        use(job["use"])
    grid = parse_grid(job["text"], job["name"], job["values"])
    records = Records(Path(job["records"]))
    cells = GridCells(grid, Path(job["out"]), records, job["only"], job["sitting"])
    cells.read_records()
    try:
        progress = EventProgress(emit, detailed=bool(job["detailed"]))
        work(cells, emit, progress, download=bool(job["download"]))
    except (Preempted, Interrupted) as stopped:
        return stopped.exit_code
    except BrokenPipeError:  # the parent process has exited
        return Preempted.exit_code
    return 0


def _stop_when_alone() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def _share_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


if __name__ == "__main__":
    sys.exit(main())
