"""Finished rows of a long computation, part by part, so that the same command goes on where it was killed.

Each part is a .npy file, written whole or not at all. Knows nothing of what the rows are.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from sdclr.errors import RunFolderError
from sdclr.storage.durable_files import (
    is_leftover,
    storage_errors,
    sync_folder,
    temporary_name,
    write_atomically,
)
from sdclr.storage.output_files import lexists, require_free

IDENTITY = "identity.json"
KIND = "sdclr features, unfinished"
ROWS_PER_PART = 4096
_OURS = re.compile(r"[0-9]{12}\.npy")


class RowParts:
    """Rows that are finished, in a folder of their own; ``identity`` says what they belong to.

    The folder is ours by its identity.json alone, or where it is empty; of its files those are that have our names.
    """

    def __init__(self, folder: Path, identity: str, what: str = "features") -> None:
        self.folder, self.identity, self.what = folder, identity, what
        self.rows = 0

    @staticmethod
    def beside(out: Path) -> Path:
        """The folder that holds the rows of ``out`` until all are there."""
        return out.with_name(f"{out.name}.partial")

    @staticmethod
    def require_ours(folder: Path, verb: str) -> None:
        """RunFolderError for a folder, or whatever it is, that an earlier ``sdclr VERB`` has not made."""
        with storage_errors(folder):
            if not lexists(folder):
                return
            ours = folder.is_dir() and not folder.is_symlink()
            if ours and not _read_identity(folder):
                ours = all(is_leftover(name) for name in os.listdir(folder))
        if not ours:
            raise RunFolderError(
                f"{folder} exists and was not made by sdclr {verb}; move it away, or choose another --out."
            )

    def open(self, num_images: int) -> int:
        """Rows that an earlier call has finished; what belongs to other images or weights is thrown away."""
        with storage_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
            if _read_identity(self.folder) != self.identity:
                if self._part(0).is_file():
                    warnings.warn(
                        f"{self.folder} holds {self.what} of other images or of another backbone (or "
                        "these have changed since): they are made anew.",
                        stacklevel=4,
                    )
                self._remove_files()
                write_atomically(
                    self.folder / IDENTITY, json.dumps({"kind": KIND, "identity": self.identity})
                )
        while (path := self._part(self.rows)).is_file():
            self.rows += len(np.load(path, mmap_mode="r"))
        return min(self.rows, num_images)

    def append(self, rows: npt.NDArray[Any]) -> None:
        """The next part; it may have any type without objects, the same for all parts."""
        path = self._part(self.rows)
        with storage_errors(path):
            with new_file(path) as (temporary, file):
                np.save(file, rows)
            os.replace(temporary, path)
        self.rows += len(rows)

    def complete(
        self,
        num_rows: int,
        rows_of: Callable[[range], npt.NDArray[Any]],
        rows_per_part: int = ROWS_PER_PART,
    ) -> None:
        """Append what is missing of ``num_rows``; ``rows_of`` computes the rows of one part."""
        for first in range(self.rows, num_rows, rows_per_part):
            self.append(rows_of(range(first, min(first + rows_per_part, num_rows))))

    def keep_as(
        self, out: Path, write: Callable[[IO[bytes]], None], *, overwrite: bool = False
    ) -> None:
        """Write the finished file, give it the name that was asked for, and remove the parts."""
        with storage_errors(out):
            with new_file(self.folder / f"whole{out.suffix}") as (temporary, file):
                write(file)
            require_free(out, overwrite=overwrite)  # hours have passed
            os.replace(temporary, out)
            sync_folder(out.parent)
            self.remove()

    def remove(self) -> None:
        """The folder and what is ours in it; a warning where it holds something else."""
        self._remove_files()
        (self.folder / IDENTITY).unlink()
        try:
            self.folder.rmdir()
        except OSError:
            warnings.warn(
                f"{self.folder} holds files that are not sdclr's; they were left there.",
                stacklevel=3,
            )

    def parts(self) -> Iterator[npt.NDArray[Any]]:
        """What was appended, in order."""
        first = 0
        while (path := self._part(first)).is_file():
            part = np.load(path)
            yield part
            first += len(part)

    def as_mapped_file(self) -> npt.NDArray[Any]:
        """All rows as one memory-mapped file, so that a million images need no memory; remove() removes it."""
        first_part = np.load(self._part(0), mmap_mode="r")
        path = temporary_name(self.folder / "features.npy")
        whole = np.lib.format.open_memmap(
            path, mode="w+", dtype=first_part.dtype, shape=(self.rows, *first_part.shape[1:])
        )
        first = 0
        for part in self.parts():
            whole[first : first + len(part)] = part
            first += len(part)
        return whole

    def _remove_files(self) -> None:
        """All but the identity: what has another name is not ours."""
        for name in os.listdir(self.folder):
            if _OURS.fullmatch(name) or is_leftover(name):
                (self.folder / name).unlink()

    def _part(self, first: int) -> Path:
        return self.folder / f"{first:012d}.npy"


def _read_identity(folder: Path) -> str | None:
    """What the finished rows in ``folder`` belong to; None where it is not ours."""
    try:
        facts = json.loads((folder / IDENTITY).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return (
        str(facts.get("identity"))
        if isinstance(facts, dict) and facts.get("kind") == KIND
        else None
    )


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """A file that did not exist, under a temporary name beside ``path``; on the disk when the block ends."""
    temporary = temporary_name(path)
    with temporary.open("xb") as file:
        yield temporary, file
        file.flush()
        os.fsync(file.fileno())


def put_in_place(temporary: Path, path: Path) -> None:
    """Give a finished file its name; on the disk when this returns."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)
