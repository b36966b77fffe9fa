"""Cut views, stills and probe crops out of pictures of any size, in threads while the training step runs.

N pictures, B pictures per batch, C channels, S side of a view. Views are resized by torch's own uint8 kernel (a third
of Pillow's time, at most two grey levels from it), stills and probe crops by Pillow, as in the reference; both release
the interpreter's lock. Colours and blur are batched on the device. The random numbers are those of images in memory,
and nothing depends on the number of threads. This module does not know where a picture comes from, a file or a store of
decoded pixels; :mod:`sdclr.data.views.cutting_on_device` is the variant for pixels that are on a device or pinned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from sdclr.batch import Views
from sdclr.compute.device import device_of_draws
from sdclr.data.look_ahead import look_ahead
from sdclr.data.splits import Positions
from sdclr.data.views.augment import coloured, finish_views
from sdclr.data.views.parameters import ViewParameters, ViewSpec, draw_two_views
from sdclr.data.views.probe_crops import draw_resized_crops
from sdclr.stills import Bytes, Picture, resized_by_pillow, still

STILLS_PER_BATCH = 128

T = TypeVar("T")

Calls = list[Callable[[], object]]
Resize = Callable[[Bytes, int], Bytes]
"""From [H, W, C] and S to [C, S, S]."""


class Pictures(Protocol):
    """N pictures of any size, opened one at a time."""

    @property
    def device(self) -> torch.device:
        """The device of views, stills and crops."""

    @property
    def num_workers(self) -> int | None:
        """Threads that open and cut; None: one for every core."""

    @property
    def channels(self) -> int:
        """C, of every picture."""

    @property
    def names(self) -> Sequence[str]:
        """[N], for errors."""

    @property
    def sizes(self) -> Positions:
        """int64 [N, 2]: heights and widths."""

    def __len__(self) -> int: ...

    def picture(self, position: int) -> Picture:
        """One picture; called in threads."""


def cut_views(
    pictures: Pictures, batches: Iterable[Tensor], spec: ViewSpec, *, seed: int, epoch: int
) -> Iterator[Views]:
    """Two random views of every picture at the positions, or of the draws, of each batch (int64 [B])."""

    def work() -> Iterator[tuple[tuple[Tensor, ViewParameters, Tensor], Calls]]:
        for draws in batches:
            index = draws % len(pictures)
            both = draw_two_views(spec, draws, *_sizes_at(pictures, index), seed=seed, epoch=epoch)
            if spec.own is not None:
                out = torch.empty(len(both.box), pictures.channels, spec.size, spec.size)
                calls = _own_calls(pictures, spec, draws, both.flip, out, seed=seed, epoch=epoch)
            else:
                out = _empty(pictures, len(both.box), spec.size)
                calls = _crop_calls(pictures, index, both.box, both.flip, out, _resize_bicubic)
            yield (draws, both, out), calls

    device = pictures.device
    with closing(look_ahead(work(), num_workers=pictures.num_workers)) as ready:
        for draws, both, pixels in ready:
            index = draws % len(pictures)
            x = pixels.to(device, non_blocking=True)
            if spec.own is None:
                x = x.float().mul_(1 / 255)
            where = device_of_draws(device)
            drawn = ViewParameters(*(tensor.to(where, non_blocking=True) for tensor in both))
            x = coloured(x, drawn, spec)
            names = pictures.names
            yield finish_views(x, drawn, draws, index, spec, seed=seed, epoch=epoch, names=names)


def cut_stills(pictures: Pictures, size: int) -> Iterator[Tensor]:
    """Every picture once, in order: uint8 [B, C, S, S]."""
    for pixels, _ in look_at_stills(pictures, size, lambda picture: None):
        yield pixels


def look_at_stills(
    pictures: Pictures, size: int, look: Callable[[Picture], T]
) -> Iterator[tuple[Tensor, list[T]]]:
    """The same, with the result of ``look`` for each picture; each is opened once. ``look`` is called in threads."""

    def work() -> Iterator[tuple[tuple[Tensor, dict[int, T]], Calls]]:
        for index in torch.arange(len(pictures)).split(STILLS_PER_BATCH):
            out, seen = _empty(pictures, len(index), size), dict[int, T]()
            rows = zip(index.tolist(), out.numpy(), strict=True)
            calls: Calls = [
                partial(_look, pictures, position, row, look, seen) for position, row in rows
            ]
            yield (out, seen), calls

    with closing(look_ahead(work(), num_workers=pictures.num_workers)) as ready:
        for pixels, seen in ready:
            yield (
                pixels.to(pictures.device, non_blocking=True),
                [seen[position] for position in sorted(seen)],
            )


def cut_probe_crops(
    pictures: Pictures, batches: Iterable[Tensor], size: int, *, seed: int, epoch: int
) -> Iterator[Tensor]:
    """A random crop of every picture at the positions of each batch: uint8 [B, C, S, S]."""

    def work() -> Iterator[tuple[Tensor, Calls]]:
        for index in batches:
            box, flip = draw_resized_crops(
                index, *_sizes_at(pictures, index), seed=seed, epoch=epoch
            )
            out = _empty(pictures, len(index), size)
            yield out, _crop_calls(pictures, index, box, flip, out, _resize_bilinear)

    with closing(look_ahead(work(), num_workers=pictures.num_workers)) as ready:
        for pixels in ready:
            yield pixels.to(pictures.device, non_blocking=True)


def _look(
    pictures: Pictures,
    position: int,
    out: Bytes,
    look: Callable[[Picture], T],
    seen: dict[int, T],
) -> None:
    picture = pictures.picture(position)
    out[:] = still(picture, out.shape[-1]).transpose(2, 0, 1)
    seen[position] = look(picture)


def _crop_calls(
    pictures: Pictures, index: Tensor, box: Tensor, flip: Tensor, out: Tensor, resize: Resize
) -> Calls:
    """One call per picture, which opens it once and cuts all its views.

    ``box`` [V * B, 4], ``flip`` [V * B] and ``out`` [V * B, C, S, S] hold view 0 of every picture, then view 1, ...
    """
    batch, boxes, flips, rows = len(index), box.tolist(), flip.tolist(), out.numpy()
    return [
        partial(
            _cut_crops, pictures, i, boxes[row::batch], flips[row::batch], rows[row::batch], resize
        )
        for row, i in enumerate(index.tolist())
    ]


def _own_calls(
    pictures: Pictures,
    spec: ViewSpec,
    draws: Tensor,
    flip: Tensor,
    out: Tensor,
    *,
    seed: int,
    epoch: int,
) -> Calls:
    """One call per picture, which opens it once and makes all its views; ``flip`` and ``out`` as in _crop_calls."""
    batch, flips, rows = len(draws), flip.tolist(), out.numpy()
    make = partial(_make_own, pictures, spec, seed=seed, epoch=epoch)
    return [
        partial(make, draw, flips[row::batch], rows[row::batch])
        for row, draw in enumerate(draws.tolist())
    ]


def _make_own(
    pictures: Pictures,
    spec: ViewSpec,
    draw: int,
    flips: list[bool],
    out: npt.NDArray[np.float32],
    *,
    seed: int,
    epoch: int,
) -> None:
    assert spec.own is not None
    position = draw % len(pictures)
    picture, name = pictures.picture(position), pictures.names[position]
    for number, flip, target in zip(spec.view_numbers, flips, out, strict=True):
        view = spec.own.view(
            picture, name, spec.size, seed=seed, epoch=epoch, draw=draw, number=number
        )
        target[:] = view[:, :, :: -1 if flip else 1]


def _cut_crops(
    pictures: Pictures,
    position: int,
    boxes: list[list[int]],
    flips: list[bool],
    out: Bytes,
    resize: Resize,
) -> None:
    picture = pictures.picture(position)
    for (top, left, height, width), flip, target in zip(boxes, flips, out, strict=True):
        cut = resize(picture.pixels(left, top, left + width, top + height), target.shape[-1])
        target[:] = cut[:, :, :: -1 if flip else 1]


def _resize_bicubic(pixels: Bytes, size: int) -> Bytes:
    """[H, W, C] -> [C, S, S], antialiased, rounded after each of the two passes as Pillow does."""
    # a copy: torch does not accept read-only memory
    image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None]
    return interpolate(image, (size, size), mode="bicubic", antialias=True)[0].numpy()


def _resize_bilinear(pixels: Bytes, size: int) -> Bytes:
    """[H, W, C] -> [C, S, S], antialiased, by Pillow."""
    return resized_by_pillow(pixels, (size, size)).transpose(2, 0, 1)


def _sizes_at(pictures: Pictures, index: Tensor) -> tuple[Tensor, Tensor]:
    """Heights and widths, [B] each."""
    height, width = torch.from_numpy(pictures.sizes)[index].unbind(1)
    return height, width


def _empty(pictures: Pictures, num: int, size: int) -> Tensor:
    """uint8 [num, C, S, S] for threads to fill."""
    shape = num, pictures.channels, size, size
    return torch.empty(shape, dtype=torch.uint8, pin_memory=pictures.device.type == "cuda")
