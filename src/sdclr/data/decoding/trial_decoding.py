"""Decode one image file in a process of its own, which may be stopped: trial_decoding.py FILE START SIZE FORMAT PACKED.

Exits with 0 when the pixels were decoded, with 3 when memory ran out, and otherwise with 1 and a sentence on standard
error. Needs only Pillow (pillow-heif for HEIF): the package around it is not imported.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import zlib
from typing import BinaryIO

from PIL import Image

LARGEST_MEMORY = 1 << 30
"""Bytes of address space."""
MOST_SECONDS = 10
"""Of one core."""


def _limit() -> None:
    # only POSIX has it; elsewhere the parent's patience is the only limit
    with contextlib.suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (LARGEST_MEMORY, LARGEST_MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS + 1))


def _decode(path: str, start: int, size: int, kind: str, packed: int) -> None:
    if kind == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    with open(path, "rb") as whole:
        whole.seek(start)
        file = io.BytesIO(_content(whole, size, packed)) if size >= 0 else whole
        Image.MAX_IMAGE_PIXELS = None  # the parent has checked the size
        with Image.open(file, formats=[kind]) as image:
            image.load()
            image.convert("RGB").reduce(2)


def _content(whole: BinaryIO, size: int, packed: int) -> bytes:
    if packed < 0:
        return whole.read(size)
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(whole.read(packed), size)


if __name__ == "__main__":
    _limit()
    try:
        _decode(
            os.fsdecode(sys.argv[1]),
            int(sys.argv[2]),
            int(sys.argv[3]),
            sys.argv[4],
            int(sys.argv[5]),
        )
    except MemoryError:
        sys.exit(3)
    except Exception as error:
        sys.exit((str(error) or type(error).__name__).splitlines()[0][:300])
