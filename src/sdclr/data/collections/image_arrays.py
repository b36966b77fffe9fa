"""Images of one size as one uint8 array in memory: [N, C, H, W]."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sdclr.batch import Views
from sdclr.data.choices import OnError
from sdclr.data.collections.images import BadFile, MaxSkipped, T
from sdclr.data.splits import Positions
from sdclr.data.views.augment import make_views_of_batches, resize_images
from sdclr.data.views.cutting import cut_views
from sdclr.data.views.parameters import ViewSpec
from sdclr.data.views.probe_crops import padded_crops
from sdclr.planes import ArrayPicture
from sdclr.stills import Bytes, DecodedPicture, Picture


@dataclass(frozen=True)
class ImageArrays:
    """Images of one size, all in memory."""

    images: Tensor
    """uint8 [N, C, H, W]."""
    labels: Positions | None
    """int64 [N], or None."""
    probe_padding: int = 4
    """Pixels of padding for the random crops of the paper's linear probe."""
    probe_flip: bool = True
    """Whether a mirrored image is still an image of its class."""

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def names(self) -> list[str]:
        return [str(position) for position in range(len(self))]

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    @property
    def files(self) -> None:
        return None

    @property
    def cut_on_device(self) -> bool:
        return False

    def describe(self) -> None:
        return None

    def size(self, position: int) -> tuple[int, int]:
        height, width = self.images.shape[-2:]
        return height, width

    def decoded_bytes(self) -> int:
        return self.images.numel()

    def at(self, positions: Positions) -> ImageArrays:
        labels = None if self.labels is None else self.labels[positions]
        return replace(self, images=self.images[torch.from_numpy(positions)], labels=labels)

    def with_labels(self, labels: Positions | None) -> ImageArrays:
        return replace(self, labels=labels)

    def to(self, device: torch.device) -> ImageArrays:
        return replace(self, images=self.images.to(device))

    def verified(
        self, on_error: OnError, advance: Callable[[int], None], max_skipped: MaxSkipped = 0.01
    ) -> tuple[ImageArrays, list[BadFile]]:
        return self, []  # they were read as a whole

    def views(
        self, batches: Iterable[Tensor], spec: ViewSpec, *, seed: int, epoch: int
    ) -> Iterator[Views]:
        if spec.own is not None:
            opened = _OpenedArrays(self.images.cpu(), self.images.device)
            return cut_views(opened, batches, spec, seed=seed, epoch=epoch)
        return make_views_of_batches(self.images, batches, spec, seed=seed, epoch=epoch)

    def stills(self, size: int) -> Iterator[Tensor]:
        for batch in self.images.split(512):
            yield _stills(batch, size)

    def looked_at(
        self, size: int, look: Callable[[Picture], T]
    ) -> Iterator[tuple[Tensor, list[T]]]:
        for batch in self.images.split(512):
            pixels = batch.cpu().permute(0, 2, 3, 1).numpy()
            yield _stills(batch, size), [look(_picture(one)) for one in pixels]

    def probe_crops(
        self, batches: Iterable[Tensor], size: int, *, seed: int, epoch: int
    ) -> Iterator[Tensor]:
        for index in batches:
            images = _stills(self.images[index], size)
            yield padded_crops(
                images, index, self.probe_padding, self.probe_flip, seed=seed, epoch=epoch
            )

    def content(self) -> Iterator[bytes | memoryview]:
        yield f"{tuple(self.images.shape)}".encode()
        yield self.images.numpy().data
        yield b"unlabelled" if self.labels is None else self.labels.tobytes()


def _stills(images: Tensor, size: int) -> Tensor:
    """uint8 [N, C, S, S] of uint8 images [N, C, H, W]: their middle square, which is all of a square image."""
    height, width = images.shape[2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return resize_images(images[:, :, top : top + side, left : left + side], size)


@dataclass(frozen=True)
class _OpenedArrays:
    """The same images one at a time, for code that opens each in threads."""

    images: Tensor
    """uint8 [N, C, H, W], on the CPU."""
    device: torch.device
    num_workers: int | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    @cached_property
    def names(self) -> list[str]:
        return [str(position) for position in range(len(self))]

    @property
    def sizes(self) -> Positions:
        return np.tile(np.array(self.images.shape[2:], np.int64), (len(self), 1))

    def picture(self, position: int) -> Picture:
        return _picture(self.images[position].permute(1, 2, 0).numpy())


def _picture(pixels: Bytes) -> Picture:
    pixels = np.ascontiguousarray(pixels)
    if pixels.shape[2] == 3:
        return DecodedPicture(Image.fromarray(pixels))
    return ArrayPicture(pixels)
