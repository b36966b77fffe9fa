"""Open one image file with Pillow: header first, then pixels, and an error that names the file and the cause.

Every file becomes 8-bit RGB of its first frame, or other channels where another number is requested. Alpha is dropped,
as in the reference; 16-bit greys are scaled (Pillow's own conversion turns them white) from the number of bits that
they are declared to use; 32-bit integer and float greys have no agreed range and are refused. Of 16-bit colours Pillow
keeps the upper 8 bits.
A truncated file is an error, never filled up with grey. Does not resize, crop or batch.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import os
import shutil
import stat
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

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

from sdclr.addresses import Place
from sdclr.data.decoding.decoding_budget import (
    LARGEST_FILE,
    LARGEST_SIDE,
    TooCostlyError,
    has_large_canvas,
    is_costly,
    refuse_costly_header,
    try_decoding,
    webp_canvas,
)
from sdclr.data.decoding.npy_files import npy_array, npy_shape
from sdclr.data.decoding.png_files import open_png
from sdclr.data.remote.members import RemoteMember
from sdclr.data.remote.ranges import Version
from sdclr.errors import ChangedDataError, DataError, MissingInputError, SdclrError
from sdclr.planes import (
    DEEPEST_GREYS,
    ArrayPicture,
    ChannelsError,
    bits_for,
    levels_of_array,
    levels_of_picture,
    no_agreed_range,
    size_of_shape,
    turned_by_exif,
)
from sdclr.stills import DecodedPicture, Picture, eight_bits, has_deep_grey
from sdclr.storage.positioned_files import VirtualFile, read_at

with contextlib.suppress(ImportError):  # not in every Pillow
    from PIL import AvifImagePlugin  # noqa: F401

FORMATS = tuple(
    name
    for name in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF")
    if name in Image.OPEN
)
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"heif")
"""The brands in HEIC and HEIF files, photographs from phones; some of these files are called .jpg."""
READS_HEIF = importlib.util.find_spec("pillow_heif") is not None
"""Whether the extra heif is installed; it is imported for the first such file."""
NPY_SUFFIX = ".npy"
"""Files that hold a NumPy array, one image each."""
TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ALL_GREY_BITS = 16
"""The bits that 16-bit greys use by default."""
LEVELS_USED = "sdclr largest level"
"""In the info of an image that came from 16 bits: its largest level, of 0 .. 65,535, before any scaling."""
MAX_PIXELS = 89_478_485
"""Pillow's own limit. Above it Pillow's crop would warn, through a setting of the whole process."""
_ORIENTATION = 0x0112
_QUARTER_TURNS = (5, 6, 7, 8)
"""The values of EXIF's orientation that swap height and width."""


class FileState(NamedTuple):
    """What identifies an unchanged file without reading it."""

    size: int
    """In bytes."""
    changed_ns: int
    """When it was last written."""

    @classmethod
    def of(cls, status: os.stat_result) -> FileState:
        return cls(status.st_size, status.st_mtime_ns)


class Member(NamedTuple):
    """An image file that is a part of a larger file, such as a tar shard or a zip."""

    file: str
    start: int
    size: int
    """In bytes."""
    name: str
    """Its own name, inside ``file``."""
    packed: int | None = None
    """Its packed size in bytes, if it is packed (deflate)."""
    version: Version | None = None
    """Where ``file`` is an address, the state in which the member was found."""
    state: FileState | None = None
    """Where ``file`` is on this machine, the state in which the member was found."""


Source = Path | str | Member
"""Where the bytes of an image file are."""


class OutOfRangeError(ValueError):
    """A level that needs more bits than images are declared to use."""


def open_image(
    source: Source,
    *,
    max_pixels: int = MAX_PIXELS,
    exif_rotation: bool = False,
    grey_bits: int = ALL_GREY_BITS,
) -> Image.Image:
    """The first frame of an image file, in mode RGB.

    ``exif_rotation`` rotates the image by its EXIF tag; the reference does not. ``grey_bits``: how many bits 16-bit
    greys use, 12 for the data of many cameras and microscopes; white is the largest level of that many. Raises
    MissingInputError for an absent file, and DataError for one of another format, of more than ``max_pixels``, or
    damaged.
    """
    with _opened(source, max_pixels) as image:
        assert image.fp is not None
        if is_costly(image, image.fp, size_in_bytes(source)):
            _try(source, str(image.format))
        is_deep_colour = _is_deep_colour(image)
        image.load()
        pixels = to_rgb(ImageOps.exif_transpose(image) if exif_rotation else image, grey_bits)
        if is_deep_colour:  # the level before Pillow kept only the upper byte
            pixels.info[LEVELS_USED] = 257 * max(int(high) for _, high in pixels.getextrema())  # type: ignore[misc]
        return pixels


def open_picture(
    source: Source,
    *,
    channels: int = 3,
    max_pixels: int = MAX_PIXELS,
    exif_rotation: bool = False,
    grey_bits: int = ALL_GREY_BITS,
) -> tuple[Picture, int | None]:
    """An image file with ``channels`` channels, and its largest level if it has 16 bits.

    Three channels are those of :func:`open_image`. Others are made by :func:`~sdclr.planes.levels_of_picture` from the
    file; ``.npy`` files hold one image each, of any number of channels. Raises as :func:`open_image` does, and
    DataError for a file with another number of channels.
    """
    if is_npy(source):
        with _npy(source) as (file, size):
            height, width = size_of_shape(npy_shape(file, size), channels)
            _check_size(width, height, max_pixels)
            file.seek(0)
            levels = levels_of_array(npy_array(file, size), channels, grey_bits)
            return ArrayPicture(levels.pixels), levels.largest
    if channels == 3:
        image = open_image(
            source, max_pixels=max_pixels, exif_rotation=exif_rotation, grey_bits=grey_bits
        )
        return DecodedPicture(image), image.info.get(LEVELS_USED)
    with _opened(source, max_pixels) as image:
        assert image.fp is not None
        if is_costly(image, image.fp, size_in_bytes(source)):
            _try(source, str(image.format))
        if channels > 1 and _is_deep_colour(image):
            raise ChannelsError(
                f"has colours of 16 bits, of which Pillow keeps 8, and data.channels is {channels}. Save it as a .npy "
                "array [H, W, C] of uint16, or as a TIFF with a page for each channel."
            )
        image.load()
        turned = turned_by_exif(image) if exif_rotation else image
        levels = levels_of_picture(turned, channels, grey_bits)
        return ArrayPicture(levels.pixels), levels.largest


def is_npy(source: Source) -> bool:
    """Whether a file is a NumPy array, by its name."""
    name = source.name if isinstance(source, Member) else os.fspath(source)
    return name.lower().endswith(NPY_SUFFIX)


@contextlib.contextmanager
def _npy(source: Source) -> Iterator[tuple[BinaryIO, int]]:
    """An open .npy file and its size; errors until the end of the block name the file."""
    size = size_in_bytes(source)
    with _errors_that_name(source), open_bytes(source) as file:
        if size > LARGEST_FILE:
            raise TooCostlyError(f"it has {size:,} bytes, more than {LARGEST_FILE:,}")
        yield file, size


def read_size(
    source: Source,
    *,
    max_pixels: int = MAX_PIXELS,
    exif_rotation: bool = False,
    channels: int = 3,
) -> tuple[int, int]:
    """(height, width) of what :func:`open_picture` would return, from the header alone. Raises as it does.

    With ``exif_rotation`` a PNG without EXIF is decoded: its EXIF may come after its pixels.
    """
    if is_npy(source):
        with _npy(source) as (file, size):
            height, width = size_of_shape(npy_shape(file, size), channels)
            _check_size(width, height, max_pixels)
            return height, width
    with _opened(source, max_pixels, head=True) as image:
        # Pillow rotates a TIFF by itself, and reports the size after that
        turned = (
            exif_rotation
            and image.format != "TIFF"
            and image.getexif().get(_ORIENTATION) in _QUARTER_TURNS
        )
        return (image.width, image.height) if turned else (image.height, image.width)


def is_deep_grey(source: Source) -> bool:
    """Whether a file holds greys of 16 bits, by its header. Raises as :func:`open_image` does."""
    with _opened(source, MAX_PIXELS, head=True) as image:
        return has_deep_grey(image)


def require_file(source: Source) -> os.stat_result:
    """The state of a regular file, links followed, without opening it: opening a pipe or a device may block for ever.

    For a member, that of the file it is a part of. Raises MissingInputError for an absent file and DataError for a
    folder or a special file.
    """
    path = source.file if isinstance(source, Member) else source
    with _errors_that_name(path):
        state = os.stat(path)
        if stat.S_ISDIR(state.st_mode):
            raise IsADirectoryError
        if not stat.S_ISREG(state.st_mode):
            raise DataError(
                f"image {printable(path)} is a pipe, a socket or a device. Take it off its list."
            )
    return state


def state_of(source: Source) -> FileState:
    """The state of a file; for a member, that of the file it is a part of. Raises as :func:`require_file` does.

    For a member at an address, the state in which it was found: no request is made.
    """
    if isinstance(source, Member) and source.version is not None:
        return FileState(source.version.size, source.version.number)
    return FileState.of(require_file(source))


def size_in_bytes(source: Source) -> int:
    """The size of an image file, without opening it."""
    return source.size if isinstance(source, Member) else state_of(source).size


@contextlib.contextmanager
def open_bytes(source: Source, *, head: bool = False) -> Iterator[io.BufferedReader[Any]]:
    """The bytes of one image file, for reading.

    Raises ChangedDataError for a member of a file that was written or replaced since its members were listed.

    ``head``: only its header may be read; a file on another machine is then read in part first.
    """
    if isinstance(source, Member) and source.version is not None:
        member = RemoteMember(source.file, source.version, source.start, source.size, head=head)
        with io.BufferedReader(member) as file:
            yield file
        return
    if not isinstance(source, Member):
        with open(source, "rb") as file:
            yield file
        return
    with open(source.file, "rb", buffering=0) as whole:
        state = FileState.of(os.fstat(whole.fileno()))
        if source.state is not None and state != source.state:
            raise ChangedDataError(
                f"{printable(source.file)} was written or replaced after its members were listed, so that other images "
                "may be in their places. Leave it alone while it is read, and give the command again."
            )
        if source.packed is not None:
            yield io.BufferedReader(io.BytesIO(_unpacked(source, whole.fileno())))
            return
        with io.BufferedReader(_Part(whole.fileno(), source.start, source.size)) as file:
            yield file


LARGEST_UNPACKED = 1 << 28
"""Bytes of a packed member, which is unpacked into memory; photographs take a tenth of that."""


def _unpacked(member: Member, descriptor: int) -> bytes:
    """The bytes of a packed member, never more than it claims. DataError where it holds more, or less."""
    assert member.packed is not None
    if max(member.size, member.packed) > LARGEST_UNPACKED:
        raise DataError(
            f"image {printable(member)} is too large: it claims {member.size:,} bytes, more than {LARGEST_UNPACKED:,} "
            "for a packed one. Take it out of the zip, or store it there unpacked."
        )
    unpack = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = unpack.decompress(
            read_at(descriptor, member.packed, member.start), member.size + 1
        )
    except zlib.error as error:
        raise DataError(
            f"image {printable(member)} is damaged: {error}. Replace it, or leave it out."
        ) from None
    if len(content) != member.size or not unpack.eof:
        raise DataError(
            f"image {printable(member)} is damaged: it does not unpack to the {member.size:,} bytes that it claims. "
            "Replace it, or leave it out."
        )
    return content


class _Part(VirtualFile):
    """``size`` bytes of an open file, from ``start`` on, as a file of their own."""

    def __init__(self, descriptor: int, start: int, size: int) -> None:
        super().__init__(size)
        self._descriptor, self._start = descriptor, start

    def content(self, start: int, size: int) -> bytes:
        return read_at(self._descriptor, size, self._start + start)


def printable(source: Source | Place) -> str:
    """A name for a message: as it is, or in quotes with escapes if it has line breaks or undecodable bytes."""
    text = f"{source.file}: {source.name}" if isinstance(source, Member) else os.fspath(source)
    return text if text.isprintable() else repr(text)


@contextlib.contextmanager
def _opened(
    source: Source, max_pixels: int, *, head: bool = False
) -> Iterator[ImageFile.ImageFile]:
    """An image whose header was read and checked; errors until the end of the block name the file."""
    state = state_of(source)
    size = source.size if isinstance(source, Member) else state.size
    with _errors_that_name(source), open_bytes(source, head=head) as file:
        if size > LARGEST_FILE:
            raise TooCostlyError(f"it has {size:,} bytes, more than {LARGEST_FILE:,}")
        prefix = file.read(4_096)
        refuse_costly_header(prefix)
        if (canvas := webp_canvas(prefix)) is not None and min(canvas) > 0:
            _check_size(*canvas, max_pixels)  # to open it is to reserve its canvas
        file.seek(0)
        image = _read_header(file, source)
        _check_size(*image.size, max_pixels)
        yield image


@contextlib.contextmanager
def _errors_that_name(source: Source) -> Iterator[None]:
    """Turn whatever the file system or Pillow raises into an error that names the file and the cause."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        link = (
            " (a broken link)" if not isinstance(source, Member) and os.path.islink(source) else ""
        )
        raise MissingInputError(f"image {printable(source)} does not exist{link}.") from None
    except IsADirectoryError:
        raise DataError(f"image {printable(source)} is a folder.") from None
    except PermissionError:
        raise DataError(f"image {printable(source)} may not be read: permission denied.") from None
    except SdclrError:
        raise
    except TooCostlyError as error:
        raise DataError(
            f"image {printable(source)} is too large: {error}. Make it smaller, or take it off its list."
        ) from None
    except (OutOfRangeError, ChannelsError) as error:
        raise DataError(f"image {printable(source)} {error}") from None
    except Exception as error:  # Pillow's parsers raise errors of any kind for damaged files
        cause = str(error) or type(error).__name__
        raise DataError(
            f"image {printable(source)} is damaged: {cause}. Replace it, or take it off its list."
        ) from None


def _read_header(file: BinaryIO, source: Source) -> ImageFile.ImageFile:
    # not Image.open: it warns of large images through process-wide settings, and after it has opened them
    prefix = file.read(30)
    if not prefix:
        raise DataError(f"image {printable(source)} is empty (0 bytes).")
    if has_large_canvas(prefix):
        _try(source, "WEBP")  # to open it is to reserve its canvas
    prefix = prefix[:16]
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        # a string is the reason why this Pillow cannot
        if accept is None or accept(prefix) is not True:
            continue
        file.seek(0)
        # Pillow's "not mine after all"
        with contextlib.suppress(SyntaxError, IndexError, TypeError, struct.error):
            return (
                open_png(file, printable(source))
                if name == "PNG"
                else factory(file, printable(source))
            )
    if prefix[4:8] == b"ftyp" and prefix[8:12] in HEIF_BRANDS:
        if READS_HEIF:
            file.seek(0)
            return _open_heif(file, printable(source))
        raise DataError(
            f"image {printable(source)} is a HEIC/HEIF file, which cannot be read without pillow-heif. Convert it to "
            'JPEG or PNG, pip install "sdclr[heif]", or take it off its list.'
        )
    if prefix.startswith(TIFF_MARKS):
        raise DataError(
            f"image {printable(source)} is a TIFF of a kind that Pillow cannot read, such as one of more than 4 "
            "channels a pixel. Save it as a .npy array [H, W, C], or as a TIFF with a page for each channel (and set "
            "data.channels)."
        )
    raise DataError(
        f"image {printable(source)} is not one that can be read ({', '.join(FORMATS)}); it begins {prefix!r}."
    )


def _open_heif(file: BinaryIO, name: str) -> ImageFile.ImageFile:
    if "HEIF" not in Image.OPEN:
        importlib.import_module("pillow_heif").register_heif_opener()
    factory, _ = Image.OPEN["HEIF"]
    try:
        return factory(file, name)
    except SyntaxError as error:  # its "cannot be decoded"
        raise ValueError(str(error)) from None


def _try(source: Source, kind: str) -> None:
    if isinstance(source, Member) and source.version is not None:
        # the process that tries it only reads files
        with tempfile.NamedTemporaryFile() as copy, open_bytes(source) as file:
            shutil.copyfileobj(file, copy)
            copy.flush()
            known_as = (source.file, source.start, source.size, source.version)
            try_decoding(copy.name, 0, None, kind, known_as=known_as)
    elif isinstance(source, Member):
        try_decoding(source.file, source.start, source.size, kind, source.packed)
    else:
        try_decoding(source, 0, None, kind)


def bits_used(levels: Sequence[int]) -> int:
    """How many bits a set of 16-bit images uses, from their largest levels: 8, 10, 12, 14 or 16.

    14 or fewer mean that even the brightest image stays below a quarter of white, which a set of photographs never
    does, so the data have fewer bits than their files. A single image may be dark, so one image decides nothing.
    """
    return bits_for(max(levels))


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ValueError(f"it claims {width} x {height} pixels")
    if max(width, height) > LARGEST_SIDE:
        raise TooCostlyError(f"it claims {width} x {height} pixels, a side above {LARGEST_SIDE:,}")
    if width * height > max_pixels:
        raise TooCostlyError(
            f"it claims {width} x {height} pixels, more than {max_pixels:,} in all"
        )


def _is_deep_colour(image: Image.Image) -> bool:
    """Whether Pillow drops the lower half of 16-bit colours (or of grey with alpha) when it decodes them."""
    modes = [tile[3] for tile in getattr(image, "tile", [])[:1]]
    raw = modes[0][0] if modes and isinstance(modes[0], tuple) and modes[0] else (modes or [""])[0]
    return isinstance(raw, str) and ";16" in raw and not image.mode.startswith("I")


def to_rgb(image: Image.Image, grey_bits: int = ALL_GREY_BITS) -> Image.Image:
    """Mode RGB, detached from the file."""
    if has_deep_grey(image):
        values = np.asarray(image).astype(np.uint32)
        largest, white = int(values.max()), (1 << grey_bits) - 1
        if largest > white:
            raise OutOfRangeError(
                f"holds grey levels up to {largest:,}, which {grey_bits} bits cannot. Use "
                f"data.grey_bits={bits_for(largest)}, or take it off its list."
            )
        grey = Image.fromarray(eight_bits(values, grey_bits)).convert("RGB")
        grey.info[LEVELS_USED] = largest
        return grey
    if image.mode in DEEPEST_GREYS:
        raise no_agreed_range(image.mode)
    image.info.pop("transparency", None)  # dropped, as Pillow would warn that it cannot keep it
    return image.convert("RGB")
