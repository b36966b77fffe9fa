"""The names of very many images in a few arrays: a Python string takes five times its letters, and an object each.

N names. A name becomes a string only when it is accessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

from sdclr.data.splits import Positions

_AT_ONCE = 65_536


class PackedNames(Sequence[str]):
    """N names, each with a shared beginning and an end of its own; equal to a list or tuple of the same strings.

    >>> names = PackedNames.of(["a.tar/", "b.tar/"], np.array([0, 1, 1]), ["1.jpg", "2.jpg", "3.jpg"])
    >>> names[1], len(names), names.at(np.array([2, 0])) == ["b.tar/3.jpg", "a.tar/1.jpg"]
    ('b.tar/2.jpg', 3, True)
    """

    def __init__(
        self,
        beginnings: Sequence[str],
        which: npt.NDArray[np.integer],
        letters: npt.NDArray[np.uint8],
        starts: npt.NDArray[np.integer],
        lengths: npt.NDArray[np.integer],
    ) -> None:
        """``which`` [N]: the beginning of each; ``starts`` and ``lengths`` [N]: where its end is in ``letters``."""
        self._beginnings, self._which = beginnings, which
        self._letters, self._starts, self._lengths = letters, starts, lengths

    @classmethod
    def of(
        cls, beginnings: Sequence[str], which: npt.NDArray[np.integer], ends: Iterable[str]
    ) -> PackedNames:
        """From strings."""
        letters, lengths = packed(ends)
        return cls(beginnings, which, letters, starts_of(lengths), lengths)

    def at(self, positions: Positions) -> PackedNames:
        """The names at these positions; the letters are shared."""
        return PackedNames(
            self._beginnings,
            self._which[positions],
            self._letters,
            self._starts[positions],
            self._lengths[positions],
        )

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> PackedNames: ...
    def __getitem__(self, position: int | slice) -> str | PackedNames:
        if isinstance(position, slice):
            return self.at(np.arange(len(self), dtype=np.int64)[position])
        start, length = int(self._starts[position]), int(self._lengths[position])
        end = self._letters[start : start + length].tobytes()
        return self._beginnings[int(self._which[position])] + end.decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), _AT_ONCE):
            piece = slice(first, first + _AT_ONCE)
            columns = (self._which[piece], self._starts[piece], self._lengths[piece])
            rows = zip(*(column.tolist() for column in columns), strict=True)
            for which, start, length in rows:
                end = self._letters[start : start + length].tobytes()
                yield self._beginnings[which] + end.decode("utf-8", "surrogateescape")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (list, tuple, PackedNames)):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as a list

    def __repr__(self) -> str:
        first = ", ".join(map(repr, self[:3]))
        return f"<{len(self)} names: {first}{', ...' * (len(self) > 3)}>"


def packed(texts: Iterable[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """All letters one after the other in UTF-8, and the number of bytes of each text."""
    raw = [text.encode("utf-8", "surrogateescape") for text in texts]
    lengths = np.fromiter(map(len, raw), np.int32, len(raw))
    return np.frombuffer(b"".join(raw), np.uint8), lengths


def starts_of(lengths: npt.NDArray[np.integer]) -> Positions:
    """The first byte of each packed text, int64, from the number of bytes of each."""
    return np.cumsum(lengths, dtype=np.int64) - lengths


def names_at(names: Sequence[str], positions: Positions) -> Sequence[str]:
    """The names at these positions, packed where ``names`` are."""
    if isinstance(names, PackedNames):
        return names.at(positions)
    return tuple(names[position] for position in positions.tolist())
