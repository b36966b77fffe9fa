"""What decoding one image file may cost, judged by its header; costly files are tried in a process first.

A small file can need gigabytes and minutes: a canvas of 90 million pixels in 90 bytes, a JPEG of a thousand scans,
numbers written as text. Most files are ordinary and judged in microseconds. The others are decoded once by
:mod:`sdclr.data.decoding.trial_decoding`, which is stopped when it takes too much time or memory.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

from PIL import Image

LARGEST_FILE = 1 << 30
"""Bytes; 90 million pixels of 16-bit RGB take half of it."""
LARGEST_SIDE = 65_535
"""Pixels: JPEG's own limit. Resizing a longer line takes gigabytes."""
PATIENCE_SECONDS = 120
"""How long a trial may take on a busy machine before it counts as hanging; it has its own limit of processor time."""

MANY_PIXELS = 20_000_000
"""Above it, formats that need several copies of their canvas are tried first."""
MANY_HEIF_PIXELS = 50_000_000
"""Above it HEIC and HEIF are tried first; phones take photographs of 12, 24 and 48 million."""
MANY_RUNS = 1_000_000
"""Pixels above which run lengths, which Pillow decodes in Python, are tried first."""
LONG_TEXT = 1 << 20
"""Bytes above which numbers written as text are tried first: their comments cost quadratic time."""
MANY_TILES = 4_000
MANY_SCANNED_PIXELS = 300_000_000
"""Pixels times scans of a progressive JPEG."""
MEMORY_EXIT = 3
"""Exit status of a trial that ran out of memory."""
TIME_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGXCPU", "SIGKILL") if hasattr(signal, name)
)
"""The signals that end a trial at its soft and hard limit of processor time."""
_PPM_HEADER = re.compile(rb"P[0-9A-Za-z]{1,5}(?:(?:\s|#[^\r\n]*[\r\n])+[-+.0-9]+){2,3}")
_PPM_HEADER_BYTES = 4_096


class TooCostlyError(ValueError):
    """An image that may be intact, but must not be decoded."""


_passed: set[tuple[object, ...]] = set()


def refuse_costly_header(prefix: bytes) -> None:
    """ValueError for a file whose header alone costs too much to read; ``prefix`` is its first bytes."""
    if (
        prefix[:1] == b"P"
        and prefix[1:2] in b"123456"
        and not _PPM_HEADER.match(prefix[:_PPM_HEADER_BYTES])
    ):
        raise TooCostlyError(f"its header is longer than {_PPM_HEADER_BYTES} bytes")
    canvas = webp_canvas(prefix)
    if canvas is not None and max(canvas) > LARGEST_SIDE:
        raise TooCostlyError(f"it claims a canvas of {canvas[0]:,} x {canvas[1]:,} pixels")


def has_large_canvas(prefix: bytes) -> bool:
    """Whether a file is a WebP whose canvas alone, which is reserved when it is opened, may take gigabytes."""
    canvas = webp_canvas(prefix)
    return canvas is not None and canvas[0] * canvas[1] > MANY_PIXELS


def webp_canvas(prefix: bytes) -> tuple[int, int] | None:
    """(width, height) that the header of a WebP file claims; None for other files and where it claims none."""
    if prefix[:4] != b"RIFF" or prefix[8:12] != b"WEBP" or len(prefix) < 30:
        return None
    kind = prefix[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(prefix[24:27], "little"), 1 + int.from_bytes(
            prefix[27:30], "little"
        )
    if kind == b"VP8L":
        bits = int.from_bytes(prefix[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        return int.from_bytes(prefix[26:28], "little") & 0x3FFF, int.from_bytes(
            prefix[28:30], "little"
        ) & 0x3FFF
    return None


def is_costly(image: Image.Image, file: IO[bytes], size: int) -> bool:
    """Whether decoding a ``file`` of ``size`` bytes may take seconds or gigabytes; the position in it is kept."""
    pixels = image.width * image.height
    if image.format in ("WEBP", "AVIF", "TIFF") and pixels > MANY_PIXELS:
        return True
    if image.format == "HEIF" and pixels > MANY_HEIF_PIXELS:
        return True
    kinds = {tile[0] for tile in _tiles(image)}
    if ("ppm_plain" in kinds and size > LONG_TEXT) or ("bmp_rle" in kinds and pixels > MANY_RUNS):
        return True
    if len(_tiles(image)) > MANY_TILES:
        return True
    return bool(image.info.get("progressive")) and pixels * _scans(file) > MANY_SCANNED_PIXELS


def _tiles(image: Image.Image) -> list[tuple[object, ...]]:
    return getattr(image, "tile", [])


def _scans(file: IO[bytes]) -> int:
    """The number of scans in a JPEG; compressed data never contain their marker."""
    position = file.tell()
    file.seek(0)
    scans, last = 0, b""
    while block := file.read(1 << 20):
        scans += (last + block).count(b"\xff\xda")
        last = block[-1:]
    file.seek(position)
    return scans


def try_decoding(
    path: Path | str,
    start: int,
    size: int | None,
    kind: str,
    packed: int | None = None,
    *,
    known_as: tuple[object, ...] | None = None,
) -> None:
    """Decode in a process of its own; ValueError when that fails or takes more than its limits.

    ``start`` and ``size``: where the image is in the file, ``size`` None for a file that is one image; ``packed``: its
    packed size in bytes, where it is packed. An image that passed is not tried again while its file is unchanged.
    ``known_as``: identifies the unchanged original, where the file is a copy.
    """
    state = os.stat(path)
    key = known_as or (
        *(os.fspath(path), start, size, packed),
        *(state.st_size, state.st_mtime_ns, state.st_ino),
    )
    if key in _passed:
        return
    script = Path(__file__).with_name("trial_decoding.py")
    numbers = [str(-1 if number is None else number) for number in (size, packed)]
    command = [
        sys.executable,
        "-P",
        str(script),
        os.fspath(path),
        str(start),
        numbers[0],
        kind,
        numbers[1],
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=PATIENCE_SECONDS,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise TooCostlyError(f"it takes more than {PATIENCE_SECONDS} seconds to decode") from None
    if -done.returncode in TIME_SIGNALS:
        raise TooCostlyError("it takes too many seconds to decode")
    if done.returncode < 0:  # libwebp of old Pillows does not check what it allocated
        name = signal.Signals(-done.returncode).name
        raise TooCostlyError(
            f"it takes more than a gigabyte of memory to decode, or breaks its decoder ({name})"
        )
    if done.returncode == MEMORY_EXIT:
        raise TooCostlyError("it takes more than a gigabyte of memory to decode")
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ValueError(lines[-1][:300] if lines else "it cannot be decoded")
    if len(_passed) < 100_000:
        _passed.add(key)
