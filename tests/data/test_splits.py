"""Generated splits: the paper's counts, the nested structure of the authors' lists, held-out images, fingerprints."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sdclr.data.splits import SUBSETS, Split, class_counts, draw_long_tail, natural_split
from sdclr.errors import ConfigError

# labels like CIFAR's training sets (shuffled), the images held out per class, and the facts of the paper's splits
CIFAR = {
    "cifar10": (np.random.default_rng(0).permutation(np.repeat(np.arange(10), 5000)), 500),
    "cifar100": (np.random.default_rng(1).permutation(np.repeat(np.arange(100), 500)), 50),
}
FACTS = {"cifar10": (11_165, 11_160, 450, 5_699), "cifar100": (9_754, 9_700, 400, 5_204)}
CIFAR10_COUNTS = [4500, 2697, 1617, 969, 581, 348, 208, 125, 75, 45]
UNEVEN = np.random.default_rng(2).permutation(np.repeat(np.arange(4), [40, 100, 60, 35]))


def draw(dataset: str, seed: int = 1) -> Split:
    labels, validation_per_class = CIFAR[dataset]
    return draw_long_tail(
        labels, imbalance_ratio=100, validation_per_class=validation_per_class, seed=seed
    )


def test_class_counts_are_the_papers_to_the_image() -> None:
    assert class_counts(10, 4500, 100) == CIFAR10_COUNTS
    cifar100 = class_counts(100, 450, 100)
    assert cifar100[:3] == [450, 429, 410]
    assert cifar100[-4:] == [5, 4, 4, 4]
    assert sum(cifar100) == 9_754


def test_a_ratio_of_one_is_balanced() -> None:
    assert class_counts(7, 30, 1) == [30] * 7


def test_pareto_counts_have_the_shape_of_imagenet_lt() -> None:
    counts = class_counts(1000, 1280, 256, "pareto")
    assert counts == sorted(counts, reverse=True)
    assert (counts[0], counts[-1]) == (1280, 5)
    assert sum(counts) == pytest.approx(115_846, rel=0.02)
    for num_classes in range(2, 200, 3):
        for largest in (50, 63, 100, 500, 1000, 5000):
            assert class_counts(num_classes, largest, 5, "pareto")[0] == largest


@pytest.mark.parametrize("dataset", CIFAR)
def test_cifar_subsets_have_the_papers_sizes(dataset: str) -> None:
    labels, _ = CIFAR[dataset]
    num_classes = labels.max() + 1
    split = draw(dataset)
    size_long_tail, size_balanced, size_few_shot, size_shared = FACTS[dataset]
    assert (len(split.long_tail), len(split.balanced), len(split.few_shot)) == FACTS[dataset][:3]
    assert len(split.train) == 45_000
    assert len(split.validation) == 5_000
    assert len(np.intersect1d(split.long_tail, split.balanced)) == size_shared
    assert (
        split.counts("balanced", labels, num_classes)
        == [size_balanced // num_classes] * num_classes
    )
    assert (
        split.counts("few_shot", labels, num_classes)
        == [size_few_shot // num_classes] * num_classes
    )
    assert split.counts("validation", labels, num_classes) == [5_000 // num_classes] * num_classes
    long_tail = sorted(split.counts("long_tail", labels, num_classes), reverse=True)
    assert sum(long_tail) == size_long_tail
    assert long_tail == class_counts(num_classes, 45_000 // num_classes, 100)


def assert_is_a_family_of_prefixes(split: Split, labels: np.ndarray) -> None:
    """Class by class, the shorter of two lists opens the longer one, and every list runs by class id."""
    for name in SUBSETS:
        positions = split.subset(name)
        assert len(np.unique(positions)) == len(positions)
        assert (np.diff(labels[positions]) >= 0).all(), f"{name} runs by class id"
    for c in range(labels.max() + 1):
        lists = [split.subset(name) for name in ("long_tail", "balanced", "few_shot")]
        lists = sorted((positions[labels[positions] == c].tolist() for positions in lists), key=len)
        assert lists[1][: len(lists[0])] == lists[0]
        assert lists[2][: len(lists[1])] == lists[1]
    assert set(split.few_shot) <= set(split.balanced) & set(split.long_tail)


@pytest.mark.parametrize("seed", [1, 2, 77])
@pytest.mark.parametrize("dataset", CIFAR)
def test_subsets_are_prefixes_of_one_permutation_per_class(dataset: str, seed: int) -> None:
    assert_is_a_family_of_prefixes(draw(dataset, seed), CIFAR[dataset][0])


@pytest.mark.parametrize("dataset", CIFAR)
def test_validation_is_held_out_of_everything_and_shared_by_all_seeds(dataset: str) -> None:
    first, second = draw(dataset, 1), draw(dataset, 2)
    np.testing.assert_array_equal(first.validation, second.validation)
    np.testing.assert_array_equal(first.train, second.train)
    np.testing.assert_array_equal(
        np.sort(np.concatenate([first.train, first.validation])), np.arange(50_000)
    )
    for split in (first, second):
        for name in ("long_tail", "balanced", "few_shot"):
            assert not np.intersect1d(split.subset(name), split.validation).size
            assert np.isin(split.subset(name), split.train).all()


def test_another_validation_seed_holds_out_other_images() -> None:
    first = draw_long_tail(UNEVEN, imbalance_ratio=5, validation_per_class=5)
    other = draw_long_tail(UNEVEN, imbalance_ratio=5, validation_per_class=5, validation_seed=1)
    assert set(first.validation) != set(other.validation)


def test_the_same_seed_gives_the_same_split_and_another_seed_another() -> None:
    again, other = draw("cifar10", 1), draw("cifar10", 2)
    for name in SUBSETS:
        np.testing.assert_array_equal(draw("cifar10", 1).subset(name), again.subset(name))
    assert draw("cifar10", 1).fingerprint == again.fingerprint
    assert again.fingerprint != other.fingerprint
    assert len(np.intersect1d(again.few_shot, other.few_shot)) < 50, (
        "450 of 45,000 images: about 5 in common"
    )


def test_seeds_give_different_class_orders() -> None:
    labels = CIFAR["cifar10"][0]
    orders = [
        tuple(np.argsort(draw("cifar10", seed).counts("long_tail", labels, 10)))
        for seed in range(1, 21)
    ]
    assert len(set(orders)) == 20
    assert len({order[-1] for order in orders}) > 4, "the head class wanders"


def test_every_image_is_about_equally_likely_to_be_drawn() -> None:
    labels = np.repeat(np.arange(4), 50)
    drawn = np.zeros(200)
    for seed in range(1, 401):
        drawn[draw_long_tail(labels, imbalance_ratio=10, seed=seed).few_shot] += 1
    # binomial with n = 400, p = 5 / 50: mean 40, deviation 6
    assert drawn.mean() == 40
    assert drawn.min() > 40 - 5 * 6
    assert drawn.max() < 40 + 5 * 6


def test_the_fingerprint_sees_one_changed_position_and_a_changed_boundary() -> None:
    split = draw("cifar10")
    for name in SUBSETS:
        positions = split.subset(name).copy()
        positions[-1] += 1
        assert replace(split, **{name: positions}).fingerprint != split.fingerprint
    moved = replace(
        split, train=np.append(split.train, split.validation[0]), validation=split.validation[1:]
    )
    assert moved.fingerprint != split.fingerprint


def test_the_fingerprint_does_not_depend_on_dtype_or_layout() -> None:
    split = draw("cifar10")
    strided = np.repeat(split.train, 2)[::2]
    assert replace(split, train=strided).fingerprint == split.fingerprint
    assert replace(split, train=split.train.astype(np.int32)).fingerprint == split.fingerprint


def test_the_randomness_of_splits_is_frozen() -> None:
    """A published split number must mean the same images for ever: a change here needs a new major version."""
    balanced = np.repeat(np.arange(10), 5000)
    frozen = draw_long_tail(balanced, imbalance_ratio=100, validation_per_class=500, seed=1)
    assert frozen.fingerprint == "6e60aca9170b422e"
    assert frozen.counts("long_tail", balanced, 10) == [
        4500,
        75,
        348,
        969,
        208,
        581,
        45,
        125,
        1617,
        2697,
    ]


def test_uneven_classes_are_cut_at_what_the_smallest_has_left() -> None:
    split = draw_long_tail(UNEVEN, imbalance_ratio=6, validation_per_class=5, seed=3)
    assert sorted(split.counts("long_tail", UNEVEN, 4), reverse=True) == [30, 16, 9, 5]
    assert split.counts("balanced", UNEVEN, 4) == [15] * 4
    assert split.counts("few_shot", UNEVEN, 4) == [5] * 4
    assert split.counts("train", UNEVEN, 4) == [35, 95, 55, 30]
    assert_is_a_family_of_prefixes(split, UNEVEN)


def test_labels_may_be_a_list_or_a_tensor() -> None:
    expected = draw_long_tail(UNEVEN, imbalance_ratio=5).fingerprint
    assert draw_long_tail(UNEVEN.tolist(), imbalance_ratio=5).fingerprint == expected
    assert draw_long_tail(torch.from_numpy(UNEVEN), imbalance_ratio=5).fingerprint == expected
    assert draw_long_tail(UNEVEN.astype(np.uint8), imbalance_ratio=5).fingerprint == expected


def test_the_manifest_says_where_a_split_came_from() -> None:
    manifest = draw("cifar10", 3).manifest(CIFAR["cifar10"][0], 10)
    facts = {
        key: manifest[key] for key in ("number", "source", "seed", "profile", "imbalance_ratio")
    }
    assert facts == {
        "number": 3,
        "source": "generated",
        "seed": 3,
        "profile": "exponential",
        "imbalance_ratio": 100.0,
    }
    assert sorted(manifest["counts"]["long_tail"], reverse=True) == CIFAR10_COUNTS
    assert manifest["split_fingerprint"] == draw("cifar10", 3).fingerprint


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (
            [0, 1, 0, 1],
            {"imbalance_ratio": 100},
            "leaves the rarest class without an image.*at most 2",
        ),
        ([0, 1, 0, 1], {"imbalance_ratio": 0.5}, "imbalance_ratio must be at least 1"),
        ([0, 1, 0, 1], {"imbalance_ratio": float("nan")}, "imbalance_ratio must be at least 1"),
        (
            [0, 1, 0, 1],
            {"imbalance_ratio": 2, "profile": "linear"},
            "profile must be exponential or pareto",
        ),
        (
            [0, 1, 0, 1],
            {"imbalance_ratio": 2, "validation_per_class": 2},
            "smallest class has 2 images",
        ),
        ([0, 0, 0], {"imbalance_ratio": 2}, "at least 2 classes"),
        ([0, 2, 0, 2], {"imbalance_ratio": 2}, "class 1 has no image"),
        ([-1, 0, 1], {"imbalance_ratio": 2}, "class ids from 0"),
        ([0.0, 1.0], {"imbalance_ratio": 2}, "class ids from 0, got float64"),
        ([[0, 1], [0, 1]], {"imbalance_ratio": 2}, "class ids from 0"),
        ([], {"imbalance_ratio": 2}, "class ids from 0"),
    ],
)
def test_numbers_that_do_not_fit_the_data_are_refused(
    labels: list, options: dict, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        draw_long_tail(labels, **options)


# ---- sets that are taken as they are


@pytest.mark.parametrize("validation_per_class", [0, 7])
def test_a_natural_split_draws_nothing_but_validation(validation_per_class: int) -> None:
    split = natural_split(UNEVEN, validation_per_class=validation_per_class, seed=3)
    everything = np.arange(len(UNEVEN))
    assert (
        split.long_tail.tolist()
        == split.train.tolist()
        == np.setdiff1d(everything, split.validation).tolist()
    )
    assert split.counts("validation", UNEVEN, 4) == [validation_per_class] * 4
    assert split.counts("few_shot", UNEVEN, 4) == [35 - validation_per_class] * 4, (
        "the rarest class"
    )
    assert np.isin(split.few_shot, split.train).all()
    assert (len(split.balanced), split.balanced.dtype) == (0, np.int64)
    assert (split.source, split.number, split.seed, split.profile) == ("as given", 3, 3, None)


def test_a_natural_split_holds_out_and_cuts_as_a_drawn_one_does() -> None:
    drawn = draw_long_tail(UNEVEN, imbalance_ratio=5, validation_per_class=5, seed=4)
    natural = natural_split(UNEVEN, validation_per_class=5, seed=4)
    assert natural.validation.tolist() == drawn.validation.tolist()
    assert sorted(natural.train) == sorted(drawn.train)
    assert set(drawn.few_shot) < set(natural.few_shot), "prefixes of one permutation"


def test_the_seed_of_a_natural_split_chooses_the_few_shot_images_alone() -> None:
    one, two = (natural_split(UNEVEN, validation_per_class=5, seed=seed) for seed in (1, 2))
    assert one.few_shot.tolist() != two.few_shot.tolist()
    assert one.validation.tolist() == two.validation.tolist()
    assert one.fingerprint != two.fingerprint


def test_a_natural_split_of_labels_with_a_gap_or_too_few_images_is_refused() -> None:
    with pytest.raises(ConfigError, match="class 1 has no image"):
        natural_split([0, 2, 2])
    with pytest.raises(
        ConfigError,
        match=r"=2 leaves nothing to train on: the smallest class has 2 images\. Set it lower; 0 holds",
    ):
        natural_split([0, 0, 1, 1, 1], validation_per_class=2)
    assert natural_split([0, 0, 0]).few_shot.shape == (3,), "one class is a set, too"


def test_a_natural_split_holds_out_the_very_images_that_are_given() -> None:
    drawn = natural_split(UNEVEN, validation_per_class=5, seed=3)
    given = natural_split(UNEVEN, validation=drawn.validation, seed=3)
    assert given.fingerprint == drawn.fingerprint, "what was drawn may be given"
    held_out = np.array([0, 2, 3])
    split = natural_split([0, 1, 0, 1, 0, 1, 1], validation=held_out, seed=1)
    assert sorted(split.validation.tolist()) == [0, 2, 3]
    assert split.train.tolist() == [1, 4, 5, 6]
    assert not set(split.few_shot.tolist()) & {0, 2, 3}
    assert len(split.few_shot) == 2, "as many of a class as the rarest has left to train on"
    without = natural_split(
        [0, 1, 0, 1, 0, 1, 1], validation=held_out, seed=1, unusable=np.array([1])
    )
    assert not set(without.few_shot.tolist()) & {0, 1, 2, 3}
