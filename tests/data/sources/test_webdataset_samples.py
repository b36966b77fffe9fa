"""Which members of a shard are images, and of which class: names with dots, and what is not used."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from sdclr.data.sources.tar_shards import ShardedImages, read_shards
from sdclr.errors import DataError
from shard_stand_in import write_shard


def read(folder: Path, *members: str | tuple[str, bytes]) -> ShardedImages:
    """What is found in a shard of these members; those without content hold ``1``."""
    whole = [(member, b"1") if isinstance(member, str) else member for member in members]
    write_shard(folder / "a.tar", whole)
    return read_shards(folder, ["a.tar"])


def test_samples_are_webdatasets(tmp_path: Path) -> None:
    """The key ends at the first dot of the last part; a class may come first; other members do not count."""
    write_shard(
        tmp_path / "a.tar",
        [
            ("n.1/x.cls", b"7\n"),
            ("n.1/x.left.jpg", b"1"),
            ("n.1/x.json", b"{}"),
            ("n.1/x.right.JPG", b"2"),
            ("n.2/x.png", b"3"),
            ("n.2/x.cls", b"007"),
            ("._x.jpg", b"mac"),
        ],
    )
    found = read_shards(tmp_path, ["a.tar"])
    assert found.paths == ["a.tar/n.1/x.left.jpg", "a.tar/n.1/x.right.JPG", "a.tar/n.2/x.png"]
    assert found.labels == ["7", "7", "7"]


def test_a_name_with_dots_has_the_class_of_its_own_file(tmp_path: Path) -> None:
    found = read(tmp_path, "22.00.jpg", ("22.00.cls", b"3"), "22.50.jpg", ("22.50.CLS", b"4"))
    assert found.labels == ["3", "4"]
    assert found.remarks == []


def test_a_class_by_the_first_dot_counts_for_every_image_of_the_sample(tmp_path: Path) -> None:
    found = read(
        tmp_path, "x.left.jpg", "x.1.jpg", ("x.cls", b"7"), ("v.2/x.cls", b"8"), "v.2/x.a.b.jpg"
    )
    assert found.labels == ["7", "7", "8"]


def test_a_number_after_a_dot_is_a_name_of_its_own(tmp_path: Path) -> None:
    found = read(tmp_path, "22.jpg", ("22.cls", b"1"), "22.00.jpg", ("22.00.cls", b"2"))
    assert found.paths == ["a.tar/22.jpg", "a.tar/22.00.jpg"]
    assert found.labels == ["1", "2"]


def test_two_classes_for_one_image_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"x\.left\.jpg has two classes, 1 in x\.cls and 2 in x\.left\.cls"
    ):
        read(tmp_path, "x.left.jpg", ("x.cls", b"1"), ("x.left.cls", b"2"))


@pytest.mark.parametrize("key", ["0001", "22.00", "d.1/0001"])
def test_a_mask_beside_an_image_is_no_image_and_is_counted(tmp_path: Path, key: str) -> None:
    found = read(
        tmp_path, f"{key}.seg.png", f"{key}.jpg", (f"{key}.cls", b"5"), f"{key}.depth.map.png"
    )
    assert found.paths == [f"a.tar/{key}.jpg"]
    assert found.labels == ["5"]
    (remark,) = found.remarks
    assert remark.startswith("images that belong to the sample of another one left out: 1 ")
    assert "seg.png" in remark
    assert "depth.map.png" in remark


def test_an_image_with_a_class_of_its_own_is_one_beside_whatever_lies_there(tmp_path: Path) -> None:
    found = read(tmp_path, "a.jpg", ("a.cls", b"1"), "a.copy.jpg", ("a.copy.cls", b"1"))
    assert len(found.paths) == 2


def test_every_member_that_is_not_used_is_counted(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        *(
            "a.jpg",
            "a.json",
            "b.jpg",
            "b.JSON",
            "b.txt",
            "README",
            "c.nef",
            "d.cls",
            "e.cls",
            "._a.jpg",
        ),
        *("@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg", ".thumbnails/b.jpg"),
    )
    assert found.paths == ["a.tar/a.jpg", "a.tar/b.jpg"]
    assert found.labels is None
    assert found.remarks == [
        "hidden members of shards left out: 2",
        "members in folders of thumbnails, previews or trash left out: 1",
        ".cls files without an image: 2 (first: d.cls)",
        "pictures of a kind that cannot be read left out: 1 .nef; convert them to JPEG or PNG to use them",
        "members of shards that are not used: 2 .json, 1 .txt, 1 without a suffix (a class is read from a .cls)",
    ]


def test_a_shard_without_images_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"hold no images .*2 \.nef"):
        read(tmp_path, "a.nef", "b.NEF")


def test_a_class_behind_a_hard_link_counts(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"1")
    (tmp_path / "b.jpg").write_bytes(b"2")
    (tmp_path / "a.cls").write_bytes(b"3")
    os.link(tmp_path / "a.cls", tmp_path / "b.cls")
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for name in ("a.jpg", "a.cls", "b.jpg", "b.cls"):
            archive.add(tmp_path / name, name)
    assert read_shards(tmp_path, ["s.tar"]).labels == ["3", "3"]


def test_a_name_of_many_dots_costs_no_more_than_its_length(tmp_path: Path) -> None:
    name = "a" + ".b" * 100_000
    found = read(tmp_path, f"{name}.jpg", (f"{name}.cls", b"1"))
    assert found.labels == ["1"]
