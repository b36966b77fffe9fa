"""Planted junk is suspected, good images are not, whatever is usual in the collection."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from sdclr.errors import DataError
from sdclr.evaluation.rarity import junk_flags, measure_junk
from sdclr.evaluation.rarity.junk import KINDS


def scenes(count: int, background: int = 120) -> list[np.ndarray]:
    """Pictures with sharp shapes on a background, uint8 [40, 40, 3]."""
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(count):
        pixels = np.full((40, 40, 3), background) + rng.normal(0, 4, (40, 40, 3))
        for _ in range(6):
            y, x = rng.integers(0, 30, 2)
            pixels[y : y + 9, x : x + 9] = rng.integers(0, 256, 3)
        pictures.append(np.clip(pixels, 0, 255).astype(np.uint8))
    return pictures


def spoiled(picture: np.ndarray) -> dict[str, np.ndarray]:
    """Kind -> the picture with that trouble."""
    blurred = np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(5)))
    bright = np.clip(picture * 2.0 + 160, 0, 255).astype(np.uint8)
    return dict(
        zip(
            KINDS,
            [np.full_like(picture, 90), blurred, bright, (picture * 0.04).astype(np.uint8)],
            strict=True,
        )
    )


@pytest.mark.parametrize("background", [120, 60])
def test_each_kind_of_junk_is_suspected_and_no_good_image(background: int) -> None:
    good = scenes(40, background)
    bad = spoiled(max(good, key=lambda one: float(one.std())))
    flags = junk_flags([measure_junk(picture) for picture in [*good, *bad.values()]])
    assert list(flags) == list(KINDS)
    for place, kind in enumerate(bad):
        assert flags[kind][40 + place], kind
    suspected = np.any(list(flags.values()), axis=0)
    assert not suspected[:40].any()


def test_a_collection_on_white_is_not_overexposed() -> None:
    pictures = scenes(40, background=252)
    flags = junk_flags([measure_junk(picture) for picture in pictures])
    assert not flags["overexposed"].any()


def test_layouts_give_the_same_measures() -> None:
    picture = scenes(1)[0]
    planes = torch.from_numpy(picture.transpose(2, 0, 1).copy())
    assert measure_junk(picture) == measure_junk(planes)
    grey = picture[..., 0]
    assert measure_junk(grey).spread == pytest.approx(measure_junk(np.stack([grey] * 3, -1)).spread)


def test_tiny_images_have_measures() -> None:
    assert np.isfinite(measure_junk(np.zeros((1, 1), np.uint8))).all()


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4)), np.zeros(4, np.uint8), np.zeros((0, 4), np.uint8)]
)
def test_what_is_no_image_is_refused(image: np.ndarray) -> None:
    with pytest.raises(DataError, match="must be uint8"):
        measure_junk(image)


def test_no_images_are_refused() -> None:
    with pytest.raises(DataError, match="no images"):
        junk_flags([])


def test_a_collection_of_blank_images_is_all_blank() -> None:
    flags = junk_flags([measure_junk(np.full((8, 8), level, np.uint8)) for level in (0, 90, 255)])
    assert flags["blank"].all()
