"""Cut views out of decoded pixels on a CUDA device, or in pinned memory next to it: no thread, no wait.

B images per batch, V views (2B, or B with ``spec.single``), S side of a view. The same boxes and colours as
:mod:`sdclr.data.views.cutting`, from the same parameters; crop, resize and flip are the separable product of
:mod:`sdclr.data.views.augment` here, which does not round between its passes: before colours, 99.5 % of the pixels
agree to two grey levels. Crops of many sizes share a canvas; weights are zero beyond the end of each, so that the
pixels next to it are never used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdclr.batch import Views
from sdclr.data.splits import Positions
from sdclr.data.views.augment import coloured, finish_views, resized_crop
from sdclr.data.views.parameters import ViewParameters, ViewSpec, draw_two_views

CANVAS_PIXELS = 1 << 24
"""Pixels that are cut at one time: 17 million take about 0.6 GB meanwhile."""


@dataclass(frozen=True)
class ResidentPixels:
    """Decoded images of any size, one after another."""

    pixels: Tensor
    """uint8 [P, 3], on ``device`` or in pinned memory."""
    first: Positions
    """int64 [N], the first pixel of each image."""
    sizes: Positions
    """int64 [N, 2]: heights and widths."""
    device: torch.device
    """The device of views."""
    names: Sequence[str]
    """[N], for errors."""

    def views(
        self, batches: Iterable[Tensor], spec: ViewSpec, *, seed: int, epoch: int
    ) -> Iterator[Views]:
        """Two random views of every image at the positions, or of the draws, of each batch (int64 [B], on the CPU)."""
        for draws in batches:
            index = draws % len(self.sizes)
            height, width = torch.from_numpy(self.sizes)[index].unbind(1)
            both = draw_two_views(spec, draws, height, width, seed=seed, epoch=epoch)
            first = torch.from_numpy(self.first)[index]
            times = len(spec.view_numbers)
            x = self._crops(first.repeat(times), width.repeat(times), both, spec.size)
            drawn = ViewParameters(*self._here(*both))
            x = coloured(x.mul_(1 / 255).clamp_(0, 1), drawn, spec)
            names = self.names
            yield finish_views(x, drawn, draws, index, spec, seed=seed, epoch=epoch, names=names)

    def _crops(self, first: Tensor, width: Tensor, drawn: ViewParameters, size: int) -> Tensor:
        """float32 [V, 3, S, S] in 0 .. 255, of images that begin at pixel ``first`` [V] and are ``width`` [V] wide."""
        out = torch.empty(len(first), 3, size, size, device=self.device)
        for rows in _similar(drawn.box[:, 2], drawn.box[:, 3], CANVAS_PIXELS):
            top, left, tall, wide = drawn.box[rows].unbind(1)
            stride = width[rows]
            pixels, begin = self._crop_source(first[rows] + top * stride, tall * stride, left)
            y, x = torch.arange(int(tall.max())), torch.arange(int(wide.max()))
            begin, stride, y, x = self._here(begin, stride, y, x)
            # [n, tallest, widest]
            where = begin[:, None, None] + stride[:, None, None] * y[:, None] + x
            # beyond a crop, any pixels
            canvas = pixels[where.clamp_(max=len(pixels) - 1)].permute(0, 3, 1, 2)
            box = torch.stack([torch.zeros_like(tall), torch.zeros_like(wide), tall, wide], dim=1)
            rows, box, flip = self._here(rows, box, drawn.flip[rows])
            out[rows] = resized_crop(canvas, box, flip, size)
        return out

    def _here(self, *tensors: Tensor) -> list[Tensor]:
        return [tensor.to(self.device, non_blocking=True) for tensor in tensors]

    def _crop_source(self, begin: Tensor, length: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels on the device, and where in them crops begin: ``left`` [n] after their rows, at ``begin``."""
        # by type: "cuda" names the same device as "cuda:0"
        here = self.pixels.device.type == self.device.type
        return (self.pixels, begin + left) if here else self._fetched(begin, length, left)

    def _fetched(self, begin: Tensor, length: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
        """``length`` [n] pixels from ``begin`` [n] on, copied to the device; and where each crop begins in them."""
        ends = length.cumsum(0)
        fetched = torch.empty(int(ends[-1]), 3, dtype=torch.uint8, device=self.device)
        starts = ends - length
        for source, target, num in zip(
            begin.tolist(), starts.tolist(), length.tolist(), strict=True
        ):
            fetched[target : target + num].copy_(
                self.pixels[source : source + num], non_blocking=True
            )
        return fetched, starts + left


def _similar(tall: Tensor, wide: Tensor, pixels: int) -> Iterator[Tensor]:
    """Positions of all crops, largest first, in groups whose common canvas has at most ``pixels`` (or one crop)."""
    order = (tall * wide).argsort(descending=True, stable=True).tolist()
    heights, widths = tall.tolist(), wide.tolist()
    group: list[int] = []
    height = width = 0
    for row in order:
        higher, wider = max(height, heights[row]), max(width, widths[row])
        if group and (len(group) + 1) * higher * wider > pixels:
            yield torch.tensor(group)
            group, higher, wider = [], heights[row], widths[row]
        group.append(row)
        height, width = higher, wider
    yield torch.tensor(group)
