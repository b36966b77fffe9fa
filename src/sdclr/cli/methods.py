"""sdclr methods."""

from __future__ import annotations

import typer

from sdclr.cli.consoles import echo_json
from sdclr.cli.options import AsJson


def methods(as_json: AsJson = False) -> None:
    """List the available values of method.name."""
    from sdclr.methods.table import METHODS

    names = max(len(row.name) for row in METHODS.values()) + 2
    titles = max(len(row.display_name) for row in METHODS.values()) + 2
    for row in METHODS.values():
        if as_json:
            echo_json({"name": row.name, "display_name": row.display_name, "summary": row.summary})
        else:
            typer.echo(f"{row.name:<{names}}{row.display_name:<{titles}}{row.summary}")
