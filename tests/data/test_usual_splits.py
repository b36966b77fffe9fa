"""The usual CIFAR-LT sets: their known sizes, LDAM's draw, and that nothing mixes them with the authors' splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sdclr import recipe
from sdclr.data import DataConfig, build_data
from sdclr.data.usual_splits import draw_usual_long_tail
from sdclr.errors import ConfigError
from sdclr.recipes import RECIPES, SYSTEMS


def cifar_labels(num_classes: int) -> np.ndarray:
    """50,000 labels in a random order, as many of each class."""
    labels = np.repeat(np.arange(num_classes), 50_000 // num_classes)
    return np.random.default_rng(5).permutation(labels)


@pytest.mark.parametrize(
    ("num_classes", "ratio", "total", "smallest"),
    [
        (10, 100, 12_406, 50),
        (10, 50, 13_996, 100),
        (10, 10, 20_431, 500),
        (100, 100, 10_847, 5),
        (100, 50, 12_608, 10),
        (100, 10, 19_573, 50),
    ],
)
def test_the_sets_have_the_sizes_that_papers_give(
    num_classes: int, ratio: int, total: int, smallest: int
) -> None:
    labels = cifar_labels(num_classes)
    split = draw_usual_long_tail(labels, imbalance_ratio=ratio)
    counts = np.bincount(labels[split.long_tail])
    assert counts.sum() == total
    assert counts[0] == 50_000 // num_classes
    assert counts[-1] == smallest
    assert (np.diff(counts) <= 0).all(), "class 0 is the head"
    assert len(split.validation) == 0
    assert len(split.train) == 50_000
    assert np.bincount(labels[split.few_shot]).tolist() == [smallest] * num_classes
    assert len(np.unique(split.long_tail)) == total


def test_split_1_is_drawn_as_ldam_draws_with_seed_0() -> None:
    labels = cifar_labels(10)
    split = draw_usual_long_tail(labels, imbalance_ratio=100, seed=1)
    np.random.seed(0)  # noqa: NPY002
    expected = []
    for c in range(10):
        index = np.where(labels == c)[0]
        np.random.shuffle(index)  # noqa: NPY002
        expected.append(index[: int(5000 * 0.01 ** (c / 9.0))])
    assert np.array_equal(split.long_tail, np.concatenate(expected))
    other = draw_usual_long_tail(labels, imbalance_ratio=100, seed=2)
    assert split.fingerprint != other.fingerprint
    assert split.fingerprint == draw_usual_long_tail(labels, imbalance_ratio=100).fingerprint


def test_the_real_cifar10_is_read_under_a_name_of_its_own(cifar10_npz: Path) -> None:
    config = recipe("cifar10_50k_lt_sdclr").with_values({"data.path": str(cifar10_npz)}).data
    usual = build_data(config)
    ours = build_data(recipe("cifar10_lt_sdclr").with_values({"data.path": str(cifar10_npz)}).data)
    assert (usual.name, len(usual.pretraining_images("long_tail"))) == ("cifar10_50k", 12_406)
    assert (ours.name, len(ours.pretraining_images("long_tail"))) == ("cifar10", 11_165)
    assert usual.manifest()["name"] == "cifar10_50k split 1"


def test_what_the_usual_sets_do_not_have_is_refused() -> None:
    for field, value in (("validation_per_class", 500), ("profile", "pareto")):
        with pytest.raises(ConfigError, match=f"{field}={value} is not for cifar10_50k"):
            DataConfig.parse({"name": "cifar10_50k", field: value})
    with pytest.raises(ConfigError, match="splits_dir holds lists for"):
        DataConfig.parse({"name": "cifar100_50k", "splits_dir": "lists"})
    with pytest.raises(ConfigError, match="leaves the rarest class without an image"):
        draw_usual_long_tail(np.repeat([0, 1], 20), imbalance_ratio=21)


def test_their_recipes_differ_from_the_papers_in_the_data_alone() -> None:
    names = [name for name in RECIPES if "_50k" in name]
    assert len(names) == 6
    for name in names:
        usual, papers = recipe(name), recipe(name.replace("_50k", ""))
        as_papers = {
            "recipe": papers.recipe,
            "data.name": papers.data.name,
            "data.validation_per_class": papers.data.validation_per_class,
        }
        assert usual.with_values(as_papers) == papers
    assert not any("_50k" in one for arms in SYSTEMS.values() for one in arms.values())


def test_a_split_that_numpys_generator_cannot_draw_is_refused_with_the_settings() -> None:
    with pytest.raises(ConfigError, match="split must be at most 4294967296"):
        DataConfig.parse({"name": "cifar10_50k", "split": 2**32 + 1})
    draw_usual_long_tail(np.arange(20) % 2, imbalance_ratio=2, seed=2**32)
