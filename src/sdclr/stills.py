"""What a network sees of an unaugmented picture: its middle, resized. Knows neither files nor data sets."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

LONGEST_STRIP = 64
"""Long side / short side above which a still is cut from the middle before it is resized."""

Bytes = npt.NDArray[np.uint8]


class Picture(Protocol):
    """The pixels of one image, 8-bit RGB, or with C channels of 8 bits."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""

    def pixels(self, left: int, top: int, right: int, bottom: int) -> Bytes:
        """[bottom - top, right - left, C] of a box inside the image; must not be modified."""


class DecodedPicture(NamedTuple):
    """One image in memory, in mode RGB."""

    image: Image.Image

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.image.size

    def pixels(self, left: int, top: int, right: int, bottom: int) -> Bytes:
        """[bottom - top, right - left, 3] of a box inside the image."""
        return np.asarray(self.image.crop((left, top, right, bottom)))


def whole(picture: Picture) -> Bytes:
    """All pixels of a picture, [H, W, C]."""
    if isinstance(picture, DecodedPicture):
        return np.asarray(picture.image)
    return picture.pixels(0, 0, *picture.size)


def has_deep_grey(image: Image.Image) -> bool:
    """Whether an image's levels reach up to 65,535."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")


def eight_bits(levels: npt.NDArray[np.uint32], bits: int = 16) -> Bytes:
    """Grey levels of ``bits`` bits, rounded to 0 .. 255 in integer arithmetic; white is the largest of them."""
    white = (1 << bits) - 1
    scaled = (levels + 128) // 257 if bits == 16 else (levels * 255 + white // 2) // white
    return scaled.astype(np.uint8)


def resized_side(size: int) -> int:
    """The short side to which a picture is resized, so that its middle of ``size`` is 224/256 of it."""
    return round(size * 256 / 224)


def still(picture: Picture, size: int) -> Bytes:
    """[S, S, C]: the middle of a picture whose short side was resized to S * 256 / 224 (bilinear), 224/256 of it."""
    short, resized = min(picture.size), resized_side(size)
    # resizing all of a long strip would take gigabytes
    width, height = (min(side, LONGEST_STRIP * short) for side in picture.size)
    pixels = picture.pixels(*_middle(picture.size, width, height))
    width, height = (int(resized * side / short) for side in (width, height))
    middle = _middle((width, height), size, size)
    return resized_by_pillow(pixels, (width, height), middle)


def resized_by_pillow(
    pixels: Bytes, size: tuple[int, int], box: tuple[int, int, int, int] | None = None
) -> Bytes:
    """[H, W, C] resized to ``size`` (width, height), bilinear and antialiased, then cropped to ``box``.

    Pillow supports one band or three: others are resized one by one, with the same numbers.
    """
    bands = [pixels] if pixels.shape[2] == 3 else [pixels[:, :, c] for c in range(pixels.shape[2])]
    resized = []
    for band in bands:
        image = Image.fromarray(band).resize(size, Image.Resampling.BILINEAR)
        resized.append(np.asarray(image if box is None else image.crop(box)))
    return resized[0] if pixels.shape[2] == 3 else np.stack(resized, axis=2)


def _middle(size: tuple[int, int], width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the middle width x height of a picture of ``size`` (width, height)."""
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return left, top, left + width, top + height
