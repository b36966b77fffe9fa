"""Members of shards on other machines: kept ones from this machine's disk, others by range, neighbours in one request.

Members that are read in order (a pass over all images) come in windows that grow, so that many small images cost one
request; members that are read in any other order are requested one by one. The bytes are the same.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

from sdclr.data.remote.kept_bytes import keep, kept
from sdclr.data.remote.ranges import Version, read_range
from sdclr.storage.positioned_files import VirtualFile

HEAD = 1 << 14
"""Bytes that are read where the header of an image is requested."""
NEAR = 1 << 14
"""Bytes between two members that follow one another: headers, a class, a line of JSON."""
LARGEST_WINDOW = 1 << 22
MOST_WINDOWS = 16
"""Together 64 MB in memory, whatever the shards hold."""


class _Window:
    """Bytes of a shard that were read ahead."""

    def __init__(self, start: int, content: bytes) -> None:
        self.start, self.content = start, content
        self.used = start
        """The end of the last member that was taken from it."""

    @property
    def end(self) -> int:
        return self.start + len(self.content)

    def holds(self, start: int, size: int) -> bool:
        return self.start <= start and start + size <= self.end

    def take(self, start: int, size: int) -> bytes:
        self.used = max(self.used, start + size)
        return self.content[start - self.start : start - self.start + size]


_windows: OrderedDict[tuple[str, Version, int], _Window] = OrderedDict()
_lock = threading.Lock()


def _forget() -> None:
    """Runs in a forked process, where a thread that held the lock no longer exists."""
    global _lock
    _lock = threading.Lock()
    _windows.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def read_member(address: str, version: Version, start: int, size: int) -> bytes:
    """The bytes of a member: exactly ``size`` from ``start`` on. Raises RemoteError."""
    key = _key(address, version, start, size)
    if (content := kept(key)) is not None and len(content) == size:
        return content
    content = _from_windows(address, version, start, size)
    if content is None:
        begun, ahead = _begun(address, version, start, size)
        first = start + len(begun)
        ahead = min(max(ahead, size - len(begun)), version.size - first)
        read = begun + read_range(address, version, first, ahead)
        content = read[:size]
        _remember(address, version, _Window(start, read), size)
    keep(key, content)
    return content


def _key(address: str, version: Version, start: int, size: int) -> str:
    return f"{address}\0{version.size}\0{version.tag}\0{start}\0{size}"


def _from_windows(address: str, version: Version, start: int, size: int) -> bytes | None:
    with _lock:
        for key, window in reversed(_windows.items()):
            if key[:2] == (address, version) and window.holds(start, size):
                _windows.move_to_end(key)
                return window.take(start, size)
    return None


def _begun(address: str, version: Version, start: int, size: int) -> tuple[bytes, int]:
    """What a window holds of a member, and how many bytes to read after that.

    Twice the last window where the member follows one, else only its own bytes.
    """
    with _lock:
        for key, window in reversed(_windows.items()):
            if key[:2] == (address, version) and 0 <= start - window.used <= NEAR:
                begun = window.content[start - window.start :]
                return begun, min(2 * len(window.content), LARGEST_WINDOW)
    return b"", size


def _remember(address: str, version: Version, window: _Window, size: int) -> None:
    """Keep a window in memory, which the next member may continue; for a large window, only its end."""
    window.used = window.start + size
    if len(window.content) > LARGEST_WINDOW:
        window = _Window(window.used, b"")
    with _lock:
        _windows[address, version, window.start] = window
        while len(_windows) > MOST_WINDOWS:
            _windows.popitem(last=False)


class RemoteMember(VirtualFile):
    """A member as a file for reading, whose bytes are fetched when they are read, not when it is opened."""

    def __init__(
        self, address: str, version: Version, start: int, size: int, *, head: bool = False
    ) -> None:
        """``head``: the header of an image comes first, and perhaps nothing else is read."""
        super().__init__(size)
        self._place = address, version
        self._start, self._head = start, HEAD if head and size > 2 * HEAD else 0
        self._content: bytes | None = None

    def content(self, start: int, size: int) -> bytes:
        address, version = self._place
        if self._head and start + size <= self._head:
            beginning = read_member(address, version, self._start, self._head)
            return beginning[start : start + size]
        if self._content is None:
            self._content = read_member(address, version, self._start, self._size)
        return self._content[start : start + size]
