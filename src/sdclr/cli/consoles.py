"""The consoles of the verbs: standard output without markup, and messages on standard error."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.text import Text

from sdclr.run.files import MINED_FOLDER
from sdclr.run.next_step import next_command, next_when_mined
from sdclr.safe_text import shown, visible

if TYPE_CHECKING:
    from sdclr.run import Run


def print_next_step(run: Run) -> None:
    """Print the next command for a finished run, if there is one."""
    if (words := next_command(run, "done")) is not None:
        typer.echo(f"next: {words}")


def print_next_step_of_mined(folder: Path) -> None:
    """The same for a folder of ranked images, in a run's or by itself."""
    from sdclr.run import Run

    run = Run(folder.parent)
    if folder.name == MINED_FOLDER and run.exists:
        print_next_step(run)
    elif (words := next_when_mined(folder)) is not None:
        typer.echo(f"next: {words}")


def echo_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on its own line."""
    import json

    typer.echo(json.dumps(value, allow_nan=False))


stderr = Console(stderr=True, markup=False, emoji=False, highlight=False)


def terminal(*, quiet: bool = False, width: int | None = None, markup: bool = False) -> Console:
    """Standard output; a path with [red] or :fire: in it is printed literally."""
    return Console(quiet=quiet, width=width, markup=markup, emoji=False, highlight=False)


def speaker() -> str:
    """A prefix naming the process, unless it is the first or only one."""
    number = os.environ.get("RANK") or "0"
    return "" if number == "0" else f"process {shown(number)}: "


_LONG_WORD = re.compile(r"\S{400,}")
"""No word of a message needs this many characters; a path of thousands would hide the rest."""


def print_message(kind: str, style: str, text: str) -> None:
    """Print a message on standard error; names in it are shown literally and cannot forge another message."""
    lines = _LONG_WORD.sub(lambda found: shown(found[0]), visible(text)).replace("\n", "\n  ")
    stderr.print(Text.assemble(speaker(), (f"{kind}:", style), " ", lines), soft_wrap=True)


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print_message("warning", "yellow", str(message))
