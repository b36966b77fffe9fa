"""Likeness and feedback find what they are asked for, and say what they cannot know."""

from __future__ import annotations

import math

import pytest
import torch

from sdclr.errors import DataError
from sdclr.evaluation.rarity import from_feedback, likeness


@pytest.fixture(scope="module")
def features() -> torch.Tensor:
    """400 images, the first 40 of them of a kind."""
    x = torch.randn(400, 8, generator=torch.Generator().manual_seed(3))
    x[:40, 0] += 5
    return x


def test_likeness_is_the_largest_cosine(features: torch.Tensor) -> None:
    found = likeness(features, features[[3, 90]])
    for row in range(0, 400, 37):
        x = features[row].tolist()
        cosines = []
        for y in features[[3, 90]].tolist():
            product = sum(a * b for a, b in zip(x, y, strict=True))
            cosines.append(product / math.hypot(*x) / math.hypot(*y))
        assert found[row].item() == pytest.approx(max(cosines), abs=1e-6)


def test_marks_bring_the_rest_of_their_kind_to_the_top(features: torch.Tensor) -> None:
    rows = torch.cat([torch.arange(10), torch.arange(100, 140)])
    found = from_feedback(features, rows, rows < 40, num_next=60)
    unmarked = torch.tensor([row for row in range(400) if row not in rows.tolist()])
    first = unmarked[found.score[unmarked].argsort(descending=True)[:60]]
    really = int((first < 40).sum())
    assert really >= 28, "of 30 that are left"
    assert found.expected_next is not None
    assert 0.5 * really < found.expected_next < 1.6 * really


def test_what_is_expected_of_marks_without_a_pattern_is_their_share(
    features: torch.Tensor,
) -> None:
    rows = torch.arange(40, 240)
    wanted = torch.rand(200, generator=torch.Generator().manual_seed(5)) < 0.5
    found = from_feedback(features, rows, wanted)
    assert found.expected_next == pytest.approx(50, abs=20)


def test_with_few_marks_nobody_says_how_many_will_be_found(features: torch.Tensor) -> None:
    found = from_feedback(features, torch.tensor([0, 1, 100]), torch.tensor([True, True, False]))
    assert found.expected_next is None


@pytest.mark.parametrize(("mark", "words"), [(True, "are wanted"), (False, "are not wanted")])
def test_marks_of_one_kind_are_refused(features: torch.Tensor, mark: bool, words: str) -> None:
    with pytest.raises(DataError, match=words):
        from_feedback(features, torch.tensor([0, 1]), torch.tensor([mark, mark]))
    with pytest.raises(DataError, match="at least one image"):
        likeness(features, features[:0])


def test_only_images_that_can_come_next_are_expected_next(features: torch.Tensor) -> None:
    rows = torch.tensor([0, 1, 2, 3, 100, 101, 102, 103])
    listable = torch.zeros(len(features), dtype=torch.bool)
    listable[[0, 4, 5, 104]] = True
    found = from_feedback(features, rows, rows < 50, listable=listable)
    assert found.num_next == 3, "image 0 is marked already, the others are copies or junk"
    assert found.expected_next is not None
    assert found.expected_next <= 3
