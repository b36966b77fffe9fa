"""The entry point: one sentence and the documented exit code for every error meant for the user."""

from __future__ import annotations

import contextlib
import errno
import sys
import traceback
import warnings
from functools import cache
from typing import Any

from rich.text import Text
from typer.main import get_command

from sdclr.cli.app import app
from sdclr.cli.consoles import print_message, show_warning, speaker, stderr
from sdclr.cli.lost_output import not_shown, running_command
from sdclr.compute.process_state import keep_freed_memory
from sdclr.errors import (
    EXIT_BUG,
    Interrupted,
    MissingInputError,
    Preempted,
    RunFolderError,
    SdclrError,
    StorageError,
)
from sdclr.output_streams import endure
from sdclr.own_code import place_in_users_code
from sdclr.processes.signals import signals_in_start_up
from sdclr.safe_text import shown

STOPPABLE = frozenset({"pretrain", "resume", "finetune", "grid"})
"""Verbs that end with exit code 75 after a signal, so that a scheduler starts them again."""
SHOWING = frozenset({"--dry-run", "--plan", "--report-only", "--print-commands"})
"""Options with which they train nothing."""


def main() -> None:
    """Entry point: one sentence and the documented exit code for every error meant for the user."""
    before = sys.stdout, sys.stderr, warnings.showwarning
    out, _ = endure()
    warnings.showwarning = show_warning
    keep_freed_memory()
    try:
        code = _run()
        out.flush()
        if out.failure is not None and not out.unread:
            code = not_shown(out.failure, code)
    finally:
        sys.stdout, sys.stderr, warnings.showwarning = before
    sys.exit(code)


def _run() -> int:
    """The exit code of the command line."""
    running_command.verb, running_command.only_text = None, False
    try:
        with signals_in_start_up() if _continues_later() else contextlib.nullcontext():
            _command()()  # usage errors and --help end here, with typer's own message and exit code
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    except SdclrError as error:
        if not error.reported_elsewhere or not speaker():
            if isinstance(error, Preempted | Interrupted):  # a requested stop is not an error
                print_message("stopped", "yellow", str(error).removeprefix("stopped "))
            else:
                print_message("error", "red", str(error))
        return error.exit_code
    except OSError as error:
        refused = _refused(error)
        print_message("error", "red", str(refused))
        return refused.exit_code
    except Exception as error:
        traceback.print_exc()
        whose, what = "This is a bug in sdclr;", " please report it with the lines above."
        if (place := place_in_users_code(error)) is not None:
            whose = f"This error came from {shown(place)}, which is not part of sdclr."
            what = (
                " Nothing that was saved is lost: mend it there, and give the same command again."
            )
        stderr.print(Text.assemble((whose, "red"), what))
        return EXIT_BUG
    return 0


def _continues_later() -> bool:
    """Whether the command is one that is given again after a signal; one that only shows something is not."""
    words = sys.argv[1:]
    verb = next((word for word in words if not word.startswith("-")), "")
    return verb in STOPPABLE and not SHOWING.intersection(words)


@cache
def _command() -> Any:
    """The verbs as prepared by typer, which takes a twentieth of a second; they do not change."""
    return get_command(app)


def _refused(error: OSError) -> SdclrError:
    """The error for an operation that the system has refused and that no other code has handled."""
    what = error.strerror or str(error) or type(error).__name__
    if error.filename is None:
        return StorageError(f"the system refused an operation: {what}.")
    where = shown(error.filename if isinstance(error.filename, str) else repr(error.filename))
    if error.errno == errno.ENOENT:
        return MissingInputError(f"{where} does not exist.")
    advice = _ADVICE.get(error.errno or 0, "Check the storage, or give another path.")
    kind = RunFolderError if error.errno in _ADVICE else StorageError
    return kind(f"{where} cannot be used: {what}. {advice}")


_ADVICE = {
    errno.ENAMETOOLONG: "Give a shorter path.",
    errno.EACCES: "Its permissions, or those of a folder above it, do not allow that; give another path.",
    errno.EPERM: "The system does not allow that; give another path.",
    errno.EROFS: "It is on a read-only file system; give another path.",
    errno.ELOOP: "A link there leads to itself; give another path.",
    errno.ENOTDIR: "A part of the path that should be a folder is a file; give another path.",
    errno.EISDIR: "It is a folder; give a file.",
    errno.EEXIST: "It exists already; give another path.",
}
