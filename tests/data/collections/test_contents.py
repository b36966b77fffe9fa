"""A record of what image files hold: exchanged pixels are noticed, copied ones are not taken for others."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from sdclr.data.collections import contents
from sdclr.data.collections.contents import (
    Content,
    differences,
    digest_of,
    name_differences,
    read_contents,
    read_record,
    recorded_sizes,
    require_recorded,
    with_pixels,
    write_record,
)
from sdclr.data.collections.image_files import ImageFiles
from sdclr.errors import ConfigError, DataError


@pytest.fixture
def images(tmp_path: Path) -> ImageFiles:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    names = ("a.jpg", "b.jpg", "c.jpg")
    for name in names:
        (tmp_path / "photos" / name).write_bytes(rng.bytes(20_000))
    return ImageFiles(tmp_path / "photos", names, None)


def test_the_same_bytes_elsewhere_are_the_same_images(images: ImageFiles, tmp_path: Path) -> None:
    shutil.copytree(images.root, tmp_path / "copy", copy_function=shutil.copyfile)
    moved = ImageFiles(tmp_path / "copy", images.paths, None)
    before, now = read_contents(images), read_contents(moved)
    assert [one.mtime_ns for one in before] != [one.mtime_ns for one in now]
    assert differences(before, now) == []
    assert digest_of(before) == digest_of(now)


@pytest.mark.parametrize("place", [0, 10_000, 19_999])
def test_a_changed_byte_at_the_beginning_in_the_middle_or_at_the_end_is_noticed(
    images: ImageFiles, place: int
) -> None:
    before = read_contents(images)
    path = images.root / "b.jpg"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(0, before[1].mtime_ns + 1))
    assert differences(before, read_contents(images, before)) == ["1 of other content (b.jpg)"]


def test_new_gone_and_exchanged_files_are_named(images: ImageFiles) -> None:
    before = read_contents(images)
    (images.root / "a.jpg").rename(images.root / "d.jpg")
    (images.root / "b.jpg").write_bytes(b"short")
    now = read_contents(ImageFiles(images.root, ("b.jpg", "c.jpg", "d.jpg"), None), before)
    assert differences(before, now) == [
        "1 new (d.jpg)",
        "1 missing (a.jpg)",
        "1 of other content (b.jpg)",
    ]
    assert name_differences(before, ["b.jpg", "c.jpg", "d.jpg"]) == [
        "1 new (d.jpg)",
        "1 missing (a.jpg)",
    ]


def test_what_has_the_recorded_size_and_time_is_not_read_again(
    images: ImageFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_contents(images)
    read: list[object] = []
    monkeypatch.setattr(contents, "_digest", lambda source, size: read.append(source) or "0")
    assert read_contents(images, before) == before
    assert read == []


def test_a_record_survives_its_file_whatever_the_names(tmp_path: Path) -> None:
    odd = [
        Content(name, "0" * 16, 5, 7) for name in ("a\tb\nc.jpg", "\udcff.jpg", '"x".jpg', "é.jpg")
    ]
    write_record(tmp_path / "r", {"train": odd, "test": odd[:1]})
    assert read_record(tmp_path / "r") == {"train": odd, "test": odd[:1]}
    assert read_record(tmp_path / "absent") is None


@pytest.mark.parametrize("damage", [b"", b"no gzip", b"\x1f\x8b\x08"])
def test_a_damaged_record_is_named(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "r").write_bytes(damage)
    if damage:
        with pytest.raises(DataError, match="r is damaged"):
            read_record(tmp_path / "r")
    else:
        assert read_record(tmp_path / "r") == {}


def test_other_fingerprints_are_explained_by_names(images: ImageFiles, tmp_path: Path) -> None:
    write_record(tmp_path / "r", {"train": read_contents(images)})
    more = ImageFiles(images.root, (*images.paths, "new.jpg"), None)
    with pytest.raises(
        ConfigError, match=r"^1 new, 0 missing: start a new run in another --out\.\n"
    ):
        require_recorded(tmp_path / "r", {"train": more}, "aa", "bb")
    (
        tmp_path / "backbone.safetensors"
    ).touch()  # the run is finished, and has weights to start from
    with pytest.raises(
        ConfigError,
        match=r"^1 new, 0 missing: start a new run with --weights .*\n.*other data \(first new: new\.jpg\)",
    ):
        require_recorded(tmp_path / "r", {"train": more}, "aa", "bb")
    assert require_recorded(tmp_path / "r", {"train": images}, "aa", "aa")
    assert not require_recorded(tmp_path / "none", {"train": images}, "aa", "aa")


def test_an_image_that_was_left_out_is_not_new(images: ImageFiles, tmp_path: Path) -> None:
    kept = [one for one in read_contents(images) if one.path != "b.jpg"]
    write_record(tmp_path / "r", {"train": kept})
    (tmp_path / "images.json").write_text('{"skipped": [["b.jpg", "cut off"]]}')
    fewer = ImageFiles(images.root, ("b.jpg", "c.jpg"), None)
    with pytest.raises(
        ConfigError, match=r"1 image that .* is missing \(first missing: a\.jpg\)\. Restore it"
    ):
        require_recorded(tmp_path / "r", {"train": fewer}, "aa", "bb")
    without = ImageFiles(images.root, ("a.jpg", "c.jpg"), None)
    with pytest.raises(ConfigError, match=r"1 image .* \(first missing: b\.jpg\)"):
        require_recorded(tmp_path / "r", {"train": without}, "aa", "bb")


def test_sizes_are_as_recorded_only_while_every_file_is(images: ImageFiles, tmp_path: Path) -> None:
    sizes = np.array([[30, 40], [50, 60], [70, 80]])
    write_record(
        tmp_path / "r", {"train": with_pixels(read_contents(images), images.with_sizes(sizes))}
    )
    recorded = (read_record(tmp_path / "r") or {})["train"]
    found = recorded_sizes(images.at(np.array([2, 0])), recorded)
    assert found is not None
    assert found.tolist() == [[70, 80], [30, 40]]
    for without in (recorded[:2], [recorded[0], recorded[1], recorded[2]._replace(height=0)]):
        assert recorded_sizes(images, without) is None, "one that nobody has measured"
    os.utime(images.root / "b.jpg", ns=(0, 7))
    assert recorded_sizes(images, recorded) is None
    (images.root / "b.jpg").unlink()
    assert recorded_sizes(images, recorded) is None


def test_a_record_of_an_earlier_version_has_no_sizes(images: ImageFiles, tmp_path: Path) -> None:
    write_record(tmp_path / "r", {"train": read_contents(images)})
    lines = gzip.decompress((tmp_path / "r").read_bytes()).splitlines()
    assert [line.count(b"\t") for line in lines] == [4, 4, 4]
    assert recorded_sizes(images, (read_record(tmp_path / "r") or {})["train"]) is None


@pytest.mark.parametrize("pixels", ["3", "-3\t4", "0\t4", "3\t4\t5", "a\tb", f"{10**30}\t4"])
def test_damaged_sizes_of_a_record_are_named(tmp_path: Path, pixels: str) -> None:
    line = f'train\t{"0" * 16}\t5\t7\t"a.jpg"\t{pixels}\n'
    (tmp_path / "r").write_bytes(gzip.compress(line.encode()))
    with pytest.raises(DataError, match="r is damaged"):
        read_record(tmp_path / "r")
