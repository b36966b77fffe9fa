"""Finished rows of a killed computation whose list of images has changed since: rows still valid are carried over.

A key identifies what a row is computed from, and equal keys have equal rows, whatever else is computed. N rows are
needed now. Knows nothing about what the rows are.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sdclr.storage.array_files import (
    DamagedArraysError,
    mapped_file,
    read_arrays,
    write_arrays,
)
from sdclr.storage.durable_files import temporary_name

Keys = npt.NDArray[np.uint64]
"""[N, 2], 128 bits per row."""
Rows = npt.NDArray[Any]
Places = npt.NDArray[np.int64]

BLOCK = 4096
"""Rows that are copied at once, so that memory does not grow with N."""


def keys_of(texts: Iterable[str]) -> Keys:
    """A key for each text; the texts are distinct.

    >>> keys_of(["a.jpg 01", "b.jpg 02"]).shape
    (2, 2)
    """
    digests = [
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        for text in texts
    ]
    return np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2).astype(np.uint64)


def digest_of(keys: Keys, identity: str) -> str:
    """16 hex digits over keys in their order and ``identity``, what is computed for each."""
    digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape"))
    digest.update(keys.astype("<u8").tobytes())
    return digest.hexdigest()[:16]


def matching(some: Keys, others: Keys) -> tuple[Places, Places]:
    """The positions of equal keys in ``some`` and in ``others``, in the order of the latter.

    >>> old, new = keys_of("abcd"), keys_of("xdb")
    >>> matching(old, new)
    (array([3, 1]), array([1, 2]))
    """
    _, mine, theirs = np.intersect1d(some[:, 0], others[:, 0], return_indices=True)
    equal = some[mine, 1] == others[theirs, 1]
    mine, theirs = mine[equal], theirs[equal]
    order = np.argsort(theirs)
    return mine[order], theirs[order]


@dataclass(frozen=True, eq=False)
class Carried:
    """Rows that were computed before and are needed now."""

    places: Places
    """[n], ascending, among the N rows."""
    path: Path | None
    """The file of the rows [n, ...]; None where there are none."""

    @cached_property
    def rows(self) -> Rows | None:
        """[n, ...], mapped."""
        return None if self.path is None else np.lib.format.open_memmap(self.path, mode="r")

    def among(self, wanted: range) -> tuple[Places, Rows | None]:
        """Places of the carried rows in ``wanted``, counted from its first, and these rows."""
        first, last = np.searchsorted(self.places, [wanted.start, wanted.stop])
        places = self.places[first:last] - wanted.start
        return places, None if self.rows is None else self.rows[first:last]


NOTHING = Carried(np.zeros(0, np.int64), None)


def write_keys(folder: Path, digest: str, keys: Keys, carried: Places = NOTHING.places) -> None:
    """Record the keys of the rows in ``folder``, and which of the rows :func:`carry_over` has written."""
    write_arrays(_keys_file(folder, digest), {}, {"keys": keys, "carried": carried})


def read_carried(folder: Path, digest: str) -> tuple[Keys, Carried] | None:
    """The keys with this digest, and the rows carried over to them; None where nothing can be read."""
    try:
        found = read_arrays(_keys_file(folder, digest))
        if found is None:
            return None
        keys, places = found.arrays["keys"], found.arrays["carried"]
        if not len(places):
            return keys, NOTHING
    except (OSError, ValueError, KeyError, DamagedArraysError):
        return None
    carried = Carried(places, _rows_file(folder, digest))
    try:
        fits = carried.rows is not None and len(carried.rows) == len(places)
    except Exception:  # damaged in some way: those rows are computed again
        fits = False
    return keys, carried if fits else NOTHING


def carry_over(
    folder: Path, digest: str, keys: Keys, old: Keys, parts: Sequence[tuple[Places, Path]]
) -> int:
    """Write the rows of ``parts`` that are needed now; returns how many.

    ``parts``: places among the ``old`` keys, and the file of their rows; of a repeated place the first row counts.
    Written completely or not at all: the keys come last.
    """
    known = np.concatenate([NOTHING.places, *(places for places, _ in parts)])
    found, places = matching(old[known], keys)
    if len(found):
        example = np.lib.format.open_memmap(parts[0][1], mode="r")
        temporary = temporary_name(_rows_file(folder, digest))
        whole = mapped_file(temporary, example.dtype, (len(found), *example.shape[1:]))
        first = 0
        for _, path in parts:  # one at a time, as there may be thousands of files
            rows = np.lib.format.open_memmap(path, mode="r")
            in_part = np.flatnonzero((found >= first) & (found < first + len(rows)))
            for block in np.split(in_part, range(BLOCK, len(in_part), BLOCK)):
                whole[block] = rows[found[block] - first]
            first += len(rows)
        whole.flush()
        del whole
        os.replace(temporary, _rows_file(folder, digest))
    write_keys(folder, digest, keys, places)
    return len(found)


def is_ours(name: str) -> bool:
    """Whether a file in the folder was written here."""
    kind, _, rest = name.partition("-")
    return (kind, rest[16:]) in (("keys", ".arrays"), ("carried", ".npy"))


def _keys_file(folder: Path, digest: str) -> Path:
    return folder / f"keys-{digest}.arrays"


def _rows_file(folder: Path, digest: str) -> Path:
    return folder / f"carried-{digest}.npy"
