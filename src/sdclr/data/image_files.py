"""Images that stay on disk: files below a folder, decoded in threads while the training step runs.

N images, B images a batch, S side of a view. Pillow decodes, crops and resizes (it lets go of the interpreter's lock);
colours and blur are batched on the device. The random numbers are those of images in memory, and nothing depends on
the number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from sdclr.batch import Views
from sdclr.data.decode import open_image, printable, read_size
from sdclr.data.look_ahead import look_ahead
from sdclr.data.probe_crops import draw_resized_crops
from sdclr.data.splits import Positions
from sdclr.data.view_parameters import ViewParameters, ViewSpec, draw_two_views
from sdclr.data.views import colour_views
from sdclr.errors import DataError, MissingInputError, SdclrError

CPU = torch.device("cpu")
STILLS_PER_BATCH = 128
HEADERS_PER_CALL = 256
LONGEST_STRIP = 64
"""Long side / short side above which a still is cut from the middle before it is resized."""

Calls = list[Callable[[], object]]


@dataclass(frozen=True)
class ImageFiles:
    """Image files of any size and format that :mod:`sdclr.data.decode` reads."""

    root: Path
    paths: tuple[str, ...]
    """[N], below root, with / between folders."""
    labels: Positions | None
    """int64 [N], or None."""
    device: torch.device = CPU
    """Where views, stills and crops come."""

    def __len__(self) -> int:
        return len(self.paths)

    def at(self, positions: Positions) -> ImageFiles:
        labels = None if self.labels is None else self.labels[positions]
        return replace(self, paths=tuple(self.paths[i] for i in positions.tolist()), labels=labels)

    def to(self, device: torch.device) -> ImageFiles:
        """The same files, every one of them found and its header read; their views come on ``device``."""
        moved = replace(self, device=device)
        moved.__dict__["sizes"] = self.sizes  # hand on what was measured
        return moved

    @cached_property
    def sizes(self) -> Positions:
        """int64 [N, 2]: height and width from the headers, read once.

        Raises one MissingInputError (all are absent) or DataError that counts the bad files and shows the first.
        """
        sizes = np.zeros((len(self), 2), np.int64)
        failures: dict[int, SdclrError] = {}

        def measure(first: int) -> None:
            for row in range(first, min(first + HEADERS_PER_CALL, len(self))):
                try:
                    sizes[row] = read_size(self._file(row))
                except SdclrError as error:
                    failures[row] = error

        firsts = range(0, len(self), HEADERS_PER_CALL)
        for _ in look_ahead([(None, [partial(measure, first) for first in firsts])]):
            pass
        if failures:
            raise _summary([failures[row] for row in sorted(failures)], len(self), self.root)
        return sizes

    def views(self, batches: Iterable[Tensor], spec: ViewSpec, *, seed: int, epoch: int) -> Iterator[Views]:
        def work() -> Iterator[tuple[tuple[Tensor, ViewParameters, Tensor], Calls]]:
            for index in batches:
                both = draw_two_views(spec, index, *self._sizes_at(index), seed=seed, epoch=epoch)
                out = self._empty(2 * len(index), spec.size)
                calls = self._crop_calls(index, both.box, both.flip, out, Image.Resampling.BICUBIC)
                yield (index, both, out), calls

        with closing(look_ahead(work())) as ready:
            for index, both, pixels in ready:
                x = self._channels_first(pixels).float().mul_(1 / 255)
                drawn = ViewParameters(*(tensor.to(self.device, non_blocking=True) for tensor in both))
                a, b = colour_views(x, drawn, spec).chunk(2)
                yield Views(a, b, index.to(self.device, non_blocking=True))

    def stills(self, size: int) -> Iterator[Tensor]:
        def work() -> Iterator[tuple[Tensor, Calls]]:
            for index in torch.arange(len(self)).split(STILLS_PER_BATCH):
                out = self._empty(len(index), size)
                rows = zip(index.tolist(), out.numpy(), strict=True)
                yield out, [partial(self._cut_still, position, row) for position, row in rows]

        with closing(look_ahead(work())) as ready:
            yield from map(self._channels_first, ready)

    def probe_crops(self, batches: Iterable[Tensor], size: int, *, seed: int, epoch: int) -> Iterator[Tensor]:
        def work() -> Iterator[tuple[Tensor, Calls]]:
            for index in batches:
                box, flip = draw_resized_crops(index, *self._sizes_at(index), seed=seed, epoch=epoch)
                out = self._empty(len(index), size)
                yield out, self._crop_calls(index, box, flip, out, Image.Resampling.BILINEAR)

        with closing(look_ahead(work())) as ready:
            yield from map(self._channels_first, ready)

    def content(self) -> Iterator[bytes | memoryview]:
        """Labels, then names: not the pixels, so that a million files need not be read, and not the root."""
        yield f"{len(self)} files".encode()
        yield b"unlabelled" if self.labels is None else self.labels.tobytes()
        yield "\0".join(self.paths).encode("utf-8", "surrogateescape")

    def _file(self, position: int) -> str:
        return os.path.join(self.root, self.paths[position])

    def _sizes_at(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Heights and widths, [B] each."""
        height, width = torch.from_numpy(self.sizes)[index].unbind(1)
        return height, width

    def _empty(self, num: int, size: int) -> Tensor:
        """uint8 [num, S, S, 3] for threads to fill."""
        return torch.empty(num, size, size, 3, dtype=torch.uint8, pin_memory=self.device.type == "cuda")

    def _channels_first(self, pixels: Tensor) -> Tensor:
        """uint8 [B, S, S, 3] on the CPU -> [B, 3, S, S] on the device."""
        return pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2).contiguous()

    def _crop_calls(self, index: Tensor, box: Tensor, flip: Tensor, out: Tensor, resample: Image.Resampling) -> Calls:
        """One call an image, which decodes it once and cuts all its views.

        ``box`` [V * B, 4], ``flip`` [V * B] and ``out`` [V * B, S, S, 3] hold view 0 of every image, then view 1, ...
        """
        batch, boxes, flips, rows = len(index), box.tolist(), flip.tolist(), out.numpy()
        return [
            partial(self._cut_crops, i, boxes[row::batch], flips[row::batch], rows[row::batch], resample)
            for row, i in enumerate(index.tolist())
        ]

    def _cut_crops(
        self,
        position: int,
        boxes: list[list[int]],
        flips: list[bool],
        out: npt.NDArray[np.uint8],
        resample: Image.Resampling,
    ) -> None:
        image = open_image(self._file(position))
        if (image.height, image.width) != tuple(self.sizes[position]):
            raise DataError(f"image {printable(self._file(position))} has changed its size since its header was read.")
        for (top, left, height, width), flip, target in zip(boxes, flips, out, strict=True):
            cut = image.crop((left, top, left + width, top + height)).resize(target.shape[:2], resample)
            target[:] = np.asarray(cut)[:, :: -1 if flip else 1]

    def _cut_still(self, position: int, out: npt.NDArray[np.uint8]) -> None:
        out[:] = np.asarray(still(open_image(self._file(position)), len(out)))


def still(image: Image.Image, size: int) -> Image.Image:
    """The middle S x S of an image whose short side was resized to S * 256 / 224 (bilinear): 224 out of 256."""
    short, resized = min(image.size), round(size * 256 / 224)
    if max(image.size) > LONGEST_STRIP * short:  # resizing all of it would take gigabytes
        image = _middle(image, min(image.width, LONGEST_STRIP * short), min(image.height, LONGEST_STRIP * short))
    width, height = (int(resized * side / short) for side in image.size)
    return _middle(image.resize((width, height), Image.Resampling.BILINEAR), size, size)


def _middle(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _summary(errors: list[SdclrError], num_files: int, root: Path) -> SdclrError:
    kind = MissingInputError if all(isinstance(error, MissingInputError) for error in errors) else DataError
    shown = "\n  ".join([str(error) for error in errors[:3]] + ["..."] * (len(errors) > 3))
    return kind(
        f"{len(errors)} of {num_files} images below {printable(root)} cannot be used:\n  {shown}\n"
        "Restore them, or give the folder that holds them with --data."
    )
