"""Which files of a collection are the same, byte for byte. Decodes nothing and removes nothing."""

from __future__ import annotations

import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from typing import NamedTuple

from sdclr.data.collections.image_files import ImageFiles
from sdclr.data.decoding.decode import Source, open_bytes, size_in_bytes
from sdclr.data.look_ahead import in_pieces
from sdclr.errors import DataError, MissingInputError

FILES_PER_CALL = 16


def duplicates(
    images: ImageFiles, advance: Callable[[int], None] = lambda done: None
) -> list[list[str]]:
    """Groups of two and more equal files, by path, groups and files in the order of the collection.

    Only files of equal size are read. ``advance`` receives the number of files done. Raises MissingInputError or
    DataError for a path that is not a file.
    """
    same_size = _groups(range(len(images)), partial(_size_and_box, images))
    candidates = sorted(position for group in same_size for position in group)
    digests: dict[int, bytes] = {}
    advance(len(images) - len(candidates))

    def read(rows: range) -> None:
        for row in rows:
            digests[candidates[row]] = _digest(images.file(candidates[row]))

    in_pieces(len(candidates), FILES_PER_CALL, read, advance, num_workers=images.num_workers)
    groups = _groups(candidates, lambda position: (digests[position], images.box(position)))
    return [[images.paths[position] for position in group] for group in groups]


class Copy(NamedTuple):
    """A file, and the first one of another collection that is the same, byte for byte."""

    path: str
    original: str


def copies_of(originals: ImageFiles, images: ImageFiles) -> list[Copy]:
    """Which of ``images`` are copies of one of ``originals``, in their order. Reads only files of sizes in both.

    A file that is missing or cannot be read is not a copy of any: opening it raises the reason.
    """
    sizes = [_sizes(one) for one in (originals, images)]
    shared = set(sizes[0]) & set(sizes[1])
    original_of: dict[Hashable, str] = {}
    for position, digest in _digests(
        originals, [row for size in shared for row in sizes[0][size]]
    ).items():
        original_of.setdefault((digest, originals.box(position)), originals.paths[position])
    found = _digests(images, [row for size in shared for row in sizes[1][size]])
    keys = {row: (digest, images.box(row)) for row, digest in found.items()}
    return [
        Copy(images.paths[row], original_of[key]) for row, key in keys.items() if key in original_of
    ]


def _size_and_box(images: ImageFiles, position: int) -> Hashable:
    """What equal images have in common before anything is read: two boxes in one file are two images."""
    return size_in_bytes(images.file(position)), images.box(position)


def _sizes(images: ImageFiles) -> dict[Hashable, list[int]]:
    """Positions by size in bytes and box, of the files that are there."""
    positions: defaultdict[Hashable, list[int]] = defaultdict(list)
    for position in range(len(images)):
        with contextlib.suppress(DataError, MissingInputError):
            positions[_size_and_box(images, position)].append(position)
    return positions


def _digests(images: ImageFiles, positions: list[int]) -> dict[int, bytes]:
    """Digests by position, in order, of the files that can be read."""
    positions, digests = sorted(positions), dict[int, bytes]()

    def read(rows: range) -> None:
        for row in rows:
            with contextlib.suppress(OSError, DataError, MissingInputError):
                digests[positions[row]] = _digest(images.file(positions[row]))

    in_pieces(
        len(positions), FILES_PER_CALL, read, lambda done: None, num_workers=images.num_workers
    )
    return dict(sorted(digests.items()))


def _groups(positions: Iterable[int], key: Callable[[int], Hashable]) -> list[list[int]]:
    """Groups of two or more positions with the same key, in the order of their first."""
    groups: defaultdict[Hashable, list[int]] = defaultdict(list)
    for position in positions:
        groups[key(position)].append(position)
    return [group for group in groups.values() if len(group) > 1]


def _digest(source: Source) -> bytes:
    with open_bytes(source) as content:
        return hashlib.file_digest(content, "sha256").digest()
