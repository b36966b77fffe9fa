"""Locks on files: a writer holds one, a second writer gets an error that names the holder, and a check takes none away.

The lock itself is filelock's (flock on POSIX, LockFileEx on Windows); it ends with its process, however that ends. A
note next to it (NAME.json) records its holder; a note without a lock was left by a killed process, and is ignored.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import shutil
import stat
import sys
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import filelock

from sdclr.errors import InUseError, RunFolderError
from sdclr.storage import durable_files
from sdclr.storage.durable_files import explained, final_name, short_name

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

PATIENCE_SECONDS = 0.5
"""A process that only checks may hold the lock for a moment, where it cannot be shared."""
_POLL_SECONDS = 0.02
_LONGEST_NOTE = 4096


class Lock:
    """An exclusive lock on the file ``path``, for ``what`` it protects; a context manager.

    ``removed``: whether its files are removed on release; else an empty ``path`` stays. ``advice``: what to do instead
    of waiting; None where only this file will do. Raises RunFolderError where another process (or another Lock object
    here) holds it, or where it cannot be made.
    """

    def __init__(
        self,
        path: Path,
        what: str,
        *,
        removed: bool = False,
        advice: str | None = "choose another --out",
    ) -> None:
        if fcntl is None and sys.platform != "win32":
            # there, the existence of the file means that it is held, so it gets a name of its own
            path = path.with_name(f"{path.name}.held")
        self.path, self.what = path, what
        self._removed, self._advice = removed, advice
        self._note = path.with_name(f"{path.name}.json")
        self._held: filelock.BaseFileLock | None = None

    def __enter__(self) -> Self:
        try:
            self._held = self._take()
            self._write_note()
        except filelock.Timeout:
            raise InUseError(
                f"{self.what} is in use by another process{self.holder()}; wait for it{self._or_else(' or ')}."
            ) from None
        except OSError as error:
            self.__exit__(None, None, None)
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                raise explained(error, self.path) from None
            raise RunFolderError(
                f"{self.what} is not writable: {error.strerror or error}. "
                f"{_sentence(self._advice or 'make it writable, or name a copy that is')}."
            ) from None
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._held is None:
            return
        held, self._held = self._held, None
        with contextlib.suppress(OSError):
            self._note.unlink()
        if self._removed:
            # before the release: afterwards it may belong to another
            with contextlib.suppress(OSError):
                self.path.unlink()
        held.release()

    @property
    def held_here(self) -> bool:
        """Whether this object holds it."""
        return self._held is not None

    def held_elsewhere(self) -> bool:
        """Whether another process (or another Lock object here) holds it now.

        Any number may check at once, and each gets the right answer: they use a shared lock, where the system has one.
        """
        if self.held_here or not os.path.lexists(self._note):
            return False  # without a note it is not held, and there is no need to touch it
        if fcntl is None:
            return self._cannot_be_taken()
        try:
            descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        except OSError:
            return False  # missing or not readable: no lock can be seen
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return False

    def _cannot_be_taken(self) -> bool:
        try:
            self._take().release()
        except filelock.Timeout:
            return True
        except (OSError, RunFolderError):
            return False  # not ours to take
        return False

    def _take(self) -> filelock.BaseFileLock:
        while True:
            self._require_ours()
            # a new object each time: a shared one would count how often its own process holds it
            lock = filelock.FileLock(self.path, thread_local=False)
            lock.acquire(timeout=PATIENCE_SECONDS, poll_interval=_POLL_SECONDS)
            if self.path.exists():
                return lock
            lock.release()  # its holder has removed it meanwhile

    def _require_ours(self) -> None:
        """RunFolderError for a file of that name that is not a lock: some versions of filelock would empty it."""
        foreign = {self.path: self._is_foreign_lock(), self._note: self._is_foreign_note()}
        for path, is_foreign in foreign.items():
            if is_foreign:
                raise RunFolderError(
                    f"{path} exists and is not a lock of sdclr; move it away{self._or_else(', or ')}."
                )

    def _is_foreign_lock(self) -> bool:
        try:
            found = os.lstat(self.path)
        except FileNotFoundError:
            return False
        # locks that contain a process's number are not empty
        return not stat.S_ISREG(found.st_mode) or (found.st_size > 0 and fcntl is not None)

    def _is_foreign_note(self) -> bool:
        """Whether the note is not one of ours; one that its holder removes meanwhile does not count."""
        try:
            if not stat.S_ISREG(os.lstat(self._note).st_mode):
                return True
            with self._note.open("rb") as file:
                content = file.read(_LONGEST_NOTE)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return bool(content) and _parsed(content) is None

    def _write_note(self) -> None:
        facts = {"lock": "sdclr", "pid": os.getpid(), "host": platform.node(), "since": _now()}
        with contextlib.suppress(FileNotFoundError):
            self._note.unlink()
        descriptor = os.open(
            self._note, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o644
        )
        # on a full disk the note stays empty: it then shows that the lock is held, but not by whom
        with contextlib.suppress(OSError), open(descriptor, "w", encoding="utf-8") as file:
            json.dump(facts, file)

    def _read_note(self) -> dict[str, Any] | None:
        try:
            if not stat.S_ISREG(os.lstat(self._note).st_mode):
                return None
            with self._note.open("rb") as file:
                return _parsed(file.read(_LONGEST_NOTE))
        except OSError:
            return None

    def _or_else(self, conjunction: str) -> str:
        return f"{conjunction}{self._advice}" if self._advice else ""

    def holder(self) -> str:
        """ " (process 7 on host since ...)"; empty where there is no note."""
        facts = self._read_note() or {}
        return (
            f" (process {facts['pid']} on {facts.get('host')} since {facts.get('since')})"
            if "pid" in facts
            else ""
        )


@contextlib.contextmanager
def writing(path: Path, advice: str = "choose another --out") -> Iterator[None]:
    """Lock the file or folder ``path`` against other writers; RunFolderError names the holder and gives ``advice``.

    What killed writers have left beside it is removed.
    """
    with Lock(lock_file(path), str(path), removed=True, advice=advice):
        remove_leftovers(path.parent, [path.name])
        yield


def lock_file(path: Path) -> Path:
    """The lock of ``path``, beside it; names of any length get locks of their own."""
    return path.with_name(f".{short_name(path.name)}.lock")


def remove_leftovers(folder: Path, names: Collection[str] | None = None) -> None:
    """Remove files and folders in ``folder`` that killed processes left partly written.

    Only for a process that holds the lock of what it removes. ``names``: what they were to become; None: anything that
    no other process is writing by a lock of its own.
    """
    wanted = None if names is None else {short_name(name) for name in names}
    with contextlib.suppress(OSError):
        for name in durable_files.files.list(folder):
            final = final_name(name)
            if final is None or (wanted is not None and final not in wanted):
                continue
            if wanted is None and Lock(folder / f".{final}.lock", final).held_elsewhere():
                continue
            with contextlib.suppress(OSError):
                _remove(folder / name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        durable_files.files.unlink(path)


def _parsed(note: bytes) -> dict[str, Any] | None:
    """The facts of a note; None for anything that our locks have not written."""
    try:
        facts = json.loads(note)
    except (ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) and facts.get("lock") == "sdclr" else None


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
