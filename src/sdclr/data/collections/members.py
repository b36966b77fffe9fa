"""Images that are members of archives: where each one is, in which file."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sdclr.addresses import Address, Place
from sdclr.data.decoding.decode import FileState, Member
from sdclr.data.remote.ranges import Version
from sdclr.data.splits import Positions


@dataclass(frozen=True)
class Members:
    """Where N images are in S shards."""

    shards: tuple[str, ...]
    """[S], below the root of the collection."""
    shard: npt.NDArray[np.integer]
    """[N], which of them."""
    start: Positions
    """int64 [N], the first byte there."""
    size: npt.NDArray[np.integer]
    """[N], in bytes; for packed members, the unpacked size."""
    packed: Positions | None = None
    """int64 [N], the packed size in bytes of each that is packed (deflate), -1 for the others; None: none is packed."""
    versions: tuple[Version, ...] | None = None
    """[S], the state in which each was found, where they are at addresses."""
    states: tuple[FileState, ...] | None = None
    """[S], the state in which each was found, where they are on this machine."""

    def at(self, positions: Positions) -> Members:
        packed = None if self.packed is None else self.packed[positions]
        return Members(
            self.shards,
            self.shard[positions],
            self.start[positions],
            self.size[positions],
            packed,
            self.versions,
            self.states,
        )

    def member(self, root: Place, position: int, name: str) -> Member:
        number = int(self.shard[position])
        shard = self.shards[number]
        own = name.removeprefix(f"{shard}/")
        packed = -1 if self.packed is None else int(self.packed[position])
        start, size = int(self.start[position]), int(self.size[position])
        return Member(
            str(root / shard) if isinstance(root, Address) else os.path.join(root, shard),
            start,
            size,
            own,
            packed if packed >= 0 else None,
            None if self.versions is None else self.versions[number],
            None if self.states is None else self.states[number],
        )
