"""The message and exit code if the output of a command cannot be written."""

from __future__ import annotations

from dataclasses import dataclass

from sdclr.cli.consoles import print_message
from sdclr.errors import StorageError

TEXT_IS_THE_RESULT = ("report", "status", "recipes", "methods")
"""Verbs whose only result is their printed output; the others have written files."""


@dataclass
class RunningCommand:
    """The running command."""

    verb: str | None = None
    only_text: bool = False
    """Whether its printed output is its only result, as with --plan."""


running_command = RunningCommand()


def not_shown(failure: OSError, code: int) -> int:
    text = f"standard output cannot be written: {failure.strerror or failure}."
    if code == 0 and (
        running_command.verb is None
        or running_command.verb in TEXT_IS_THE_RESULT
        or running_command.only_text
    ):
        print_message("error", "red", f"{text} Free space there, or send it elsewhere.")
        return StorageError.exit_code
    print_message(
        "warning",
        "yellow",
        f"{text} What this command has written to files is not affected.",
    )
    return code
