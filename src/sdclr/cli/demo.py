"""sdclr demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sdclr.cli.consoles import stderr, terminal
from sdclr.cli.options import Overrides, expanded
from sdclr.safe_text import shown

DemoOut = Annotated[
    Path, typer.Option(help="Folder of the demo's runs and report.", callback=expanded)
]
NumSplits = Annotated[int, typer.Option(min=1, help="Number of long-tailed splits.")]


def demo(
    out: DemoOut = Path("runs/demo"), splits: NumSplits = 3, overrides: Overrides = None
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
