"""A source by its kind, or what is accepted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from image_folder_stand_in import COUNTS
from sdclr.data import DataConfig, build_data
from sdclr.data.sources.exclusion import Exclusion
from sdclr.data.sources.own_images import read_own_images
from sdclr.data.sources.wanted import Wanted
from sdclr.errors import DataError, MissingInputError

CLASSES = list(COUNTS)


def config(path: Path, **values: object) -> DataConfig:
    return DataConfig.parse({"name": "images", "path": str(path)} | values)


@pytest.mark.parametrize(
    "name", ["photos.rar", "photos.tar.gz", "arrays.npz", "no_suffix", "pipe.txt"]
)
def test_other_things_are_refused_with_what_is_accepted(tmp_path: Path, name: str) -> None:
    if name == "pipe.txt":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(
        DataError,
        match=r"is not a collection of images\. Give a folder .*\.txt.*\.csv.*\.tar shards.*\.npz of arrays",
    ):
        read_own_images(tmp_path / name)


def test_a_folder_without_images_and_an_absent_path_say_what_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no images\. Give a folder .*\.csv"):
        read_own_images(tmp_path / "empty")
    (tmp_path / "empty" / "notes.txt").write_text("")
    with pytest.raises(
        DataError, match=r"empty holds no images \(files that are not images left out: 1\)\. Give"
    ):
        read_own_images(tmp_path / "empty")
    with pytest.raises(
        MissingInputError, match=r"absent does not exist\. Images are taken from a folder"
    ):
        read_own_images(tmp_path / "absent")


@pytest.mark.usefixtures("without_heif")
def test_a_folder_of_heic_alone_says_what_it_holds(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"IMG_{number}.HEIC").touch()
    with pytest.raises(
        DataError,
        match=r"holds no images \(pictures of a kind .*HEIC/HEIF.* 3 \.heic; convert them",
    ):
        read_own_images(tmp_path)


def test_a_glob_takes_what_it_matches_and_counts_the_rest(own: Path) -> None:
    data = build_data(config(own / "**" / "0.jpg", subset="all"))
    assert data.train.paths == ("cat/0.jpg", "dog/0.jpg", "yak/0.jpg")
    assert "images that the glob does not match left out: 9" in data.remarks
    assert build_data(config(own / "**" / "[01].jpg", labels="folders")).class_names == CLASSES
    with pytest.raises(DataError, match=r"no image of 12 below .* matches .*\*\.png"):
        build_data(config(own / "**" / "*.png", subset="all"))


def test_a_link_out_matters_to_a_glob_only_where_it_matches(own: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.jpg").write_bytes((own / "cat" / "0.jpg").read_bytes())
    (own / "cat" / "link.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    assert len(read_own_images(own / "cat" / "[0-9]*.jpg").train) == 6
    with pytest.raises(DataError, match=r"link\.jpg leads through a link out of"):
        read_own_images(own / "cat" / "*.jpg")


def test_a_folder_that_leads_out_matters_to_a_glob_only_where_it_may_match_there(
    own: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (own / "cat" / "linked").symlink_to(tmp_path / "elsewhere")
    expected = len(list((own / "cat").glob("*.jpg")))
    assert len(read_own_images(own / "cat" / "*.jpg").train) == expected
    with pytest.raises(DataError, match=r"linked/? leads through a link out of"):
        read_own_images(own / "cat" / "**" / "*.jpg")


def test_one_image_is_a_collection_of_one(own: Path) -> None:
    assert read_own_images(own / "cat" / "1.jpg").train.paths == ("1.jpg",)
    with pytest.raises(DataError, match=r"leaves out .*1\.jpg, the only image"):
        read_own_images(own / "cat" / "1.jpg", Wanted(unwanted=Exclusion(["1.jpg"])))
