from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from sdclr.errors import DataError
from sdclr.evaluation.balancedness import class_groups
from sdclr.evaluation.rarity import judging
from sdclr.evaluation.rarity.judging import few_classes, judged


def test_few_are_the_last_third_of_the_classes_by_size() -> None:
    labels = np.repeat([4, 2, 7, 1, 0, 9], [3, 50, 20, 2, 9, 4])
    assert few_classes(labels) == [1, 4]
    ties = np.repeat(np.arange(6), [120, 120, 60, 60, 60, 60])
    assert few_classes(ties) == class_groups(np.bincount(ties).tolist(), "thirds")["few"] == [2, 3]
    assert few_classes(np.array([0, 0, 1])) == [1]
    with pytest.raises(DataError, match="at least 2 classes"):
        few_classes(np.zeros(3, dtype=np.int64))


def test_the_auroc_is_scikit_learns_and_lies_in_its_interval() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 400, p=[0.7, 0.2, 0.1])
    score = rng.normal(size=400) + (labels == 2)
    found = judged(score, labels)
    assert found.few == [2]
    assert found.auroc == pytest.approx(roc_auc_score(labels == 2, score))
    assert found.low < found.auroc < found.high
    assert found.low > 0.5, "a shift of one standard deviation shows"
    by_chance = judged(rng.normal(size=400), labels)
    assert by_chance.low < 0.5 < by_chance.high


def test_bursts_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 10)
    labels = (np.arange(40) >= 30).astype(np.int64)[groups]
    score = rng.normal(size=40)[groups] + labels
    alone, together = judged(score, labels), judged(score, labels, groups)
    assert together.high - together.low > 1.5 * (alone.high - alone.low)


@pytest.mark.parametrize(("num_rare", "alike"), [(3, 0.9), (8, 0.9), (8, 0.3)])
def test_groups_are_seldom_told_from_chance_however_alike_their_images_are(
    num_rare: int, alike: float
) -> None:
    groups = np.repeat(np.arange(40), 12)
    labels = (groups < num_rare).astype(np.int64)
    told = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        own = rng.normal(size=len(groups)) * np.sqrt(1 - alike)
        found = judged(own + np.sqrt(alike) * rng.normal(size=40)[groups], labels, groups)
        assert found.num_groups == num_rare
        assert (found.p_value < 0.05) == (not found.low <= 0.5 <= found.high)
        told += found.p_value < 0.05
    assert told <= 8, "3 are expected; of single images, half would be told from chance"


def test_nothing_is_known_from_the_images_of_one_group() -> None:
    groups = np.repeat(np.arange(10), 5)
    found = judged(np.arange(50.0)[::-1].copy(), (groups == 0).astype(np.int64), groups)
    assert (found.auroc, found.low, found.high, found.p_value) == (1, 0, 1, 1)


@pytest.mark.parametrize(("few", "others", "p"), [(2, 3, 0.2), (2, 4, 2 / 15), (3, 4, 2 / 35)])
def test_so_few_groups_cannot_show_more_than_their_orders(few: int, others: int, p: float) -> None:
    groups = np.repeat(np.arange(few + others), 6)
    labels = (groups < few).astype(np.int64)
    assert judged(1.0 * labels, labels, groups).p_value == pytest.approx(p)


@pytest.mark.parametrize("num_rare", [1, 3, 10])
def test_chance_is_seldom_told_from_chance_however_few_are_rare(
    num_rare: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "RESAMPLES", 2)  # the interval is not looked at
    labels = (np.arange(300) < num_rare).astype(np.int64)
    p = [judged(np.random.default_rng(seed).random(300), labels).p_value for seed in range(60)]
    assert sum(value < 0.05 for value in p) <= 8, "3 are expected; more than 8 in one of 350 times"


def test_the_p_value_is_scipys() -> None:
    score = np.random.default_rng(1).normal(size=80)
    labels = (np.arange(80) < 25).astype(np.int64)
    score[labels == 1] += 0.8
    expected = stats.mannwhitneyu(score[labels == 1], score[labels == 0], method="asymptotic")
    assert judged(score, labels).p_value == pytest.approx(expected.pvalue)
    assert judged(score, labels).p_value < 0.05
