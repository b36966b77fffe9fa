"""sdclr grid."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdclr.addresses import redacted
from sdclr.cli.consoles import stderr, terminal
from sdclr.cli.lost_output import running_command
from sdclr.cli.options import DataPath, Download, OnlyPlan, SplitsDir, Use, expanded, import_used
from sdclr.errors import ConfigError

if TYPE_CHECKING:
    from sdclr.workflows.grid.cells import GridCells

GridFile = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="The grid's file (docs/grid.md).", callback=expanded),
]
GridOut = Annotated[
    Path | None,
    typer.Option(
        help="Folder of all runs (default: the file's, else runs/grid-NAME).",
        callback=expanded,
    ),
]
RecordsFolder = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Where each finished cell writes a small JSON file, by which it counts as done (default: OUT/records).",
        callback=expanded,
    ),
]
Workers = Annotated[
    int, typer.Option(metavar="N", help="Processes on this machine that share the grid.")
]
OtherDevice = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:N, mps or auto (default: the settings').")
]
OnlyCells = Annotated[
    list[str] | None,
    typer.Option(metavar="CELL", help="Run only this cell, without a report; may be repeated."),
]
ReportOnly = Annotated[
    bool, typer.Option("--report-only", help="Run nothing; report what the records hold.")
]
PrintCellCommands = Annotated[
    bool,
    typer.Option(
        "--print-commands",
        help="Print a command for each cell that is missing, for a scheduler, and stop.",
    ),
]


def grid(
    file: GridFile,
    out: GridOut = None,
    records: RecordsFolder = None,
    workers: Workers = 1,
    data: DataPath = None,
    splits_dir: SplitsDir = None,
    device: OtherDevice = None,
    only: OnlyCells = None,
    only_plan: OnlyPlan = False,
    report_only: ReportOnly = False,
    print_commands: PrintCellCommands = False,
    download: Download = False,
    use: Use = None,
) -> None:
    """Answer a question with a grid of runs, any arms x splits x seeds of a file, ending in a verdict by its rule.

    If killed at any point, the same command resumes; workers, and several such commands, share one --out.
    """
    from sdclr.workflows.grid import run as workflow
    from sdclr.workflows.grid.report_files import write_grid_report

    if report_only + only_plan + print_commands > 1:
        raise ConfigError("give one of --plan, --report-only and --print-commands.")
    if report_only and only:
        raise ConfigError("--report-only reports the whole grid; leave out --only.")
    workflow.require_workers(workers)
    import_used(use)
    places = {"data": data, "splits_dir": splits_dir, "device": device}
    cells, values = workflow.open_grid(file, out, records, only=only or (), use=use or (), **places)
    if report_only:
        workflow.require_records(cells)
    running_command.only_text = print_commands or only_plan
    if print_commands:
        options = _as_words(places, download=download, use=use or ())
        typer.echo("\n".join(workflow.grid_commands(cells, file, options)))
        return
    if only_plan:
        workflow.show_grid_plan(cells, terminal())
        return
    if not report_only:
        _carry_out(cells, values, workers=workers, use=use or (), download=download)
    if not only:
        write_grid_report(cells, console=terminal())
    if not report_only:
        workflow.require_all_done(cells)


def _as_words(places: Mapping[str, str | None], *, download: bool, use: Sequence[str]) -> list[str]:
    """The options that are also passed to each cell's own command."""
    words: list[str] = []
    for name, value in places.items():
        if value is None:
            continue
        option = f"--{name.replace('_', '-')}"
        if (clean := redacted(value)) != value:
            warnings.warn(
                f"the commands have the address of {option} without its query or password. Add it where they run.",
                stacklevel=2,
            )
        words += [option, clean]
    if download:
        words.append("--download")
    for entry in use:
        words += ["--use", entry]
    return words


def _carry_out(
    cells: GridCells,
    values: Mapping[str, Any],
    *,
    workers: int,
    use: Sequence[str],
    download: bool,
) -> None:
    from sdclr.presentation.progress import Progress
    from sdclr.workflows.grid.run import carry_out_grid

    with Progress(stderr) as progress:
        carry_out_grid(
            cells,
            values,
            workers=workers,
            use=use,
            progress=progress,
            live=stderr.is_terminal,
            download=download,
        )
