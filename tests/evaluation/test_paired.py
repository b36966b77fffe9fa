from __future__ import annotations

import numpy as np
import pytest

from sdclr.evaluation.paired import paired_difference


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
    assert (same.low, same.high, same.verdict) == (0, 0, "open")
    better = right.copy()
    better[np.flatnonzero(right == 0)[:8]] = 1
    assert paired_difference(better, right, labels).verdict == "better"
    assert paired_difference(right, better, labels).verdict == "worse"
