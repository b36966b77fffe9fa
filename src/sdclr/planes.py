"""Pixels with any number of channels: 8 bits, [H, W, C]. Knows neither files nor data sets.

Images of 3 channels are Pillow's, in mode RGB, and are not handled here except to display others like them.
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from sdclr.stills import Bytes, DecodedPicture, Picture, eight_bits, has_deep_grey

MOST_PAGES = 256
"""More pages than this are not channels."""
USUAL_BITS = (8, 10, 12, 14, 16)
"""The numbers of bits that cameras and scanners have."""


class ChannelsError(ValueError):
    """Pixels that are not as requested. The message continues after "image NAME"."""


DEEPEST_GREYS = ("I", "F")
"""Pillow's modes of 32-bit greys, integers and floats."""


def no_agreed_range(mode: str) -> ChannelsError:
    """The error for an intact picture in one of these modes."""
    return ChannelsError(
        f"is 32-bit grey (mode {mode}), which has no agreed range. Save it as 8 or 16 bits, or leave it out."
    )


class Levels(NamedTuple):
    """One image, and how bright it was before it was scaled."""

    pixels: Bytes
    """[H, W, C]."""
    largest: int | None = None
    """The largest level, of 0 .. 65,535, where the image has 16 bits."""


class ArrayPicture(NamedTuple):
    """One image in memory with any number of channels: a :class:`~sdclr.stills.Picture`."""

    array: Bytes
    """[H, W, C]."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.array.shape[1], self.array.shape[0]

    def pixels(self, left: int, top: int, right: int, bottom: int) -> Bytes:
        """[bottom - top, right - left, C] of a box inside the image."""
        return self.array[top:bottom, left:right]


def cut_out(picture: Picture, box: tuple[int, int, int, int]) -> Picture:
    """The part of a picture inside a box: left, top, right, bottom."""
    if isinstance(picture, DecodedPicture):
        return DecodedPicture(picture.image.crop(box))
    return ArrayPicture(np.ascontiguousarray(picture.pixels(*box)))


def bits_for(largest: int) -> int:
    """How many bits data up to this level use, of the numbers that cameras and scanners have."""
    return next(bits for bits in USUAL_BITS if largest < 1 << bits)


def turned_by_exif(image: Image.Image) -> Image.Image:
    """A Pillow image rotated by its EXIF tag; a TIFF unchanged, which Pillow rotates by itself and whose pages stay."""
    return image if image.format == "TIFF" else ImageOps.exif_transpose(image)


def levels_of_picture(image: Image.Image, channels: int, bits: int = 16) -> Levels:
    """The pixels of a Pillow image with ``channels`` channels.

    One channel: greys as they are, and the luma of colours. More: the bands of the image, including alpha, or the pages
    of a TIFF with one band each. ``bits``: how many bits 16-bit greys use. Raises ChannelsError for any other image.

    >>> levels_of_picture(Image.new("RGBA", (2, 1), (1, 2, 3, 4)), 4).pixels[0, 0].tolist()
    [1, 2, 3, 4]
    """
    if channels == 1:
        return _grey(image, bits)
    bands = image.getbands()
    if len(bands) == channels:
        return Levels(np.ascontiguousarray(image))
    pages = _num_pages(image)
    if len(bands) == 1 and pages == channels:
        return _pages(image, channels, bits)
    held = f"{len(bands)} ({', '.join(bands)})" + (f" in {pages} pages" if pages > 1 else "")
    raise ChannelsError(
        f"has {held} channels, and data.channels is {channels}. Set data.channels to what the "
        "images have, or save them as .npy arrays [H, W, C]."
    )


def _num_pages(image: Image.Image) -> int:
    """The pages of a TIFF, up to a limit: a hostile file may have millions; 1 for other formats."""
    if image.format != "TIFF":
        return 1
    before, pages = image.tell(), 1
    with contextlib.suppress(EOFError):
        while pages <= MOST_PAGES:
            image.seek(pages)
            pages += 1
    image.seek(before)
    return pages


def _grey(image: Image.Image, bits: int) -> Levels:
    if has_deep_grey(image):
        return levels_of_array(np.asarray(image).astype(np.uint16), 1, bits)
    if image.mode in DEEPEST_GREYS:
        raise no_agreed_range(image.mode)
    if image.mode in ("LA", "La"):
        image = image.getchannel(0)
    elif image.mode not in ("1", "L"):
        plain = image.copy()
        plain.info.pop("transparency", None)  # Pillow would warn that it cannot keep it
        image = plain.convert("RGB")
    return Levels(np.ascontiguousarray(image.convert("L"))[:, :, None])


def _pages(image: Image.Image, channels: int, bits: int) -> Levels:
    pages: list[Levels] = []
    before = image.tell()
    for number in range(channels):
        image.seek(number)
        if len(image.getbands()) != 1:
            raise ChannelsError("has pages of several channels each. Save it as a .npy array.")
        pages.append(_grey(image, bits))
    image.seek(before)
    sizes = {page.pixels.shape for page in pages}
    if len(sizes) > 1:
        raise ChannelsError(
            f"has pages of {len(sizes)} sizes, which are not channels of one image."
        )
    largest = [page.largest for page in pages if page.largest is not None]
    pixels = np.concatenate([page.pixels for page in pages], axis=2)
    return Levels(pixels, max(largest, default=None))


def levels_of_array(array: npt.NDArray[Any], channels: int, bits: int = 16) -> Levels:
    """The pixels of an array [H, W], [H, W, C] or [C, H, W] of 8 or 16 bits, or of floats in [0, 1].

    A grey array also counts as 3 channels, as grey files do. Raises ChannelsError for any other.

    >>> levels_of_array(np.full((5, 4, 2), 65_535, np.uint16), 2).pixels[0, 0].tolist()
    [255, 255]
    """
    array = _channels_last(array, channels)
    if array.dtype == np.uint8:
        return Levels(np.ascontiguousarray(array))
    if array.dtype == np.uint16:
        largest = int(array.max(initial=0))
        if largest >= 1 << bits:
            raise ChannelsError(
                f"holds grey levels up to {largest:,}, which {bits} bits cannot. Use "
                f"data.grey_bits={bits_for(largest)}, or take it off its list."
            )
        return Levels(eight_bits(array.astype(np.uint32), bits), largest)
    if not np.issubdtype(array.dtype, np.floating):
        raise ChannelsError(
            f"has numbers of {array.dtype}, which have no agreed range. Save uint8, uint16, or "
            "floats in [0, 1]."
        )
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    if not (low >= 0 and high <= 1):
        raise ChannelsError(
            f"has floats, which lie in [0, 1], got {low:.6g} to {high:.6g}. Give "
            "images as they are: without normalisation and random transforms, which sdclr adds "
            "itself."
        )
    return Levels(np.ascontiguousarray((array * 255).round().astype(np.uint8)))


def size_of_shape(shape: tuple[int, ...], channels: int) -> tuple[int, int]:
    """(height, width) of an array of this shape. Raises ChannelsError where it is no such image."""
    if len(shape) == 2 and channels in (1, 3):
        return shape[0], shape[1]
    if _is_channels_last(shape, channels):
        return shape[0], shape[1]
    if len(shape) == 3 and shape[0] == channels:
        return shape[1], shape[2]
    cure = f"[H, W, {channels}] or [{channels}, H, W]"
    if len(shape) == 4:
        raise ChannelsError(
            f"has the shape {list(shape)}, a batch of images; one image is {cure}. Give them one by one."
        )
    raise ChannelsError(
        f"has the shape {list(shape)}, and data.channels={channels} needs {cure}. Set "
        "data.channels to the number of its channels."
    )


def _is_channels_last(shape: tuple[int, ...], channels: int) -> bool:
    return len(shape) == 3 and (shape[2] == channels or (shape[2] == 1 and channels == 3))


def _channels_last(array: npt.NDArray[Any], channels: int) -> npt.NDArray[Any]:
    size_of_shape(array.shape, channels)  # raises for other shapes
    if array.ndim == 2:
        array = array[:, :, None]
    elif not _is_channels_last(array.shape, channels):
        array = array.transpose(1, 2, 0)
    if array.shape[2] == 1 and channels == 3:
        array = np.repeat(array, 3, axis=2)
    return array


def in_colours(pixels: Bytes) -> Bytes:
    """[..., C] for display, [..., 3]: the first three channels as red, green and blue.

    One channel is shown as grey, and with two the third colour is 0. Three are unchanged.

    >>> in_colours(np.array([[7], [9]], np.uint8)).tolist()
    [[7, 7, 7], [9, 9, 9]]
    >>> in_colours(np.array([[1, 2, 3, 4]], np.uint8)).tolist()
    [[1, 2, 3]]
    """
    channels = pixels.shape[-1]
    if channels == 3:
        return pixels
    if channels == 1:
        return np.repeat(pixels, 3, axis=-1)
    if channels == 2:
        return np.concatenate([pixels, np.zeros_like(pixels[..., :1])], axis=-1)
    return np.ascontiguousarray(pixels[..., :3])
