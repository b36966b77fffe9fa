"""Pixels with any number of channels, against NumPy and Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdclr.planes import (
    ChannelsError,
    cut_out,
    in_colours,
    levels_of_array,
    levels_of_picture,
)
from sdclr.stills import DecodedPicture, Picture, still, whole

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (6, 5, 4), dtype=np.uint8)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_one_channel_is_grey_or_luma(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(BYTES[..., 0].astype(np.uint16) * 257)
        expected = BYTES[..., 0]
    else:
        image = Image.fromarray(BYTES[..., :3]).convert(mode)
        grey = image.getchannel(0) if mode == "LA" else image.convert("RGB").convert("L")
        expected = np.asarray(grey)
    found = levels_of_picture(image, 1).pixels
    np.testing.assert_array_equal(found[..., 0], expected)


@pytest.mark.parametrize(("mode", "channels"), [("RGBA", 4), ("CMYK", 4), ("LA", 2)])
def test_bands_are_channels_alpha_among_them(mode: str, channels: int) -> None:
    pixels = np.ascontiguousarray(BYTES[..., :channels])
    image = Image.frombytes(mode, pixels.shape[1::-1], pixels.tobytes())
    np.testing.assert_array_equal(levels_of_picture(image, channels).pixels, BYTES[..., :channels])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pages_of_a_tiff_are_channels(dtype: type, tmp_path: Path) -> None:
    pages = [Image.fromarray(BYTES[..., c].astype(dtype)) for c in range(4)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with Image.open(tmp_path / "a.tif") as image:
        found = levels_of_picture(image, 4, bits=8)
    np.testing.assert_array_equal(found.pixels, BYTES)
    with Image.open(tmp_path / "a.tif") as image, pytest.raises(ChannelsError, match="4 pages"):
        levels_of_picture(image, 5)


def test_pages_are_counted_as_far_as_matters(tmp_path: Path) -> None:
    page = Image.new("L", (1, 1))
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page] * 300)
    with Image.open(tmp_path / "a.tif") as image:
        with pytest.raises(ChannelsError, match="in 257 pages"):
            levels_of_picture(image, 4)
        assert image.tell() == 0


def test_pages_of_several_sizes_are_no_channels(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(
        tmp_path / "a.tif", save_all=True, append_images=[Image.new("L", (4, 5))]
    )
    with Image.open(tmp_path / "a.tif") as image, pytest.raises(ChannelsError, match="2 sizes"):
        levels_of_picture(image, 2)


def test_arrays_come_with_channels_first_or_last() -> None:
    first = np.moveaxis(BYTES, 2, 0)
    for array in (BYTES, first, BYTES.astype(np.uint16) * 257, first / 255):
        np.testing.assert_array_equal(levels_of_array(array, 4).pixels, BYTES)
    grey = BYTES[..., 0]
    for array in (grey, grey[..., None]):
        np.testing.assert_array_equal(levels_of_array(array, 1).pixels, grey[..., None])
        np.testing.assert_array_equal(
            levels_of_array(array, 3).pixels, np.stack([grey] * 3, axis=2)
        )


def test_where_both_ends_fit_the_channels_are_last() -> None:
    array = RNG.integers(0, 256, (4, 6, 4), dtype=np.uint8)
    np.testing.assert_array_equal(levels_of_array(array, 4).pixels, array)


def test_sixteen_bits_are_scaled_by_the_bits_that_they_use() -> None:
    array = np.array([[[0, 4095]]], np.uint16)
    found = levels_of_array(array, 2, bits=12)
    assert (found.pixels.tolist(), found.largest) == ([[[0, 255]]], 4095)
    with pytest.raises(ChannelsError, match=r"up to 4,095, which 10 bits .* data\.grey_bits=12"):
        levels_of_array(array, 2, bits=10)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (BYTES, r"shape \[6, 5, 4\], and data.channels=7 needs \[H, W, 7\] or \[7, H, W\]"),
        (np.zeros((4, 4, 7), np.int32), "int32, which have no agreed range"),
        (np.full((4, 4, 7), 2.0), r"lie in \[0, 1\], got 2 to 2"),
        (np.full((4, 4, 7), np.nan), r"lie in \[0, 1\], got nan"),
        (np.zeros((4, 4), np.uint8), r"shape \[4, 4\]"),
    ],
)
def test_arrays_that_are_no_such_images_are_refused(array: np.ndarray, words: str) -> None:
    with pytest.raises(ChannelsError, match=words):
        levels_of_array(array, 7)


def test_a_picture_of_other_channels_says_which_it_has() -> None:
    with pytest.raises(ChannelsError, match=r"has 3 \(R, G, B\) channels, and data\.channels is 5"):
        levels_of_picture(Image.new("RGB", (4, 4)), 5)


def test_stills_of_any_channels_are_pillows_of_each_channel() -> None:
    pixels = RNG.integers(0, 256, (40, 57, 5), dtype=np.uint8)
    found = still(picture(pixels), 16)
    for channel in range(5):
        alone = still(picture(pixels[..., channel : channel + 1]), 16)
        np.testing.assert_array_equal(found[..., channel : channel + 1], alone)
    # Pillow itself does all three bands at once
    colours = DecodedPicture(Image.fromarray(np.ascontiguousarray(pixels[..., :3])))
    np.testing.assert_array_equal(found[..., :3], still(colours, 16))


def test_a_box_is_cut_out_of_any_picture() -> None:
    for pixels in (BYTES, BYTES[..., :3]):
        part = cut_out(picture(pixels), (1, 2, 4, 6))
        np.testing.assert_array_equal(whole(part), pixels[2:6, 1:4])


def test_what_is_shown_are_the_first_three_channels() -> None:
    np.testing.assert_array_equal(in_colours(BYTES), BYTES[..., :3])
    two = in_colours(BYTES[..., :2])
    np.testing.assert_array_equal(two[..., :2], BYTES[..., :2])
    assert not two[..., 2].any()


def picture(pixels: np.ndarray) -> Picture:
    if pixels.shape[2] == 3:
        return DecodedPicture(Image.fromarray(np.ascontiguousarray(pixels)))
    from sdclr.planes import ArrayPicture

    return ArrayPicture(np.ascontiguousarray(pixels))
