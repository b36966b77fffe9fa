"""What a network sees of a picture as it is: its middle, resized. Knows neither files nor data sets."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

LONGEST_STRIP = 64
"""Long side / short side above which a still is cut from the middle before it is resized."""

Bytes = npt.NDArray[np.uint8]


class Picture(Protocol):
    """The pixels of one image, 8-bit RGB."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""

    def pixels(self, left: int, top: int, right: int, bottom: int) -> Bytes:
        """[bottom - top, right - left, 3] of a box that lies inside the image; not to be written to."""


class DecodedPicture(NamedTuple):
    """One image in memory, in mode RGB."""

    image: Image.Image

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.image.size

    def pixels(self, left: int, top: int, right: int, bottom: int) -> Bytes:
        """[bottom - top, right - left, 3] of a box that lies inside the image."""
        return np.asarray(self.image.crop((left, top, right, bottom)))


def has_deep_grey(image: Image.Image) -> bool:
    """Whether its levels reach up to 65,535."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")


def eight_bits(levels: npt.NDArray[np.uint32], bits: int = 16) -> Bytes:
    """Grey levels that use so many bits as the nearest of 0 .. 255, in whole numbers; white is the largest of them."""
    white = (1 << bits) - 1
    scaled = (levels + 128) // 257 if bits == 16 else (levels * 255 + white // 2) // white
    return scaled.astype(np.uint8)


def still(picture: Picture, size: int) -> Image.Image:
    """The middle S x S of a picture whose short side was resized to S * 256 / 224 (bilinear): 224 out of 256."""
    short, resized = min(picture.size), round(size * 256 / 224)
    # resizing all of a long strip would take gigabytes
    width, height = (min(side, LONGEST_STRIP * short) for side in picture.size)
    image = Image.fromarray(picture.pixels(*_middle(picture.size, width, height)))
    width, height = (int(resized * side / short) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return image.crop(_middle(image.size, size, size))


def _middle(size: tuple[int, int], width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the middle width x height of a picture of ``size`` (width, height)."""
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return left, top, left + width, top + height
