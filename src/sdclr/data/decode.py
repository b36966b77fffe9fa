"""Open one image file, with Pillow alone: header first, then pixels, and an error that names the file and the cause.

What every file becomes: 8-bit RGB of its first frame. Alpha is dropped, as the reference drops it; 16-bit greys are
scaled (Pillow's own conversion turns them white); 32-bit integer and float greys have no agreed range and are refused.
A file that is cut off is an error, never filled up with grey. Does not resize, crop or batch.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

# every plugin registers itself when it is imported
from PIL import (  # noqa: F401
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from sdclr.errors import DataError, MissingInputError, SdclrError

with contextlib.suppress(ImportError):  # not in every Pillow
    from PIL import AvifImagePlugin  # noqa: F401

FORMATS = tuple(name for name in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF") if name in Image.OPEN)
MAX_PIXELS = 89_478_485
"""Pillow's own limit. Above it Pillow's crop would warn, through a setting of the whole process."""


def open_image(path: Path | str, *, max_pixels: int = MAX_PIXELS, exif_rotation: bool = False) -> Image.Image:
    """The first frame of an image file, in mode RGB.

    ``exif_rotation`` turns the image as its EXIF tag says; the reference does not. Raises MissingInputError for an
    absent file, and DataError for one of another format, of more than ``max_pixels``, or damaged.
    """
    with _opened(path, max_pixels) as image:
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image) if exif_rotation else image)


def read_size(path: Path | str, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) from the header alone, before any EXIF rotation. Raises as :func:`open_image` does."""
    with _opened(path, max_pixels) as image:
        return image.height, image.width


def printable(path: Path | str) -> str:
    """A path for a message: as it is, or in quotes with escapes if it holds line breaks or bytes that are no text."""
    text = os.fspath(path)
    return text if text.isprintable() else repr(text)


@contextlib.contextmanager
def _opened(path: Path | str, max_pixels: int) -> Iterator[ImageFile.ImageFile]:
    """An image whose header was read and found sound; whatever goes wrong until the end of the block names the file."""
    try:
        with open(path, "rb") as file:
            image = _read_header(file, os.fspath(path))
            _check_size(image, max_pixels)
            yield image
    except (FileNotFoundError, NotADirectoryError):
        link = " (a broken link)" if os.path.islink(path) else ""
        raise MissingInputError(f"image {printable(path)} does not exist{link}.") from None
    except IsADirectoryError:
        raise DataError(f"image {printable(path)} is a folder.") from None
    except PermissionError:
        raise DataError(f"image {printable(path)} may not be read: permission denied.") from None
    except SdclrError:
        raise
    except Exception as error:  # Pillow's parsers raise whatever a damaged file makes them trip over
        cause = str(error) or type(error).__name__
        raise DataError(f"image {printable(path)} is damaged: {cause}. Replace it, or take it off its list.") from None


def _read_header(file: BinaryIO, path: str) -> ImageFile.ImageFile:
    # not Image.open: it warns of large images through process-wide settings, and after it has opened them
    prefix = file.read(16)
    if not prefix:
        raise DataError(f"image {printable(path)} is empty (0 bytes).")
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        if accept is None or accept(prefix) is not True:  # a string says why this Pillow cannot
            continue
        file.seek(0)
        with contextlib.suppress(SyntaxError, IndexError, TypeError, struct.error):  # Pillow's "not mine after all"
            return factory(file, path)
    raise DataError(
        f"image {printable(path)} is not one that can be read ({', '.join(FORMATS)}); it begins {prefix!r}."
    )


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ValueError(f"it claims {width} x {height} pixels")
    if width * height > max_pixels:
        raise ValueError(f"it claims {width} x {height} pixels, more than {max_pixels:,} in all")


def _to_rgb(image: Image.Image) -> Image.Image:
    """Mode RGB, detached from the file."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):  # both reach up to 65,535
        levels = (np.asarray(image).astype(np.int64) + 128) // 257  # the nearest of 0 .. 255
        return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"32-bit grey (mode {image.mode}) has no agreed range; save it as 8 or 16 bits")
    image.info.pop("transparency", None)  # to be dropped; Pillow would warn that it cannot keep it
    return image.convert("RGB")
