"""Lists of Places-LT and iNaturalist 2018: what becomes of them, and which are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sdclr import PretrainConfig, evaluate, pretrain, recipe
from sdclr.data import DataConfig, build_data
from sdclr.errors import ConfigError, DataError, MissingInputError
from sdclr.recipes import RECIPES

from imagenet_stand_in import write_photograph  # isort: skip

CLASSES = ("a/airfield", "a/apartment/outdoor", "z/zen_garden")
COUNTS = (6, 4, 2)


def write_places(folder: Path) -> dict[str, list[str]]:
    """FOLDER/images and FOLDER/lists; the lines of each list."""
    rng = np.random.default_rng(0)
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for label, (name, count) in enumerate(zip(CLASSES, COUNTS, strict=True)):
        for part, num in (("train", count), ("val", 1), ("test", 2)):
            for number in range(num):
                path = f"data_256/{name}/{part}{number:04d}.jpg"
                write_photograph(folder / "images" / path, rng)
                lists[part].append(f"{path} {label}")
    (folder / "lists").mkdir()
    for part in lists:
        write_list(folder, part, lists[part])
    return lists


def write_list(folder: Path, part: str, lines: list[str], name: str = "Places_LT_{}.txt") -> None:
    (folder / "lists" / name.format(part)).write_text("".join(f"{line}\n" for line in lines))


def config(folder: Path, name: str = "places_lt", **more: object) -> DataConfig:
    places = {"path": str(folder / "images"), "splits_dir": str(folder / "lists")}
    return DataConfig.parse({"name": name, **places, **more})


def test_the_training_list_is_the_long_tail_and_the_others_are_held_out(tmp_path: Path) -> None:
    lists = write_places(tmp_path)
    data = build_data(config(tmp_path))
    assert data.split is not None
    assert data.train.labels is not None
    assert data.test is not None
    assert data.class_names == list(CLASSES)
    trained = data.pretraining_images("long_tail")
    assert [f"{n} {c}" for n, c in zip(trained.names, trained.labels, strict=True)] == lists[
        "train"
    ]
    assert [f"{n} {c}" for n, c in zip(data.test.names, data.test.labels, strict=True)] == lists[
        "test"
    ]
    held_out = data.train.at(data.split.validation)
    assert [f"{n} {c}" for n, c in zip(held_out.names, held_out.labels, strict=True)] == lists[
        "val"
    ]
    assert data.split.counts("few_shot", data.train.labels, 3) == [2, 2, 2]
    assert data.conventions == "imagenet"
    with pytest.raises(ConfigError, match="balanced"):
        data.pretraining_images("balanced")


def test_inaturalist_is_tested_on_its_validation_list(tmp_path: Path) -> None:
    lists = write_places(tmp_path)
    write_list(tmp_path, "train", lists["train"], "iNaturalist18_{}.txt")
    write_list(tmp_path, "val", lists["test"], "iNaturalist18_{}.txt")
    data = build_data(config(tmp_path, "inaturalist2018"))
    assert data.split is not None
    assert data.test is not None
    assert (len(data.train), len(data.test), len(data.split.validation)) == (12, 6, 0)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        (
            "train",
            lambda lines: [one for one in lines if not one.endswith(" 1")],
            "no image of class 1",
        ),
        (
            "test",
            lambda lines: [*lines, "data_256/x/1.jpg 7"],
            "line 7: class 7 has no training image",
        ),
        (
            "val",
            lambda lines: [*lines, "data_256/a/airfield/train0001.jpg 0"],
            "Places_LT_train.txt as well",
        ),
        ("train", lambda lines: [*lines, "data_256/a/airfield/x.jpg"], "line 13"),
        ("train", lambda lines: [*lines, "../outside.jpg 0"], "line 13"),
    ],
)
def test_lists_that_do_not_fit_are_named_with_their_line(
    tmp_path: Path, part: str, change: object, message: str
) -> None:
    lists = write_places(tmp_path)
    write_list(tmp_path, part, change(lists[part]))  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        build_data(config(tmp_path))


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    write_places(tmp_path)
    with pytest.raises(MissingInputError, match=r"iNaturalist18_train\.txt does not exist"):
        build_data(config(tmp_path, "inaturalist2018"))
    with pytest.raises(ConfigError, match="splits_dir is missing"):
        build_data(config(tmp_path, splits_dir=None))
    with pytest.raises(MissingInputError, match=r"folder .* does not exist"):
        build_data(config(tmp_path, path=str(tmp_path / "gone")))


def test_a_run_on_lists_ends_in_an_evaluation(tmp_path: Path) -> None:
    write_places(tmp_path)
    small = ["backbone.name=resnet10", "backbone.width=2", "backbone.stem=small", "views.size=16"]
    base = recipe("places_lt_sdclr").with_overrides([*small, "epochs=1", "batch_size=4"])
    values = {
        "data.path": str(tmp_path / "images"),
        "data.splits_dir": str(tmp_path / "lists"),
        "device": "cpu",
    }
    run = pretrain(base.with_values(values), tmp_path / "run")
    measured = evaluate(run, protocol="ts", probes=["knn_1", "long_tail_svm"])
    assert measured.dataset == "places_lt"
    assert measured.train_counts == list(COUNTS)
    assert measured.group_convention == "thresholds"


def test_the_recipes_say_that_they_were_not_run() -> None:
    names = [name for name in RECIPES if name.startswith(("places_lt", "inaturalist2018"))]
    assert len(names) == 4
    for name in names:
        assert RECIPES[name].summary.endswith("Not run.")
        assert isinstance(recipe(name), PretrainConfig)
