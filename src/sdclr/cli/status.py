"""sdclr status."""

from __future__ import annotations

import typer

from sdclr.cli.consoles import echo_json
from sdclr.cli.options import AsJson, RunFolders
from sdclr.safe_text import one_line


def status(folders: RunFolders, as_json: AsJson = False) -> None:
    """How runs stand: running, done, preempted, interrupted, or failed and why; and what to do next."""
    from sdclr.jobs.status import read_status

    for found in map(read_status, folders):
        if as_json:
            echo_json(found.to_dict())
        else:
            typer.echo("\n".join(map(one_line, found.lines())))
