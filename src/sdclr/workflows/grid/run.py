"""From a grid's file to its report: run what is missing, with one worker or several, and judge the records."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sdclr.addresses import redacted
from sdclr.any_progress import AnyProgress, NoProgress
from sdclr.config import absolute_place, user_path
from sdclr.errors import ConfigError, FailedRunsError, MissingInputError, RunFolderError
from sdclr.presentation.grid import GridReport
from sdclr.safe_text import clock, command, counted, one_line, shown
from sdclr.storage.durable_files import make_folder
from sdclr.workflows.grid.cells import STATES, GridCells, State, shared_keys
from sdclr.workflows.grid.file import read_grid
from sdclr.workflows.grid.records import Records, name_of
from sdclr.workflows.grid.report_files import require_report_places, write_grid_report
from sdclr.workflows.grid.workers import Watcher, run_workers
from sdclr.workflows.matrix import Cell
from sdclr.workflows.own_entries import use as use_entries

MOST_WORKERS = 1024


def open_grid(
    file: Path | str,
    out: Path | str | None = None,
    records: Path | str | None = None,
    *,
    data: str | None = None,
    splits_dir: str | None = None,
    device: str | None = None,
    only: Sequence[str] = (),
    use: Sequence[str] = (),
) -> tuple[GridCells, dict[str, Any]]:
    """The cells of a grid's file, and the settings that depend on the machine. Imports no torch.

    ``use``: the entries imported for it, for the command in its report.
    """
    given = {"data.path": data, "data.splits_dir": splits_dir}
    values: dict[str, Any] = {
        name: absolute_place(place) for name, place in given.items() if place is not None
    }
    if device is not None:
        values["device"] = device
    found = read_grid(file, values)
    place = out or found.file.out
    folder = user_path(str(place)) if place else Path("runs") / f"grid-{found.name}"
    kept = Records(user_path(str(records)) if records is not None else folder / "records")
    sitting = f"{time.time_ns()}-{os.getpid()}"
    places = {"out": out, "records": records, "data": data, "splits-dir": splits_dir}
    words = [
        word
        for name, value in {**places, "device": device}.items()
        if value
        for word in (f"--{name}", redacted(str(value)))  # a URL without its secrets
    ]
    words += [word for entry in use for word in ("--use", entry)]
    whole = command("sdclr", "grid", file, *words)
    cells = GridCells(found, folder, kept, only=only, sitting=sitting, command=whole)
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"{shown(folder)} is a file; choose another --out.")
    if kept.folder.exists() and not kept.folder.is_dir():
        raise RunFolderError(f"{shown(kept.folder)} is a file; choose another --records.")
    cells.read_records()
    return cells, values


def grid(
    file: Path | str,
    out: Path | str | None = None,
    *,
    records: Path | str | None = None,
    workers: int = 1,
    data: str | None = None,
    splits_dir: str | None = None,
    device: str | None = None,
    download: bool = False,
    use: Sequence[str] = (),
    progress: AnyProgress | None = None,
    console: Console | None = None,
) -> GridReport:
    """Run what is missing of the grid in ``file``, and report: OUT/grid.md, grid.csv, grid.json and grid.html.

    ``out``: folder of the runs (default: the file's, or runs/grid-NAME). ``records``: folder of the small files by
    which a cell counts as done (default: OUT/records). ``workers``: processes; with 1 the work is done in this process.
    ``data``, ``splits_dir``, ``device``: the settings data.path, data.splits_dir and device, for all arms. ``use``:
    your own methods, recipes and so on as "module:Name", which each of several worker processes imports.
    If killed at any point, the same call resumes. Raises ConfigError for a mistake in the file; FailedRunsError, after
    the report is written, if a run has failed; RunFolderError if other processes hold some.

    >>> import sdclr
    >>> text = "base: digits_sdclr\\nprobes: [knn]\\narms: {half: {settings: {method.prune_ratio: 0.5}}}\\n"
    >>> text += "overrides: {epochs: 1, views.size: 8, backbone.width: 4}\\n"
    >>> _ = Path("small.yaml").write_text(text)
    >>> report = sdclr.grid("small.yaml", "runs/small", console=Console(quiet=True))
    >>> report.num_done, [row.arm for row in report.rows]
    (1, ['half'])
    """
    use_entries(use)
    cells, values = open_grid(
        file, out, records, data=data, splits_dir=splits_dir, device=device, use=use
    )
    show = progress or NoProgress()
    carry_out_grid(cells, values, workers=workers, use=use, progress=show, download=download)
    report = write_grid_report(cells, console=console)
    require_all_done(cells)
    return report


def carry_out_grid(
    cells: GridCells,
    values: Mapping[str, Any],
    *,
    workers: int = 1,
    use: Sequence[str] = (),
    progress: AnyProgress,
    live: bool = False,
    download: bool = False,
) -> None:
    """Work on what is missing. ``live``: whether ``progress`` can show every task, or only prints lines."""
    require_workers(workers)
    cells.require_lists()
    require_report_places(cells)
    left = [cell for cell in cells.wanted if not cells.is_done(cell)]
    if not left:
        return
    # otherwise an unwritable folder of records would only be noticed after the first run
    for folder in (cells.out, cells.records.folder):
        make_folder(folder)
        if not os.access(folder, os.W_OK):
            raise RunFolderError(f"{shown(folder)} is not writable; choose another folder.")
    if left[0].config.data.name == "images":
        # imports torch, which a plan does not need
        from sdclr.workflows.grid.measurable import require_measurable

        require_measurable(cells, left[0])
    watcher = Shown(cells, progress, live=live)
    if workers == 1:
        from sdclr.workflows.grid.work import work

        by_name = {cell.run.folder.name: cell for cell in cells.cells}

        def emit(event: dict[str, Any]) -> None:
            cell = by_name[event["cell"]]
            if event["event"] == "done":
                watcher.done(cell, event["seconds"])
            elif event["event"] == "failed":
                watcher.failed(cell, event["reason"])

        work(cells, emit, progress if live else NoProgress(), download=download)
    else:
        run_workers(
            cells,
            min(workers, len(left)),
            watcher,
            values=values,
            use=use,
            download=download,
            detailed=live,
        )
    watcher.end()


def require_workers(number: int) -> None:
    """Raise ConfigError for an invalid number of processes."""
    if not 1 <= number <= MOST_WORKERS:
        raise ConfigError(f"--workers must be from 1 to {MOST_WORKERS}, got {number}.")


class Shown(Watcher):
    """Prints a line for every finished cell, with what is left; if ``live``, also shows each worker's progress."""

    def __init__(self, cells: GridCells, progress: AnyProgress, *, live: bool) -> None:
        self._progress, self._live = progress, live
        self._total = len(cells.wanted)
        self._done = sum(cells.is_done(cell) for cell in cells.wanted)
        self._new, self._failed, self._began = 0, 0, time.monotonic()
        self._tasks: dict[tuple[int, int], tuple[int, int]] = {}
        """(worker, its task) -> (our task, units counted so far)"""
        self._all: int | None = None
        if live:
            self._all = progress.add("grid", self._total, "runs", done=self._done)

    def done(self, cell: Cell, seconds: float) -> None:
        self._new += 1
        self._print(f"{cell.title}: done in {clock(seconds)}")

    def failed(self, cell: Cell, reason: str) -> None:
        self._failed += 1
        self._print(one_line(f"{cell.title}: FAILED, {reason}"))

    def warning(self, text: str) -> None:
        self._progress.print(one_line(f"warning: {text}"))

    def progress(self, worker: int, event: Mapping[str, Any]) -> None:
        key = worker, int(event["task"])
        fresh = key not in self._tasks or event["done"] < self._tasks[key][1]
        if fresh:
            words = str(event["description"]), int(event["total"]), str(event["unit"])
            self._tasks[key] = self._progress.add(*words, done=int(event["done"])), event["done"]
        ours, counted_so_far = self._tasks[key]
        self._progress.advance(ours, event["done"] - counted_so_far, event["note"])
        self._tasks[key] = ours, event["done"]
        if event["over"]:
            self._progress.finish(ours)
            del self._tasks[key]

    def end(self) -> None:
        if self._all is not None:
            self._progress.finish(self._all)

    def _print(self, words: str) -> None:
        over, elapsed = self._done + self._new, time.monotonic() - self._began
        left = self._total - over - self._failed
        words = f"{words}; {over}/{self._total} done, {left} left"
        if self._failed:
            words += f", {self._failed} failed"
        if self._new and left and elapsed > 0:
            each = elapsed / (self._new + self._failed)
            words += f", {3600 / each:.1f} an hour, {clock(left * each)} to go"
        self._progress.print(words)
        if self._all is not None:
            self._progress.advance(self._all)


def require_all_done(cells: GridCells) -> None:
    """Raise FailedRunsError if runs have failed, RunFolderError if other processes hold some."""
    left = [cell for cell in cells.wanted if not cells.is_done(cell)]
    failed = [cell for cell in left if cells.state(cell) == "failed"]
    if failed:
        reason = one_line(cells.failures.reason(failed[0]))
        raise FailedRunsError(
            f"{len(failed)} of {counted(len(cells.wanted), 'run')} failed; the first is {failed[0].title}: "
            f"{reason} ({shown(cells.out / 'failures')} has all reasons.) The same command "
            "tries them again."
        )
    if left:
        raise RunFolderError(
            f"{len(left)} of {len(cells.wanted)} runs are held by other processes and not in the report; "
            "run this again later."
        )


def require_records(cells: GridCells) -> None:
    """Raise MissingInputError if there is no record or failure of the grid.

    An empty report would replace an existing one.
    """
    if any(cells.is_done(cell) or cells.failures.has(cell) for cell in cells.cells):
        return
    raise MissingInputError(
        f"{shown(cells.records.folder)} has no record of a cell of {shown(cells.grid.name)}. Correct --records or "
        "--out, or leave --report-only out to start the grid."
    )


def show_grid_plan(cells: GridCells, console: Console) -> None:
    """Print a row for each arm, the cells that are under way or have failed, and the totals."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    for header in ("Arm", "Splits", "Seeds", "Runs"):
        table.add_column(header)
    states = {cell.run.folder: cells.state(cell) for cell in cells.wanted}
    for arm in cells.grid.arms:
        own = [cell for cell in cells.wanted if cell.arm == arm.name]
        mine = [states[cell.run.folder] for cell in own]
        counts = [f"{mine.count(state)} {state}" for state in STATES if state in mine]
        splits = _ranges([(cell.split.origin, cell.split.number) for cell in own])
        seeds = _ranges([("", cell.config.seed) for cell in own])
        title = one_line(cells.grid.titles[arm.name])
        table.add_row(Text(title), Text(splits), Text(seeds), Text(", ".join(counts)))
    console.print(table)
    for cell in cells.wanted:
        state = states[cell.run.folder]
        if state in ("running", "interrupted") and cell.run.exists:
            console.print(Text(f"{cell.title}: {state}, {cell.progress()}"), soft_wrap=True)
        elif state == "failed":
            reason = cells.failures.reason(cell)
            console.print(Text(one_line(f"{cell.title}: failed, {reason}")), soft_wrap=True)
    totals: dict[State, int] = {state: list(states.values()).count(state) for state in STATES}
    found = [f"{count} {state} ({STATES[state]})" for state, count in totals.items() if count]
    summary = f"{counted(len(cells.wanted), 'run')} in {shown(cells.out)}: {', '.join(found)}."
    console.print(Text(summary), soft_wrap=True)
    for words in lone_pairs(cells):
        console.print(Text(words), soft_wrap=True)


def lone_pairs(cells: GridCells) -> list[str]:
    """A sentence for each arm of the question that shares only one cell with its baseline."""
    question = cells.grid.file.question
    if question is None:
        return []
    shared = {arm: len(shared_keys(cells, arm, question.baseline)) for arm in cells.grid.compared}
    titles = cells.grid.titles
    return [
        f"{one_line(titles[arm])} and {one_line(titles[question.baseline])} have one split and seed in common, and an "
        "interval takes two: their comparison stays open."
        for arm, number in shared.items()
        if number == 1
    ]


def _ranges(numbers: Sequence[tuple[str, int]]) -> str:
    """ "1-5, generated 101-110" """
    found: list[list[Any]] = []
    for origin, number in sorted(set(numbers)):
        if found and found[-1][0] == origin and found[-1][2] == number - 1:
            found[-1][2] = number
        else:
            found.append([origin, number, number])
    words = [f"{origin} {a}-{b}" if a < b else f"{origin} {a}" for origin, a, b in found]
    return ", ".join(word.strip() for word in words)


def grid_commands(cells: GridCells, file: Path, options: Sequence[str]) -> list[str]:
    """A shell line for each cell that is not done, in the order of the grid, and one for the report.

    ``options``: other given options, such as --data.
    """
    shared: list[object] = ["sdclr", "grid", file, "--out", cells.out]
    shared += ["--records", cells.records.folder, *options]
    left = [cell for cell in cells.wanted if not cells.is_done(cell)]
    lines = [command(*shared, "--only", name_of(cell)) for cell in left]
    return [*lines, command(*shared, "--report-only")]
