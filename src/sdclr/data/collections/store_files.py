"""The bytes of a store of decoded images: where each image is, checksums, and a build that survives being killed.

N images. What the store means, and when it may be used, is described in :mod:`sdclr.data.collections.image_store`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import weakref
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sdclr.data.collections.image_files import ImageFiles
from sdclr.data.decoding.decode import FileState, printable
from sdclr.data.look_ahead import in_pieces, look_ahead
from sdclr.data.splits import Positions
from sdclr.errors import ChangedDataError, DataError, RunFolderError, StorageError
from sdclr.stills import Bytes, whole
from sdclr.storage.durable_files import is_leftover, write_atomically
from sdclr.storage.locks import Lock, lock_file
from sdclr.storage.positioned_files import write_at

FORMAT = "decoded images of sdclr"
PIXELS = "pixels.bin"
JOURNAL = "journal.jsonl"
IDENTITY = "identity.json"
"""A file of an unfinished store that marks the folder as ours."""
IMAGES_PER_ENTRY = 128
"""Of the journal: about as many as a killed build loses."""
IMAGES_PER_CALL = 16


def layout(sizes: Positions) -> tuple[Positions, int]:
    """The first byte of each image, int64 [N], and the number of all bytes, from heights and widths [N, 2]."""
    ends = np.cumsum(sizes.prod(axis=1) * 3)
    return np.concatenate([[0], ends[:-1]]).astype(np.int64), int(ends[-1])


@dataclass(frozen=True)
class MappedFile:
    """A file as read-only memory: bytes that are not accessed are not read."""

    path: Path
    """Absolute."""
    content: Bytes
    descriptor: int
    """Of the file itself, whatever its name is by now; closed with this object."""
    state: FileState
    """Of the file when it was mapped."""

    @classmethod
    def of(cls, file: Path, before: FileState | None = None) -> MappedFile:
        """``before``: the state that the file has to have; ChangedDataError where it has another one."""
        with open(file, "rb") as opened:
            state = FileState.of(os.fstat(opened.fileno()))  # first: what comes later is a change
            content = np.asarray(np.memmap(opened, np.uint8, "r"))
            descriptor = os.dup(opened.fileno())
        mapped = cls(file.absolute(), content, descriptor, state)
        # at exit the system closes it, after the threads that still read
        weakref.finalize(mapped, os.close, descriptor).atexit = False
        if before not in (None, state):
            raise mapped._changed()
        return mapped

    def __reduce__(self) -> tuple[Callable[..., MappedFile], tuple[Path, FileState]]:
        """A copy, or another process, maps the file anew: a descriptor belongs to one object of one process."""
        return MappedFile.of, (self.path, self.state)

    def __len__(self) -> int:
        return len(self.content)

    def part(self, start: int, end: int) -> Bytes:
        """The bytes from ``start`` to ``end``, without a copy.

        Raises ChangedDataError where the file was written since it was mapped. Where it was cut short, an access behind
        its end would kill the process (SIGBUS). A file that was moved, removed or replaced meanwhile stays readable.
        """
        if FileState.of(os.fstat(self.descriptor)) != self.state:
            raise self._changed()
        return self.content[start:end]

    def _changed(self) -> ChangedDataError:
        return ChangedDataError(
            f"{printable(self.path)} was written while it was read. Leave the store alone while it is used. "
            f"If it was replaced on purpose, give the command again; else remove the folder "
            f"{printable(self.path.parent)}, and the images are decoded again."
        )


def find_damage(
    pixels: MappedFile,
    starts: Positions,
    sizes: Positions,
    checksums: Positions,
    advance: Callable[[int], None],
    *,
    num_workers: int | None,
) -> list[int]:
    """The images, in order, whose bytes do not match their checksums (CRC-32); all bytes are read."""
    ends = starts + sizes.prod(axis=1) * 3
    damaged: list[int] = []

    def check(rows: range) -> None:
        damaged.extend(
            row
            for row in rows
            if zlib.crc32(pixels.part(starts[row], ends[row]).data) != checksums[row]
        )

    in_pieces(len(checksums), IMAGES_PER_CALL, check, advance, num_workers=num_workers)
    return sorted(damaged)


def write_pixels(
    images: ImageFiles, folder: Path, facts: dict[str, Any], advance: Callable[[int], None]
) -> Positions:
    """Decode every image into the folder's pixel file; returns the checksums, int64 [N].

    Intact images of a killed build of the same images (equal ``facts``) are kept. A journal holds the checksums of all
    images that were written and synced; the others are decoded again.
    """
    starts, num_bytes = layout(images.sizes)
    checksums = np.zeros(len(images), np.int64)
    kept = _written_before(folder, facts, starts, images)
    checksums[: len(kept)] = kept
    advance(len(kept))
    _require_space(folder, num_bytes - int(starts[len(kept)]) if len(kept) < len(images) else 0)
    write_atomically(folder / JOURNAL, f"{json.dumps(facts)}\n{json.dumps(kept.tolist())}\n")
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(folder / PIXELS, flags, 0o644)
    try:
        os.truncate(descriptor, num_bytes)
        with (folder / JOURNAL).open("a", encoding="utf-8") as journal:
            calls = _decode_calls(images, descriptor, starts, checksums, first=len(kept))
            with contextlib.closing(look_ahead(calls, num_workers=images.num_workers)) as written:
                for rows in written:
                    os.fsync(descriptor)
                    journal.write(f"{json.dumps(checksums[rows.start : rows.stop].tolist())}\n")
                    journal.flush()
                    os.fsync(journal.fileno())
                    advance(len(rows))
    finally:
        os.close(descriptor)
    return checksums


def _decode_calls(
    images: ImageFiles, descriptor: int, starts: Positions, checksums: Positions, first: int
) -> Iterator[tuple[range, list[Callable[[], object]]]]:
    """The images of each entry of the journal in turn, one call per image."""

    def decode(position: int) -> None:
        content = np.ascontiguousarray(whole(images.picture(position))).reshape(-1).data
        checksums[position] = zlib.crc32(content)
        write_at(descriptor, content, int(starts[position]))

    for start in range(first, len(images), IMAGES_PER_ENTRY):
        rows = range(start, min(start + IMAGES_PER_ENTRY, len(images)))
        yield rows, [partial(decode, row) for row in rows]


def _written_before(
    folder: Path, facts: dict[str, Any], starts: Positions, images: ImageFiles
) -> Positions:
    """Checksums of the images, from the first on, that a killed build of the same images wrote and that are intact."""
    nothing = np.zeros(0, np.int64)
    try:
        # whole lines only
        header, *entries = (folder / JOURNAL).read_text(encoding="utf-8").split("\n")[:-1]
        if json.loads(header) != facts:
            return nothing
        checksums = np.array(
            [number for entry in entries for number in json.loads(entry)], dtype=np.int64
        )
        pixels = MappedFile.of(folder / PIXELS)
    except (
        FileNotFoundError,
        ValueError,
        TypeError,
    ):
        # no such file, an empty one, or not our journal
        return nothing
    checksums = checksums[: len(images)]
    starts, sizes = starts[: len(checksums)], images.sizes[: len(checksums)]
    damaged = find_damage(
        pixels, starts, sizes, checksums, lambda done: None, num_workers=images.num_workers
    )
    return checksums[: damaged[0]] if damaged else checksums


def _require_space(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise StorageError(
            f"the decoded images take {num_bytes / 1e9:.1f} GB more in {printable(folder)}, and {free / 1e9:.1f} GB "
            "are free. Free space, or choose another folder."
        )


def require_ours(folder: Path) -> None:
    """DataError unless an earlier build made this unfinished store, as its identity shows, or the folder is empty."""
    if not os.path.lexists(folder):
        return
    ours = folder.is_dir() and not folder.is_symlink()
    if ours and not _begun_by_us(folder):
        ours = all(is_leftover(name) for name in os.listdir(folder))
    if not ours:
        raise DataError(
            f"{printable(folder)} exists and is not an unfinished store of sdclr; move it away, or choose another "
            "data.store."
        )


def _begun_by_us(folder: Path) -> bool:
    for name in (IDENTITY, JOURNAL):  # the journal, for versions that wrote no identity
        with (
            contextlib.suppress(OSError, ValueError, RecursionError),
            (folder / name).open("rb") as file,
        ):
            facts = json.loads(file.readline(_LONGEST_HEADER))
            if isinstance(facts, dict) and facts.get("format") == FORMAT:
                return True
    return False


_LONGEST_HEADER = 4096


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock this folder against other builds; DataError if another process is building in it."""
    lock = Lock(
        lock_file(folder),
        f"the store {printable(folder)}",
        removed=True,
        advice="choose another data.store",
    )
    try:
        lock.__enter__()
    except RunFolderError:
        if lock.held_elsewhere():
            words = f"another process is building the store {printable(folder)}; wait for it{lock.holder()}."
            raise DataError(words) from None
        raise
    try:
        yield
    finally:
        lock.__exit__(None, None, None)
