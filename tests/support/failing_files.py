"""File systems that fail, kill and forget, in the place of sdclr.storage.durable_files.files."""

from __future__ import annotations

import errno
import itertools
import os
import signal
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

from sdclr.storage.durable_files import Files

OPERATIONS = (
    "open",
    "write",
    "sync",
    "replace",
    "sync_folder",
    "make_folder",
    "unlink",
    "list",
    "read",
)


class Counting(Files):
    """Calls ``strike`` in place of the operation number ``at`` (from 0); ``count`` tells how many there were."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.count, self.struck = at, 0, ""

    def strike(self, name: str, arguments: tuple[Any, ...]) -> Any:
        raise NotImplementedError

    def __getattribute__(self, name: str) -> Any:
        operation = super().__getattribute__(name)
        if name not in OPERATIONS:
            return operation

        def counted(*arguments: Any) -> Any:
            self.count += 1
            if self.count - 1 == self.at:
                self.struck = name
                return self.strike(name, arguments)
            return operation(*arguments)

        return counted


class Failing(Counting):
    """One operation fails with an error number; a write fails in its middle."""

    def __init__(self, at: int | None = None, number: int = errno.ENOSPC) -> None:
        super().__init__(at)
        self.number = number

    def strike(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if name == "write":
            file, content = arguments
            Files.write(self, file, content[: len(content) // 2])
        raise OSError(self.number, os.strerror(self.number))


class Killing(Counting):
    """The process is killed at one operation; of a write ``share`` has reached the file."""

    def __init__(self, at: int | None = None, share: float = 0.0) -> None:
        super().__init__(at)
        self.share = share

    def strike(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if name == "write":
            file, content = arguments
            Files.write(self, file, content[: int(len(content) * self.share)])
        os.kill(os.getpid(), signal.SIGKILL)


class _Inode:
    """The bytes of one file: what a reader sees, and what the disk has."""

    def __init__(self) -> None:
        self.seen = b""
        self.durable: bytes | None = None
        """None: never synced."""

    def after_a_crash(self) -> list[bytes]:
        """What may be left: all of it, or of what was not synced nothing, a part, or zeros."""
        old = self.durable or b""
        if self.durable == self.seen:
            return [self.seen]
        return list(
            dict.fromkeys([self.seen, old, self.seen[: len(self.seen) // 2], bytes(len(self.seen))])
        )


class _Handle:
    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> _Handle:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class CrashingDisk(Files):
    """A folder in memory that knows what a crash would leave of it, after any of its operations.

    Bytes are safe once their file was synced. Changes of names are safe once the folder was synced; until then any
    subset of them may have reached the disk, in any order that the names allow.
    """

    def __init__(self) -> None:
        self.seen: dict[str, _Inode] = {}
        self.durable: dict[str, _Inode] = {}
        self.pending: list[tuple[str, _Inode | None]] = []
        self.after_operation: Any = lambda: None

    def open(self, path: Path) -> FileIO:
        inode = self.seen.get(path.name)
        if inode is None:
            self._name(path.name, _Inode())
        else:
            inode.seen = b""  # an open file is cut at once, in place
        self.after_operation()
        return _Handle(path.name)  # type: ignore[return-value]

    def write(self, file: FileIO, content: bytes) -> None:
        self.seen[str(file.name)].seen += bytes(content)
        self.after_operation()

    def sync(self, file: FileIO) -> None:
        inode = self.seen[str(file.name)]
        inode.durable = inode.seen
        self.after_operation()

    def replace(self, source: Path, target: Path) -> None:
        inode = self.seen[source.name]
        self._name(target.name, inode)
        self._name(source.name, None)
        self.after_operation()

    def sync_folder(self, folder: Path) -> None:
        self.durable, self.pending = dict(self.seen), []
        self.after_operation()

    def unlink(self, path: Path) -> None:
        if path.name in self.seen:
            self._name(path.name, None)
        self.after_operation()

    def list(self, folder: Path) -> list[str]:
        return list(self.seen)

    def _name(self, name: str, inode: _Inode | None) -> None:
        self.pending.append((name, inode))
        if inode is None:
            del self.seen[name]
        else:
            self.seen[name] = inode

    def states_after_a_crash(self) -> Iterator[dict[str, bytes]]:
        """Every folder that a crash at this moment may leave behind."""
        pending = self.pending[-6:]
        settled = dict(self.durable)
        for name, inode in self.pending[:-6]:
            _apply(settled, name, inode)
        for kept in itertools.product([False, True], repeat=len(pending)):
            names = dict(settled)
            for keep, (name, inode) in zip(kept, pending, strict=True):
                if keep:
                    _apply(names, name, inode)
            for contents in itertools.product(*(inode.after_a_crash() for inode in names.values())):
                yield dict(zip(names, contents, strict=True))


def _apply(names: dict[str, _Inode], name: str, inode: _Inode | None) -> None:
    if inode is None:
        names.pop(name, None)
    else:
        names[name] = inode


class WithoutSync(CrashingDisk):
    """Mutant: nobody waits for the bytes."""

    def sync(self, file: FileIO) -> None:
        pass


class WithoutFolderSync(CrashingDisk):
    """Mutant: nobody waits for the names."""

    def sync_folder(self, folder: Path) -> None:
        pass


class WithoutRename(CrashingDisk):
    """Mutant: the file is written where it belongs, at once."""

    def open(self, path: Path) -> FileIO:
        return super().open(_final(path))

    def replace(self, source: Path, target: Path) -> None:
        pass


class CopyingRename(CrashingDisk):
    """Mutant: the bytes are copied to the new name instead of renamed."""

    def replace(self, source: Path, target: Path) -> None:
        with super().open(target) as file:
            super().write(file, self.seen[source.name].seen)
        super().unlink(source)


class SyncTooLate(CrashingDisk):
    """Mutant: renamed first, synced afterwards."""

    def sync(self, file: FileIO) -> None:
        pass

    def replace(self, source: Path, target: Path) -> None:
        super().replace(source, target)
        inode = self.seen[target.name]
        inode.durable = inode.seen
        self.after_operation()


def _final(path: Path) -> Path:
    return path.with_name(path.name.removeprefix(".").removesuffix(".tmp").rpartition(".")[0])
