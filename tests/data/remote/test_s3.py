"""Shards in an object store of S3's kind, a real one on this machine: the same images, whatever it does meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from image_folder_stand_in import COUNTS, make_folder
from sdclr.addresses import Address
from sdclr.data.collections.image_files import ImageFiles
from sdclr.data.remote import members, ranges, requests
from sdclr.data.remote.ranges import read_range, version_of
from sdclr.data.sources.own_images import read_own_images
from sdclr.data.views.parameters import ViewSpec
from sdclr.errors import ConfigError, MissingInputError, RemoteError
from shard_stand_in import shards_of

pytestmark = [
    pytest.mark.tools,
    # botocore's and moto's, of Python's and of each other
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
Start = Callable[..., Any]


class Store(NamedTuple):
    """A bucket, and the faults of the next answers to GET: busy, short or none."""

    client: Any
    faults: list[str]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    photos = tmp_path_factory.mktemp("photos")
    names = make_folder(photos)
    return shards_of(photos, names, tmp_path_factory.mktemp("shards"), 3, classes=sorted(COUNTS))


@pytest.fixture
def store(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """moto's server behind a door that fails as it is told, with the shards in s3://bucket/d/."""
    boto3, serving = pytest.importorskip("boto3"), pytest.importorskip("werkzeug.serving")
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    faults: list[str] = []
    application = moto.DomainDispatcherApplication(moto.create_backend_app)

    def door(environ: dict[str, Any], start: Start) -> Any:
        fault = faults.pop() if faults and environ["REQUEST_METHOD"] == "GET" else ""
        if fault == "busy":
            start("503 Slow Down", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code><Message>slower</Message></Error>"]
        if fault == "no":  # as AWS says it today, with names in it
            start("403 Forbidden", [("Content-Type", "application/xml")])
            words = 'User: arn:aws:iam::1:user/orange is not authorized on "arn:aws:s3:::oranges"'
            return [f"<Error><Code>AccessDenied</Code><Message>{words}</Message></Error>".encode()]
        answer = application(environ, start)
        if fault == "short":
            whole = b"".join(answer)
            return [whole[: len(whole) // 2]]
        return answer

    server = serving.make_server("127.0.0.1", 0, door, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    for name, value in {
        "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": "LETMEIN",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_MAX_ATTEMPTS": "1",
        "SDCLR_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ranges, "FIRST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(requests, "_opened", {})
    __import__("fsspec").filesystem("s3").clear_instance_cache()
    members._windows.clear()
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="bucket")
    for one in shards.iterdir():
        client.put_object(Bucket="bucket", Key=f"d/{one.name}", Body=one.read_bytes())
    try:
        yield Store(client, faults)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def images_at(address: str) -> ImageFiles:
    images = read_own_images(Address(address)).train
    assert isinstance(images, ImageFiles)
    return images


def views(images: ImageFiles) -> list[torch.Tensor]:
    batches = list(torch.arange(len(images)).split(5))
    return [one.a for one in images.views(batches, ViewSpec(16, blur=0.5), seed=3, epoch=2)]


@pytest.mark.parametrize("name", ["d", "d/", "d/train-*.tar", "d/train-{000..002}.tar"])
def test_images_in_a_bucket_are_those_on_a_disk(store: Store, shards: Path, name: str) -> None:
    here = read_own_images(shards).train
    assert isinstance(here, ImageFiles)
    there = images_at(f"s3://bucket/{name}")
    assert there.paths == list(here.paths)
    np.testing.assert_array_equal(there.labels, here.labels)
    np.testing.assert_array_equal(there.sizes, here.sizes)
    assert all(torch.equal(a, b) for a, b in zip(views(here), views(there), strict=True))


def test_a_busy_store_and_short_answers_change_nothing(store: Store, shards: Path) -> None:
    address = "s3://bucket/d/train-000.tar"
    content = (shards / "train-000.tar").read_bytes()
    version = version_of(address)
    for faults in (["busy"], ["short"], ["busy", "short", "busy"], ["short"] * 4):
        store.faults[:] = faults
        assert read_range(address, version, 100, 5_000) == content[100:5_100]
        assert not store.faults


def test_a_store_that_stays_busy_is_an_error_that_ends(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDCLR_REMOTE_RETRIES", "0")
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)
    version = version_of("s3://bucket/d/train-000.tar")
    store.faults[:] = ["busy"] * 100
    with pytest.raises(RemoteError, match=r"s3://bucket/d/train-000\.tar cannot be read after 1"):
        read_range("s3://bucket/d/train-000.tar", version, 0, 10)


def test_an_object_that_was_replaced_or_removed_is_named(store: Store, shards: Path) -> None:
    address = "s3://bucket/d/train-000.tar"
    version = version_of(address)
    other = bytearray((shards / "train-000.tar").read_bytes())
    other[700] ^= 1  # of the same size
    store.client.put_object(Bucket="bucket", Key="d/train-000.tar", Body=bytes(other))
    with pytest.raises(RemoteError, match=r"train-000\.tar has changed .*its tag"):
        read_range(address, version, 0, 10)
    store.client.put_object(Bucket="bucket", Key="d/train-000.tar", Body=b"short")
    with pytest.raises(RemoteError, match=r"train-000\.tar has changed"):
        read_range(address, version, 1_000, 10)
    store.client.delete_object(Bucket="bucket", Key="d/train-000.tar")
    with pytest.raises(RemoteError, match=r"train-000\.tar has vanished"):
        read_range(address, version, 0, 10)


@pytest.mark.parametrize(
    "address", ["s3://bucket/d/train-009.tar", "s3://nobody/train-000.tar", "s3://nobody/d/"]
)
def test_what_is_not_there_is_named(store: Store, address: str) -> None:
    with pytest.raises(MissingInputError, match="does not exist"):
        images_at(address)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("AWS_PROFILE", "nobody", r"profile \(nobody\) could not be found"),
        ("AWS_ENDPOINT_URL", "127.0.0.1:9", "Invalid endpoint"),
    ],
)
def test_settings_of_this_machine_that_are_wrong_are_said_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=rf"s3://bucket/d.* cannot be opened: .*{words}.*AWS_"):
        images_at("s3://bucket/d/train-000.tar")


def test_a_refusal_that_names_an_orange_is_no_range_that_is_not_there(store: Store) -> None:
    store.faults.append("no")
    with pytest.raises(RemoteError, match=r"train-000\.tar may not be read"):
        version_of("s3://bucket/d/train-000.tar")


def test_an_empty_object_has_a_version(store: Store) -> None:
    store.client.put_object(Bucket="bucket", Key="empty.tar", Body=b"")
    assert version_of("s3://bucket/empty.tar").size == 0


def test_without_keys_the_error_says_so_and_with_them_they_are_kept_nowhere(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views(images_at("s3://bucket/d"))
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if b"LETMEIN" in path.read_bytes()]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setattr(requests, "_opened", {})
    __import__("fsspec").filesystem("s3").clear_instance_cache()
    with pytest.raises(RemoteError, match=r"train-000\.tar may not be read: .*credentials"):
        version_of("s3://bucket/d/train-000.tar")
