"""Reading and writing at a place of an open file, from several threads at once, also where the system has no pread."""

from __future__ import annotations

import os
import threading

_LOCK = threading.Lock()  # a place is sought and used as one, where that takes two calls


def read_at(descriptor: int, count: int, offset: int) -> bytes:
    """At most ``count`` bytes from ``offset`` on."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, count, offset)
    with _LOCK:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, count)


def write_at(descriptor: int, content: bytes | memoryview, offset: int) -> None:
    """All of ``content``, from ``offset`` on."""
    rest = memoryview(content)
    while rest:  # one call may write a part only
        written = _write_some(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written


def _write_some(descriptor: int, content: memoryview, offset: int) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(descriptor, content, offset)
    with _LOCK:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.write(descriptor, content)
