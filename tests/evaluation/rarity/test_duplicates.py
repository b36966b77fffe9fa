"""Copies are folded; what only looks alike to one of the two, features or hash, is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from sdclr.errors import DataError
from sdclr.evaluation.rarity import (
    alike_by_chance,
    fold,
    near_duplicates,
    nearest,
    perceptual_hashes,
    represented,
    trusted_rules,
)
from sdclr.evaluation.rarity.duplicates import (
    COPY_RULES,
    EQUAL,
    FEWEST_PAIRS,
    SAME_PICTURE,
    alike_just_beyond,
    rules_of_collection,
    usual_reach,
)
from sdclr.evaluation.rarity.neighbours import Neighbours


def picture(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    """30 pictures; 30 and 31 are copies of 4, brighter and cut."""
    originals = [picture(seed) for seed in range(30)]
    brighter = ImageEnhance.Brightness(originals[4]).enhance(1.05)
    cut = originals[4].resize((64, 64), box=(1, 1, 63, 63))
    return [*originals, brighter, cut]


def features(of: list[Image.Image]) -> torch.Tensor:
    return torch.stack(
        [
            torch.from_numpy(np.asarray(image.resize((8, 8))).flatten().copy()).float()
            for image in of
        ]
    )


def test_copies_have_one_group_and_others_are_alone(images: list[Image.Image]) -> None:
    groups = near_duplicates(nearest(features(images), 10), perceptual_hashes(images))
    assert groups[[4, 30, 31]].tolist() == [4, 4, 4]
    others = [row for row in range(30) if row != 4]
    assert groups[others].tolist() == others


def test_near_features_with_other_hashes_are_no_copies(images: list[Image.Image]) -> None:
    x = torch.randn(32, 3, generator=torch.Generator().manual_seed(0))
    x[1] = x[0]
    groups = near_duplicates(nearest(x, 10), perceptual_hashes(images))
    assert groups[:2].tolist() == [0, 1]


def test_equal_hashes_with_far_features_are_no_copies() -> None:
    x = 10 * torch.randn(32, 3, generator=torch.Generator().manual_seed(0))
    x[20:] += 1e-3 * torch.arange(12).unsqueeze(1)
    groups = near_duplicates(nearest(x, 10), np.zeros((32, 8), np.uint8), rules=[(0.01, 64)])
    assert groups.tolist() == list(range(32))


def test_a_collection_of_copies_alone_is_one_group() -> None:
    x = torch.zeros(6, 3)
    x[5] = 1e-9
    assert near_duplicates(nearest(x, 3), np.zeros((6, 8), np.uint8)).tolist()[:5] == [0] * 5


def test_folding_keeps_the_best_of_each_group_in_order() -> None:
    assert fold(torch.tensor([3, 1, 0, 2]), torch.tensor([0, 1, 2, 1])).tolist() == [3, 0, 2]


def test_a_hash_for_each_image_is_asked_for() -> None:
    with pytest.raises(DataError, match="3 hashes for 2 images"):
        near_duplicates(nearest(torch.tensor([[0.0], [1.0]]), 1), np.zeros((3, 8), np.uint8))


def test_layouts_give_the_same_hash() -> None:
    pixels = np.asarray(picture(3))
    planes = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    hashes = perceptual_hashes([pixels, planes, Image.fromarray(pixels)])
    assert (hashes == hashes[0]).all()
    assert perceptual_hashes([]).shape == (0, 8)


def test_rules_are_lowered_where_hashes_are_alike_by_chance() -> None:
    x = torch.randn(300, 16, generator=torch.Generator().manual_seed(0))
    around, near, rows = nearest(x, 200), nearest(x, 20), torch.arange(300)
    unlike = np.random.default_rng(0).integers(0, 256, (300, 8), dtype=np.uint8)
    assert trusted_rules(near, alike_by_chance(around, unlike, rows)) == list(COPY_RULES)
    alike = unlike.copy()
    alike[:, :7] = 7  # only the last 8 bits differ: 4 of them between any two
    by_chance = alike_by_chance(around, alike, rows)
    ((_, bits),) = trusted_rules(near, by_chance, rules=[(10.0, 14)], most_false=0.2)
    assert bits == 0
    nothing = np.zeros((300, 8), np.uint8)
    assert trusted_rules(near, alike_by_chance(around, nothing, rows)) == []


def test_shares_of_chance_are_those_of_a_slow_count() -> None:
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    hashes = np.random.default_rng(1).integers(0, 4, (30, 8), dtype=np.uint8)
    rows = torch.arange(0, 30, 2)
    whole = nearest(x, 12)
    neighbours = Neighbours(whole.distances[rows], whole.indices[rows])
    counted = [0] * 65
    for row in rows.tolist():
        for other in whole.indices[row, 3:].tolist():
            pairs = zip(hashes[row].tolist(), hashes[other].tolist(), strict=True)
            counted[sum((a ^ b).bit_count() for a, b in pairs)] += 1
    expected = np.cumsum(counted) / (15 * 9)
    np.testing.assert_allclose(alike_by_chance(neighbours, hashes, rows), expected)
    with pytest.raises(DataError, match="neighbours of 15 images for 3 rows"):
        alike_by_chance(neighbours, hashes, rows[:3])


def test_shares_just_beyond_a_rule_are_those_of_a_slow_count() -> None:
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    hashes = np.random.default_rng(1).integers(0, 4, (60, 8), dtype=np.uint8)
    neighbours, counted = nearest(x, 20), [0] * 65
    for row, others in enumerate(neighbours.indices.tolist()):
        for other in others:
            if 1.6 < float((x[row].double() - x[other].double()).norm()) <= 2.0:
                pairs = zip(hashes[row].tolist(), hashes[other].tolist(), strict=True)
                counted[sum((a ^ b).bit_count() for a, b in pairs)] += 1
    assert sum(counted) > FEWEST_PAIRS
    found = alike_just_beyond(neighbours, hashes, torch.arange(60), reach=1.6)
    np.testing.assert_allclose(found, np.cumsum(counted) / sum(counted))
    few = Neighbours(neighbours.distances[:5], neighbours.indices[:5])
    assert not alike_just_beyond(few, hashes, torch.arange(5), reach=1.6).any()


def test_rules_are_lowered_in_a_small_collection_of_kinds_that_are_alike_each() -> None:
    """Nearly all neighbours beyond the first quarter are of other kinds, whose hashes say nothing."""
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    kinds = torch.arange(200) // 20
    x = 20 * torch.eye(16)[kinds] + torch.randn(200, 16, generator=generator)
    hashes = rng.integers(0, 256, (10, 8), dtype=np.uint8)[kinds.numpy()]
    hashes[:, 0] = rng.integers(0, 256, 200, dtype=np.uint8)  # of one kind 4 bits differ
    near, around, rows = nearest(x, 15), nearest(x, 199), torch.arange(200)
    by_far = alike_by_chance(around, hashes, rows, SAME_PICTURE * usual_reach(near))
    assert trusted_rules(near, by_far) == list(COPY_RULES)
    assert rules_of_collection(near, around, hashes, rows) != list(COPY_RULES)
    folded = near_duplicates(near, hashes, rules_of_collection(near, around, hashes, rows))
    assert len(folded.unique()) > 190 > len(near_duplicates(near, hashes).unique())


def test_a_blurred_copy_does_not_stand_for_a_sharp_one() -> None:
    groups = torch.tensor([0, 1, 0, 0, 4, 4])
    unfit = np.array([True, False, False, False, True, True])
    assert represented(groups, unfit).tolist() == [2, 1, 2, 2, 4, 4]


def test_a_long_burst_does_not_make_hashes_look_alike_by_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(200, 8, generator=generator)
    burst = torch.ones(60, 8) + 1e-3 * torch.randn(60, 8, generator=generator)
    x = torch.cat([pictures, pictures[:20], burst])
    hashes = np.random.default_rng(0).integers(0, 256, (280, 8), dtype=np.uint8)
    hashes[200:220] = hashes[:20]
    hashes[220:] = 0
    near, around, rows = nearest(x, 20), nearest(x, 200), torch.arange(280)
    blind = trusted_rules(near, alike_by_chance(around, hashes, rows))
    assert blind != list(COPY_RULES), "60 of one picture spoil what is counted"
    beyond = SAME_PICTURE * usual_reach(near)
    assert trusted_rules(near, alike_by_chance(around, hashes, rows, beyond)) == list(COPY_RULES)


def test_what_is_equal_is_folded_where_no_rule_is_trusted() -> None:
    x = torch.tensor([[0.0], [5.0], [0.0], [5.1], [9.0]])
    hashes = np.zeros((5, 8), np.uint8)
    assert near_duplicates(nearest(x, 3), hashes, [EQUAL]).tolist() == [0, 1, 0, 3, 4]


def test_where_no_different_pictures_are_left_nothing_is_alike_by_chance() -> None:
    x = torch.tensor([[0.0], [1e-9], [2e-9], [3e-9]])
    found = alike_by_chance(nearest(x, 3), np.zeros((4, 8), np.uint8), torch.arange(4), beyond=1.0)
    assert found.tolist() == [0.0] * 65
