"""The room's door: settings that are refused with a cure, and data sets that come with the right split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from image_folder_stand_in import make_folder
from sdclr import recipe
from sdclr.data import DataConfig, ViewsConfig, build_data
from sdclr.data.sources.split_files import read_authors_cifar_split
from sdclr.data.splits import natural_split
from sdclr.data.views.parameters import ViewSpec
from sdclr.errors import ConfigError, DataError, MissingInputError

IMAGES = np.random.default_rng(0).integers(0, 256, (60, 6, 6)).astype(np.uint8)
LABELS = np.arange(60) % 3


def config(**values: Any) -> DataConfig:
    return DataConfig.parse({"name": "digits"} | values)


def arrays(folder: Path, **parts: np.ndarray) -> DataConfig:
    np.savez(folder / "images.npz", **parts)
    return config(name="arrays", path=str(folder / "images.npz"), imbalance_ratio=10)


# ---- settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"name": "imagenet"},
            "name: there is no data set 'imagenet'. Did you mean imagenet100",
        ),
        ({"path": "x"}, "digits come with scikit-learn and take no path: leave out x, or choose"),
        (
            {"name": "arrays", "splits_dir": "x"},
            "splits_dir holds lists for cifar10, .*inaturalist2018 only, not for arrays",
        ),
        ({"subset": "longtail"}, "subset must be 'long_tail', 'balanced' or 'all', got 'longtail'"),
        ({"split": 0}, "split must be greater than or equal to 1, got 0"),
        ({"imbalance_ratio": 0.01}, "imbalance_ratio must be greater than or equal to 1, got 0.01"),
        ({"validation_per_class": -1}, "validation_per_class must be greater than or equal to 0"),
        ({"profile": "linear"}, "profile must be 'exponential' or 'pareto'"),
        ({"imbalance": 100}, "imbalance is not a setting; did you mean imbalance_ratio?"),
        ({"split": "1"}, "split must be a valid integer, got '1'"),
        ({"name": "images", "labels": "yes"}, "labels must be 'none' or 'folders', got 'yes'"),
        (
            {"name": "images", "on_error": "ignore"},
            "on_error must be 'raise' or 'skip', got 'ignore'",
        ),
        ({"name": "images", "exif_rotation": 1}, "exif_rotation must be a valid boolean, got 1"),
        (
            {"name": "images", "imbalance_ratio": 50},
            "imbalance_ratio=50.0 does nothing for images, which are taken as",
        ),
        ({"name": "images", "profile": "pareto"}, "profile=pareto does nothing for images"),
        (
            {"name": "images", "splits_dir": "x"},
            "splits_dir holds lists for .* only, not for images",
        ),
        (
            {"name": "arrays", "root": "x"},
            "root is for name=images only, not for arrays. Leave it out",
        ),
        (
            {"name": "cifar10", "labels": "folders"},
            "labels is for name=images only, not for cifar10",
        ),
        ({"name": "imagenet100", "test_path": "x"}, "test_path is for name=images only"),
        ({"on_error": "skip"}, "on_error is for name=images only, not for digits"),
        ({"exif_rotation": True}, "exif_rotation is for name=images only"),
        (
            {"name": "given", "on_error": "skip"},
            "on_error is for name=images only, not for given",
        ),
    ],
)
def test_data_settings_that_make_no_sense_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**values)


def test_data_needs_a_name() -> None:
    with pytest.raises(ConfigError, match="name is missing"):
        DataConfig.parse({})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 2}, "size must be greater than or equal to 4, got 2"),
        (
            {"grey": 20},
            "grey must be less than or equal to 1, got 20. It is a fraction; did you mean 0.2?",
        ),
        ({"flip": -0.5}, "flip must be greater than or equal to 0"),
        (
            {"area": [1.0, 0.1]},
            "area must be .smallest, largest. with 0 < smallest <= largest <= 10,000, got 1.0, 0.1",
        ),
        ({"area": [0.0, 1.0]}, "area must be .smallest, largest."),
        ({"area": [0.1, 1.5]}, "area.1 must be less than or equal to 1"),
        ({"aspect": [-1.0, 1.0]}, "aspect must be .smallest, largest."),
        ({"blur_sigma": [2.0, 0.1]}, "blur_sigma must be .smallest, largest."),
        ({"jitter": [0.4, 0.4, 0.4, 0.6]}, "jitter.3 must be less than or equal to 0.5"),
        ({"jitter": [0.4, 0.4, 0.4]}, "jitter.3 is missing"),
        ({"gray": 0.2}, "gray is not a setting; did you mean grey?"),
    ],
)
def test_view_settings_that_make_no_sense_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ViewsConfig.parse(values)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["aspect", "blur_sigma"])
def test_ranges_that_are_not_finite_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        ViewsConfig.parse({name: [0.5, value]})


def test_default_views_are_the_papers_for_cifar() -> None:
    expected = ViewSpec(
        32, (0.1, 1.0), (3 / 4, 4 / 3), 0.5, (0.4, 0.4, 0.4, 0.1), 0.8, 0.2, 0.0, (0.1, 2.0)
    )
    assert ViewsConfig().spec() == expected == ViewSpec(size=32)
    changed = ViewsConfig.parse(
        {"size": 24, "blur": 0.5, "area": [0.2, 0.9], "jitter": [0, 0.1, 0.2, 0.3]}
    ).spec()
    assert (changed.size, changed.blur, changed.area, changed.jitter) == (
        24,
        0.5,
        (0.2, 0.9),
        (0, 0.1, 0.2, 0.3),
    )


# ---- data sets


def test_digits_come_with_a_long_tailed_split() -> None:
    data = build_data(config(imbalance_ratio=20, validation_per_class=20, split=2))
    assert (data.name, data.class_names) == ("digits", list("0123456789"))
    assert (data.train.probe_padding, data.train.probe_flip) == (1, False), (
        "a mirrored digit is another digit, or none"
    )
    split = data.labelled_split()
    assert (split.number, split.seed, split.imbalance_ratio) == (2, 2, 20.0)
    assert split.counts("validation", data.train.labels, 10) == [20] * 10
    counts = split.counts("long_tail", data.train.labels, 10)
    assert (max(counts), min(counts)) == (174 - 36 - 20, int((174 - 36 - 20) / 20)), (
        "174 eights, the rarest digit"
    )


def test_a_run_trains_on_the_subset_that_was_asked_for() -> None:
    data = build_data(config(imbalance_ratio=20, validation_per_class=20))
    split = data.labelled_split()
    for name, positions in (
        ("long_tail", split.long_tail),
        ("balanced", split.balanced),
        ("all", split.train),
    ):
        images = data.pretraining_images(name)
        assert torch.equal(images.images, data.train.images[torch.from_numpy(positions)])
        assert images.labels.tolist() == data.train.labels[positions].tolist()


def test_the_manifest_is_plain_facts_with_the_counts_of_every_part() -> None:
    data = build_data(config(imbalance_ratio=20, validation_per_class=20))
    manifest = data.manifest()
    assert manifest["dataset"] == "digits"
    assert manifest["fingerprint"] == data.fingerprint
    assert manifest["split_fingerprint"] == data.labelled_split().fingerprint
    assert manifest["counts"]["test"] == [36] * 10
    assert sum(manifest["counts"]["train"]) == 1_437 - 200
    assert set(manifest["counts"]) == {
        "long_tail",
        "balanced",
        "few_shot",
        "train",
        "validation",
        "test",
    }


def test_labelled_arrays_get_a_generated_split(tmp_path: Path) -> None:
    data = build_data(
        arrays(
            tmp_path, images=IMAGES, labels=LABELS, test_images=IMAGES[:3], test_labels=LABELS[:3]
        )
    )
    assert sorted(data.labelled_split().counts("long_tail", LABELS, 3)) == [2, 6, 20]
    assert (data.train.probe_padding, data.train.probe_flip) == (4, True)


def test_unlabelled_arrays_can_be_trained_on_but_not_evaluated(tmp_path: Path) -> None:
    data = build_data(arrays(tmp_path, images=IMAGES))
    assert data.split is None
    assert data.pretraining_images("all") is data.train
    assert data.manifest()["source"] == "unlabelled"
    with pytest.raises(ConfigError, match=r"data.subset=long_tail needs labels.*data.subset=all"):
        data.pretraining_images("long_tail")
    with pytest.raises(
        DataError,
        match="arrays cannot be evaluated: it needs training labels and a labelled test set",
    ):
        data.labelled_split()


def test_arrays_without_a_labelled_test_set_cannot_be_evaluated(tmp_path: Path) -> None:
    for parts in ({}, {"test_images": IMAGES[:3]}):
        data = build_data(arrays(tmp_path, images=IMAGES, labels=LABELS, **parts))
        with pytest.raises(DataError, match="cannot be evaluated"):
            data.labelled_split()


def test_one_mistake_is_one_line_and_own_images_are_turned_by_default() -> None:
    with pytest.raises(ConfigError) as caught:
        DataConfig.parse({"name": "images", "layout": "split"})
    assert str(caught.value) == "layout must be 'flat' or 'splits', got 'split'."
    assert DataConfig.parse({"name": "images"}).exif_rotation
    assert not DataConfig.parse({"name": "digits"}).exif_rotation


def test_a_set_as_given_has_a_natural_split_and_no_balanced_twin(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos")
    make_folder(tmp_path / "held_out", seed=1)
    values = {
        "labels": "folders",
        "test_path": str(tmp_path / "held_out"),
        "validation_per_class": 1,
        "split": 2,
    }
    data = build_data(config(name="images", path=str(tmp_path / "photos"), **values))
    split = data.labelled_split()
    assert (
        split.fingerprint
        == natural_split(data.train.labels, validation_per_class=1, seed=2).fingerprint
    )
    assert (len(data.pretraining_images("long_tail")), len(data.pretraining_images("all"))) == (
        9,
        9,
    )
    with pytest.raises(
        ConfigError, match=r"data.subset=balanced is not available for images: .* no balanced twin"
    ):
        data.pretraining_images("balanced")
    manifest = data.manifest()
    assert (manifest["source"], manifest["number"], manifest["imbalance_ratio"]) == (
        "as given",
        2,
        None,
    )
    assert manifest["counts"] == {
        "long_tail": [5, 3, 1], "balanced": [0, 0, 0], "few_shot": [1, 1, 1], "train": [5, 3, 1],
        "validation": [1, 1, 1], "test": [6, 4, 2],
    }  # fmt: skip


def test_a_tail_shorter_than_validation_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path)
    with pytest.raises(
        ConfigError,
        match=r"validation_per_class=2 leaves nothing .* the smallest class has 2 images",
    ):
        build_data(
            config(name="images", path=str(tmp_path), labels="folders", validation_per_class=2)
        )


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "arrays", "images"])
def test_data_without_a_path_are_asked_for_one(name: str) -> None:
    whose = "" if name == "images" else f" of {name}"
    with pytest.raises(
        ConfigError,
        match=f"data.path is missing: say where the images{whose} are, with --data PATH",
    ):
        build_data(config(name=name))


def test_data_at_a_wrong_path_are_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"absent\.npz does not exist"):
        build_data(config(name="arrays", path=str(tmp_path / "absent.npz")))
    with pytest.raises(MissingInputError, match="--download"):
        build_data(config(name="cifar10", path=str(tmp_path)))


def test_all_of_a_npz_is_the_set_as_it_is(tmp_path: Path) -> None:
    labels = np.repeat([4, 0, 1], [2, 9, 5])  # classes 2 and 3 have no image
    pixels = np.arange(len(labels), dtype=np.uint8)[:, None, None] * np.ones((1, 8, 8), np.uint8)
    names = np.array(["ant", "bee", "cat", "dog", "elk"])
    given = {"train_images": pixels, "train_labels": labels, "class_names": names}
    wanted = arrays(tmp_path, **given).with_values({"subset": "all"})
    data = build_data(wanted)
    assert data.class_names == ["ant", "bee", "elk"]
    assert data.train.labels is not None
    assert data.train.labels.tolist() == [2, 2, *[0] * 9, *[1] * 5]
    assert data.split is not None
    assert data.split.counts("long_tail", data.train.labels, 3) == [9, 5, 2]
    assert data.split.source == "as given"
    assert "2 of 5 classes have no image: cat, dog" in data.remarks[-1]
    with pytest.raises(ConfigError, match="class 2 has no image"):
        build_data(wanted.with_values({"subset": "long_tail"}))
    for tested, fits in (([4, 0], True), ([4, 3], False)):
        np.savez(tmp_path / "images.npz", test_images=pixels[:2], test_labels=tested, **given)
        if fits:
            test = build_data(wanted).test
            assert test is not None
            assert test.labels is not None
            assert test.labels.tolist() == [2, 0]
        else:
            with pytest.raises(DataError, match="class that no training image has: dog"):
                build_data(wanted)


def test_of_a_npz_as_it_is_numbers_and_names_of_classes_need_not_be_without_gaps(
    tmp_path: Path,
) -> None:
    pixels = np.arange(12, dtype=np.uint8)[:, None, None] * np.ones((1, 8, 8), np.uint8)
    labels = np.repeat([0, 400, 10**12], 4)
    given = {"train_images": pixels, "train_labels": labels}
    found = build_data(arrays(tmp_path, **given).with_values({"subset": "all"}))
    assert found.class_names == ["0", "400", "1000000000000"]
    given = {"train_images": pixels, "train_labels": np.repeat([0, 2], 6)}
    names = np.array(["ant", "bee", "cat", "dog"])
    wanted = arrays(tmp_path, **given, class_names=names).with_values({"subset": "all"})
    found = build_data(wanted)
    assert found.class_names == ["ant", "cat"]
    assert "2 of 4 classes have no image: bee, dog" in found.remarks[-1]
    few = arrays(tmp_path, **given, class_names=names[:2]).with_values({"subset": "all"})
    with pytest.raises(DataError, match="class_names has 2 entries, and there is a class 2"):
        build_data(few)


def test_validation_images_of_unlabelled_ones_are_warned_of(tmp_path: Path) -> None:
    make_folder(tmp_path, {"cat": 3})
    with pytest.warns(UserWarning, match="validation_per_class=2 holds nothing out"):
        build_data(config(name="images", path=str(tmp_path), subset="all", validation_per_class=2))


def test_settings_of_a_drawn_tail_are_taken_back_for_arrays_as_they_are() -> None:
    drawn = recipe("digits_sdclr").with_values({"data.name": "arrays"}).data
    as_given = recipe("digits_sdclr").with_values({"data.name": "arrays", "data.subset": "all"})
    assert (drawn.imbalance_ratio, drawn.validation_per_class) == (20, 18)
    assert (as_given.data.imbalance_ratio, as_given.data.validation_per_class) == (100, 0)


def test_splits_that_do_not_fit_the_data_are_refused() -> None:
    with pytest.raises(ConfigError, match="leaves the rarest class without an image"):
        build_data(config(imbalance_ratio=1000))
    with pytest.raises(ConfigError, match="validation_per_class=500 leaves nothing to train on"):
        build_data(config(validation_per_class=500))


def test_cifar_takes_the_authors_lists_where_they_are_given(
    sdclr_data: Path, cifar10_npz: Path
) -> None:
    folder = sdclr_data / "splits"
    data = build_data(
        config(name="cifar10", path=str(cifar10_npz), splits_dir=str(folder), split=4)
    )
    assert (
        data.labelled_split().fingerprint
        == read_authors_cifar_split(folder, "cifar10", 4).fingerprint
    )
    assert len(data.pretraining_images("long_tail")) == 11_165
