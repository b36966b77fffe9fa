"""Finished rows of a long computation, part by part, so that the same command resumes where it was killed.

Each part is a .npy file, written whole or not at all. Where keys identify the rows, finished rows are reused even when
others were added or removed since. Several processes divide the parts, in a folder that all of them see; the first one
opens the folder, waits for the others and is the only one to use the rows. Knows nothing about what the rows are.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from sdclr.any_progress import AnyProgress, NoProgress
from sdclr.errors import DistributedError, RunFolderError
from sdclr.safe_text import first_of
from sdclr.storage.array_files import mapped_file, save_array
from sdclr.storage.carried_rows import (
    NOTHING,
    Carried,
    Keys,
    carry_over,
    digest_of,
    is_ours,
    read_carried,
    write_keys,
)
from sdclr.storage.durable_files import (
    is_leftover,
    storage_errors,
    sync_folder,
    temporary_name,
    write_atomically,
)
from sdclr.storage.output_files import lexists, require_free


class Team(Protocol):
    """The processes that compute the rows together (``processes.messages.Messages``)."""

    rank: int
    size: int

    @property
    def is_first(self) -> bool: ...

    def raise_failure(self) -> None: ...

    def publish(self, key: str, words: dict[str, Any]) -> None: ...

    def wait_for(self, key: str, seconds: float | None = None) -> dict[str, Any]: ...


RowsOf = Callable[[npt.NDArray[np.int64]], npt.NDArray[Any]]
"""Computes the rows at these places [n], ascending."""

IDENTITY = "identity.json"
KIND = "sdclr features, unfinished"
ROWS_PER_PART = 4096
FEWEST_ROWS, MOST_PARTS = 256, 64
_PART = re.compile(r"[0-9]{12}(-[0-9a-f]{16})?\.npy")


class RowParts:
    """Rows that are finished, in a folder of their own; ``identity`` describes what they belong to.

    The folder counts as ours by its identity.json, or if it is empty; its files count as ours by their names.
    """

    def __init__(
        self,
        folder: Path,
        identity: str,
        what: str = "features",
        *,
        keys: Keys | None = None,
        team: Team | None = None,
    ) -> None:
        """``keys``: identify the rows (carried_rows.keys_of); None where ``identity`` covers that, too.

        ``team``: the processes that compute; None where this process is alone.
        """
        self.folder, self.identity, self.what = folder, identity, what
        self.rows = 0
        self._keys, self._carried = keys, NOTHING
        self._digest = "" if keys is None else digest_of(keys, identity)
        self.stamp = f"{identity} {self._digest}".rstrip()
        """Identifies what is computed, and for which rows."""
        self._team = team if team is not None and team.size > 1 else None
        self._key = (
            f"rows/{hashlib.sha256(str(folder).encode(errors='surrogatepass')).hexdigest()[:16]}"
        )

    @staticmethod
    def beside(out: Path) -> Path:
        """The folder that holds the rows of ``out`` until all are finished."""
        return out.with_name(f"{out.name}.partial")

    @staticmethod
    def require_ours(folder: Path, verb: str) -> None:
        """RunFolderError for a folder, or anything else there, that an earlier ``sdclr VERB`` did not make."""
        with storage_errors(folder):
            if not lexists(folder):
                return
            ours = folder.is_dir() and not folder.is_symlink()
            if ours and not _read_identity(folder):
                names = os.listdir(folder)  # killed before its identity was written
                ours = all(is_leftover(name) or is_ours(name) for name in names)
        if not ours:
            raise RunFolderError(
                f"{folder} exists and was not made by sdclr {verb}; move it away, or choose another --out."
            )

    def open(self, num_images: int) -> int:
        """The number of rows that an earlier call has finished, from the first on.

        Rows of other images or weights are discarded; with keys, those of the same images and weights are kept.
        DistributedError where another process of the team has opened rows of something else.
        """
        if self._team is not None and not self._team.is_first:
            found = self._team.wait_for(f"{self._key}/open")
            if found["stamp"] != self.stamp:
                raise DistributedError(
                    f"process {self._team.rank} sees other images or another backbone than process 0. Every process "
                    "needs the same files, on a file system that all of them see."
                )
            self._carried = self._read_carried()
            self.rows = found["rows"]
            return min(self.rows, num_images)
        with storage_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
            before = _read_identity(self.folder)
            if before != self.stamp:
                if not self._carry_over(before) and any(map(_PART.fullmatch, self._files())):
                    warnings.warn(
                        f"{self.folder} holds {self.what} of other images or of another backbone (or "
                        "these have changed since): they are made again.",
                        stacklevel=4,
                    )
                if not self._digest:
                    self._remove_files()
                write_atomically(
                    self.folder / IDENTITY, json.dumps({"kind": KIND, "identity": self.stamp})
                )
            elif self._keys is not None and read_carried(self.folder, self._digest) is None:
                write_keys(self.folder, self._digest, self._keys)
            self._remove_files(but_own=True)
            self._remove_damaged()
            self._carried = self._read_carried()
        while (path := self._part(self.rows)).is_file():
            self.rows += len(np.load(path, mmap_mode="r"))
        if self._team is not None:
            self._team.publish(f"{self._key}/open", {"stamp": self.stamp, "rows": self.rows})
        return min(self.rows, num_images)

    def _carry_over(self, stamp: str | None) -> int:
        """Keep rows finished under ``stamp`` that are needed now; returns how many."""
        if self._keys is None:
            return 0
        identity, _, digest = (stamp or "").rpartition(" ")
        known = read_carried(self.folder, digest) if identity == self.identity else None
        if known is None:
            write_keys(self.folder, self._digest, self._keys)
            return 0
        old, before = known
        parts = [
            (np.arange(first, first + num), path) for first, num, path in self._finished(digest)
        ]
        if before.path is not None:
            parts.append((before.places, before.path))
        return carry_over(self.folder, self._digest, self._keys, old, parts)

    def _read_carried(self) -> Carried:
        found = read_carried(self.folder, self._digest) if self._digest else None
        return NOTHING if found is None else found[1]

    def _remove_damaged(self) -> None:
        """Remove parts that cannot be read, with a warning; they are computed again."""
        damaged = [name for name in self._names(self._digest) if not _num_rows(self.folder / name)]
        for name in damaged:
            (self.folder / name).unlink()
        if damaged:
            warnings.warn(
                f"{self.folder / first_of(damaged, 3)} cannot be read: the {self.what} in it are made again.",
                stacklevel=5,
            )

    def append(self, rows: npt.NDArray[Any]) -> None:
        """Append the next part; it may have any type without objects, the same for all parts."""
        self._write(self.rows, rows)
        self.rows += len(rows)

    def _write(self, first: int, rows: npt.NDArray[Any]) -> None:
        path = self._part(first)
        with storage_errors(path):
            with new_file(path) as (temporary, file):
                save_array(file, rows)
            os.replace(temporary, path)

    def compute(
        self,
        num_rows: int,
        what: str,
        rows_of: Callable[[npt.NDArray[np.int64], Callable[[int], None]], npt.NDArray[Any]],
        show: AnyProgress,
    ) -> None:
        """:meth:`open`, and :meth:`complete` with progress.

        ``what``: the name of the rows on the display, such as "features of 12 images". ``rows_of`` computes the rows at
        the given places, and reports how many images are done.
        """
        done = self.open(num_rows)
        if self._team is not None:
            what = f"a share of the {what}, {self._team.size} processes"
        own = self._own(num_rows)
        carried = sum(len(self._carried.among(rows)[0]) for rows in own)
        show = show if num_rows else NoProgress()
        task = show.add(what, total=done + sum(map(len, own)), unit="images", done=done + carried)
        self.complete(
            num_rows, lambda places: rows_of(places, lambda count: show.advance(task, count))
        )
        show.finish(task)

    def complete(self, num_rows: int, rows_of: RowsOf) -> None:
        """Append the missing rows of ``num_rows``.

        The processes of a team take the parts in turns, and the first one returns when all are finished.
        """
        for rows in self._own(num_rows):
            self._write(rows.start, self._rows(rows, rows_of))
            if self._team is None:
                self.rows = rows.stop
            else:
                self._team.raise_failure()  # not only once the whole share is done
        self.rows = max(self.rows, num_rows)
        if self._team is None:
            return
        self._team.publish(f"{self._key}/done/{self._team.rank}", {})
        if self._team.is_first:
            for other in range(1, self._team.size):
                self._team.wait_for(f"{self._key}/done/{other}")

    def _rows(self, wanted: range, rows_of: RowsOf) -> npt.NDArray[Any]:
        """The rows of one part: those that were carried over, and the others, which are computed."""
        places, known = self._carried.among(wanted)
        if known is None or not len(places):
            return rows_of(np.arange(wanted.start, wanted.stop))
        if len(places) == len(wanted):
            return known
        missing = np.setdiff1d(np.arange(len(wanted)), places, assume_unique=True)
        computed = rows_of(missing + wanted.start)
        whole = np.empty((len(wanted), *computed.shape[1:]), computed.dtype)
        whole[places], whole[missing] = known, computed
        return whole

    def _own(self, num_rows: int) -> list[range]:
        """This process's share of the missing parts."""
        rank, size = (0, 1) if self._team is None else (self._team.rank, self._team.size)
        step = rows_per_part(num_rows)
        firsts = range(self.rows, num_rows, step)[rank::size]
        return [
            range(first, min(first + step, num_rows))
            for first in firsts
            if not self._part(first).is_file()
        ]

    def keep_as(
        self, out: Path, write: Callable[[IO[bytes]], None], *, overwrite: bool = False
    ) -> None:
        """Write the finished file, give it the requested name, and remove the parts."""
        with storage_errors(out):
            with new_file(self.folder / f"whole{out.suffix}") as (temporary, file):
                write(file)
            require_free(out, overwrite=overwrite)  # hours have passed
            os.replace(temporary, out)
            sync_folder(out.parent)
            self.remove()

    def remove(self) -> None:
        """Remove the folder and our files in it; a warning where it holds something else."""
        self._carried = NOTHING  # some systems cannot remove a mapped file
        with storage_errors(self.folder):
            self._remove_files()
            (self.folder / IDENTITY).unlink(missing_ok=True)
        try:
            self.folder.rmdir()
        except OSError:
            warnings.warn(
                f"{self.folder} holds files that are not sdclr's; they were left there.",
                stacklevel=3,
            )

    def parts(self) -> Iterator[npt.NDArray[Any]]:
        """The parts that were appended, in order."""
        first = 0
        while (path := self._part(first)).is_file():
            part = np.load(path)
            yield part
            first += len(part)

    def _finished(self, digest: str) -> Iterator[tuple[int, int, Path]]:
        """The first row, the number of rows and the file of each part, including those after a missing one."""
        for name in self._names(digest):
            if num := _num_rows(self.folder / name):
                yield int(name[:12]), num, self.folder / name

    def _names(self, digest: str) -> list[str]:
        """The names of the parts with these keys."""
        end = f"-{digest}.npy" if digest else ".npy"
        return sorted(name for name in self._files() if _PART.fullmatch(name) and name[12:] == end)

    def _files(self) -> list[str]:
        return os.listdir(self.folder)

    def as_mapped_file(self) -> npt.NDArray[Any]:
        """All rows as one memory-mapped file, so that a million images need no memory; remove() deletes it."""
        first_part = np.load(self._part(0), mmap_mode="r")
        path = temporary_name(self.folder / "features.npy")
        whole = mapped_file(path, first_part.dtype, (self.rows, *first_part.shape[1:]))
        first = 0
        for part in self.parts():
            whole[first : first + len(part)] = part
            first += len(part)
        return whole

    def _remove_files(self, *, but_own: bool = False) -> None:
        """Remove all our files, by their names, but the identity; with ``but_own``, only those of other keys."""
        for name in self._files():
            if but_own and (self._digest in name if self._digest else "-" not in name):
                continue
            if _PART.fullmatch(name) or is_ours(name) or is_leftover(name):
                (self.folder / name).unlink()

    def _part(self, first: int) -> Path:
        # other keys have other names, so that a change of keys is a single change, of the identity
        return self.folder / f"{first:012d}{f'-{self._digest}' if self._digest else ''}.npy"


def rows_per_part(num_rows: int) -> int:
    """A multiple of FEWEST_ROWS such that even a small collection has parts for several processes.

    >>> rows_per_part(1000), rows_per_part(100_000), rows_per_part(10**7)
    (256, 1792, 4096)
    """
    wanted = -(-num_rows // MOST_PARTS)
    return min(max(-(-wanted // FEWEST_ROWS) * FEWEST_ROWS, FEWEST_ROWS), ROWS_PER_PART)


def _num_rows(part: Path) -> int:
    """How many rows the file holds; 0 for one that is damaged in any way."""
    try:
        return len(np.lib.format.open_memmap(part, mode="r"))
    except OSError:
        raise
    except Exception:  # a header is a Python literal; a damaged one may raise anything
        return 0


def _read_identity(folder: Path) -> str | None:
    """The identity of the finished rows in ``folder``; None where it is not ours."""
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
    """A new file under a temporary name next to ``path``; on the disk when the block ends."""
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
