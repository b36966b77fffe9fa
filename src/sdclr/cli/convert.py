"""sdclr convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sdclr.cli.options import Overwrite, expanded
from sdclr.safe_text import shown, visible

CheckpointFile = Annotated[Path, typer.Argument(metavar="IN.pt", callback=expanded)]
BackboneOut = Annotated[Path, typer.Argument(metavar="OUT.safetensors", callback=expanded)]
Branch = Annotated[
    str, typer.Option(help="Whose norms to take: target (dense) or competitor (pruned).")
]


def convert(
    source: CheckpointFile,
    out: BackboneOut,
    branch: Branch = "target",
    overwrite: Overwrite = False,
) -> None:
    """Turn a checkpoint of the method's authors into a backbone that load_backbone and --weights take."""
    from sdclr.jobs.convert import convert as run_convert

    # branch is checked there, with a better message
    checkpoint = run_convert(source, out, branch, overwrite=overwrite)  # type: ignore[arg-type]
    typer.echo(f"{visible(checkpoint.summary())}\nbackbone: {shown(out)}")
