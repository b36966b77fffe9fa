"""Shards at addresses are the collection that the same shards on a disk are, however they are named."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import fsspec
import numpy as np
import pytest
import torch

from image_folder_stand_in import COUNTS, make_folder
from range_server import RangeServer, range_server
from sdclr.addresses import Address, without_secrets
from sdclr.data.collections.contents import ABSENT, read_contents
from sdclr.data.collections.duplicates import duplicates
from sdclr.data.collections.image_files import ImageFiles
from sdclr.data.collections.image_store import build_store
from sdclr.data.epoch_order import epoch_batches
from sdclr.data.remote import members, ranges
from sdclr.data.sources.exclusion import Exclusion
from sdclr.data.sources.own_images import read_own_images
from sdclr.data.sources.wanted import Wanted
from sdclr.data.views.parameters import ViewSpec
from sdclr.errors import ConfigError, DataError, MissingInputError, RemoteError
from shard_stand_in import shards_of, write_shard

SPEC = ViewSpec(16, blur=0.5)
RANGE = "train-{000..002}.tar"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of four images, with classes."""
    photos = tmp_path_factory.mktemp("photos")
    names = make_folder(photos)
    return shards_of(photos, names, tmp_path_factory.mktemp("shards"), 3, classes=sorted(COUNTS))


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDCLR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ranges, "FIRST_PAUSE_SECONDS", 0.0)
    members._windows.clear()


@pytest.fixture
def server(shards: Path) -> Iterator[RangeServer]:
    with range_server({f"/d/{one.name}": one.read_bytes() for one in shards.iterdir()}) as state:
        yield state


def images_at(address: str) -> ImageFiles:
    images = read_own_images(Address(without_secrets(address))).train
    assert isinstance(images, ImageFiles)
    return images


def images_on_disk(path: Path) -> ImageFiles:
    images = read_own_images(path).train
    assert isinstance(images, ImageFiles)
    return images


def test_everything_seen_of_shards_is_the_same_at_an_address_and_on_a_disk(
    server: RangeServer, shards: Path, tmp_path: Path
) -> None:
    here, there = images_on_disk(shards), images_at(f"{server.address}/d/{RANGE}")
    assert there.paths == list(here.paths)
    np.testing.assert_array_equal(there.labels, here.labels)
    np.testing.assert_array_equal(there.sizes, here.sizes)
    assert b"".join(there.content()) == b"".join(here.content())
    assert there.sizes_digest() == here.sizes_digest()
    assert duplicates(there) == duplicates(here)
    digests = [[one.digest for one in read_contents(images)] for images in (here, there)]
    assert digests[0] == digests[1]
    assert ABSENT not in digests[0]
    store = build_store(there, tmp_path / "store")
    for epoch in (0, 3):
        batches = list(epoch_batches(len(here), 5, seed=7, epoch=epoch))
        seen = [
            list(images.views(batches, SPEC, seed=7, epoch=epoch))
            for images in (here, there, store)
        ]
        for one, other, stored in zip(*seen, strict=True):
            assert torch.equal(one.index, other.index)
            assert torch.equal(one.a, other.a)
            assert torch.equal(one.b, other.b)
            assert torch.equal(one.a, stored.a)
    for one, other in zip(here.stills(16), there.stills(16), strict=True):
        assert torch.equal(one, other)


def test_a_second_start_asks_for_the_state_of_each_shard_and_nothing_else(
    server: RangeServer,
) -> None:
    first = images_at(f"{server.address}/d/{RANGE}")
    list(first.stills(16))
    server.asked.clear()
    again = images_at(f"{server.address}/d/{RANGE}")
    assert [(one.start, one.num_bytes) for one in server.asked] == [(0, 512)] * 3
    list(again.stills(16))
    assert len(server.asked) == 3
    recorded = read_contents(again)
    assert read_contents(images_at(f"{server.address}/d/{RANGE}"), recorded) == recorded


@pytest.mark.parametrize(
    "name", ["remote/d", "remote/d/", "remote/d/train-*.tar", "remote/d/train-{000..002}.tar"]
)
def test_shards_are_a_folder_a_glob_or_a_range(name: str, shards: Path) -> None:
    files = fsspec.filesystem("memory")
    for one in shards.iterdir():
        files.pipe(f"/remote/d/{one.name}", one.read_bytes())
    files.pipe("/remote/d/README", b"x")
    assert images_at(f"memory://{name}").paths == list(images_on_disk(shards).paths)


def test_shards_of_a_subset_are_no_more_than_that(server: RangeServer, shards: Path) -> None:
    images = images_at(f"{server.address}/d/train-001.tar")
    assert len(images) == 4
    assert {one.path for one in server.asked} == {"/d/train-001.tar"}


def test_images_are_left_out_by_name_with_no_other_request(server: RangeServer) -> None:
    images_at(f"{server.address}/d/{RANGE}")
    server.asked.clear()
    address = Address(f"{server.address}/d/{RANGE}")
    found = read_own_images(address, Wanted(unwanted=Exclusion(["train-001.tar/*", "000000.jpg"])))
    assert len(found.train) == 12 - 4 - 1
    assert all(one.num_bytes == 512 for one in server.asked)
    with pytest.warns(UserWarning, match="matches 'nothing'"):
        read_own_images(address, Wanted(unwanted=Exclusion(["nothing"])))


def test_what_is_not_used_is_counted_from_the_index_too(
    server: RangeServer, tmp_path: Path
) -> None:
    parts = [
        ("0.jpg", b"x"),
        ("0.json", b"{}"),
        ("1.cls", b"1"),
        (".hidden.jpg", b"x"),
        ("9.psd", b""),
    ]
    server.files["/p.tar"] = write_shard(tmp_path / "p.tar", parts).read_bytes()
    on_disk = read_own_images(tmp_path / "p.tar").remarks
    assert len(on_disk) >= 3
    for _ in range(2):
        assert read_own_images(Address(f"{server.address}/p.tar")).remarks == on_disk


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("d/train-003.tar", MissingInputError, r"train-003\.tar does not exist"),
        ("d/train-{002..004}.tar", MissingInputError, r"train-00[34]\.tar does not exist"),
        ("d/train-{2..0}.tar", DataError, "must ascend"),
        ("d/list.csv", DataError, r"list\.csv is not a shard: .*Copy other collections to a disk"),
        ("d/", ConfigError, r"a web server has no list of its files.*train-\{000\.\.146\}\.tar"),
        ("d/train-*.tar", ConfigError, "a web server has no list of its files"),
        ("d/train-000.tar/", ConfigError, "ends with a slash, and a shard does not"),
        ("gz.tar", DataError, r"gz\.tar cannot be .* tar: it is compressed \(gzip\).*unpack it"),
        (
            "page.tar",
            DataError,
            r"page\.tar cannot be read as an uncompressed tar: it is a web page",
        ),
        ("cut.tar", DataError, r"cut\.tar cannot be read as an uncompressed tar.*cut off"),
        ("empty.tar", DataError, r"empty\.tar cannot be read"),
        ("none.tar", DataError, "hold no images"),
    ],
)
def test_what_is_wrong_is_one_error_that_names_the_shard(
    server: RangeServer, tmp_path: Path, name: str, error: type[Exception], words: str
) -> None:
    server.files["/gz.tar"] = b"\x1f\x8b" + bytes(1_000)
    server.files["/page.tar"] = b"\n<!DOCTYPE HTML><title>no</title>" + bytes(1_000)
    server.files["/cut.tar"] = server.files["/d/train-000.tar"][:1_500]
    server.files["/empty.tar"] = b""
    server.files["/none.tar"] = write_shard(tmp_path / "n.tar", [("a.txt", b"x")]).read_bytes()
    with pytest.raises(error, match=words):
        images_at(f"{server.address}/{name}")


def test_in_a_bucket_names_with_signs_slashes_and_globs_are_what_they_are(shards: Path) -> None:
    bucket = fsspec.filesystem("memory")
    content = next(shards.iterdir()).read_bytes()
    bucket.pipe("/signs/a[1].tar", content)
    bucket.pipe("/signs/a1.tar", content)
    bucket.pipe("/signs//b.tar", content)
    assert len(read_contents(images_at("memory://signs//b.tar"))) == 4
    assert {one.split("/")[0] for one in images_at("memory://signs/a[1].tar").paths} == {"a[1].tar"}
    assert {one.split("/")[0] for one in images_at("memory://signs/a[12].tar").paths} == {"a1.tar"}
    with pytest.raises(ConfigError, match="ends with a slash, and a shard does not"):
        images_at("memory://signs/a1.tar/")
    with pytest.raises(ConfigError, match="a glob names shards of one folder"):
        images_at("memory://*/a1.tar")


def test_a_bucket_without_shards_is_an_error() -> None:
    fsspec.filesystem("memory").pipe("/none/x.jpg", b"x")
    for address, words in (
        ("memory://none", "holds no .tar shards"),
        ("memory://none/*.tar", "no shard below"),
        ("memory://nowhere/at/all", "does not exist"),
    ):
        with pytest.raises((DataError, MissingInputError), match=words):
            images_at(address)


def test_settings_for_folders_are_refused_for_addresses(server: RangeServer) -> None:
    address = Address(f"{server.address}/d/{RANGE}")
    for settings, words in (
        ({"class_folders": True}, r"data\.labels=folders is for folders"),
        ({"in_splits": True}, r"data\.layout=splits is for a folder"),
        ({"root": Path("x")}, r"data\.root=x is for a list"),
    ):
        with pytest.raises(ConfigError, match=words):
            read_own_images(address, Wanted(**settings))  # type: ignore[arg-type]


def test_a_test_set_may_be_at_an_address_and_shares_no_image(server: RangeServer) -> None:
    train = Address(f"{server.address}/d/train-{{000..001}}.tar")
    with pytest.raises(DataError, match="test images are training images as well"):
        read_own_images(train, test_path=Address(f"{server.address}/d/train-001.tar"))


def test_names_with_blanks_and_signs_are_written_as_in_any_address(
    server: RangeServer, shards: Path
) -> None:
    content = server.files["/d/train-000.tar"]
    server.files[f"/{quote('a b é')}.tar"] = content
    assert len(images_at(f"{server.address}/{quote('a b é')}.tar")) == 4


def test_a_signed_range_opens_all_its_shards_and_is_written_nowhere(
    server: RangeServer, tmp_path: Path
) -> None:
    server.query = "sig=LETMEIN"
    images = images_at(f"{server.address}/d/{RANGE}?sig=LETMEIN")
    list(images.stills(16))
    assert "LETMEIN" not in repr(images)
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert kept
    assert not any(b"LETMEIN" in path.read_bytes() or "LETMEIN" in str(path) for path in kept)


def test_a_damaged_image_is_a_bad_file_and_a_server_that_fails_is_not(
    server: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDCLR_REMOTE_RETRIES", "1")
    images = images_at(f"{server.address}/d/{RANGE}")
    start = int(images.members.start[5])  # type: ignore[union-attr]
    broken = bytearray(server.files["/d/train-001.tar"])
    broken[start : start + 20] = bytes(20)
    server.files["/d/train-001.tar"] = bytes(broken)
    images = images_at(f"{server.address}/d/{RANGE}")
    kept, bad = images.verified("skip", lambda done: None, 2)
    assert [one.path for one in bad] == ["train-001.tar/000005.jpg"]
    assert len(kept) == 11
    members._windows.clear()
    monkeypatch.setenv("SDCLR_CACHE_GB", "0")
    server.faults[:] = ["busy"] * 1_000
    with pytest.raises(RemoteError, match=r"train-00[0-2]\.tar cannot be read after 2 tries"):
        images.verified("skip", lambda done: None, 12)
    with pytest.raises(RemoteError):
        read_contents(images)
    server.faults.clear()
    del server.files["/d/train-002.tar"]
    with pytest.raises(RemoteError, match=r"train-002\.tar has vanished"):
        images.verified("skip", lambda done: None, 12)


def test_a_costly_image_is_tried_in_its_own_process_as_on_a_disk(
    server: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sdclr.data.decoding import decode

    tried: list[int] = []

    def try_decoding(path: str, *_: object, **__: object) -> None:
        tried.append(os.path.getsize(path))

    monkeypatch.setattr(decode, "is_costly", lambda *_: True)
    monkeypatch.setattr(decode, "try_decoding", try_decoding)
    images = images_at(f"{server.address}/d/{RANGE}")
    images.picture(3)
    assert tried == [int(images.members.size[3])]  # type: ignore[union-attr]
