"""A matrix of runs, arms x splits x seeds: planned, completed where something is missing, resumable at any point.

The only state is the run folders: a cell's folder shows what it needs next, so a killed matrix can resume,
and several processes can share one (a cell that another process holds is left to it).
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sdclr.config import parse_assignment
from sdclr.errors import ConfigError, DataError, Preempted, RunFolderError
from sdclr.evaluation.probes import PROBES, Protocol
from sdclr.presentation.progress import AnyProgress
from sdclr.recipes import SYSTEMS, recipe
from sdclr.run import Run
from sdclr.run.refusals import require_same_settings
from sdclr.safe_text import command, one_line, shown
from sdclr.settings import PretrainConfig

State = Literal["done", "running", "trained", "interrupted", "missing"]
STATES: Mapping[State, str] = {
    "done": "trained and evaluated",
    "running": "another process holds it",
    "trained": "to be evaluated",
    "interrupted": "continues where it stopped",
    "missing": "to be trained",
}


SplitOrigin = Literal["", "authors", "generated"]
"""The required origin of a split; empty: decided by the settings."""


class SplitChoice(NamedTuple):
    """A split by number, and its required origin."""

    number: int
    origin: SplitOrigin = ""

    def __str__(self) -> str:
        return f"generated {self.number}" if self.origin == "generated" else str(self.number)

    def settings(self) -> dict[str, Any]:
        """The settings it implies, by dotted name."""
        chosen: dict[str, Any] = {"data.split": self.number}
        if self.origin == "generated":
            chosen["data.splits_dir"] = None
        return chosen


class PlannedArm(NamedTuple):
    """An arm of a matrix: its settings, splits and seeds."""

    name: str
    base: PretrainConfig
    splits: Sequence[SplitChoice]
    seeds: Sequence[int] | None = None
    """None: the one of ``base``."""


@dataclass(frozen=True)
class Cell:
    """One run of the matrix."""

    arm: str
    config: PretrainConfig
    run: Run
    split: SplitChoice

    @property
    def title(self) -> str:
        return f"{self.arm}, split {self.split}, seed {self.config.seed}"

    def state(self, protocol: str, probes: Sequence[str]) -> State:
        """The state according to its folder."""
        if self.run.in_use():
            return "running"
        if not self.run.exists:
            return "missing"
        if not self.run.backbone_path.is_file():
            return "interrupted"
        return "trained" if self.missing_probes(protocol, probes) else "done"

    def missing_probes(self, protocol: str, probes: Sequence[str]) -> list[str]:
        """The probes not yet measured on the current backbone with their current settings."""
        if not self.run.evaluation_path(protocol).is_file():
            return list(probes)
        try:
            found = self.run.read_evaluation(protocol)
        except DataError:  # reported when it is evaluated
            return list(probes)
        if found.get("backbone") != self.run.backbone_identity():
            return list(probes)
        done = found["probes"]
        return [
            name
            for name in probes
            if name not in done or not _is_measured(name, done[name], protocol)
        ]

    def progress(self) -> str:
        """The progress of an interrupted run, such as "epoch 4 of 10"."""
        metrics = self.run.metrics()
        return f"epoch {metrics[-1]['epoch'] if metrics else 0} of {self.config.epochs}"


def _is_measured(name: str, recorded: Mapping[str, Any], protocol: str) -> bool:
    if protocol not in PROBES[name].fitters:  # classifiers that others have fitted
        return True
    return PROBES[name].has_measured(recorded, protocol)


def cells_of(
    arms: Sequence[PlannedArm], folder: Callable[[str, SplitChoice, PretrainConfig], Path]
) -> list[Cell]:
    """Every cell of the matrix, split by split, the arms of a split in their order.

    An interrupted matrix is therefore balanced. ``folder``: returns the run folder of an arm, split and settings.
    """
    cells = []
    for split in dict.fromkeys(split for arm in arms for split in arm.splits):
        for arm in arms:
            if split not in arm.splits:
                continue
            on_split = arm.base.with_values(split.settings())
            for seed in arm.seeds if arm.seeds is not None else [on_split.seed]:
                config = on_split.with_values({"seed": seed})
                run = Run(folder(arm.name, split, config))
                cells.append(Cell(arm.name, config, run, split))
    return cells


def plan(
    dataset: str,
    out: Path,
    *,
    arms: Sequence[str],
    splits: Sequence[int],
    seeds: Sequence[int] | None = None,
    overrides: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
    adopted: bool = False,
) -> list[Cell]:
    """Every cell of the paper's matrix, split by split, in the folders OUT/<arm>-split<S>-seed<N>.

    ``seeds``: None means the recipe's own. ``values``: plain settings by dotted name, ``overrides``: ``name=value``
    texts. ``adopted``: whether the runs should be the authors' checkpoints. Raises ConfigError before any work if an
    arm does not exist, if an override would make it another arm, or if a folder has other settings or another origin.
    """
    recipes = SYSTEMS[dataset]
    if unknown := [arm for arm in arms if arm not in recipes]:
        raise ConfigError(f"{dataset} has no arm {unknown[0]!r}; it has {', '.join(recipes)}.")
    given = dict(map(parse_assignment, overrides))
    for name, by in DECIDED.items():
        if name in given:
            raise ConfigError(f"{name} is decided by {by}; leave it out.")
    chosen = [SplitChoice(number) for number in splits]
    planned = []
    for arm in dict.fromkeys(arms):
        # the user's settings come last: ours do not apply to every network
        base = recipe(recipes[arm]).with_values(values or {}).with_values(given)
        planned.append(PlannedArm(arm, base, chosen, seeds))

    def folder(arm: str, split: SplitChoice, config: PretrainConfig) -> Path:
        return out / f"{arm}-split{split}-seed{config.seed}"

    cells = cells_of(planned, folder)
    for cell in cells:
        require_same_settings(cell.run, cell.config, may_warm_start=False)
        _check_origin(cell.run, adopted)
    return cells


DECIDED = {
    "seed": "--seeds",
    "data.split": "--splits",
    "data.name": "the data set",
    **dict.fromkeys(("data.subset", "method.name", "recipe"), "--arms"),
}


def _check_origin(run: Run, adopted: bool) -> None:
    """Raise ConfigError if runs trained here and the authors' checkpoints would share a matrix."""
    if run.exists and ("adopted" in run.read_json("environment.json")) != adopted:
        what = "a run trained here" if adopted else "an authors' checkpoint, not a run trained here"
        raise ConfigError(f"{run.folder} holds {what}. Choose another --out.")


def show_plan(
    cells: Sequence[Cell], protocol: str, probes: Sequence[str], console: Console
) -> None:
    """Print a table of what is done, running, interrupted and missing."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    for header in ("Arm", "Split", "Seed", "State"):
        table.add_column(header)
    counts = dict.fromkeys(STATES, 0)
    for cell in cells:
        state = cell.state(protocol, probes)
        counts[state] += 1
        words = (
            f"{state} ({cell.progress()})"
            if state in ("interrupted", "running") and cell.run.exists
            else state
        )
        style = {
            "done": "green",
            "running": "cyan",
            "trained": "yellow",
            "interrupted": "yellow",
            "missing": "",
        }[state]
        numbers = (str(cell.config.data.split), str(cell.config.seed))
        table.add_row(Text(cell.arm), *numbers, Text(one_line(words), style=style))
    console.print(table)
    found = [f"{count} {state} ({STATES[state]})" for state, count in counts.items() if count]
    where = cells[0].run.folder.parent if cells else "-"
    console.print(Text(f"{len(cells)} runs in {shown(where)}: {', '.join(found)}."), soft_wrap=True)


def complete(
    cell: Cell,
    protocol: Protocol,
    probes: Sequence[str],
    progress: AnyProgress,
    *,
    download: bool = False,
    untested: Literal["raise", "leave_out"] = "raise",
) -> None:
    """Train and evaluate what is missing of one cell. Raises what pretrain and evaluate raise."""
    # imports torch, which a plan does not need
    from sdclr.jobs.evaluate import evaluate
    from sdclr.jobs.pretrain import pretrain

    run = pretrain(
        cell.config, cell.run.folder, progress=progress, title=cell.title, download=download
    )
    if missing := cell.missing_probes(protocol, probes):
        device = cell.config.device
        evaluate(
            run,
            protocol=protocol,
            probes=missing,
            device=device,
            untested=untested,
            progress=progress,
        )


@contextlib.contextmanager
def stopped_as_a_whole() -> Iterator[None]:
    """Of a run that was stopped in the block, say what continues all runs; its own message would continue it alone."""
    try:
        yield
    except Preempted as stopped:
        by = re.match(r"stopped by ([A-Z0-9]+|a signal to another process)", str(stopped))
        raise Preempted(
            f"{by[0] if by else 'stopped'}; every run is saved. The same command continues from here."
        ) from None


def carry_out(
    cells: Sequence[Cell],
    *,
    protocol: Protocol,
    probes: Sequence[str],
    progress: AnyProgress,
    download: bool = False,
) -> list[Cell]:
    """Train and evaluate what is missing; return the cells that are done.

    A cell that another process holds is left to it. Raises what pretrain and evaluate raise; finished cells are kept.
    """
    for cell in cells:
        state = cell.state(protocol, probes)
        if state == "done":
            continue
        try:
            if state == "running":
                raise RunFolderError
            with stopped_as_a_whole():
                complete(cell, protocol, probes, progress, download=download)
        except RunFolderError:
            if state != "running" and not cell.run.in_use():
                raise
            progress.print(
                f"{cell.run.folder} is in use by another process; it is left to that one."
            )
    return [cell for cell in cells if cell.state(protocol, probes) == "done"]


def require_all(done: Sequence[Cell], cells: Sequence[Cell]) -> None:
    """Raise RunFolderError if other processes hold some of the runs."""
    if left := len(cells) - len(done):
        raise RunFolderError(
            f"{left} of {len(cells)} runs are held by other processes and not in the report; run this again later."
        )


def commands(
    cells: Sequence[Cell], protocol: str, probes: Sequence[str], *, download: bool = False
) -> list[str]:
    """One shell line for each cell that is not done; a scheduler may run them in any order."""
    lines = []
    for cell in cells:
        if cell.state(protocol, probes) == "done":
            continue
        base, config = recipe(cell.config.recipe).to_dict(), cell.config.to_dict()
        folder = cell.run.folder
        pretraining: list[object] = [
            "sdclr",
            "pretrain",
            cell.config.recipe,
            *_assignments(base, config),
            "--out",
            folder,
            *["--download"] * download,
        ]
        missing = (
            cell.missing_probes(protocol, probes) if cell.run.backbone_path.is_file() else probes
        )
        evaluating: list[object] = [
            "sdclr",
            "evaluate",
            folder,
            "--protocol",
            protocol,
            "--probes",
            _as_typed(missing),
        ]
        evaluating += ["--device", cell.config.device]
        lines.append(f"{command(*pretraining)} && {command(*evaluating)}")
    return lines


def _as_typed(probes: Sequence[str]) -> str:
    """The probes for --probes in another process, which does not have the entries registered here."""
    return ",".join(PROBES[name].origin or name for name in probes)


def _assignments(base: Mapping[str, Any], config: Mapping[str, Any], prefix: str = "") -> list[str]:
    """``name=value`` for every leaf in which ``config`` differs from the recipe."""
    found = []
    for key, value in config.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), Mapping):
            found += _assignments(base[key], value, f"{prefix}{key}.")
        elif value != base.get(key):
            found.append(f"{prefix}{key}={value if isinstance(value, str) else json.dumps(value)}")
    return found
