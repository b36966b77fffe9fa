"""PNG files whose text or colour profile is longer than Pillow accepts: opened without it, as no pixel depends on it.

Pillow refuses text and profiles above a megabyte, by process-wide settings that are not ours to change. Text that
rotates an image (EXIF and XMP) is dropped only where it is itself too long.
"""

from __future__ import annotations

import contextlib
import io
import struct
from typing import BinaryIO

from PIL.PngImagePlugin import PngImageFile, PngStream

from sdclr.storage.positioned_files import VirtualFile

SIGNATURE_BYTES = 8
TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
UNNEEDED_CHUNKS = (*TEXT_CHUNKS, b"iCCP")
TURNING_TEXT = (b"Raw profile type exif", b"XML:com.adobe.xmp")
"""Keywords of text in which Pillow looks for an orientation."""
_LONGEST_KEYWORD = 79


def open_png(file: BinaryIO, name: str) -> PngImageFile:
    """A PNG whose header was read, and whose long text and colour profile, wherever they are, are skipped."""
    try:
        image = PngImageFile(file, name)
    except ValueError as too_long:
        image = _open_without_text(file, name, too_long)
    assert image.png is not None
    image.png.__class__ = _PassingOver  # for text after the pixels, which is read with them
    return image


def _open_without_text(file: BinaryIO, name: str, too_long: ValueError) -> PngImageFile:
    for keep in (TURNING_TEXT, ()):
        try:
            spliced = io.BufferedReader(_Spliced(*_short_beginning(file, keep), file))
            return PngImageFile(spliced, name)
        except (ValueError, EOFError):
            continue
    raise too_long


def _short_beginning(file: BinaryIO, keep: tuple[bytes, ...]) -> tuple[bytes, int]:
    """The bytes before the pixels without text and profile, and where the pixels begin. EOFError where it is cut off.

    ``keep``: keywords of text to keep.
    """
    file.seek(0)
    kept = [file.read(SIGNATURE_BYTES)]
    while True:
        position = file.tell()
        length, chunk = struct.unpack(">I4s", _exactly(file, 8))
        if chunk in (b"IDAT", b"IEND"):
            return b"".join(kept), position
        keyword = _exactly(file, min(length, _LONGEST_KEYWORD + 1)).partition(b"\0")[0]
        file.seek(position)
        if chunk in UNNEEDED_CHUNKS and not (chunk in TEXT_CHUNKS and keyword in keep):
            file.seek(8 + length + 4, io.SEEK_CUR)
        else:
            kept.append(_exactly(file, 8 + length + 4))


def _exactly(file: BinaryIO, size: int) -> bytes:
    content = file.read(size)
    if len(content) != size:
        raise EOFError
    return content


class _PassingOver(PngStream):
    """Chunks that ignore text or a profile that turns out to be too long when it is read."""

    def chunk_tEXt(self, position: int, length: int) -> bytes:
        with contextlib.suppress(ValueError):
            return super().chunk_tEXt(position, length)
        return b""

    def chunk_zTXt(self, position: int, length: int) -> bytes:
        with contextlib.suppress(ValueError):
            return super().chunk_zTXt(position, length)
        return b""

    def chunk_iTXt(self, position: int, length: int) -> bytes:
        with contextlib.suppress(ValueError):
            return super().chunk_iTXt(position, length)
        return b""

    def chunk_iCCP(self, position: int, length: int) -> bytes:
        with contextlib.suppress(ValueError):
            return super().chunk_iCCP(position, length)
        return b""


class _Spliced(VirtualFile):
    """Some bytes, followed by those of a file from ``start`` on."""

    def __init__(self, beginning: bytes, start: int, file: BinaryIO) -> None:
        super().__init__(len(beginning) + max(file.seek(0, io.SEEK_END) - start, 0))
        self._beginning, self._start, self._file = beginning, start, file

    def content(self, start: int, size: int) -> bytes:
        content = self._beginning[start : start + size]
        if content:
            return content
        self._file.seek(self._start + start - len(self._beginning))
        return self._file.read(size)
