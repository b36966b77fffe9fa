"""A sound PNG is read however long its text and its colour profile are, and Pillow's settings stay as they were."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from sdclr.data.decoding.decode import open_image, read_size
from sdclr.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 4, 3)).astype(np.uint8)
LONG = 3 << 20


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(before: bytes = b"", after: bytes = b"") -> bytes:
    """PIXELS with chunks before and after those of the pixels."""
    file = BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    whole = file.getvalue()
    start, end = whole.index(b"IDAT") - 4, whole.index(b"IEND") - 4
    return whole[:start] + before + whole[start:end] + after + whole[end:]


def xmp(orientation: int, length: int = 0) -> bytes:
    text = (
        f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/>{" " * length}</x:xmpmeta>'
    )
    return chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(text.encode()))


TEXTS = {
    "compressed text": chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"a" * LONG)),
    "international text": chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(b"a" * LONG)),
    "colour profile": chunk(b"iCCP", b"profile\0\0" + zlib.compress(b"a" * LONG)),
    "much plain text": chunk(b"tEXt", b"workflow\0" + b"a" * LONG) * 22,
}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("place", ["before", "after"])
def test_long_text_and_profiles_are_passed_over(tmp_path: Path, kind: str, place: str) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png(**{place: TEXTS[kind]}))
    settings = {
        name: value for name, value in vars(PngImagePlugin).items() if name.startswith("MAX_")
    }
    for turn in (False, True):
        assert read_size(path, exif_rotation=turn) == (6, 4)
        np.testing.assert_array_equal(np.asarray(open_image(path, exif_rotation=turn)), PIXELS)
    assert {
        name: value for name, value in vars(PngImagePlugin).items() if name.startswith("MAX_")
    } == settings


@pytest.mark.parametrize("place", ["before", "after"])
def test_what_turns_an_image_is_kept_beside_long_text(tmp_path: Path, place: str) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png(**{place: TEXTS["compressed text"] + xmp(6) + TEXTS["colour profile"]}))
    turned = np.asarray(open_image(path, exif_rotation=True))
    np.testing.assert_array_equal(turned, np.rot90(PIXELS, -1))


def test_xmp_that_is_too_long_itself_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png(before=xmp(6, LONG) + TEXTS["compressed text"]))
    np.testing.assert_array_equal(
        np.asarray(open_image(tmp_path / "x.png", exif_rotation=True)), PIXELS
    )


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_a_file_with_long_text_that_is_cut_off_is_damaged(tmp_path: Path, share: float) -> None:
    whole = png(before=TEXTS["compressed text"])
    (tmp_path / "x.png").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=r"x\.png is "):
        open_image(tmp_path / "x.png")


@pytest.mark.usefixtures("without_heif")
def test_a_heic_file_is_called_one_whatever_its_name(tmp_path: Path) -> None:
    for brand in (b"heic", b"mif1"):
        (tmp_path / "x.jpg").write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(100))
        with pytest.raises(
            DataError,
            match=r"x\.jpg is a HEIC/HEIF file, which cannot be read without pillow-heif\. Conv",
        ):
            open_image(tmp_path / "x.jpg")
