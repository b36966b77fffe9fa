"""sdclr grid."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sdclr.cli.consoles import stderr, terminal
from sdclr.cli.lost_output import asked
from sdclr.cli.options import DataPath, Download, SplitsDir, Use, expanded, import_used
from sdclr.errors import (
    ConfigError,
)


def grid(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The grid's file (docs/grid.md).", callback=expanded),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of all runs (default: the file's, else runs/grid-NAME).",
            callback=expanded,
        ),
    ] = None,
    records: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where a finished cell leaves its small JSON file, and counts as done by it (default: OUT/records).",
            callback=expanded,
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(metavar="N", help="Processes on this machine that share the grid.")
    ] = 1,
    data: DataPath = None,
    splits_dir: SplitsDir = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:N or auto (default: the settings').")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CELL", help="Work on this cell alone, without a report; may be repeated."
        ),
    ] = None,
    only_plan: Annotated[
        bool, typer.Option("--plan", help="Show what is done and what is missing, and stop.")
    ] = False,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Run nothing; report what the records hold.")
    ] = False,
    print_commands: Annotated[
        bool,
        typer.Option(
            "--print-commands",
            help="Print a command for each cell that is missing, for a scheduler, and stop.",
        ),
    ] = False,
    download: Download = False,
    use: Use = None,
) -> None:
    """Answer a question with a grid of runs, any arms x splits x seeds of a file, ending in a verdict by its rule.

    Killed anywhere, the same command goes on; workers, and several such commands, share one --out.
    """
    from sdclr.presentation.progress import Progress
    from sdclr.workflows.grid import run as workflow

    if report_only + only_plan + print_commands > 1:
        raise ConfigError("give one of --plan, --report-only and --print-commands.")
    if report_only and only:
        raise ConfigError("--report-only reports the whole grid; leave out --only.")
    import_used(use)
    places = {"data": data, "splits_dir": splits_dir, "device": device}
    cells, values = workflow.open_grid(file, out, records, only=only or (), **places)
    console = terminal()
    asked.only_text = print_commands or only_plan
    if print_commands:
        options = [
            word
            for name, given in places.items()
            if given is not None
            for word in (f"--{name.replace('_', '-')}", given)
        ]
        options += ["--download"] * download + [
            word for one in use or [] for word in ("--use", one)
        ]
        typer.echo("\n".join(workflow.grid_commands(cells, file, options)))
        return
    if only_plan:
        workflow.show_grid_plan(cells, console)
        return
    if not report_only:
        with Progress(stderr) as progress:
            workflow.carry_out_grid(
                cells,
                values,
                workers=workers,
                use=use or (),
                progress=progress,
                live=stderr.is_terminal,
                download=download,
            )
    if not only:
        workflow.write_grid_report(cells, file, console=console)
    if not report_only:
        workflow.require_all_done(cells)
