"""Cut views, stills and probe crops out of pictures of any size, in threads while the training step runs.

N pictures, B pictures a batch, S side of a view. Pillow crops and resizes (it lets go of the interpreter's lock);
colours and blur are batched on the device. The random numbers are those of images in memory, and nothing depends on
the number of threads. Where a picture comes from, a file or a store of decoded pixels, is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from sdclr.batch import Views
from sdclr.data.look_ahead import look_ahead
from sdclr.data.probe_crops import draw_resized_crops
from sdclr.data.splits import Positions
from sdclr.data.view_parameters import ViewParameters, ViewSpec, draw_two_views
from sdclr.data.views import colour_views

STILLS_PER_BATCH = 128
LONGEST_STRIP = 64
"""Long side / short side above which a still is cut from the middle before it is resized."""

Calls = list[Callable[[], object]]


class Picture(Protocol):
    """The pixels of one image, 8-bit RGB; a Pillow image is one."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""

    def crop(self, box: tuple[int, int, int, int], /) -> Image.Image:
        """The pixels in (left, top, right, bottom)."""


class Pictures(Protocol):
    """N pictures of any size, opened one at a time."""

    @property
    def device(self) -> torch.device:
        """Where views, stills and crops come."""

    @property
    def sizes(self) -> Positions:
        """int64 [N, 2]: heights and widths."""

    def __len__(self) -> int: ...

    def picture(self, position: int) -> Picture:
        """One of them; called in threads."""


def cut_views(
    pictures: Pictures, batches: Iterable[Tensor], spec: ViewSpec, *, seed: int, epoch: int
) -> Iterator[Views]:
    """Two random views of every picture at the positions of each batch (int64 [B])."""

    def work() -> Iterator[tuple[tuple[Tensor, ViewParameters, Tensor], Calls]]:
        for index in batches:
            both = draw_two_views(spec, index, *_sizes_at(pictures, index), seed=seed, epoch=epoch)
            out = _empty(pictures, 2 * len(index), spec.size)
            calls = _crop_calls(pictures, index, both.box, both.flip, out, Image.Resampling.BICUBIC)
            yield (index, both, out), calls

    device = pictures.device
    with closing(look_ahead(work())) as ready:
        for index, both, pixels in ready:
            x = _channels_first(pixels, device).float().mul_(1 / 255)
            drawn = ViewParameters(*(tensor.to(device, non_blocking=True) for tensor in both))
            a, b = colour_views(x, drawn, spec).chunk(2)
            yield Views(a, b, index.to(device, non_blocking=True))


def cut_stills(pictures: Pictures, size: int) -> Iterator[Tensor]:
    """Every picture once, in order: uint8 [B, 3, S, S]."""

    def work() -> Iterator[tuple[Tensor, Calls]]:
        for index in torch.arange(len(pictures)).split(STILLS_PER_BATCH):
            out = _empty(pictures, len(index), size)
            rows = zip(index.tolist(), out.numpy(), strict=True)
            yield out, [partial(_cut_still, pictures, position, row) for position, row in rows]

    with closing(look_ahead(work())) as ready:
        for pixels in ready:
            yield _channels_first(pixels, pictures.device)


def cut_probe_crops(
    pictures: Pictures, batches: Iterable[Tensor], size: int, *, seed: int, epoch: int
) -> Iterator[Tensor]:
    """A random crop of every picture at the positions of each batch: uint8 [B, 3, S, S]."""

    def work() -> Iterator[tuple[Tensor, Calls]]:
        for index in batches:
            box, flip = draw_resized_crops(index, *_sizes_at(pictures, index), seed=seed, epoch=epoch)
            out = _empty(pictures, len(index), size)
            yield out, _crop_calls(pictures, index, box, flip, out, Image.Resampling.BILINEAR)

    with closing(look_ahead(work())) as ready:
        for pixels in ready:
            yield _channels_first(pixels, pictures.device)


def still(picture: Picture, size: int) -> Image.Image:
    """The middle S x S of a picture whose short side was resized to S * 256 / 224 (bilinear): 224 out of 256."""
    short, resized = min(picture.size), round(size * 256 / 224)
    # resizing all of a long strip would take gigabytes
    width, height = (min(side, LONGEST_STRIP * short) for side in picture.size)
    image = _middle(picture, width, height)
    width, height = (int(resized * side / short) for side in image.size)
    return _middle(image.resize((width, height), Image.Resampling.BILINEAR), size, size)


def _middle(picture: Picture, width: int, height: int) -> Image.Image:
    left, top = round((picture.size[0] - width) / 2), round((picture.size[1] - height) / 2)
    return picture.crop((left, top, left + width, top + height))


def _cut_still(pictures: Pictures, position: int, out: npt.NDArray[np.uint8]) -> None:
    out[:] = np.asarray(still(pictures.picture(position), len(out)))


def _crop_calls(
    pictures: Pictures, index: Tensor, box: Tensor, flip: Tensor, out: Tensor, resample: Image.Resampling
) -> Calls:
    """One call a picture, which opens it once and cuts all its views.

    ``box`` [V * B, 4], ``flip`` [V * B] and ``out`` [V * B, S, S, 3] hold view 0 of every picture, then view 1, ...
    """
    batch, boxes, flips, rows = len(index), box.tolist(), flip.tolist(), out.numpy()
    return [
        partial(_cut_crops, pictures, i, boxes[row::batch], flips[row::batch], rows[row::batch], resample)
        for row, i in enumerate(index.tolist())
    ]


def _cut_crops(
    pictures: Pictures,
    position: int,
    boxes: list[list[int]],
    flips: list[bool],
    out: npt.NDArray[np.uint8],
    resample: Image.Resampling,
) -> None:
    picture = pictures.picture(position)
    for (top, left, height, width), flip, target in zip(boxes, flips, out, strict=True):
        cut = picture.crop((left, top, left + width, top + height)).resize(target.shape[:2], resample)
        target[:] = np.asarray(cut)[:, :: -1 if flip else 1]


def _sizes_at(pictures: Pictures, index: Tensor) -> tuple[Tensor, Tensor]:
    """Heights and widths, [B] each."""
    height, width = torch.from_numpy(pictures.sizes)[index].unbind(1)
    return height, width


def _empty(pictures: Pictures, num: int, size: int) -> Tensor:
    """uint8 [num, S, S, 3] for threads to fill."""
    return torch.empty(num, size, size, 3, dtype=torch.uint8, pin_memory=pictures.device.type == "cuda")


def _channels_first(pixels: Tensor, device: torch.device) -> Tensor:
    """uint8 [B, S, S, 3] on the CPU -> [B, 3, S, S] on the device."""
    return pixels.to(device, non_blocking=True).permute(0, 3, 1, 2).contiguous()
