"""Images in a zip: read where they lie, equal to those of the unpacked folder, and bounded whatever the zip claims."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from image_folder_stand_in import COUNTS, make_folder
from sdclr.data import Data, DataConfig, build_data
from sdclr.data.collections.contents import read_contents
from sdclr.data.collections.duplicates import duplicates
from sdclr.data.collections.image_files import ImageFiles
from sdclr.data.collections.image_store import build_store
from sdclr.data.decoding import decode as decode_module
from sdclr.data.decoding import decoding_budget
from sdclr.data.sources import zip_files
from sdclr.data.views.parameters import ViewSpec
from sdclr.errors import ChangedDataError, ConfigError, DataError, MissingInputError

METHODS = {"stored": zipfile.ZIP_STORED, "packed": zipfile.ZIP_DEFLATED}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("collection") / "photos"
    make_folder(root)
    return root


def write_zip(file: Path, folder: Path, method: int = zipfile.ZIP_DEFLATED, top: str = "") -> Path:
    with zipfile.ZipFile(file, "w", method) as archive:
        for path in sorted(folder.rglob("*.jpg"), reverse=True):
            archive.write(path, f"{top}{path.relative_to(folder)}")
    return file


def load(path: Path, **values: object) -> Data:
    return build_data(
        DataConfig.parse({"name": "images", "path": str(path), "subset": "all"} | values)
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("top", ["", "photos/"])
def test_a_zip_gives_the_images_views_and_labels_of_its_folder(
    photos: Path, tmp_path: Path, method: str, top: str
) -> None:
    file = write_zip(tmp_path / "p.zip", photos, METHODS[method], top)
    zipped, folder = load(file, labels="folders"), load(photos, labels="folders")
    assert zipped.train.paths == tuple(f"p.zip/{top}{path}" for path in folder.train.paths)
    assert zipped.train.labels.tolist() == folder.train.labels.tolist()
    assert zipped.class_names == list(COUNTS)
    order = torch.tensor([3, 0, 11, 5])
    views = []
    for data in (zipped, folder):
        images, bad = data.train.to(torch.device("cpu")).verified("raise", lambda done: None)
        assert not bad
        views.append(next(iter(images.views([order], ViewSpec(size=8), seed=1, epoch=0))))
    assert torch.equal(views[0].a, views[1].a)
    assert [one.digest for one in read_contents(zipped.train)] == [
        one.digest for one in read_contents(folder.train)
    ]


@pytest.mark.parametrize("method", METHODS)
def test_the_rest_of_the_data_layer_reads_a_zip_like_a_folder(
    photos: Path, tmp_path: Path, method: str
) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("a", "b"):
        (tmp_path / "folder" / f"{name}.jpg").write_bytes((photos / "cat" / "0.jpg").read_bytes())
    (tmp_path / "folder" / "c.jpg").write_bytes((photos / "cat" / "1.jpg").read_bytes())
    images = load(write_zip(tmp_path / "p.zip", tmp_path / "folder", METHODS[method])).train
    assert duplicates(images) == [["p.zip/a.jpg", "p.zip/b.jpg"]]
    store = build_store(images, tmp_path / "store")
    stills = [
        next(iter(one.stills(16))) for one in (images, store, load(tmp_path / "folder").train)
    ]
    assert torch.equal(stills[0], stills[1])
    assert torch.equal(stills[0], stills[2])


@pytest.mark.parametrize("method", METHODS)
def test_a_costly_image_of_a_zip_is_tried_in_a_process_of_its_own(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(decode_module, "is_costly", lambda *_: True)
    monkeypatch.setattr(decoding_budget, "_passed", set())
    images = load(write_zip(tmp_path / "p.zip", photos / "yak", METHODS[method])).train
    assert images.picture(0).size == (
        load(photos / "yak").train.sizes[0, 1],
        load(photos / "yak").train.sizes[0, 0],
    )
    assert [str(key[0]) for key in decoding_budget._passed] == [str(tmp_path / "p.zip")]


def test_what_is_no_image_is_counted(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.zip"
    image = (photos / "cat" / "0.jpg").read_bytes()
    with zipfile.ZipFile(file, "w") as archive:
        for name in (
            "a.jpg",
            "x/",
            "__MACOSX/._a.jpg",
            "@eaDir/a.jpg",
            "b.nef",
            "notes.txt",
            ".hidden.jpg",
            "thumbs/a.jpg",
        ):
            archive.writestr(name, image)
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "a.jpg")
        archive.writestr("windows\\a.jpg", image)
    data = load(file, exclude=["thumbs"])
    assert data.train.paths == ("p.zip/a.jpg", "p.zip/windows/a.jpg")
    assert set(data.remarks) == {
        "hidden members of the zip left out: 2",
        "members in folders of thumbnails, previews or trash left out: 1",
        "members that data.exclude matches left out: 1",
        "members that are not images left out: 1",
        "links in the zip left out: 1",
        "pictures of a kind that cannot be read left out: 1 .nef; convert them to JPEG or PNG to use them",
    }


def test_splits_and_test_sets_may_be_zips(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for split in ("train", "test"):
        make_folder(tmp_path / "set" / split, {"cat": 3, "dog": 2}, seed=len(split))
    data = load(
        write_zip(tmp_path / "set.zip", tmp_path / "set", top="set/"),
        labels="folders",
        layout="splits",
    )
    assert [len(data.train), len(data.part("test"))] == [5, 5]
    tests = write_zip(tmp_path / "test.zip", tmp_path / "set" / "test")
    data = load(tmp_path / "set" / "train", labels="folders", test_path=str(tests))
    assert data.part("test").paths[0] == "test.zip/cat/0.jpg"


# ---- what a zip may not do


def claiming(file: Path, size: int) -> Path:
    """The zip with another size of its (only) member when it is unpacked."""
    content = bytearray(file.read_bytes())
    for mark, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        struct.pack_into("<I", content, content.find(mark) + offset, size)
    file.write_bytes(content)
    return file


def test_a_member_never_unpacks_to_more_than_it_claims(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", bytes(50_000_000))
    assert (tmp_path / "p.zip").stat().st_size < 100_000
    images = load(claiming(tmp_path / "p.zip", 1_000)).train
    with pytest.raises(
        DataError, match=r"a\.jpg is damaged: it does not unpack to the 1,000 bytes that it claims"
    ):
        images.picture(0)


def test_a_member_that_claims_gigabytes_is_too_large_and_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", bytes(1_000))
    images = load(claiming(tmp_path / "p.zip", 1 << 29)).train
    with pytest.raises(DataError, match=r"a\.jpg is too large: it claims 536,870,912 bytes"):
        images.picture(0)
    _, bad = load(tmp_path / "p.zip").train, read_contents(images)
    assert bad[0].digest == "absent"


def test_members_that_lie_over_one_another_are_refused(photos: Path, tmp_path: Path) -> None:
    file = write_zip(tmp_path / "p.zip", photos / "yak")
    content = bytearray(file.read_bytes())
    second = content.find(b"PK\1\2", content.find(b"PK\1\2") + 1)
    struct.pack_into("<I", content, second + 42, 0)  # begins where the first does
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"overlaps|cannot be read as a zip"):
        load(file)


@pytest.mark.parametrize("kept", [0, 10, 200, -30, -1])
def test_a_zip_that_is_cut_off_is_named(photos: Path, tmp_path: Path, kept: int) -> None:
    file = write_zip(tmp_path / "p.zip", photos)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"p\.zip cannot be read as a zip: .*Copy it again"):
        load(file)


def test_random_damage_never_escapes_as_anything_but_an_error_for_the_user(
    photos: Path, tmp_path: Path
) -> None:
    sound, rng = write_zip(tmp_path / "p.zip", photos).read_bytes(), np.random.default_rng(0)
    outcomes = set()
    for _ in range(60):
        content = bytearray(sound)
        for place in (
            rng.integers(0, len(sound), 3).tolist()
            + rng.integers(len(sound) - 600, len(sound), 3).tolist()
        ):
            content[place] = int(rng.integers(256))
        (tmp_path / "p.zip").write_bytes(content)
        try:
            load(tmp_path / "p.zip").train.verified("skip", lambda done: None, 1_000)
            outcomes.add("read")
        except (DataError, MissingInputError) as error:
            outcomes.add(type(error).__name__)
    assert "DataError" in outcomes


def test_a_directory_that_claims_gigabytes_is_not_read(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zip_files, "LARGEST_DIRECTORY", 100)
    with pytest.raises(DataError, match=r"its directory claims [0-9,]+ bytes, more than 100"):
        load(write_zip(tmp_path / "p.zip", photos))


def test_passwords_and_other_methods_are_refused_by_name(photos: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.write(photos / "cat" / "0.jpg", "a.jpg")
    with pytest.raises(
        DataError, match=r"a\.jpg is compressed by a method .*method 14.*Unpack the zip"
    ):
        load(tmp_path / "p.zip")
    content = bytearray(write_zip(tmp_path / "q.zip", photos / "yak").read_bytes())
    content[content.find(b"PK\1\2") + 8] |= 1
    (tmp_path / "q.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"needs a password"):
        load(tmp_path / "q.zip")


def test_a_zip_of_nothing_an_absent_one_and_a_root_are_refused(
    photos: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr("notes.txt", "")
    with pytest.raises(
        DataError, match=r"p\.zip holds no images \(members that are not images left out: 1\)"
    ):
        load(tmp_path / "p.zip")
    with pytest.raises(MissingInputError, match="does not exist"):
        load(tmp_path / "absent.zip")
    with pytest.raises(ConfigError, match=r"data\.root=.* not for a zip"):
        load(write_zip(tmp_path / "q.zip", photos), root=str(tmp_path))


def test_a_zip_that_is_replaced_while_it_is_read_gives_no_image_of_another_name(
    photos: Path, tmp_path: Path
) -> None:
    file = write_zip(tmp_path / "p.zip", photos)
    images = load(file).train
    assert isinstance(images, ImageFiles)
    before = file.stat()
    os.replace(write_zip(tmp_path / "q.zip", photos, zipfile.ZIP_STORED), file)
    os.utime(file, ns=(0, before.st_mtime_ns + 1_000_000))
    with pytest.raises(ChangedDataError, match=r"p\.zip was written or replaced after its members"):
        images.picture(0)
