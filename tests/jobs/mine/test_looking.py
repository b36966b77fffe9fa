"""What is seen of a picture does not depend on the others, and is that of the whole picture."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from photo_folder import photo
from sdclr import Run
from sdclr.backbones.encoder import open_encoder
from sdclr.data.collections.image_arrays import ImageArrays
from sdclr.evaluation.rarity import measure_junk, perceptual_hashes
from sdclr.jobs.mine.looking import features_of, junk_measures, look, thumbnails
from sdclr.presentation.progress import NoProgress
from sdclr.stills import DecodedPicture


def test_features_are_the_same_bits_whichever_images_come_together(digits_run: Run) -> None:
    encoder = open_encoder(digits_run.folder)
    pixels = torch.randint(0, 256, (70, 3, 12, 12), dtype=torch.uint8)
    whole = features_of(encoder, ImageArrays(pixels, None))
    for rows in ([0], [69, 3], list(range(40, 70))):
        assert torch.equal(features_of(encoder, ImageArrays(pixels[rows], None)), whole[rows])


def test_small_pictures_are_measured_as_they_are_and_large_ones_made_smaller() -> None:
    small, large = photo(1, 2, side=40), photo(1, 2, side=300)
    seen = look(DecodedPicture(small))
    assert (seen["hash"] == perceptual_hashes([small])[0]).all()
    assert junk_measures(seen[None])[0] == measure_junk(np.asarray(small))
    seen = look(DecodedPicture(large))
    reduced = large.resize((96, 96), Image.Resampling.BILINEAR)
    assert junk_measures(seen[None])[0] == measure_junk(np.asarray(reduced))


def test_thumbnails_are_small_jpegs_of_the_whole_picture() -> None:
    wide = torch.zeros(1, 3, 300, 600, dtype=torch.uint8)
    (jpeg,) = thumbnails(ImageArrays(wide, None), NoProgress())
    with Image.open(io.BytesIO(jpeg)) as image:
        assert (image.format, image.size) == ("JPEG", (128, 64))
    assert len(jpeg) < 20_000
