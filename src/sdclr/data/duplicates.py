"""Which files of a collection are the same, byte for byte. Decodes nothing and removes nothing."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable

from sdclr.data.decode import Source, open_bytes, size_in_bytes
from sdclr.data.image_files import ImageFiles
from sdclr.data.look_ahead import in_pieces

FILES_PER_CALL = 16


def duplicates(images: ImageFiles, advance: Callable[[int], None] = lambda done: None) -> list[list[str]]:
    """Groups of two and more equal files, by path, groups and files in the order of the collection.

    Only files of equal size are read. ``advance`` hears of the number of files done. Raises MissingInputError or
    DataError for a path that is no file.
    """
    same_size = _groups(range(len(images)), lambda position: size_in_bytes(images.file(position)))
    candidates = sorted(position for group in same_size for position in group)
    digests: dict[int, bytes] = {}
    advance(len(images) - len(candidates))

    def read(rows: range) -> None:
        for row in rows:
            digests[candidates[row]] = _digest(images.file(candidates[row]))

    in_pieces(len(candidates), FILES_PER_CALL, read, advance, num_workers=images.num_workers)
    return [[images.paths[position] for position in group] for group in _groups(candidates, digests.__getitem__)]


def _groups(positions: Iterable[int], key: Callable[[int], Hashable]) -> list[list[int]]:
    """Positions with one key, where there are several, in order of their first."""
    groups: defaultdict[Hashable, list[int]] = defaultdict(list)
    for position in positions:
        groups[key(position)].append(position)
    return [group for group in groups.values() if len(group) > 1]


def _digest(source: Source) -> bytes:
    with open_bytes(source) as content:
        return hashlib.file_digest(content, "sha256").digest()
