"""The members of shards on other machines: their headers are read once, and kept on this machine.

The headers of a tar are between its files. They are read by range, in pieces that grow while members are small and stay
small where large files separate them, so that a shard of photographs costs a few percent of its bytes. Their contents
are written to an index of each shard as soon as that shard is done: an interrupted start resumes with the next shard.
An index is valid while the shard is unchanged (size and ETag); a damaged one is built again, with a warning. Of several
processes that need the same index, one builds it and the others wait for it. Only time depends on an index: a folder
where none can be written causes a warning.
"""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import filelock
import numpy as np

from sdclr.data.collections.packed_names import packed, starts_of
from sdclr.data.remote.limits import cache_folder
from sdclr.data.remote.ranges import Version, read_range
from sdclr.data.sources.shard_members import Kind, ShardMember, shard_members
from sdclr.errors import RunFolderError, StorageError
from sdclr.storage.array_files import Arrays, DamagedArraysError, read_arrays, write_arrays
from sdclr.storage.durable_files import make_folder
from sdclr.storage.positioned_files import VirtualFile

FOLDER = "index"
SMALLEST_PIECE = 1 << 12
LARGEST_PIECE = 1 << 20
NEAR = 1 << 14
"""Bytes to the next header up to which the bytes in between are read, too."""
_warned: dict[Path, object] = {}
"""Folders where nothing can be kept and a warning was given, each with a token of the thread that gave it."""
KINDS: tuple[Kind, ...] = ("file", "holes", "folder", "hard link", "link", "other")


Reached = Callable[[int], object]
"""Receives the byte up to which a shard has been read."""


def _no_report(_: int) -> None:
    """Ignore the progress."""


def indexed_members(
    address: str, version: Version, reached: Reached = _no_report
) -> list[ShardMember]:
    """The members of a shard in this state, from its index, which is built if missing.

    Raises tarfile.ReadError for a shard that is not an intact tar, and RemoteError for one that cannot be read.
    """
    found = kept_arrays(
        address,
        version,
        "members",
        lambda: _as_arrays(list(_scanned(address, version, reached))),
    )
    return list(_from_arrays(found))


def is_indexed(address: str, version: Version, what: str = "members") -> bool:
    """Whether :func:`kept_arrays` has a file for it already; a damaged one does not count."""
    return _current(_file(address, what), address, version) is not None


def kept_arrays(address: str, version: Version, what: str, make: Callable[[], Arrays]) -> Arrays:
    """The arrays made from a shard in this state: from a file where there is one, else made now and written there."""
    file = _file(address, what)
    if (found := _current(file, address, version)) is not None:
        return found
    with _claimed(file):
        if (found := _current(file, address, version)) is not None:
            return found
        made = make()
        try:
            write_arrays(file, made.facts | _identity(address, version), made.arrays)
        except (RunFolderError, StorageError, OSError) as error:
            _warn_of_no_room(file.parent, error)
        return made


@contextlib.contextmanager
def _claimed(file: Path) -> Iterator[None]:
    """Inside the block, no other process makes this file; a warning where nothing can be written there."""
    # the lock ends with its process, however that ends
    lock = filelock.FileLock(file.with_name(f"{file.name}.lock"))
    try:
        make_folder(file.parent)
        lock.acquire()
    except (RunFolderError, StorageError, OSError) as error:
        _warn_of_no_room(file.parent, error)
    try:
        yield
    finally:
        lock.release()


def _warn_of_no_room(folder: Path, error: Exception) -> None:
    """Warn once per process and folder."""
    mine = object()
    if _warned.setdefault(folder, mine) is mine:  # only one of many threads
        cause = error.strerror if isinstance(error, OSError) else str(error).partition(". ")[0]
        warnings.warn(
            f"{folder}: what the headers of shards contain cannot be kept there ({cause}), and is read again at every "
            "start. Set SDCLR_CACHE to a folder that can be written to.",
            stacklevel=4,
        )


def _file(address: str, what: str) -> Path:
    name = hashlib.blake2b(address.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    return cache_folder() / FOLDER / f"{name}.{what}"


def _identity(address: str, version: Version) -> dict[str, Any]:
    return {"address": address, "size": version.size, "tag": version.tag}


def _current(file: Path, address: str, version: Version) -> Arrays | None:
    """The contents of a file, if it was made from exactly this state; a warning for one that is damaged."""
    try:
        found = read_arrays(file)
    except DamagedArraysError as error:
        warnings.warn(
            f"the index {file} of {address} is damaged ({error}) and is built again.", stacklevel=4
        )
        with contextlib.suppress(OSError):
            file.unlink()
        return None
    if found is None or not found.facts.items() >= _identity(address, version).items():
        return None
    return found


class _Headers(VirtualFile):
    """A shard as a file of which only the headers are read."""

    def __init__(self, address: str, version: Version, reached: Reached) -> None:
        super().__init__(version.size)
        self._reached = reached
        self._address, self._version = address, version
        self._start, self._piece = 0, b""
        self._length = SMALLEST_PIECE // 2

    def content(self, start: int, size: int) -> bytes:
        end = self._start + len(self._piece)
        if not (self._start <= start and start + size <= end):
            follows = self._start <= start <= end + NEAR
            length = min(2 * self._length, LARGEST_PIECE) if follows else SMALLEST_PIECE
            self._length = length
            length = min(max(length, size), self._size - start)
            self._piece = read_range(self._address, self._version, start, length)
            self._start = start
            self._reached(start + length)
        return self._piece[start - self._start : start - self._start + size]


def _scanned(address: str, version: Version, reached: Reached) -> Iterator[ShardMember]:
    return shard_members(cast(BinaryIO, _Headers(address, version, reached)), version.size)


def _as_arrays(members: list[ShardMember]) -> Arrays:
    arrays: dict[str, Any] = {
        "kind": np.array([KINDS.index(one.kind) for one in members], dtype=np.uint8),
        "start": np.array([one.start for one in members], dtype=np.int64),
        "size": np.array([one.size for one in members], dtype=np.int64),
    }
    arrays["name"], arrays["name_length"] = packed(one.name for one in members)
    arrays["target"], arrays["target_length"] = packed(one.target for one in members)
    arrays["content"], arrays["content_length"] = packed(
        one.content.decode("utf-8", "surrogateescape") for one in members
    )
    return Arrays({}, arrays)


def _from_arrays(found: Arrays) -> Iterator[ShardMember]:
    arrays = found.arrays
    texts = {}
    for name in ("name", "target", "content"):
        starts, lengths = starts_of(arrays[f"{name}_length"]), arrays[f"{name}_length"]
        letters = arrays[name].tobytes()
        spans = zip(starts.tolist(), lengths.tolist(), strict=True)
        texts[name] = [letters[start : start + length] for start, length in spans]
    facts = zip(
        *(arrays[name].tolist() for name in ("kind", "start", "size")),
        *texts.values(),
        strict=True,
    )
    for kind, start, size, name, target, content in facts:
        yield ShardMember(
            name.decode("utf-8", "surrogateescape"),
            KINDS[kind],
            start,
            size,
            target.decode("utf-8", "surrogateescape"),
            content,
        )
