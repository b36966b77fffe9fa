"""How much work something is, counted and not timed: the same number on a busy machine and on a quiet one."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

FILE_CALLS = {"lstat", "stat", "readlink", "scandir", "listdir", "open", "access"}
"""The functions of the operating system that ask a file system for something."""


def calls_made(action: Callable[[], object]) -> Counter[str]:
    """The calls of this thread while ``action`` runs: how many of each name, Python's and C's."""
    found: Counter[str] = Counter()

    def count(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            found[frame.f_code.co_name] += 1
        elif event == "c_call":
            found[argument.__name__] += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(before)
    return found


def bytes_read() -> int:
    """What this process has read so far, from files and pipes."""
    return int(Path("/proc/self/io").read_text().split()[1])


def file_calls(action: Callable[[], object]) -> int:
    """How often ``action`` asks the file system."""
    found = calls_made(action)
    return sum(number for name, number in found.items() if name in FILE_CALLS)
