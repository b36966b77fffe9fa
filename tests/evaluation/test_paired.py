from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sdclr.evaluation.paired import Floats, Labels, paired_difference


def test_the_difference_is_that_of_the_class_means() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(4, 300, p=[0.6, 0.3, 0.07, 0.03])
    ours, theirs = rng.random((2, 300)).round()
    found = paired_difference(ours, theirs, labels)
    means = [ours[labels == c].mean() - theirs[labels == c].mean() for c in range(4)]
    assert found.difference == pytest.approx(np.mean(means))
    few = paired_difference(ours, theirs, labels, [3])
    assert few.difference == pytest.approx(means[3])


def test_the_interval_is_that_of_resampling_images_one_by_one() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], [80, 20])
    ours, theirs = (rng.random((2, 100)) < [[0.7], [0.5]]).astype(float)
    found = paired_difference(ours, theirs, labels)
    slow = []
    for _ in range(2000):
        means = []
        for c in (0, 1):
            drawn = rng.choice(np.flatnonzero(labels == c), (labels == c).sum())
            means.append((ours - theirs)[drawn].mean())
        slow.append(np.mean(means))
    assert found.low == pytest.approx(np.percentile(slow, 2.5), abs=0.03)
    assert found.high == pytest.approx(np.percentile(slow, 97.5), abs=0.03)


def test_equals_are_open_and_pairing_helps() -> None:
    rng = np.random.default_rng(2)
    labels, right = np.zeros(200, dtype=np.int64), (rng.random(200) < 0.5).astype(float)
    same = paired_difference(right, right, labels)
    assert (same.difference, same.verdict) == (0, "open")
    assert -0.02 < same.low < 0 < same.high < 0.02
    better = right.copy()
    better[np.flatnonzero(right == 0)[:8]] = 1
    assert paired_difference(better, right, labels).verdict == "better"
    assert paired_difference(right, better, labels).verdict == "worse"


def test_the_interval_of_groups_is_that_of_resampling_groups_one_by_one() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(30), 6)
    labels = np.repeat(np.arange(30) % 3, 6)
    labels[:3] = 1  # a group of two classes
    gain = np.repeat(rng.integers(-1, 2, 30), 6).astype(float)  # alike within a group
    ours, theirs = np.maximum(gain, 0), np.maximum(-gain, 0)
    found = paired_difference(ours, theirs, labels, groups=groups)
    slow = []
    for _ in range(2000):
        rows = np.concatenate([np.flatnonzero(groups == g) for g in rng.choice(30, 30)])
        present = [c for c in range(3) if (labels[rows] == c).any()]
        slow.append(np.mean([gain[rows][labels[rows] == c].mean() for c in present]))
    # ten groups a class: what was not seen of one draws the interval towards 0 by a tenth
    assert found.low == pytest.approx(np.percentile(slow, 2.5), abs=0.06)
    assert found.high == pytest.approx(np.percentile(slow, 97.5), abs=0.06)
    alone = paired_difference(ours, theirs, labels)
    assert found.difference == alone.difference
    # six pictures of one burst are no six witnesses
    assert found.high - found.low > 1.7 * (alone.high - alone.low)


def test_groups_of_one_image_are_images() -> None:
    rng = np.random.default_rng(4)
    labels = np.repeat([0, 1], [150, 150])
    ours, theirs = (rng.random((2, 300)) < [[0.7], [0.5]]).astype(float)
    one_by_one = paired_difference(ours, theirs, labels)
    grouped = paired_difference(ours, theirs, labels, groups=np.arange(300))
    assert grouped.low == pytest.approx(one_by_one.low, abs=0.02)
    assert grouped.high == pytest.approx(one_by_one.high, abs=0.02)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("rare", [1, 2, 3])
def test_few_that_agree_decide_nothing(rare: int, grouped: bool) -> None:
    """Thirty-two images without a difference, and up to three of a rare class that all go one way."""
    labels = np.append(np.zeros(32, dtype=np.int64), np.ones(rare, dtype=np.int64))
    ours = labels.astype(float)
    groups = np.arange(len(labels)) if grouped else None
    found = paired_difference(ours, np.zeros_like(ours), labels, groups=groups)
    assert found.difference == 0.5
    assert 0.5 < found.high <= 1
    assert found.verdict == "open"
    few = paired_difference(ours, np.zeros_like(ours), labels, [1], groups=None)
    assert (few.difference, few.high) == (1, 1)
    assert few.low < 0


def test_of_few_groups_nothing_can_be_said() -> None:
    labels, groups = np.repeat([0, 1], 20), np.tile(np.arange(4), 10)
    found = paired_difference(np.ones(40), np.zeros(40), labels, groups=groups)
    assert tuple(found) == (1, -1, 1)
    assert found.verdict == "open"


def covered(draw: Callable[[np.random.Generator], tuple[Floats, Floats, Labels]]) -> float:
    """How often the interval holds 0, where both sides are equally good."""
    rng = np.random.default_rng(6)
    found = [paired_difference(*draw(rng), seed=i) for i in range(250)]
    return float(np.mean([one.verdict == "open" for one in found]))


@pytest.mark.parametrize("sizes", [[60, 60], [35, 10, 7, 6, 2], [30, 1, 1, 1]])
def test_the_interval_holds_what_other_images_would_give(sizes: list[int]) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)

    def draw(rng: np.random.Generator) -> tuple[Floats, Floats, Labels]:
        ours, theirs = (rng.random((2, len(labels))) < 0.6).astype(float)
        return ours, theirs, labels

    assert covered(draw) > 0.92


@pytest.mark.parametrize("in_groups", [False, True])
@pytest.mark.parametrize(
    ("num_classes", "size", "difference"),
    [(60, 3, 0.6), (10, 10, -0.4), (10, 3, 0.0)],
)
def test_the_interval_holds_a_true_difference(
    num_classes: int, size: int, difference: float, in_groups: bool
) -> None:
    """Few images, or bursts of five, in many classes: the pull of unseen images must not exclude what is true."""
    labels, rng, held = np.repeat(np.arange(num_classes), size), np.random.default_rng(8), 0
    groups = np.repeat(np.arange(len(labels)), 5) if in_groups else None
    seen = np.repeat(labels, 5) if in_groups else labels
    only_ours, only_theirs = max(difference, 0) + 0.05, max(-difference, 0) + 0.05
    for seed in range(100):
        draw = rng.random(len(labels))
        gain = (draw < only_ours).astype(float) - (draw > 1 - only_theirs)
        gain = np.repeat(gain, 5) if in_groups else gain
        ours, theirs = np.maximum(gain, 0), np.maximum(-gain, 0)
        found = paired_difference(ours, theirs, seen, seed=seed, groups=groups)
        held += found.low <= difference <= found.high
    assert held >= 88, "of 100, of which 95 are wanted: 88 is three standard deviations below"


@pytest.mark.parametrize("num_ways", [3, 10])
def test_the_interval_holds_what_other_ways_to_deal_folds_would_give(num_ways: int) -> None:
    labels = np.repeat([0, 1], 40)

    def draw(rng: np.random.Generator) -> tuple[Floats, Floats, Labels]:
        # each way has its luck, which all its images share: a draw of few images to learn from
        luck = rng.normal(0, 0.15, (2, num_ways, 1))
        ours, theirs = (rng.random((2, num_ways, 80)) < 0.5 + luck).astype(float)
        return ours, theirs, labels

    assert covered(draw) > 0.93


def test_one_way_is_no_way_to_know_of_others() -> None:
    rng = np.random.default_rng(7)
    labels = np.repeat([0, 1], 40)
    ours, theirs = rng.random((2, 80)).round()
    assert paired_difference(ours[None], theirs[None], labels) == paired_difference(
        ours, theirs, labels
    )
    # of equal ways there is nothing to add
    same = paired_difference(np.tile(ours, (4, 1)), np.tile(theirs, (4, 1)), labels)
    assert same == pytest.approx(paired_difference(ours, theirs, labels))


def test_no_class_at_all_is_not_every_class() -> None:
    labels = np.array([0, 0, 1, 1])
    for classes in ([], [7]):
        with pytest.raises(AssertionError, match="has an image"):
            paired_difference(np.ones(4), np.zeros(4), labels, classes)
