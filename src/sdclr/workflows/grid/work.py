"""One worker of a grid: claims a cell, trains, evaluates and records it, then takes the next one."""

from __future__ import annotations

import contextlib
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from sdclr.any_progress import AnyProgress
from sdclr.errors import DataError, Interrupted, MissingInputError, Preempted, SdclrError
from sdclr.processes.signals import stop_on_signal
from sdclr.workflows.grid.cells import GridCells
from sdclr.workflows.grid.records import record_of
from sdclr.workflows.matrix import Cell, complete, stopped_as_a_whole

Emit = Callable[[dict[str, Any]], None]
"""Receives events: ``{"event": "started" | "done" | "failed" | "released", "cell": folder name, ...}``."""


def work(cells: GridCells, emit: Emit, progress: AnyProgress, *, download: bool = False) -> None:
    """Work on cells until nothing is left that this worker may do.

    A cell that another worker holds is left to it, and one that fails is recorded and not retried in this session.
    Raises Preempted after a signal: the current cell resumes where it stopped at the next start.
    """
    with stopped_as_a_whole(), stop_on_signal():
        while _one_round(cells, emit, progress, download=download):
            pass  # another worker may have released cells meanwhile


def _one_round(cells: GridCells, emit: Emit, progress: AnyProgress, *, download: bool) -> bool:
    """Try every cell once; return whether any work was done."""
    active = False
    for cell in cells.wanted:
        if cells.is_done(cell) or cells.failures.has_now(cell):
            continue
        with cells.claim(cell) as ours:
            # checked again: another worker may have recorded a failure just before it released the cell
            if ours and not cells.failures.has_now(cell):
                active = True
                _do(cells, cell, emit, progress, download=download)
    return active


def _do(cells: GridCells, cell: Cell, emit: Emit, progress: AnyProgress, *, download: bool) -> None:
    name, began = cell.run.folder.name, time.monotonic()
    emit({"event": "started", "cell": name})
    try:
        _complete_and_record(cells, cell, progress, download=download)
    except (Preempted, Interrupted):
        emit({"event": "released", "cell": name})
        raise
    except Exception as error:  # any error: one run's error must not end the others
        detail = "" if isinstance(error, SdclrError) else traceback.format_exc()
        with contextlib.suppress(SdclrError, OSError):
            cells.failures.record(cell, type(error).__name__, str(error), detail)
        emit({"event": "failed", "cell": name, "reason": f"{type(error).__name__}: {error}"})
    else:
        with contextlib.suppress(OSError):
            cells.failures.forget(cell)
        emit({"event": "done", "cell": name, "seconds": time.monotonic() - began})


def _complete_and_record(
    cells: GridCells, cell: Cell, progress: AnyProgress, *, download: bool
) -> None:
    grid = cells.grid
    complete(
        cell,
        grid.protocol,
        grid.probes,
        progress,
        download=download,
        untested=grid.file.untested,
    )
    if missing := cell.missing_probes(grid.protocol, grid.probes):
        raise DataError(f"{cell.run.folder} was evaluated, and {', '.join(missing)} is missing.")
    mark, mining = cells.fingerprint(cell), _mining_signal(cell)
    cells.records.write(cell, mark, record_of(cell, mark, grid.protocol, grid.probes, mining))


def _mining_signal(cell: Cell) -> list[dict[str, Any]]:
    """The mining signal; empty, with a warning, if it cannot be computed: accuracies are recorded in any case."""
    # imports torch, which a plan does not need
    from sdclr.workflows.grid.mining_signal import mining_signal

    try:
        return mining_signal(cell)
    except (DataError, MissingInputError) as error:
        warnings.warn(f"{cell.title}: its mining signal is not recorded: {error}", stacklevel=2)
        return []
