"""Images in Python objects: opened one at a time, in threads, whenever they are used.

N images. The size of each and a digest of its pixels are read once, before training, so that a run can check whether it
resumes with the same images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from sdclr.data.choices import OnError
from sdclr.data.collections.images import BadFile, MaxSkipped
from sdclr.data.collections.opened_pictures import OpenedPictures
from sdclr.data.splits import Positions
from sdclr.errors import DataError
from sdclr.stills import Picture

CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class GivenImages(OpenedPictures):
    """Images of any size, behind a function that opens one."""

    open: Callable[[int], Picture]
    """Position in what was given -> an image; called in threads."""
    places: Positions
    """int64 [N], positions in what was given."""
    names: tuple[str, ...]
    """[N]."""
    sizes: Positions
    """int64 [N, 2]: heights and widths."""
    digests: tuple[bytes, ...]
    """[N], of the pixels."""
    labels: Positions | None
    """int64 [N], or None."""
    device: torch.device = CPU
    """The device of views, stills and crops."""
    num_workers: int | None = None
    channels: int = 3

    def __len__(self) -> int:
        return len(self.places)

    @property
    def files(self) -> None:
        return None

    @property
    def cut_on_device(self) -> bool:
        return False

    def describe(self) -> None:
        return None

    def size(self, position: int) -> tuple[int, int]:
        height, width = self.sizes[position].tolist()
        return height, width

    def decoded_bytes(self) -> int:
        return self.channels * int(self.sizes.prod(axis=1).sum())

    def at(self, positions: Positions) -> GivenImages:
        chosen = positions.tolist()
        return replace(
            self,
            places=self.places[positions],
            names=tuple(self.names[i] for i in chosen),
            sizes=self.sizes[positions],
            digests=tuple(self.digests[i] for i in chosen),
            labels=None if self.labels is None else self.labels[positions],
        )

    def with_labels(self, labels: Positions | None) -> GivenImages:
        return replace(self, labels=labels)

    def to(self, device: torch.device) -> GivenImages:
        return replace(self, device=device)

    def verified(
        self, on_error: OnError, advance: Callable[[int], None], max_skipped: MaxSkipped = 0.01
    ) -> tuple[GivenImages, list[BadFile]]:
        return self, []  # each was opened when it was given

    def picture(self, position: int) -> Picture:
        """One image. DataError if its size has changed."""
        picture = self.open(int(self.places[position]))
        if picture.size[::-1] != self.size(position):
            raise DataError(
                f"image {self.names[position]} has changed its size since it was first read. Give images that "
                "are the same whenever they are read: without random transforms, which sdclr adds itself."
            )
        return picture

    def content(self) -> Iterator[bytes | memoryview]:
        yield f"{len(self)} given".encode()
        yield b"unlabelled" if self.labels is None else self.labels.tobytes()
        yield from self.digests
        if self.channels != 3:
            yield f"{self.channels} channels".encode()
