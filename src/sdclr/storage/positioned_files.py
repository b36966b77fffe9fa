"""Reading and writing at a position of an open file, from several threads at once, even where the system has no pread.

Also files that consist of parts of others.
"""

from __future__ import annotations

import io
import os
import threading
from typing import Any

_LOCK = threading.Lock()  # makes seek and read or write atomic, where they are two calls


def read_at(descriptor: int, count: int, offset: int) -> bytes:
    """At most ``count`` bytes from ``offset`` on."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, count, offset)
    with _LOCK:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, count)


def write_at(descriptor: int, content: bytes | memoryview, offset: int) -> None:
    """Write all of ``content``, from ``offset`` on."""
    rest = memoryview(content)
    while rest:  # one call may write only a part
        written = _write_some(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written


def _write_some(descriptor: int, content: memoryview, offset: int) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(descriptor, content, offset)
    with _LOCK:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.write(descriptor, content)


class VirtualFile(io.RawIOBase):
    """Some bytes, given by :meth:`content`, as a file for reading."""

    def __init__(self, size: int) -> None:
        """``size``: the number of bytes."""
        self._size, self._position = size, 0

    def content(self, start: int, size: int) -> bytes:
        """At most ``size`` bytes from ``start`` on; none only at the end."""
        raise NotImplementedError

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(begin + offset, 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), max(self._size - self._position, 0))
        content = self.content(self._position, wanted) if wanted else b""
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)
