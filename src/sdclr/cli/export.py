"""sdclr export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sdclr.backbones.exports.table import EXPORTS
from sdclr.cli.options import Overwrite, Source, Use, expanded, import_used
from sdclr.safe_text import shown


def _formats_help() -> str:
    return " ".join(f"{row.name}: {row.summary}" for row in EXPORTS.values())


ExportFormat = Annotated[str, typer.Option(help=_formats_help(), show_default=False)]
ExportOut = Annotated[
    Path | None,
    typer.Option(help="File or folder to write (default: RUN/exports/FORMAT).", callback=expanded),
]


def export(
    source: Source,
    format: ExportFormat,
    out: ExportOut = None,
    overwrite: Overwrite = False,
    use: Use = None,
) -> None:
    """Write the trained backbone for another program; it is read back and compared before it is kept."""
    from sdclr.jobs.export import export as run_export

    import_used(use)
    typer.echo(f"{format}: {shown(run_export(source, format, out, overwrite=overwrite))}")
