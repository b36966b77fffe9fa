"""Files that the user has named: never overwritten unless requested, never written by two processes at once.

A name made from the user's name (OUT.partial, .OUT.lock) may be taken, too: anything there that is not recognised as
ours is left alone, and the command ends.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from sdclr.errors import ConfigError, RunFolderError
from sdclr.run.files import OWN_PARTS, looks_like_a_run
from sdclr.storage.durable_files import explained, storage_errors, write_atomically
from sdclr.storage.locks import writing


@contextlib.contextmanager
def output_file(path: Path, *, overwrite: bool, option: str = "--out") -> Iterator[None]:
    """Claim ``path`` before any work, for the block that writes it, against other writers.

    Raises ConfigError where it is a folder, where its folder is missing, and for a file that exists already unless
    ``overwrite``; RunFolderError where another process is writing it, or where it cannot be written.
    """
    require_place(path, option)
    require_free(path, overwrite=overwrite, option=option)
    with writing(path):
        # again, now that no other process writes it
        require_free(path, overwrite=overwrite, option=option)
        yield


def require_place(path: Path, option: str) -> None:
    """ConfigError for a folder or a file in a missing one, RunFolderError where nothing may be written."""
    with storage_errors(path):
        if path.name in ("", "..") or path.is_dir():
            raise ConfigError(f"{option} {path} is a folder; give the name of a file.")
        require_parent(path, option)
    if not os.access(path.parent, os.W_OK):
        raise RunFolderError(f"{path.parent} is not writable; choose another {option}.")


def require_parent(path: Path, option: str = "--out") -> None:
    """ConfigError unless the folder that ``path`` is to be in exists."""
    if lexists(path.parent) and not path.parent.is_dir():
        raise ConfigError(f"{option}: {path.parent} is not a folder; choose another place.")
    if not path.parent.is_dir():
        raise ConfigError(f"{option}: the folder {path.parent} does not exist; make it first.")


def require_free(path: Path, *, overwrite: bool, option: str = "--out") -> None:
    """ConfigError for a file, or a link, that exists already, unless ``overwrite``; always for a part of a run."""
    if path.name in OWN_PARTS and lexists(path) and looks_like_a_run(os.listdir(path.parent)):
        raise ConfigError(f"{path} is a part of the run in {path.parent}; choose another {option}.")
    with storage_errors(path):
        taken = lexists(path)
    if taken and not overwrite:
        raise ConfigError(
            f"{path} exists; give --overwrite to replace it, or choose another {option}."
        )


def write_output(
    path: Path, content: bytes | memoryview | str, *, overwrite: bool, option: str = "--out"
) -> None:
    """Write a whole file that the user has named, by :func:`output_file` and write_atomically."""
    with output_file(path, overwrite=overwrite, option=option):
        write_atomically(path, content)


def begins_with(path: Path, mark: str) -> bool:
    """Whether ``path`` is a regular file, not a link, that begins with ``mark``, which identifies ours."""
    raw = mark.encode()
    if path.is_symlink() or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(raw)) == raw
    except OSError as error:
        raise explained(error, path, "read") from None


def lexists(path: Path) -> bool:
    """Whether there is anything with this name, including a broken link. Raises OSError, unlike os.path's."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True
