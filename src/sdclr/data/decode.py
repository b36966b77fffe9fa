"""Open one image file, with Pillow alone: header first, then pixels, and an error that names the file and the cause.

What every file becomes: 8-bit RGB of its first frame. Alpha is dropped, as the reference drops it; 16-bit greys are
scaled (Pillow's own conversion turns them white); 32-bit integer and float greys have no agreed range and are refused.
A file that is cut off is an error, never filled up with grey. Does not resize, crop or batch.
"""

from __future__ import annotations

import contextlib
import os
import stat
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
_ORIENTATION = 0x0112
_QUARTER_TURNS = (5, 6, 7, 8)
"""The values of EXIF's orientation that exchange height and width."""


def open_image(path: Path | str, *, max_pixels: int = MAX_PIXELS, exif_rotation: bool = False) -> Image.Image:
    """The first frame of an image file, in mode RGB.

    ``exif_rotation`` turns the image as its EXIF tag says; the reference does not. Raises MissingInputError for an
    absent file, and DataError for one of another format, of more than ``max_pixels``, or damaged.
    """
    with _opened(path, max_pixels) as image:
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image) if exif_rotation else image)


def read_size(path: Path | str, *, max_pixels: int = MAX_PIXELS, exif_rotation: bool = False) -> tuple[int, int]:
    """(height, width) of what :func:`open_image` would return, from the header alone. Raises as it does.

    With ``exif_rotation`` a PNG without EXIF is decoded: its EXIF may come after its pixels.
    """
    with _opened(path, max_pixels) as image:
        # Pillow turns a TIFF by itself, and its header gives the size after that
        turned = exif_rotation and image.format != "TIFF" and image.getexif().get(_ORIENTATION) in _QUARTER_TURNS
        return (image.width, image.height) if turned else (image.height, image.width)


def require_file(path: Path | str) -> os.stat_result:
    """The state of a regular file, links followed, without opening it: to open a pipe or a device may block for ever.

    Raises MissingInputError for an absent file and DataError for a folder or a special file.
    """
    with _errors_that_name(path):
        state = os.stat(path)
        if stat.S_ISDIR(state.st_mode):
            raise IsADirectoryError
        if not stat.S_ISREG(state.st_mode):
            raise DataError(f"image {printable(path)} is a pipe, a socket or a device. Take it off its list.")
    return state


def printable(path: Path | str) -> str:
    """A path for a message: as it is, or in quotes with escapes if it holds line breaks or bytes that are no text."""
    text = os.fspath(path)
    return text if text.isprintable() else repr(text)


@contextlib.contextmanager
def _opened(path: Path | str, max_pixels: int) -> Iterator[ImageFile.ImageFile]:
    """An image whose header was read and found sound; whatever goes wrong until the end of the block names the file."""
    require_file(path)
    with _errors_that_name(path), open(path, "rb") as file:
        image = _read_header(file, os.fspath(path))
        _check_size(image, max_pixels)
        yield image


@contextlib.contextmanager
def _errors_that_name(path: Path | str) -> Iterator[None]:
    """Turn whatever the file system or Pillow raises into an error that names the file and the cause."""
    try:
        yield
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
