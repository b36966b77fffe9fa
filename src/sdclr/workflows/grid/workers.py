"""Several workers on one machine: started, monitored, replaced if one dies, stopped together.

Each is a process that runs many cells, so that torch and CUDA start once per worker. They coordinate only through
files, so that more of them, from another start of the same command or on another machine with the same folders, can
join.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdclr.addresses import all_secrets
from sdclr.errors import Preempted, RunFolderError
from sdclr.processes.signals import stop_on_signal
from sdclr.safe_text import one_line, shown
from sdclr.storage.durable_files import make_folder
from sdclr.workflows.grid.cells import GridCells
from sdclr.workflows.matrix import Cell

POLL_SECONDS = 0.2
PATIENCE_SECONDS = 120.0
"""How long a worker may take, after a stop request, for its step and its checkpoint."""
LONGEST_REASON = 300


class Watcher:
    """Receives the events of the cells."""

    def done(self, cell: Cell, seconds: float) -> None: ...

    def failed(self, cell: Cell, reason: str) -> None: ...

    def progress(self, worker: int, event: Mapping[str, Any]) -> None: ...

    def warning(self, text: str) -> None: ...


@dataclass
class _Worker:
    number: int
    process: subprocess.Popen[str]
    log: Path
    cell: Cell | None = None
    """The cell it works on."""
    ended: bool = False
    reader: threading.Thread | None = field(default=None)


def run_workers(
    cells: GridCells,
    number: int,
    watcher: Watcher,
    *,
    values: Mapping[str, Any],
    use: Sequence[str] = (),
    download: bool = False,
    detailed: bool = False,
) -> None:
    """Run ``number`` workers until no cell is left that they may do.

    ``values``: settings that depend on the machine, as for :func:`read_grid`. ``detailed``: whether the watcher
    receives every task's progress. If a worker dies, a failure of its cell is recorded and another worker replaces it.
    Raises Preempted after a signal, when all of them have stopped.
    """
    job = {
        "text": cells.grid.text,
        "name": cells.grid.name,
        "values": dict(values),
        "out": str(cells.out),
        "records": str(cells.records.folder),
        "only": list(cells.only),
        "sitting": cells.sitting,
        "use": list(use),
        "download": download,
        "detailed": detailed,
        "threads": threads_each(number),
        "secrets": all_secrets(),
    }
    _Crew(cells, watcher, job).run(number)


def threads_each(number: int) -> int:
    """CPU threads of each of ``number`` workers: an equal share of the cores, at least 1.

    OMP_NUM_THREADS overrides this if it is set.
    """
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    cores = os.cpu_count() or 1 if affinity is None else len(affinity(0))
    return max(1, cores // number)


class _Crew:
    def __init__(self, cells: GridCells, watcher: Watcher, job: Mapping[str, Any]) -> None:
        self.cells, self.watcher, self.job = cells, watcher, job
        self.by_name = {cell.run.folder.name: cell for cell in cells.cells}
        self.events: queue.Queue[tuple[_Worker, dict[str, Any] | None]] = queue.Queue()
        self.workers: list[_Worker] = []
        self.stopping = False

    def run(self, number: int) -> None:
        logs = self.cells.out / "workers"
        make_folder(logs)
        try:
            with stop_on_signal() as stop:
                stop.awaited = True
                for one in range(1, number + 1):
                    self._start(one, logs)
                while any(not worker.ended for worker in self.workers):
                    if stop.signal_name is not None and not self.stopping:
                        self._ask_to_stop()
                    self._handle_next()
            if stop.signal_name is not None:
                raise Preempted(
                    f"stopped by {stop.signal_name}; every run is saved. The same command continues from here."
                )
        finally:
            self._end_all()
        self._require_alive()

    def _start(self, number: int, logs: Path) -> None:
        log = logs / f"worker-{number}.log"
        threads = str(self.job["threads"])
        environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), threads)
        with log.open("w", encoding="utf-8") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "sdclr.workflows.grid.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
                env=environment,
                start_new_session=True,  # Ctrl-C only goes to the parent process
            )
        worker = _Worker(number, process, log)
        self.workers.append(worker)
        worker.reader = threading.Thread(target=self._listen, args=(worker,), daemon=True)
        worker.reader.start()
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # already dead, which is reported when its output ends
            process.stdin.write(json.dumps(self.job) + "\n")
            process.stdin.flush()

    def _listen(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        for line in worker.process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # truncated by the end of its process
            self.events.put((worker, event))
        worker.process.wait()
        self.events.put((worker, None))

    def _handle_next(self) -> None:
        try:
            worker, event = self.events.get(timeout=POLL_SECONDS)
        except queue.Empty:
            return
        if event is None:
            self._ended(worker)
        else:
            self._happened(worker, event)

    def _happened(self, worker: _Worker, event: dict[str, Any]) -> None:
        kind, cell = event["event"], self.by_name.get(event.get("cell", ""))
        if kind == "progress":
            self.watcher.progress(worker.number, event)
        elif kind == "warning":
            self.watcher.warning(event["text"])
        elif cell is None:
            return
        elif kind == "started":
            worker.cell = cell
        else:
            worker.cell = None
            if kind == "done":
                self.watcher.done(cell, float(event["seconds"]))
            elif kind == "failed":
                self.watcher.failed(cell, event["reason"])

    def _ended(self, worker: _Worker) -> None:
        worker.ended = True
        code, cell = worker.process.returncode, worker.cell
        if code == 0 or self.stopping:
            return
        reason = f"worker {worker.number} died: {_why(code, worker.log)}"
        if cell is None:
            self.watcher.warning(f"{reason}.")
            return
        self.cells.failures.record(cell, "WorkerDied", reason, _tail(worker.log))
        self.watcher.failed(cell, reason)
        # its cell is not retried in this session, so that the number of deaths is bounded
        self._start(worker.number, worker.log.parent)

    def _require_alive(self) -> None:
        """Raise RunFolderError if no worker could even start."""
        died = [worker for worker in self.workers if worker.process.returncode]
        if len(died) == len(self.workers) and all(worker.cell is None for worker in died):
            words = _why(died[0].process.returncode, died[0].log)
            raise RunFolderError(f"no worker could start: {words}. See {shown(died[0].log)}.")

    def _ask_to_stop(self) -> None:
        self.stopping = True
        for worker in self.workers:
            if worker.process.poll() is None:
                with contextlib.suppress(OSError):
                    worker.process.send_signal(signal.SIGTERM)

    def _end_all(self) -> None:
        """End all workers, whatever happened."""
        self.stopping = True
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.kill()
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                worker.process.wait(timeout=PATIENCE_SECONDS)
            if worker.reader is not None:
                worker.reader.join(timeout=PATIENCE_SECONDS)
            for stream in (worker.process.stdin, worker.process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()


def _why(code: int | None, log: Path) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else -code
        more = " (out of memory?)" if name == "SIGKILL" else ""
        return f"killed by {name}{more}"
    last = _tail(log).strip().rpartition("\n")[2]
    return f"exit code {code}" + (f", {one_line(last)[:LONGEST_REASON]}" if last else "")


def _tail(log: Path) -> str:
    with contextlib.suppress(OSError):
        return log.read_text(encoding="utf-8", errors="replace")[-2000:]
    return ""
