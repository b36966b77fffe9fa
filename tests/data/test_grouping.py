"""Groups of images from columns, folders and paths; splits and folds that keep them together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sdclr.data import DataConfig, build_data
from sdclr.data.grouping import column_called, group_images, group_names, require_apart
from sdclr.data.splits import hold_out_groups, hold_out_share, natural_split
from sdclr.errors import ConfigError, DataError


def folder_with(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 8)).save(folder / name)


def images_in(folder: Path, *names: str):
    folder_with(folder, *names)
    return build_data(DataConfig(name="images", path=str(folder), subset="all")).train


def test_a_pattern_finds_the_group_in_each_path(tmp_path: Path) -> None:
    images = images_in(tmp_path, "a/x_1.png", "a/x_2.png", "b/x_1.png")
    found = group_images(images, r"(.*)_[0-9]+")
    assert found.names == ["a/x", "b/x"]
    assert found.of_image.tolist() == [0, 0, 1]
    assert group_images(images, "folder").of_image.tolist() == [0, 0, 1]


def test_a_column_is_looked_for_before_a_pattern_and_empty_cells_are_alone(tmp_path: Path) -> None:
    images = images_in(tmp_path, "a.png", "b.png", "c.png", "d.png")
    with pytest.warns(UserWarning, match="empty for 2 of 4"):
        found = group_images(images, "(cam)", {"(cam)": ["k", "", "k", " "]})
    assert found.of_image[0] == found.of_image[2]
    assert len(set(found.of_image.tolist())) == 3


@pytest.mark.parametrize(
    ("by", "error", "words"),
    [
        ("camera", ConfigError, "there are: burst"),
        ("(a)(b)", ConfigError, "2 pairs"),
        ("(a", ConfigError, "not a regular expression"),
        ("(z+)", DataError, "no group in 2 of 2 paths"),
    ],
)
def test_what_is_no_group_is_one_clear_error(
    tmp_path: Path, by: str, error: type[Exception], words: str
) -> None:
    images = images_in(tmp_path, "a.png", "b.png")
    with pytest.raises(error, match=words):
        group_images(images, by, {"burst": ["1", "2"]})


def test_images_in_memory_have_no_groups() -> None:
    with pytest.raises(Exception, match="group_by is for name=images only"):
        DataConfig(name="digits", group_by="x")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whole_groups_are_held_out_and_something_is_left_of_each_class(data: st.DataObject) -> None:
    n = data.draw(st.integers(8, 60))
    labels = np.concatenate([np.arange(2), data.draw(_ids(n - 2, 2))])
    groups = data.draw(_ids(n, 12))
    per_class = data.draw(st.integers(1, 4))
    try:
        held_out = hold_out_groups(labels, groups, per_class)
    except ConfigError:
        return  # said, not done by half
    assert not set(groups[held_out]) & set(np.delete(groups, held_out))
    assert (np.bincount(labels[held_out], minlength=2) >= per_class).all()
    assert (np.bincount(np.delete(labels, held_out), minlength=2) > 0).all()


def _ids(n: int, most: int) -> st.SearchStrategy[np.ndarray]:
    return st.lists(st.integers(0, most - 1), min_size=n, max_size=n).map(np.array)


def test_a_split_keeps_groups_on_one_side_and_names_what_cannot_be_held_out() -> None:
    labels, groups = np.repeat([0, 1], 6), np.repeat(np.arange(6), 2)
    split = natural_split(labels, validation_per_class=1, groups=groups)
    assert not set(groups[split.validation]) & set(groups[split.train])
    assert len(split.validation) == 4
    with pytest.raises(ConfigError, match="class 0 has 6 images in 1 groups"):
        natural_split(labels, validation_per_class=1, groups=np.repeat([0, 1], 6))


def test_a_group_in_training_and_test_is_refused_before_any_work(tmp_path: Path) -> None:
    folder_with(tmp_path / "train", "a/x_1.png", "b/y_1.png")
    folder_with(tmp_path / "test", "a/x_2.png", "b/z_1.png")
    config = DataConfig(
        name="images",
        path=str(tmp_path / "train"),
        test_path=str(tmp_path / "test"),
        labels="folders",
        group_by="([a-z])_[0-9]",
    )
    with pytest.raises(DataError, match="1 of 2 groups"):
        build_data(config)


@pytest.mark.filterwarnings("ignore:column g is empty")
def test_images_without_a_group_are_in_no_group_of_another_table() -> None:
    one = group_names(["a", "b", "c"], "g", {"g": ["p", "", "q"]})
    two = group_names(["d", "e"], "g", {"g": ["r", ""]})
    require_apart(one, two)
    third = group_names(["d", "e"], "g", {"g": ["r", "(row 1)"]})
    require_apart(one, third)
    with pytest.raises(DataError, match="1 of 2 groups"):
        require_apart(one, group_names(["d", "e"], "g", {"g": ["q", ""]}))


def test_a_group_in_training_and_a_given_validation_set_is_refused(tmp_path: Path) -> None:
    for part, person in (("train", 1), ("val", 2), ("test", 3)):
        folder_with(tmp_path / part, f"a/p{person}_{part}.png", f"b/p{person}_{part}.png")
    settings_of = {"layout": "splits", "labels": "folders", "group_by": "(p[0-9])_"}
    config = DataConfig(name="images", path=str(tmp_path)).with_values(settings_of)
    assert build_data(config).split is not None
    folder_with(tmp_path / "train", "a/p2_x.png")
    with pytest.raises(DataError, match=r"1 of 1 groups of the validation set .* \(first: p2\)"):
        build_data(config)


@given(data=st.data())
@settings(max_examples=60)
def test_a_share_of_each_class_is_held_out_and_something_is_left_of_each(
    data: st.DataObject,
) -> None:
    counts = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=5))
    share = data.draw(st.floats(0, 0.99))
    labels = np.repeat(np.arange(len(counts)), counts)
    held_out = hold_out_share(labels, share, seed=3)
    assert len(set(held_out.tolist())) == len(held_out)
    for c, count in enumerate(counts):
        expected = min(int(count * share + 0.5), count - 1)
        assert (labels[held_out] == c).sum() == expected
    assert held_out.tolist() == hold_out_share(labels, share, seed=3).tolist()
    groups = data.draw(st.lists(st.integers(0, 4), min_size=len(labels), max_size=len(labels)))
    in_groups = hold_out_share(labels, share, seed=3, groups=np.array(groups))
    outside = np.setdiff1d(np.arange(len(labels)), in_groups)
    assert not set(np.array(groups)[in_groups]) & set(np.array(groups)[outside])
    assert set(labels[outside]) == set(labels), "each class is trained on"


def test_another_seed_holds_out_other_images() -> None:
    labels = np.zeros(100, dtype=np.int64)
    first, second = (set(hold_out_share(labels, 0.5, seed=seed).tolist()) for seed in (1, 2))
    assert len(first) == len(second) == 50
    assert first != second


@pytest.mark.parametrize("seed", range(12))
def test_a_large_group_is_passed_over_where_small_ones_meet_the_share(seed: int) -> None:
    """Two classes of a group of 12 and four single images: a fifth is 3 of each."""
    labels = np.repeat([0, 1], 16)
    groups = np.concatenate([[0] * 12, range(1, 5), [5] * 12, range(6, 10)])
    held_out = hold_out_share(labels, 0.2, seed=seed, groups=groups)
    assert np.bincount(labels[held_out]).tolist() == [3, 3]


def test_where_no_group_fits_the_one_that_takes_the_fewest_too_many_is_taken() -> None:
    labels = np.zeros(20, dtype=np.int64)
    groups = np.repeat([0, 1, 2], [10, 6, 4])
    for seed in range(5):
        held_out = hold_out_share(labels, 0.1, seed=seed, groups=groups)
        assert groups[held_out].tolist() == [2] * 4, "2 are wanted"


def test_a_column_is_found_whatever_its_capitals() -> None:
    cells = {"Tile": ["a", "b", "a"]}
    assert group_names(None, "tile", cells).of_image.tolist() == [0, 1, 0]
    assert column_called("tile", ["tile", "Tile"]) == "tile"
    assert column_called("TILE", ["tile", "Tile"]) is None, "which of them, nobody can say"
