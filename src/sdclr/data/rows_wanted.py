"""What is computed for each image, row by row, and for which images, so that a killed computation can resume."""

from __future__ import annotations

from collections.abc import Sequence

from sdclr.data.build import Data
from sdclr.data.collections.contents import Content, read_contents
from sdclr.data.collections.image_files import ImageFiles
from sdclr.data.collections.images import Images
from sdclr.storage.carried_rows import Keys, keys_of


def rows_wanted(found: Data, images: Images) -> tuple[str, Keys | None]:
    """How pixels are read, and a key for each of ``images`` [N], a subset of ``found``; reads a few KB of each file.

    For images in memory, whose rows are reused only for exactly the same images: their fingerprint and number, no keys.
    """
    if images.files is None:
        return f"{found.fingerprint} {len(images)}", None
    return str(reading(images.files)), keys_of_contents(read_contents(images.files))


def reading(files: ImageFiles) -> dict[str, object]:
    """How a file becomes pixels, where that can differ."""
    found: dict[str, object] = {"exif_rotation": files.exif_rotation, "grey_bits": files.grey_bits}
    if files.channels != 3:
        found["channels"] = files.channels
    if files.boxes is not None:
        found["boxes"] = files.boxes.unit
    return found


def keys_of_contents(contents: Sequence[Content]) -> Keys:
    """A key for each image, from its name, digest and modification time: the digest does not cover every byte."""
    return keys_of(f"{one.path}\0{one.digest}\0{one.mtime_ns}" for one in contents)
