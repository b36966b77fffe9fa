"""Common code of collections whose pictures are opened one at a time: views, stills and crops are cut in threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from torch import Tensor

from sdclr.batch import Views
from sdclr.data.collections.images import T
from sdclr.data.views.cutting import (
    Pictures,
    cut_probe_crops,
    cut_stills,
    cut_views,
    look_at_stills,
)
from sdclr.data.views.parameters import ViewSpec
from sdclr.stills import Picture


class OpenedPictures:
    """A part of :class:`~sdclr.data.collections.images.Images`, for a class that is :class:`Pictures`."""

    def views(
        self: Pictures, batches: Iterable[Tensor], spec: ViewSpec, *, seed: int, epoch: int
    ) -> Iterator[Views]:
        return cut_views(self, batches, spec, seed=seed, epoch=epoch)

    def stills(self: Pictures, size: int) -> Iterator[Tensor]:
        return cut_stills(self, size)

    def looked_at(
        self: Pictures, size: int, look: Callable[[Picture], T]
    ) -> Iterator[tuple[Tensor, list[T]]]:
        return look_at_stills(self, size, look)

    def probe_crops(
        self: Pictures, batches: Iterable[Tensor], size: int, *, seed: int, epoch: int
    ) -> Iterator[Tensor]:
        return cut_probe_crops(self, batches, size, seed=seed, epoch=epoch)
