"""Every file of the corpus of bad and odd input has one defined outcome: these pixels, or an error that names it."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from counted_work import calls_made
from sdclr.data.decoding.decode import (
    FORMATS,
    LEVELS_USED,
    MAX_PIXELS,
    bits_used,
    open_image,
    read_size,
    require_file,
)
from sdclr.errors import DataError, MissingInputError

RNG = np.random.default_rng(0)
# [20, 28, 3]
PIXELS = np.kron(RNG.integers(0, 256, (5, 7, 3)), np.ones((4, 4, 1))).astype(np.uint8)
GREY = PIXELS[:, :, 0]
PHOTO = Image.fromarray(PIXELS)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def written(folder: Path, content: bytes, name: str = "x.jpg") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def decoded(path: Path) -> np.ndarray:
    image = open_image(path)
    assert image.mode == "RGB"
    assert read_size(path) == (image.height, image.width)
    return np.asarray(image)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png_header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + png_chunk(
        b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    )


# ---- files that are read


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_files_give_the_very_pixels_whatever_their_name(
    tmp_path: Path, format: str
) -> None:
    path = written(
        tmp_path, encoded(PHOTO, format, **({"lossless": True} if format == "WEBP" else {}))
    )
    np.testing.assert_array_equal(decoded(path), PIXELS)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30, "subsampling": 2}])
def test_jpegs_give_pillows_pixels(tmp_path: Path, options: dict) -> None:
    content = encoded(PHOTO, "JPEG", **options)
    with Image.open(BytesIO(content)) as image:
        np.testing.assert_array_equal(decoded(written(tmp_path, content)), np.asarray(image))


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_is_read(tmp_path: Path) -> None:
    assert decoded(written(tmp_path, encoded(PHOTO, "AVIF"))).shape == PIXELS.shape
    assert "AVIF" in FORMATS


@pytest.mark.parametrize(
    ("format", "options"), [("PNG", {}), ("PPM", {}), ("JPEG", {"quality": 100})]
)
def test_grey_becomes_three_equal_channels(tmp_path: Path, format: str, options: dict) -> None:
    pixels = decoded(written(tmp_path, encoded(Image.fromarray(GREY), format, **options)))
    assert (pixels == pixels[:, :, :1]).all()
    assert np.abs(pixels[:, :, 0].astype(int) - GREY).max() <= (2 if format == "JPEG" else 0)


def test_cmyk_is_converted_as_pillow_does(tmp_path: Path) -> None:
    content = encoded(PHOTO.convert("CMYK"), "JPEG")
    with Image.open(BytesIO(content)) as image:
        assert image.mode == "CMYK"
        np.testing.assert_array_equal(
            decoded(written(tmp_path, content)), np.asarray(image.convert("RGB"))
        )


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bit_greys_are_divided_by_257_exactly(tmp_path: Path, format: str) -> None:
    values = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    pixels = decoded(written(tmp_path, encoded(Image.fromarray(values), format)))
    np.testing.assert_array_equal(pixels[:, :, 1], np.arange(256).reshape(16, 16))
    between = RNG.integers(0, 65_536, (16, 16)).astype(np.uint16)
    pixels = decoded(written(tmp_path, encoded(Image.fromarray(between), format)))
    np.testing.assert_array_equal(pixels[:, :, 0], np.round(between / 257))


def test_big_endian_16_bit_greys_are_not_swapped(tmp_path: Path) -> None:
    values = (np.arange(256).reshape(16, 16) * 257).astype(">u2")
    image = Image.frombytes("I;16B", (16, 16), values.tobytes())
    np.testing.assert_array_equal(
        decoded(written(tmp_path, encoded(image, "TIFF")))[:, :, 0], values // 257
    )


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_greys_are_refused_because_their_range_is_unknown(
    tmp_path: Path, dtype: type
) -> None:
    path = written(tmp_path, encoded(Image.fromarray(GREY.astype(dtype)), "TIFF"))
    with pytest.raises(
        DataError,
        match=r"x\.jpg is 32-bit grey \(mode .\), which has no agreed range\. Save it as 8 or 16 bits",
    ):
        open_image(path)


def test_16_bit_colours_keep_their_high_byte(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in PIXELS.astype(int) * 256 + 99)
    content = (
        png_header(28, 20, depth=16)
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )
    np.testing.assert_array_equal(decoded(written(tmp_path, content)), PIXELS)


def with_alpha() -> Image.Image:
    image = PHOTO.copy()
    image.putalpha(Image.fromarray(255 - GREY))
    return image


def test_alpha_is_dropped_not_blended(tmp_path: Path) -> None:
    np.testing.assert_array_equal(decoded(written(tmp_path, encoded(with_alpha(), "PNG"))), PIXELS)
    grey_alpha = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(255 - GREY)])
    pixels = decoded(written(tmp_path, encoded(grey_alpha, "PNG")))
    np.testing.assert_array_equal(pixels, np.repeat(GREY[:, :, None], 3, axis=2))


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(200))])
def test_palettes_give_their_colours_with_and_without_alpha(
    tmp_path: Path, transparency: int | bytes | None
) -> None:
    image = PHOTO.quantize(200)
    options = {} if transparency is None else {"transparency": transparency}
    pixels = decoded(written(tmp_path, encoded(image, "PNG", **options)))
    np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))


def test_one_bit_becomes_black_and_white(tmp_path: Path) -> None:
    pixels = decoded(written(tmp_path, encoded(Image.fromarray(GREY > 127), "PNG")))
    np.testing.assert_array_equal(pixels[:, :, 2], np.where(GREY > 127, 255, 0))


@pytest.mark.parametrize("format", ["GIF", "WEBP", "TIFF"])
def test_an_animation_gives_its_first_frame(tmp_path: Path, format: str) -> None:
    frames = [Image.new("RGB", (12, 9), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if format == "WEBP" else {}
    path = written(
        tmp_path, encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    )
    assert (decoded(path) == (255, 0, 0)).all()
    assert decoded(path).shape == (9, 12, 3)


def test_exif_rotation_is_off_unless_asked_for(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    path = written(tmp_path, encoded(PHOTO, "PNG", exif=exif))
    np.testing.assert_array_equal(decoded(path), PIXELS)
    np.testing.assert_array_equal(
        np.asarray(open_image(path, exif_rotation=True)), np.rot90(PIXELS, -1)
    )


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", [None, 1, 3, 5, 6, 8])
def test_a_size_is_that_of_the_image_as_it_will_be_turned(
    tmp_path: Path, format: str, orientation: int | None
) -> None:
    if format not in FORMATS:
        pytest.skip("this Pillow has no AVIF")
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    path = written(tmp_path, encoded(PHOTO, format, exif=exif))
    for turn in (False, True):
        image = open_image(path, exif_rotation=turn)
        assert read_size(path, exif_rotation=turn) == (image.height, image.width)
    assert (image.width < image.height) == (orientation in (5, 6, 8))


def test_garbage_after_the_end_does_not_matter(tmp_path: Path) -> None:
    content = encoded(PHOTO, "JPEG")
    clean = decoded(written(tmp_path, content))
    np.testing.assert_array_equal(decoded(written(tmp_path, content + os.urandom(3_000))), clean)


@pytest.mark.parametrize("size", [(1, 1), (20_000, 10), (10, 20_000)])
def test_extreme_shapes_are_read(tmp_path: Path, size: tuple[int, int]) -> None:
    for format in ("JPEG", "PNG"):
        path = written(tmp_path, encoded(Image.new("RGB", size, (10, 200, 30)), format))
        assert decoded(path).shape == (size[1], size[0], 3)


@pytest.mark.parametrize(
    "name", ["a\nb.jpg", 'it\'s "one".jpg', "caf\udce9\udcff.jpg", "-x .jpg", "图.jpg"]
)
def test_awkward_names_are_opened_and_shown_in_one_printable_line(
    tmp_path: Path, name: str
) -> None:
    np.testing.assert_array_equal(decoded(written(tmp_path, encoded(PHOTO, "PNG"), name)), PIXELS)
    with pytest.raises(DataError) as caught:
        open_image(written(tmp_path, b"nothing", name))
    assert str(caught.value).isprintable()


# ---- files that are refused


@cache
def damaged() -> dict[str, tuple[bytes, str]]:
    """Content and what the error says, by name."""
    large = Image.fromarray(RNG.integers(0, 256, (200, 300, 3)).astype(np.uint8))
    jpeg, png = encoded(large, "JPEG"), encoded(large, "PNG")
    return {
        "jpeg cut at half": (jpeg[: len(jpeg) // 2], "is damaged: .*truncated"),
        "jpeg without its last 200 bytes": (jpeg[:-200], "is damaged: .*truncated"),
        "progressive jpeg cut": (
            encoded(large, "JPEG", progressive=True)[:9_000],
            "is damaged: .*truncated",
        ),
        "jpeg cut in its header": (jpeg[:100], "x.jpg"),
        "png cut at half": (png[: len(png) // 2], "is damaged: .*truncated"),
        "png cut in its header": (png[:20], "x.jpg"),
        "png with a flipped byte": (png[:500] + bytes([png[500] ^ 0xFF]) + png[501:], "is damaged"),
        "webp cut": (encoded(large, "WEBP")[:500], "x.jpg"),
        "tiff cut": (encoded(large, "TIFF")[:5_000], "x.jpg"),
        "bmp cut": (encoded(large, "BMP")[:5_000], "is damaged: .*truncated"),
        "gif cut": (encoded(large.quantize(), "GIF")[:5_000], "is damaged: .*truncated"),
        "zero bytes": (b"", r"is empty \(0 bytes\)"),
        "html": (
            b"<!DOCTYPE html><html>404</html>",
            r"is not one that can be read \(JPEG, PNG.*begins b'<!DOCTYPE",
        ),
        "text": (b"n", "is not one that can be read"),
        "icon": (encoded(PHOTO, "ICO"), "is not one that can be read"),
        "png of no width": (png_header(0, 5), "x.jpg"),
    }


@pytest.mark.parametrize("kind", damaged())
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    content, message = damaged()[kind]
    path = written(tmp_path, content)
    with pytest.raises(DataError, match=message) as caught:
        open_image(path)
    assert str(path) in str(caught.value)


def test_any_flipped_bytes_give_an_image_or_a_data_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    refused = 0
    for format in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "PPM"):
        content = np.frombuffer(encoded(PHOTO, format), np.uint8)
        for _ in range(40):
            broken = content.copy()
            broken[rng.integers(0, len(content), 4)] ^= rng.integers(1, 256, 4).astype(np.uint8)
            try:
                assert (
                    open_image(written(tmp_path, broken.tobytes()), max_pixels=10_000).mode == "RGB"
                )
            except DataError:  # and nothing else
                refused += 1
    assert 40 < refused < 240


def header_only(format: str, width: int, height: int) -> bytes:
    if format == "PNG":
        return png_header(width, height) + png_chunk(b"IDAT", zlib.compress(bytes(100)))
    if format == "PPM":
        return b"P6 %d %d 255\n" % (width, height)
    if format == "GIF":
        return encoded(PHOTO.quantize(), "GIF").replace(
            struct.pack("<HH", 28, 20), struct.pack("<HH", width, height), 1
        )
    content = bytearray(encoded(PHOTO, format))
    place = content.index(struct.pack(">HH", 20, 28))  # JPEG's frame header
    content[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(content)


@pytest.mark.parametrize("read", [open_image, read_size])
@pytest.mark.parametrize(
    ("format", "width", "height"),
    [
        ("PNG", 60_000, 60_000),
        ("PNG", 10_000, 9_000),
        ("JPEG", 65_000, 65_000),
        ("PPM", 60_000, 60_000),
        ("GIF", 60_000, 60_000),
    ],
)
def test_a_header_that_claims_too_many_pixels_is_refused_before_any_pixel(
    tmp_path: Path, format: str, width: int, height: int, read: Callable[[Path], object]
) -> None:
    path = written(tmp_path, header_only(format, width, height))

    def refused() -> None:
        with pytest.raises(
            DataError, match=rf"claims {width} x {height} pixels, more than 89,478,485 in all"
        ):
            read(path)

    tracemalloc.start()
    calls = calls_made(refused)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20
    assert calls.total() < 5_000
    assert calls["load"] == 0, "no pixel is decoded"


def test_the_limit_is_pillows_own_and_can_be_lowered(tmp_path: Path) -> None:
    assert MAX_PIXELS == Image.MAX_IMAGE_PIXELS
    path = written(tmp_path, encoded(PHOTO, "PNG"))
    assert read_size(path, max_pixels=28 * 20) == (20, 28)
    with pytest.raises(DataError, match="claims 28 x 20 pixels, more than 559"):
        read_size(path, max_pixels=28 * 20 - 1)


@pytest.mark.parametrize("read", [open_image, read_size])
def test_what_is_no_file_is_refused(tmp_path: Path, read: Callable[[Path], object]) -> None:
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(DataError, match=r"folder\.jpg is a folder"):
        read(tmp_path / "folder.jpg")
    with pytest.raises(MissingInputError, match=r"absent\.jpg does not exist\.$"):
        read(tmp_path / "absent.jpg")
    (tmp_path / "link.jpg").symlink_to("nowhere.jpg")
    with pytest.raises(MissingInputError, match=r"link\.jpg does not exist \(a broken link\)"):
        read(tmp_path / "link.jpg")
    written(tmp_path, b"", "file")
    with pytest.raises(MissingInputError, match=r"x\.jpg does not exist"):
        read(tmp_path / "file" / "x.jpg")


@pytest.mark.parametrize("read", [open_image, read_size, require_file])
def test_pipes_sockets_and_devices_are_refused_without_being_opened(
    tmp_path: Path, read: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")  # to open it would wait for a writer for ever
    (tmp_path / "link.jpg").symlink_to("pipe.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    monkeypatch.setattr("builtins.open", None)
    for name in ("pipe.jpg", "link.jpg", "device.jpg"):
        with pytest.raises(
            DataError, match=f"{name} is a pipe, a socket or a device. Take it off its list"
        ):
            read(tmp_path / name)


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").symlink_to("x.jpg")
    with pytest.raises(DataError, match=r"x\.jpg is damaged: .*symbolic links"):
        open_image(tmp_path / "x.jpg")


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, encoded(PHOTO, "PNG"))
    path.chmod(0)
    with pytest.raises(DataError, match="permission denied"):
        open_image(path)


# ---- what phones, cameras and microscopes write


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_twelve_bits_in_a_file_of_sixteen_are_spread_to_white_when_that_is_said(
    tmp_path: Path, suffix: str
) -> None:
    levels = np.array([[0, 2048, 4095]], dtype=np.uint16)
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(levels).save(path)
    assert np.asarray(open_image(path))[0, :, 0].tolist() == [0, 8, 16], "as they are: almost black"
    assert np.asarray(open_image(path, grey_bits=12))[0, :, 0].tolist() == [0, 128, 255]
    assert open_image(path).info[LEVELS_USED] == 4095
    with pytest.raises(
        DataError,
        match=r"holds grey levels up to 4,095, which 10 bits cannot\. Use data\.grey_bits=12",
    ):
        open_image(path, grey_bits=10)


def test_colours_of_sixteen_bits_say_how_bright_they_are(tmp_path: Path) -> None:
    """Pillow keeps their upper byte, so that 12-bit colours are black; it has no writer of such files."""
    rows = b"".join(b"\0" + np.full((4, 3), level, ">u2").tobytes() for level in (0, 4095))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 4, 2, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    content = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        content += (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )
    (tmp_path / "x.png").write_bytes(content)
    image = open_image(tmp_path / "x.png")
    assert (image.mode, image.info[LEVELS_USED]) == ("RGB", 15 * 257)


def test_ordinary_images_say_nothing_about_their_levels(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
    assert LEVELS_USED not in open_image(tmp_path / "x.png").info


def test_how_many_bits_are_used_is_decided_by_the_brightest_of_all() -> None:
    assert [bits_used([3, top]) for top in (200, 300, 4095, 4096, 16_383, 16_384, 65_535)] == [
        *(8, 10, 12, 14, 14, 16, 16)
    ]


def test_heic_is_read_turned_and_measured_where_its_extra_is_installed(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    upright = Image.fromarray(
        np.repeat(np.arange(0, 240, 4, dtype=np.uint8)[:, None, None], 80, 1).repeat(3, 2)
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.save(tmp_path / "tagged.jpg", exif=exif)
    with Image.open(tmp_path / "tagged.jpg") as tagged:
        # its turn stands in its own box; some phones call it that
        tagged.save(tmp_path / "x.jpg", format="HEIF")
    assert read_size(tmp_path / "x.jpg") == (80, 60)
    image = open_image(tmp_path / "x.jpg")
    assert (image.mode, image.size) == ("RGB", (60, 80))
    left, right = np.asarray(image)[:, [2, -3]].mean((0, 2))
    assert left > right + 100, "the first row is on the right after a quarter turn"
    (tmp_path / "cut.heic").write_bytes((tmp_path / "x.jpg").read_bytes()[:300])
    with pytest.raises(DataError, match=r"cut\.heic is damaged"):
        open_image(tmp_path / "cut.heic")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp", "gif"])
def test_a_sound_picture_above_the_cap_is_too_large_and_not_damaged(
    tmp_path: Path, suffix: str
) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / f"x.{suffix}")
    for read in (open_image, read_size):
        with pytest.raises(
            DataError,
            match=r"is too large: it claims 40 x 30 pixels, more than 1,000 in all\. Make it",
        ):
            read(tmp_path / f"x.{suffix}", max_pixels=1_000)
