"""Whose code raised an error: a library's, ours, or that of a user's own method, network or reader."""

from __future__ import annotations

import os
import sysconfig
import traceback
from pathlib import Path

_PACKAGE = os.path.join(Path(__file__).parent, "")
_LIBRARIES = tuple(
    os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "purelib", "platlib")
)


def place_in_users_code(error: BaseException) -> str | None:
    """File and line of the user's own code that raised an error, or called the library that did; None if it was ours.

    >>> try:
    ...     [].index(1)
    ... except ValueError as error:
    ...     print(place_in_users_code(error) is None)  # what is typed in has no file
    True
    """
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = frame.filename
        if file.startswith(_PACKAGE):
            return None
        if not file.startswith((*_LIBRARIES, "<")):
            return f"{file}, line {frame.lineno}"
    return None
