"""Files that are whole or absent: temporary name, fsync, rename, fsync of the folder.

All access to the file system goes through ``files``, so that tests can make every single operation fail.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import zlib
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from sdclr.errors import RunFolderError, SdclrError, StorageError


class Files:
    """The few operations that durable files need; tests replace it by one that fails, dies or forgets."""

    def open(self, path: Path) -> FileIO:
        """A new, empty, unbuffered file; FileExistsError where the name is taken, by a link for example."""
        return FileIO(path, "wb", opener=_open_new)

    def write(self, file: FileIO, content: bytes | memoryview) -> None:
        rest = memoryview(content)
        while rest:  # one call writes 2 GB at most
            rest = rest[file.write(rest) :]

    def sync(self, file: FileIO) -> None:
        os.fsync(file.fileno())

    def replace(self, source: Path, target: Path) -> None:
        source.replace(target)

    def sync_folder(self, folder: Path) -> None:
        sync_folder(folder)

    def make_folder(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def list(self, folder: Path) -> list[str]:
        """The names in a folder, in no order; none if it does not exist."""
        try:
            return os.listdir(folder)
        except FileNotFoundError:
            return []

    def read(self, path: Path) -> bytes:
        """FileNotFoundError also for anything that is not a regular file: opening a pipe may block for ever."""
        if not path.is_file():
            raise FileNotFoundError
        return path.read_bytes()


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable, where the system lets a folder be opened for that (Windows does not)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_new(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o666)


def without_links(path: str, flags: int) -> int:
    """An opener for our files that grow: a link in place of one is an error."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


files = Files()


def write_atomically(path: Path, content: bytes | memoryview | str) -> None:
    """Replace ``path`` by ``content`` so that a crash leaves the old file or the new one, never a mixture."""
    raw = content.encode() if isinstance(content, str) else content
    temporary = temporary_name(path)
    try:
        with files.open(temporary) as file:
            files.write(file, raw)
            files.sync(file)
        files.replace(temporary, path)
        files.sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            files.unlink(temporary)
        raise explained(error, path) from None
    except (Exception, KeyboardInterrupt):  # a signal
        with contextlib.suppress(OSError):
            files.unlink(temporary)
        raise


def append_line(path: Path, line: str) -> None:
    """Append a line to one of our files; it is on the disk when this returns."""
    append_bytes(path, f"{line}\n".encode())


def append_bytes(path: Path, content: bytes) -> None:
    """Append bytes to one of our files; they are on the disk when this returns."""
    with storage_errors(path), open(path, "ab", opener=without_links) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def temporary_name(path: Path) -> Path:
    """An unguessable temporary name next to ``path``; :func:`final_name` recognises it."""
    return path.with_name(f".{short_name(path.name)}.{secrets.token_hex(8)}.tmp")


def short_name(name: str) -> str:
    """``name`` where a suffix still fits: what a file system allows is 255 bytes. Other names stay others.

    >>> short_name("a.csv"), short_name("a" * 60)[48:]
    ('a.csv', 'aa-1f98bd29')
    """
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME]}-{zlib.crc32(os.fsencode(name)):08x}"


def is_leftover(name: str) -> bool:
    """Whether a file with this name was left partly written by a killed process."""
    return final_name(name) is not None


def final_name(name: str) -> str | None:
    """The :func:`short_name` of what a partly written file was to become; None for any other file."""
    if _EARLIER_LEFTOVER.fullmatch(name):
        return name[1 : -len(".tmp")]
    found = _LEFTOVER.fullmatch(name)
    return None if found is None else found[1]


LONGEST_NAME = 50
"""Characters of a name that others made from it have; what follows is a checksum."""
_LEFTOVER = re.compile(rf"\.(.{{1,{LONGEST_NAME + 9}}})\.[0-9a-f]{{16}}\.tmp", re.DOTALL)
_EARLIER_LEFTOVER = re.compile(r"\.ckpt-[0-9]{12}\.safetensors\.tmp")
"""Of versions before random names."""


def make_folder(folder: Path) -> None:
    """Make ``folder`` and whatever is missing above it, so that a crash does not lose it and its contents."""
    with storage_errors(folder):
        for missing in reversed([one for one in (folder, *folder.parents) if not one.is_dir()]):
            files.make_folder(missing)
            files.sync_folder(missing.parent)


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn errors of the file system into RunFolderError or StorageError, naming ``path``."""
    try:
        yield
    except OSError as error:
        raise explained(error, path) from None


def explained(error: OSError, path: Path, done: str = "written") -> SdclrError:
    """An error of the file system, as one that advises what to do; ``done``: the refused operation, as in "written"."""
    what = error.strerror or str(error) or type(error).__name__
    place, advice = _ADVICE.get(
        error.errno or 0, (False, "Choose another place, or repair the storage.")
    )
    return (RunFolderError if place else StorageError)(f"{path} cannot be {done}: {what}. {advice}")


_ANOTHER = "Choose another --out."
_ADVICE: dict[int, tuple[bool, str]] = {
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR),
        (True, _ANOTHER),
    ),
    errno.ENOENT: (True, "A folder on the way to it is missing; make it, or choose another --out."),
    errno.ENAMETOOLONG: (True, "Choose a shorter --out."),
    errno.ELOOP: (
        True,
        "A link on the way to it leads to itself or cannot be followed; give the path it leads to.",
    ),
    errno.EXDEV: (
        True,
        "It spans two file systems, through a link or a mount; give a path on one of them.",
    ),
    errno.ENOSPC: (False, "Free space, then run the command again."),
    errno.EDQUOT: (False, "Free space in your quota, then run the command again."),
    errno.EFBIG: (
        False,
        "Free space, or raise the limit on the size of files (ulimit -f), then run the command again.",
    ),
    errno.EIO: (
        False,
        "The storage itself fails; check the disk or the network, then run the command again.",
    ),
    errno.EMFILE: (False, "This process may open no more files (ulimit -n); raise the limit."),
    errno.ENFILE: (
        False,
        "This machine can open no more files; close other programs, then run the command again.",
    ),
    errno.ESTALE: (
        False,
        "The network file system has lost it; mount it again, then run the command again.",
    ),
}
"""Error number -> whether another place helps (RunFolderError, else StorageError), and what to do."""
