"""Whose code raised an error: a library's, ours, or perhaps that of a user's own method, network or reader."""

from __future__ import annotations

import os
import re
import sysconfig
import traceback
from pathlib import Path

_PACKAGE = os.path.join(Path(__file__).parent, "")
_LIBRARIES = tuple(
    os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "purelib", "platlib")
)
_OF_LIBRARIES = re.compile(r"[/\\](site-packages|dist-packages|torchinductor_[^/\\]+)[/\\]")
"""In the path of an installed library wherever it is, and of what torch has compiled."""


def place_in_users_code(error: BaseException) -> str | None:
    """File and line outside of sdclr and of installed libraries that raised an error, or called the library that did.

    None if it was sdclr that did.

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
        is_library = file.startswith((*_LIBRARIES, "<")) or _OF_LIBRARIES.search(file)
        if not is_library:
            return f"{file}, line {frame.lineno}"
    return None
