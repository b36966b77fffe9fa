"""sdclr status."""

from __future__ import annotations

import typer

from sdclr.cli.consoles import echo_json, print_message
from sdclr.cli.options import AsJson, RunFolders
from sdclr.errors import SdclrError
from sdclr.safe_text import one_line


def status(folders: RunFolders, as_json: AsJson = False) -> None:
    """Show the state of runs: running, done, preempted, interrupted, or failed and why; and what to do next."""
    from sdclr.jobs.status import read_status

    errors: list[SdclrError] = []  # of one run, which keeps nothing of the others back
    for folder in folders:
        try:
            found = read_status(folder)
        except SdclrError as error:
            errors.append(error)
            continue
        if as_json:
            echo_json(found.to_dict())
        else:
            typer.echo("\n".join(map(one_line, found.lines())))
    for other in errors[1:]:
        print_message("error", "red", str(other))
    if errors:
        raise errors[0]
