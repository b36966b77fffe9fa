"""The authors' ImageNet lists: all that is at hand as published, a stand-in for the rest, and every bad list."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from imagenet_stand_in import StandIn, make_imagenet
from sdclr.data import Data, DataConfig, ViewSpec, build_data
from sdclr.data.sources.imagenet import read_imagenet
from sdclr.data.sources.split_files import read_image_list
from sdclr.errors import ConfigError, DataError, MissingInputError

SUBSETS = {
    "long_tail": "D_i",
    "balanced": "D_b",
    "few_shot": "S_b",
    "train": "train",
    "validation": "val",
}
NAMES = ("imagenet100", "imagenet_lt_exp")


@pytest.fixture
def stand_in(tmp_path: Path) -> StandIn:
    return make_imagenet(tmp_path, 4)


def config(stand_in: StandIn, name: str = "imagenet100", **values: object) -> DataConfig:
    folders = {"path": str(stand_in.root), "splits_dir": str(stand_in.splits_dir)}
    return DataConfig.parse({"name": name} | folders | values)


def lines_of(data: Data, subset: str) -> list[str]:
    images = data.part(subset)
    return [f"{path} {label}" for path, label in zip(images.paths, images.labels, strict=True)]


# ---- what is read


@pytest.mark.parametrize("with_training_list", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_every_subset_holds_the_lines_of_its_list(
    tmp_path: Path, name: str, with_training_list: bool
) -> None:
    stand_in = make_imagenet(tmp_path, 4, name=name, with_training_list=with_training_list)
    data = build_data(config(stand_in, name))
    for subset, part in SUBSETS.items():
        expected = stand_in.lists[part]
        assert lines_of(data, subset) == (sorted(expected) if subset == "train" else expected), (
            subset
        )
    assert lines_of(data, "test") == stand_in.lists["test"]
    assert data.class_names == ["n90000000", "n89998889", "n89997778", "n89996667"], (
        "the class folder of each label"
    )
    assert (data.name, data.conventions) == (name, "imagenet")


def test_the_pool_is_every_distinct_training_file(stand_in: StandIn) -> None:
    data = build_data(config(stand_in))
    named = {line.rpartition(" ")[0] for part in SUBSETS.values() for line in stand_in.lists[part]}
    assert list(data.train.paths) == sorted(named)
    assert len(data.train) == 4 * 12


def test_a_derived_training_list_is_the_authors_list(tmp_path: Path) -> None:
    read = build_data(config(make_imagenet(tmp_path / "read", 4, with_training_list=True)))
    derived = build_data(config(make_imagenet(tmp_path / "derived", 4)))
    assert read.fingerprint == derived.fingerprint
    assert read.labelled_split().source == "authors' lists"
    assert read.labelled_split().number == 1


def test_a_list_may_come_in_any_order_and_keeps_it(stand_in: StandIn) -> None:
    shuffled = stand_in.lists["D_i"][::-1]
    stand_in.write_list("D_i", shuffled)
    assert lines_of(build_data(config(stand_in)), "long_tail") == shuffled


def test_only_image_files_of_the_class_folders_are_derived(stand_in: StandIn) -> None:
    before = build_data(config(stand_in)).fingerprint
    folder = stand_in.root / "train" / "n90000000"
    (folder / "notes.txt").write_text("")
    (folder / ".hidden.JPEG").write_text("")
    (folder / "folder.JPEG").mkdir()
    (stand_in.root / "train" / "n00000001").mkdir()
    (stand_in.root / "train" / "n00000001" / "other_class.JPEG").write_text("")
    assert build_data(config(stand_in)).fingerprint == before
    (folder / "link.JPEG").symlink_to("nowhere")
    data = build_data(config(stand_in))
    assert "train/n90000000/link.JPEG 0" in lines_of(data, "train"), (
        "whether a link is broken shows when it is read"
    )
    with pytest.raises(
        MissingInputError, match=r"1 of 41 images .*\n.*link\.JPEG does not exist \(a broken link\)"
    ):
        data.pretraining_images("all").to(torch.device("cpu"))


def test_reading_opens_no_image_and_asks_for_no_files_state(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    for name in ("stat", "lstat"):
        real: Callable = getattr(os, name)
        monkeypatch.setattr(
            os,
            name,
            lambda path, *a, _real=real, **k: (asked.append(str(path)), _real(path, *a, **k))[1],
        )
    for image in [*stand_in.root.rglob("*.JPEG")]:
        image.write_bytes(b"")  # no image: opening one would fail
    asked.clear()
    data = build_data(config(stand_in))
    _ = (data.fingerprint, data.manifest(), len(data.pretraining_images("long_tail")))
    assert asked
    assert not [path for path in asked if path.endswith(".JPEG")]


def test_views_stills_and_probe_crops_come_from_the_stand_in(stand_in: StandIn) -> None:
    data = build_data(config(stand_in))
    images = data.pretraining_images("long_tail").to(torch.device("cpu"))
    (views,) = images.views([torch.arange(len(images))], ViewSpec(size=16), seed=1, epoch=1)
    assert views.a.shape == (len(stand_in.lists["D_i"]), 3, 16, 16)
    assert torch.cat(list(data.part("test").stills(16))).shape == (12, 3, 16, 16)
    (crops,) = data.part("few_shot").probe_crops([torch.arange(4)], 16, seed=1, epoch=1)
    assert crops.shape == (4, 3, 16, 16)


def test_names_and_labels_make_the_fingerprint_not_pixels_or_place(
    stand_in: StandIn, tmp_path: Path
) -> None:
    before = build_data(config(stand_in)).fingerprint
    path = stand_in.root / stand_in.lists["D_i"][0].split()[0]
    path.write_bytes(b"other pixels")
    stand_in.root.rename(tmp_path / "moved")
    moved = stand_in._replace(root=tmp_path / "moved")
    assert build_data(config(moved)).fingerprint == before
    stand_in.write_list("D_b", stand_in.lists["D_b"][1:])
    assert build_data(config(moved)).fingerprint != before


def test_the_manifest_counts_every_part(stand_in: StandIn) -> None:
    manifest = build_data(config(stand_in)).manifest()
    assert manifest["source"] == "authors' lists"
    assert (manifest["number"], manifest["seed"]) == (1, None)
    assert manifest["counts"]["long_tail"] == [10, 5, 2, 1]
    assert manifest["counts"]["train"] == [10] * 4
    assert manifest["counts"]["test"] == [3] * 4


# ---- the authors' lists as they are


def empty_tree(folder: Path, splits: Path, *files: str) -> Path:
    """train/ and val/ with an empty file for every line of these lists."""
    for file in files:
        for path in read_image_list(splits / file).paths:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(folder / path, os.O_CREAT))
    (folder / "val").mkdir(exist_ok=True)
    return folder


@pytest.mark.journeys
def test_the_authors_imagenet_100_lists_read_whole(sdclr_data: Path, tmp_path: Path) -> None:
    splits = sdclr_data / "splits"
    names = (
        "imageNet_100_LT_train",
        "imageNet_100_BL_train",
        "imageNet_100_sub_balance_train_0.01",
        "ImageNet_100_val",
    )
    root = empty_tree(tmp_path, splits, *(f"imagenet-100/{name}.txt" for name in names))
    images = read_imagenet("imagenet100", root, splits)
    split = images.split
    assert [len(split.subset(name)) for name in ("long_tail", "balanced", "few_shot", "validation")] == [
        12_205, 12_200, 1_200, 2_000
    ]  # fmt: skip
    assert len(images.test) == 5_000
    counts = split.counts("long_tail", images.train.labels, 100)
    assert (max(counts), min(counts)) == (1280, 6)
    assert set(split.counts("balanced", images.train.labels, 100)) == {122}
    assert images.class_names[26] == "n01558993"
    assert len(images.train) == len(split.train) + 2_000, "all of these few are training images"


def test_the_authors_imagenet_lt_lists_fit_together(sdclr_data: Path, tmp_path: Path) -> None:
    """Their long lists are not at hand; the few-shot list stands in for them."""
    splits = tmp_path / "split"
    stand_in = StandIn(tmp_path / "images", splits, {})
    for folder in ("train", "val"):
        (stand_in.root / folder).mkdir(parents=True)
    published = sdclr_data / "splits" / "ImageNet_LT"
    (splits / "ImageNet_LT").mkdir(parents=True)
    for part in ("D_i", "D_b", "S_b", "train", "val", "test"):
        path = stand_in.list_path(part, "imagenet_lt_exp")
        few_shot = published / "imageNet_sub_balance_train_0.01.txt"
        path.write_bytes(
            (published / path.name if part in ("val", "test") else few_shot).read_bytes()
        )
    images = read_imagenet("imagenet_lt_exp", stand_in.root, splits)
    assert (len(images.train), len(images.test), len(images.class_names)) == (32_000, 50_000, 1_000)
    assert (images.class_names[0], images.class_names[999]) == ("n01440764", "n15075141")


# ---- settings


@pytest.mark.parametrize("name", NAMES)
def test_imagenet_needs_a_path_a_splits_folder_and_split_1(stand_in: StandIn, name: str) -> None:
    with pytest.raises(
        ConfigError,
        match=f"data.path is missing: say where the images of {name} are, with --data PATH",
    ):
        build_data(config(stand_in, name, path=None))
    with pytest.raises(
        ConfigError, match=f"data.splits_dir is missing: {name} .*--splits-dir FOLDER"
    ):
        build_data(config(stand_in, name, splits_dir=None))
    with pytest.raises(
        ConfigError, match=f"split must be 1, got 2: the authors published one split of {name}"
    ):
        config(stand_in, name, split=2)


@pytest.mark.parametrize("folder", ["", "train", "val"])
def test_a_root_without_its_folders_is_missing(
    stand_in: StandIn, tmp_path: Path, folder: str
) -> None:
    (stand_in.root / folder).rename(tmp_path / "elsewhere")
    with pytest.raises(MissingInputError, match=r"must hold ImageNet's train/ and val/") as caught:
        build_data(config(stand_in))
    assert f"folder {stand_in.root / folder} does not exist" in str(caught.value)
    assert caught.value.exit_code == 66


@pytest.mark.parametrize("part", ["D_i", "D_b", "S_b", "val", "test"])
def test_an_absent_list_is_named_with_where_to_find_it(stand_in: StandIn, part: str) -> None:
    stand_in.list_path(part).unlink()
    with pytest.raises(
        MissingInputError, match=r"authors' repository \(VITA-Group/SDCLR, folder split\)"
    ) as caught:
        build_data(config(stand_in))
    assert f"{stand_in.list_path(part)} does not exist" in str(caught.value)


# ---- lists that do not fit together


def refused(stand_in: StandIn, part: str, message: str, line: int | None = None) -> None:
    """Reading raises a DataError that matches and names this list, and this line of it."""
    with pytest.raises(DataError, match=message) as caught:
        build_data(config(stand_in))
    assert str(stand_in.list_path(part)) + (f", line {line}" if line else "") in str(caught.value)
    assert caught.value.exit_code == 65


def test_an_image_twice_in_one_list_is_refused(stand_in: StandIn) -> None:
    lines = stand_in.lists["D_b"]
    stand_in.write_list("D_b", [*lines, lines[2]])
    refused(stand_in, "D_b", "is listed already, in line 3", len(lines) + 1)


def test_one_image_with_two_labels_is_refused(stand_in: StandIn) -> None:
    path, _, label = stand_in.lists["S_b"][1].rpartition(" ")
    assert label == "1"
    stand_in.write_list("S_b", [stand_in.lists["S_b"][0], f"{path} 2", *stand_in.lists["S_b"][2:]])
    refused(stand_in, "S_b", "has label 2, but 1 in another list", 2)


def test_one_class_folder_with_two_labels_or_one_label_for_two_folders_is_refused(
    stand_in: StandIn,
) -> None:
    stand_in.write_list("test", ["val/n89998889/new.JPEG 0", *stand_in.lists["test"]])
    refused(
        stand_in,
        "test",
        "label 0 for class folder n89998889, but elsewhere n90000000 has label 0",
        1,
    )
    stand_in.write_list("test", [*stand_in.lists["test"], "val/n00000001/new.JPEG 0"])
    refused(
        stand_in,
        "test",
        "label 0 for class folder n00000001, but elsewhere n90000000 has label 0",
        13,
    )


def test_labels_with_a_gap_are_refused(stand_in: StandIn) -> None:
    stand_in.write_list("val", [*stand_in.lists["val"], "train/n5/x.JPEG 999999999"])
    refused(
        stand_in,
        "val",
        "label 999999999, but no list has an image of class 4. Classes are numbered 0",
        9,
    )


def test_a_list_without_an_image_of_some_class_is_refused(stand_in: StandIn) -> None:
    stand_in.write_list("S_b", stand_in.lists["S_b"][:3])
    refused(stand_in, "S_b", r"has no image of class 3 \(classes 0 .. 3\)")


@pytest.mark.parametrize("part", ["D_i", "D_b", "S_b", "train"])
@pytest.mark.parametrize("held_out", ["val", "test"])
def test_a_training_list_with_a_held_out_image_is_refused(
    stand_in: StandIn, part: str, held_out: str
) -> None:
    lines = [*stand_in.lists[part], stand_in.lists[held_out][0]]
    stand_in.write_list(part, lines)
    refused(stand_in, part, f"is in ImageNet_100_{held_out}.txt as well", len(lines))


def test_validation_and_test_must_not_share_images(stand_in: StandIn) -> None:
    stand_in.write_list("val", [stand_in.lists["test"][0], *stand_in.lists["val"]])
    refused(stand_in, "val", r"is in ImageNet_100_test.txt as well", 1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("../x.JPEG 0", "leaves the image folder"),
        ("/x/y.JPEG 0", "leaves the image folder"),
        ("train\\n90000000\\x.JPEG 0", "a backslash; / goes between folders"),
        ("train/n90000000/x.JPEG\t0", "a tab; one space goes between path and label"),
        ("train/n90000000/x.JPEG", "expected 'relative/path label'"),
        ("x.JPEG 0", "is in no class folder"),
    ],
)
def test_a_line_that_names_no_image_below_the_root_is_refused(
    stand_in: StandIn, line: str, message: str
) -> None:
    stand_in.write_list("D_i", [stand_in.lists["D_i"][0], line, *stand_in.lists["D_i"][1:]])
    refused(stand_in, "D_i", message, 2)


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "is empty"), (bytes(range(256)) * 9, "line 1: ")]
)
def test_a_list_that_is_no_list_is_refused(stand_in: StandIn, content: bytes, message: str) -> None:
    stand_in.list_path("D_i").write_bytes(content)
    refused(stand_in, "D_i", message)


# ---- a data set that is not whole


def test_a_class_folder_that_is_gone_is_missing(stand_in: StandIn, tmp_path: Path) -> None:
    (stand_in.root / "train" / "n89998889").rename(tmp_path / "gone")
    with pytest.raises(MissingInputError, match=r"class folder .*train/n89998889 does not exist"):
        build_data(config(stand_in))


def test_a_training_list_is_not_derived_from_half_a_data_set(stand_in: StandIn) -> None:
    for line in stand_in.lists["val"][:2]:
        (stand_in.root / line.split()[0]).unlink()
    with pytest.raises(
        MissingInputError, match=r"2 of \d+ listed training images are not in their class folders"
    ):
        build_data(config(stand_in))


def test_a_single_class_folder_is_enough_to_read(tmp_path: Path) -> None:
    assert build_data(config(make_imagenet(tmp_path, 1))).class_names == ["n90000000"]
    assert np.isin(
        build_data(config(make_imagenet(tmp_path / "two", 2))).train.labels, (0, 1)
    ).all()
