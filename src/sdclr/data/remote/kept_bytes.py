"""Bytes that were read from other machines, kept on this one: a folder of a bounded size, for any number of processes.

Each entry is a file of its own with a checksum in front, which appears under its name when it is complete: a killed
process leaves nothing that is taken for an entry, and a damaged entry is ignored. The least recently used entries are
removed first. Only time depends on what is kept; a folder that cannot be written to causes a warning.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sdclr.data.remote.limits import cache_bytes, cache_folder
from sdclr.processes.environment import processes_here
from sdclr.storage.durable_files import is_leftover, temporary_name

FOLDER = "bytes"
KEPT_SHARE = 0.75
"""The share of the limit that is kept when room is made."""
SLACK_SHARE = 0.125
"""The share of the limit that all processes of a run may write before one of them makes room."""
OLD_SECONDS = 3600
"""The age from which a partly written file counts as left by a killed process."""
_DIGEST = 8
_lock = threading.Lock()
_written: dict[Path, int] = {}
"""Bytes written, by folder, since this process last made room there."""
_warned: set[Path] = set()


def _renew_lock() -> None:
    """Runs in a forked process, where a thread that held the lock no longer exists."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def kept(key: str) -> bytes | None:
    """The bytes kept under this key, which then count as used; None where there are none or they are damaged."""
    limit = cache_bytes()
    if not limit:
        return None
    _respect(cache_folder() / FOLDER, limit)
    file = _file(key)
    try:
        content = file.read_bytes()
    except OSError:
        return None
    body = content[_DIGEST:]
    if _checksum(body) != content[:_DIGEST]:
        with contextlib.suppress(OSError):
            file.unlink()
        return None
    with contextlib.suppress(OSError):
        os.utime(file)
    return body


def keep(key: str, content: bytes) -> None:
    """Keep ``content`` under this key, and make room where there is too much."""
    limit = cache_bytes()
    if len(content) > limit * SLACK_SHARE / processes_here():
        return
    _respect(cache_folder() / FOLDER, limit)
    file = _file(key)
    temporary = temporary_name(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as out:
            out.write(_checksum(content) + content)
        os.replace(temporary, file)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        _warn(file.parent.parent, error)
        return
    _count(file.parent.parent, len(content) + _DIGEST, limit)


def _file(key: str) -> Path:
    name = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    return cache_folder() / FOLDER / name[:2] / name[2:]


def _checksum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST).digest()


def _respect(folder: Path, limit: int) -> None:
    """Make room at this process's first access, for what others left and for a limit that has become smaller."""
    with _lock:
        if folder in _written:
            return
        _written[folder] = 0
    make_room(folder, limit)


def _count(folder: Path, num_bytes: int, limit: int) -> None:
    """Make room once this process has written its share of the slack."""
    with _lock:
        total = _written.get(folder, 0) + num_bytes
        is_full = total > limit * SLACK_SHARE / processes_here()
        _written[folder] = 0 if is_full else total
    if is_full:
        make_room(folder, limit)


class _Entry(NamedTuple):
    used: float
    """When it was last used, in seconds since 1970."""
    size: int
    path: str


def make_room(folder: Path, limit: int) -> None:
    """Remove the least recently used entries where ``limit`` is exceeded, and what killed processes left."""
    entries = sorted(_entries(folder))
    total = sum(entry.size for entry in entries)
    if total <= limit * (1 - SLACK_SHARE):
        return
    for entry in entries:
        if total <= limit * KEPT_SHARE:
            return
        with contextlib.suppress(OSError):  # another process makes room, too
            os.unlink(entry.path)
        total -= entry.size


def _entries(folder: Path) -> Iterator[_Entry]:
    now = time.time()
    for one in _files_below(folder):
        with contextlib.suppress(OSError):  # an entry may vanish meanwhile
            state = one.stat(follow_symlinks=False)
            if is_leftover(one.name):
                if now - state.st_mtime > OLD_SECONDS:
                    os.unlink(one.path)
                continue  # a younger one is being written
            yield _Entry(state.st_mtime, state.st_size, one.path)


def _files_below(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The files in the folders of this one; folders that cannot be listed count as empty."""
    with contextlib.suppress(OSError):
        for part in list(os.scandir(folder)):
            with contextlib.suppress(OSError):
                yield from os.scandir(part.path)


def _warn(folder: Path, error: OSError) -> None:
    with _lock:
        first = folder not in _warned
        _warned.add(folder)
    if first:
        warnings.warn(
            f"{folder}: what is read from other machines cannot be kept there ({error.strerror or error}), and is read "
            "again each time. Set SDCLR_CACHE to another folder, or SDCLR_CACHE_GB=0.",
            stacklevel=4,
        )
