"""A test set of somebody's own: labelled, of classes that training has, and apart from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from image_folder_stand_in import COUNTS, make_folder, write_txt
from sdclr.data import DataConfig, build_data
from sdclr.errors import ConfigError, DataError

CLASSES = list(COUNTS)


def config(path: Path, **values: object) -> DataConfig:
    return DataConfig.parse({"name": "images", "path": str(path)} | values)


def test_a_test_set_shares_the_classes_of_training(photos: Path, tmp_path: Path) -> None:
    make_folder(tmp_path / "held_out", {"dog": 2, "cat": 1}, seed=1)
    data = build_data(config(photos, labels="folders", test_path=str(tmp_path / "held_out")))
    assert data.test.paths == ("cat/0.jpg", "dog/0.jpg", "dog/1.jpg")
    assert data.part("test").labels.tolist() == [0, 1, 1]
    assert data.manifest()["counts"]["test"] == [1, 2, 0]
    listed = write_txt(tmp_path / "held_out" / "test.txt", ["dog/1.jpg"], CLASSES)
    train = write_txt(tmp_path / "train.txt", ["cat/0.jpg", "dog/0.jpg", "yak/0.jpg"], CLASSES)
    data = build_data(config(train, test_path=str(listed), root=str(photos)))
    assert data.part("test").labels.tolist() == [1]
    assert data.test.root == photos, "the root is that of both lists"


def test_a_test_class_that_training_does_not_know_is_named(photos: Path, tmp_path: Path) -> None:
    make_folder(tmp_path / "held_out", {"dog": 2, "emu": 1})
    with pytest.raises(
        DataError, match=r"has a class that no training image .* has: emu\. .* are cat, dog, yak"
    ):
        build_data(config(photos, labels="folders", test_path=str(tmp_path / "held_out")))


def test_a_test_set_without_labels_or_without_training_labels_is_refused(
    photos: Path, tmp_path: Path
) -> None:
    make_folder(tmp_path / "held_out", {"dog": 2, "cat": 1}, seed=1)
    with pytest.raises(
        ConfigError, match=r"is for evaluation, and .*photos has no labels to learn from"
    ):
        build_data(config(photos, test_path=str(tmp_path / "held_out")))
    plain = write_txt(tmp_path / "held_out" / "test.txt", ["dog/0.jpg"])
    with pytest.raises(DataError, match=r"test\.txt has no labels"):
        build_data(config(photos, labels="folders", test_path=str(plain)))


def test_an_image_in_both_sets_is_refused_whatever_its_name(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(photos)
    for test_path in (photos, tmp_path / "link"):
        with pytest.raises(
            DataError, match=r"12 of 12 test images are training images as well .*cat/0\.jpg"
        ):
            build_data(config(photos, labels="folders", test_path=str(test_path)))
