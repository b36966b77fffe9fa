"""What is said when the text of a command cannot be written."""

from __future__ import annotations

from dataclasses import dataclass

from sdclr.cli.consoles import say
from sdclr.errors import StorageError

TEXT_IS_THE_RESULT = ("report", "status", "recipes", "methods")
"""Verbs that have done nothing where what they print is lost; the others have written files."""


@dataclass
class Asked:
    """The command that runs."""

    verb: str | None = None
    only_text: bool = False
    """What it prints is all that it does, as with --plan."""


asked = Asked()


def not_shown(failure: OSError, code: int) -> int:
    text = f"standard output cannot be written: {failure.strerror or failure}."
    if code == 0 and (asked.verb is None or asked.verb in TEXT_IS_THE_RESULT or asked.only_text):
        say("error", "red", f"{text} Free space there, or send it elsewhere.")
        return StorageError.exit_code
    say(
        "warning",
        "yellow",
        f"{text} What this command has written to files is not touched by that.",
    )
    return code
