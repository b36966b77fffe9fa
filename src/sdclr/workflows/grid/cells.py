"""The cells of a grid: which are done, and how one of several workers claims one.

All state is in files: a record shows that a cell is done, a lock that a process works on it, the run folder its
progress, a file in failures/ why it failed.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from sdclr.errors import ConfigError, RunFolderError
from sdclr.run.files import CONFIG_FILE
from sdclr.safe_text import shown
from sdclr.settings import PretrainConfig
from sdclr.storage.durable_files import make_folder
from sdclr.storage.locks import Lock
from sdclr.workflows.grid.failures import Failures
from sdclr.workflows.grid.file import Grid
from sdclr.workflows.grid.records import (
    CellRecord,
    Key,
    Records,
    fingerprint,
    key_of,
    name_of,
    training_fingerprint,
)
from sdclr.workflows.matrix import Cell, SplitChoice, cells_of

State = Literal["done", "running", "trained", "interrupted", "failed", "missing"]
STATES: dict[State, str] = {
    "done": "recorded",
    "running": "another process holds it",
    "trained": "to be evaluated or recorded",
    "interrupted": "continues where it stopped",
    "failed": "is tried again",
    "missing": "to be trained",
}


def shared_keys(cells: GridCells, one: str, other: str) -> set[Key]:
    """The keys that the cells of two arms have in common."""
    keys: dict[str, set[Key]] = {one: set(), other: set()}
    for cell in cells.cells:
        if cell.arm in keys:
            keys[cell.arm].add(key_of(cell.split, cell.config.data, cell.config.seed))
    return keys[one] & keys[other]


@dataclass
class GridCells:
    """The cells of a grid in the order in which they run, with their runs in ``out``."""

    grid: Grid
    out: Path
    records: Records
    only: Sequence[str] = ()
    """Names of the cells to work on; empty: all."""
    sitting: str = ""
    """Identifies one start of the command: a cell that failed in it is not retried in it."""
    command: str = ""
    """The command line for all of it."""
    _done: set[str] = field(default_factory=set)

    @property
    def failures(self) -> Failures:
        """Why cells failed."""
        return Failures(self.out / "failures", self.sitting)

    @cached_property
    def cells(self) -> Sequence[Cell]:
        return cells_of(self.grid.arms, self._folder)

    @cached_property
    def wanted(self) -> Sequence[Cell]:
        """The cells to work on. Raises ConfigError for a name in ``only`` that no cell has."""
        names = {name_of(cell): cell for cell in self.cells}
        for name in self.only:
            if name not in names:
                close = difflib.get_close_matches(name, names, n=1)
                meant = (
                    f"did you mean {close[0]}?" if close else f"its first is {next(iter(names))}."
                )
                raise ConfigError(f"the grid has no cell {shown(repr(name))}; {meant}")
        return [names[name] for name in dict.fromkeys(self.only)] or self.cells

    def _folder(self, arm: str, split: SplitChoice, config: PretrainConfig) -> Path:
        from sdclr.run import Run

        bare = Cell(arm, config, Run(self.out), split)
        mark = training_fingerprint(bare)
        name = f"{name_of(bare)}-{mark}"
        # started when the arm had another name
        rest = name.removeprefix(arm)
        begun = [folder for folder in self._folders if folder.endswith(rest)]
        return self.out / (begun[0] if len(begun) == 1 and name not in begun else name)

    @cached_property
    def _folders(self) -> Sequence[str]:
        """Existing run folders."""
        return sorted(path.parent.name for path in self.out.glob(f"*/{CONFIG_FILE}"))

    @cached_property
    def fingerprints(self) -> dict[Path, str]:
        """Run folder -> fingerprint of its cell."""
        measured = self.grid.protocol, self.grid.probes
        return {cell.run.folder: fingerprint(cell, *measured) for cell in self.cells}

    def fingerprint(self, cell: Cell) -> str:
        return self.fingerprints[cell.run.folder]

    def read_records(self) -> dict[Path, CellRecord]:
        """Run folder -> record, for the cells that are done."""
        places = {
            self.records.path(cell, self.fingerprint(cell)): self.fingerprint(cell)
            for cell in self.cells
        }
        found = self.records.read(self.grid.probes, places)
        self._done |= found.keys()
        return {folder: found[one] for folder, one in self.fingerprints.items() if one in found}

    def is_done(self, cell: Cell) -> bool:
        """Whether the cell's record existed when records were read, or exists now."""
        mark = self.fingerprint(cell)
        if mark not in self._done and self.records.has(cell, mark, self.grid.probes):
            self._done.add(mark)
        return mark in self._done

    def state(self, cell: Cell) -> State:
        if self.is_done(cell):
            return "done"
        if self.claim_lock(cell).held_elsewhere():
            return "running"
        state = cell.state(self.grid.protocol, self.grid.probes)
        if state == "done":
            return "trained"
        return "failed" if state != "running" and self.failures.has(cell) else state

    def claim_lock(self, cell: Cell) -> Lock:
        """The lock held by the process that works on the cell, from its training to its record."""
        name = cell.run.folder.name
        return Lock(self.out / f".{name}.claim", f"the cell {name}", removed=True)

    @contextlib.contextmanager
    def claim(self, cell: Cell) -> Iterator[bool]:
        """Yield whether this process holds the cell: no other one does, and it is not done.

        Of any number of processes and threads that claim a cell at once, exactly one gets it.
        """
        lock = self.claim_lock(cell)
        if lock.held_elsewhere():
            yield False
            return
        make_folder(self.out)
        try:
            lock.__enter__()
        except RunFolderError:
            if not lock.held_elsewhere():
                raise
            yield False
            return
        with contextlib.ExitStack() as stack:
            stack.push(lock)
            # again, now that no other process can finish it
            yield not self.is_done(cell) and not cell.run.in_use()

    def require_lists(self) -> None:
        """Raise ConfigError if a cell still to be run needs the authors' lists, and their folder was not given."""
        for cell in self.wanted:
            wants = cell.split.origin == "authors" and cell.config.data.splits_dir is None
            if wants and not self.is_done(cell):
                raise ConfigError(
                    f"{cell.arm} runs on the authors' split {cell.split.number}, and their split folder "
                    f"is not given: give --splits-dir FOLDER, or write generated {cell.split.number} "
                    f"in {shown(self.grid.name)}."
                )
