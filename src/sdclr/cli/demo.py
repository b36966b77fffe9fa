"""sdclr demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sdclr.cli.consoles import stderr, terminal
from sdclr.cli.options import expanded
from sdclr.safe_text import shown


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder of the demo's runs and report.", callback=expanded)
    ] = Path("runs/demo"),
    splits: Annotated[int, typer.Option(min=1, help="Number of long-tailed splits.")] = 3,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", show_default=False)
    ] = None,
) -> None:
    """Compare SimCLR and SDCLR on long-tailed digits: minutes on a CPU, ends in a table and an HTML page."""
    from sdclr.presentation.progress import Progress
    from sdclr.workflows.demo import demo as run_demo

    with Progress(stderr) as progress:
        page = run_demo(
            out,
            num_splits=splits,
            overrides=tuple(overrides or ()),
            progress=progress,
            console=terminal(),
        )
    typer.echo(f"\nreport: {shown(page)}")
