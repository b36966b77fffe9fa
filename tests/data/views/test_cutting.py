"""What is cut out of a picture does not depend on where its pixels lie; views and crops: see test_image_files.py."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sdclr.data.collections.image_store import StoredPicture
from sdclr.stills import DecodedPicture, still


@pytest.mark.parametrize(("width", "height"), [(20_000, 10), (10, 20_000), (1, 1), (3, 700)])
def test_a_still_of_an_extreme_shape_is_the_middle_of_it(width: int, height: int) -> None:
    array = np.zeros((height, width, 3), np.uint8)
    along = np.linspace(0, 255, max(width, height)).round().astype(np.uint8)
    array[:] = along[None, :width, None] if width > height else along[:height, None, None]
    pixels = np.asarray(still(DecodedPicture(Image.fromarray(array)), 224)).astype(int)
    assert pixels.shape == (224, 224, 3)
    assert np.abs(pixels - (127.5 if max(width, height) > 1 else 0)).max() <= 1.5


@pytest.mark.parametrize(("height", "width"), [(30, 50), (50, 30), (1, 1), (2, 300), (256, 256)])
def test_a_still_of_stored_pixels_is_that_of_the_image(height: int, width: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    stored, image = StoredPicture(pixels), DecodedPicture(Image.fromarray(pixels))
    assert stored.size == image.size
    for size in (8, 224):
        np.testing.assert_array_equal(
            np.asarray(still(stored, size)), np.asarray(still(image, size))
        )
