"""The probe's random crops against a slow loop with the same uniforms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sdclr.compute.stateless_random import Stream, derive, uniforms
from sdclr.data.views.parameters import crop_boxes
from sdclr.data.views.probe_crops import draw_resized_crops, padded_crops


def noise_images(num: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(8).integers(1, 256, (num, 3, 10, 10))).byte()


@pytest.mark.parametrize(
    ("padding", "flip"), [(4, True), (1, False), (0, True), (0, False), (12, True)]
)
def test_crops_are_a_slow_loops_with_the_same_uniforms(padding: int, flip: bool) -> None:
    images, index = noise_images(200), torch.arange(200) * 3
    ours = padded_crops(images, index, padding, flip, seed=5, epoch=2)
    u = uniforms(derive(5, Stream.PROBE, 2, 1), index, 3).tolist()
    for row, (vertical, horizontal, coin) in enumerate(u):
        canvas = np.zeros((3, 10 + 2 * padding, 10 + 2 * padding), np.uint8)
        canvas[:, padding : padding + 10, padding : padding + 10] = images[row].numpy()
        top, left = int(vertical * (2 * padding + 1)), int(horizontal * (2 * padding + 1))
        crop = canvas[:, top : top + 10, left : left + 10]
        if flip and coin < 0.5:
            crop = crop[:, :, ::-1]
        np.testing.assert_array_equal(ours[row].numpy(), crop)
    assert ours.dtype == torch.uint8


def test_all_shifts_and_flips_are_equally_likely() -> None:
    """One lit pixel in the middle shows where each crop was taken; pad 1 leaves 9 places."""
    image = torch.zeros(9_000, 3, 5, 5, dtype=torch.uint8)
    image[:, :, 2, 2] = 255
    crops = padded_crops(image, torch.arange(9_000), 1, True, seed=1, epoch=1)
    places = crops[:, 0].flatten(1).argmax(dim=1)
    counts = torch.bincount(places, minlength=25).view(5, 5)[1:4, 1:4]
    assert counts.sum() == 9_000
    assert (counts - 1_000).abs().max() < 5 * 1_000**0.5
    marked = noise_images(2_000)
    unshifted = padded_crops(marked, torch.arange(2_000), 0, True, seed=1, epoch=1)
    flipped = (unshifted == marked.flip(3)).all(dim=3).all(dim=2).all(dim=1)
    assert abs(int(flipped.sum()) - 1_000) < 5 * 500**0.5


def test_crops_are_a_function_of_seed_epoch_and_image_alone() -> None:
    images, index = noise_images(100), torch.arange(100)
    whole = padded_crops(images, index, 4, True, seed=1, epoch=1)
    some = torch.tensor([41, 7, 99])
    assert torch.equal(padded_crops(images[some], some, 4, True, seed=1, epoch=1), whole[some])
    for change in ({"seed": 2, "epoch": 1}, {"seed": 1, "epoch": 2}):
        other = padded_crops(images, index, 4, True, **change)
        assert (other != whole).flatten(1).any(dim=1).float().mean() > 0.9


def test_resized_crops_cover_8_to_100_percent_and_half_are_flipped() -> None:
    index = torch.arange(20_000)
    box, flip = draw_resized_crops(index, 375, 500, seed=3, epoch=4)
    top, left, height, width = box.unbind(1)
    assert ((top >= 0) & (left >= 0) & (top + height <= 375) & (left + width <= 500)).all()
    share = height * width / (375 * 500)
    assert 0.079 <= share.min() < 0.09
    assert 0.9 < share.max() <= 1
    ratio = (width / height).log()
    assert np.log(3 / 4) - 0.02 <= ratio.min() <= ratio.max() <= np.log(4 / 3) + 0.02
    assert abs(int(flip.sum()) - 10_000) < 5 * 5_000**0.5


def test_resized_crops_take_each_images_own_size_and_uniforms() -> None:
    index, height, width = (
        torch.tensor([7, 100, 3]),
        torch.tensor([30, 600, 1]),
        torch.tensor([500, 40, 1]),
    )
    box, flip = draw_resized_crops(index, height, width, seed=3, epoch=4)
    for row, position in enumerate(index.tolist()):
        u = uniforms(derive(3, Stream.PROBE, 4, 1), torch.tensor([position]), 23)
        alone = crop_boxes(
            u[:, :22], int(height[row]), int(width[row]), (0.08, 1.0), (3 / 4, 4 / 3)
        )
        assert box[row].tolist() == alone[0].tolist()
        assert bool(flip[row]) == (float(u[0, 22]) < 0.5)
