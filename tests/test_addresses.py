"""An address is told from a path, and its secrets never go further than the request that needs them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sdclr import addresses
from sdclr.addresses import (
    Address,
    is_address,
    local_path,
    redacted,
    share_secrets,
    with_secrets,
    without_secrets,
)
from sdclr.config import absolute_place, user_path, user_place
from sdclr.data.config import DataConfig
from sdclr.errors import ConfigError
from sdclr.recipes import recipe

SIGNED = "https://host/d/a.tar?X-Amz-Signature=LETMEIN&b=1"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_secrets", {})


@pytest.mark.parametrize("text", ["s3://b/a.tar", "https://h/a.tar", "gs://b", "memory://a/b.tar"])
def test_addresses_are_told_from_paths(text: str) -> None:
    assert is_address(text)
    assert user_place(text) == Address(text)
    assert absolute_place(text) == text


@pytest.mark.parametrize(
    "text", ["a.tar", "./s3:/b/a.tar", "/data/a.tar", "C:/a.tar", "a:b", "~/x"]
)
def test_paths_stay_paths(text: str) -> None:
    assert not is_address(text)
    assert isinstance(user_place(text), Path)
    assert os.path.isabs(absolute_place(text))


@pytest.mark.parametrize(
    ("text", "path"),
    [("file:///data/a%20b.tar", "/data/a b.tar"), ("file://localhost/data/a.tar", "/data/a.tar")],
)
def test_an_address_of_a_file_is_its_path(text: str, path: str) -> None:
    assert local_path(text) == path
    assert user_place(text) == Path(path)
    assert DataConfig.parse({"name": "images", "path": text}).path == path


def test_an_address_answers_as_a_path_that_is_not_there() -> None:
    shard = Address("s3://bucket/photos/train-000.tar")
    assert (shard.name, shard.suffix, shard.protocol) == ("train-000.tar", ".tar", "s3")
    assert shard.parent / "b.tar" == Address("s3://bucket/photos/b.tar")
    assert [shard.exists(), shard.is_dir(), shard.is_file()] == [False] * 3
    assert os.path.join(shard.parent, "x") == "s3://bucket/photos/x"
    assert Address("s3://bucket/").name == Address("s3://bucket/photos/").name == ""
    assert Address("s3://bucket/photos/").parent == Address("s3://bucket/photos")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (SIGNED, "https://host/d/a.tar"),
        ("https://me:LETMEIN@host:8000/a.tar", "https://host:8000/a.tar"),
        ("s3://me:LETMEIN@bucket/a.tar", "s3://bucket/a.tar"),
        ("http://host/a.tar?x=LETMEIN#part", "http://host/a.tar"),
        ("http://me:LET/LETMEIN@host:80/a.tar", "http://host:80/a.tar"),
        ("http://[::1]:80/@LETMEOUT/a.tar", "http://[::1]:80/@LETMEOUT/a.tar"),
    ],
)
def test_a_secret_is_taken_off_and_known_to_requests_alone(text: str, clean: str) -> None:
    config = DataConfig.parse({"name": "images", "path": text, "test_path": text})
    assert config.path == config.test_path == clean
    assert "LETMEIN" not in config.to_yaml() + repr(config) + str(user_place(text))
    assert with_secrets(clean) == text.removesuffix("#part")
    assert "LETMEIN" not in redacted(f"GET '{text}' failed")


def test_a_name_in_a_bucket_may_have_a_question_mark() -> None:
    assert without_secrets("s3://bucket/what?.tar") == "s3://bucket/what?.tar"


def test_what_opens_a_pattern_opens_its_shards() -> None:
    share_secrets(
        without_secrets("https://h/{0..1}.tar?k=1"), ["https://h/0.tar", "https://h/1.tar"]
    )
    assert with_secrets("https://h/1.tar") == "https://h/1.tar?k=1"
    share_secrets("https://h/open.tar", ["https://h/2.tar"])
    assert with_secrets("https://h/2.tar") == "https://h/2.tar"


@pytest.mark.parametrize("text", ["HTTPS://host/A.tar", "https://host/A.tar"])
def test_a_protocol_in_capitals_is_the_same_place(text: str) -> None:
    assert str(user_place(text)) == without_secrets(text) == "https://host/A.tar"


def test_the_slashes_of_a_protocol_are_no_folder() -> None:
    shard = Address("memory://x.tar")
    assert str(shard.parent) == "memory://"
    assert shard.parent / "x.tar" == shard
    assert Address("http:///x.tar").server == ""


def test_two_slashes_in_a_bucket_are_not_one() -> None:
    shard = Address("s3://bucket/d//a.tar")
    assert str(shard.parent) == "s3://bucket/d/"
    assert shard.parent / shard.name == shard


@pytest.mark.parametrize("text", ["https:/host/a.tar", "S3:/bucket/a.tar"])
def test_one_slash_is_told_as_a_slip(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="an address has two slashes"):
        user_place(text)
    monkeypatch.chdir(tmp_path)
    (tmp_path / text.partition("/")[0]).mkdir()
    assert user_place(text) == Path(text)


def test_an_address_is_no_path_of_anything_else() -> None:
    with pytest.raises(ConfigError, match="https://host/run is an address") as found:
        user_path("https://me:LETMEIN@host/run?k=LETMEIN")
    assert "LETMEIN" not in str(found.value)
    with pytest.raises(ConfigError, match="weights: https://host/run is an address") as found:
        recipe("digits_simclr").with_values({"weights": "https://host/run?k=LETMEIN"})
    assert "LETMEIN" not in str(found.value)


@pytest.mark.parametrize("field", ["root", "store"])
def test_what_must_lie_on_a_disk_takes_no_address(field: str) -> None:
    with pytest.raises(
        ConfigError, match=f"{field}: https://host/a is an address.*a folder on a"
    ) as e:
        DataConfig.parse({"name": "images", field: "https://host/a?k=LETMEIN"})
    assert "LETMEIN" not in str(e.value)


def test_arrays_at_an_address_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"https://host/a\.npz is an address.*arrays must be on a"
    ):
        DataConfig.parse({"name": "arrays", "path": "https://host/a.npz"})


def test_another_query_of_one_address_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_secrets", {})
    assert without_secrets("https://h/get.tar?id=1") == "https://h/get.tar"
    assert without_secrets("https://h/get.tar?id=1") == "https://h/get.tar"
    with pytest.warns(UserWarning, match=r"https://h/get\.tar was given with another query before"):
        without_secrets("https://h/get.tar?id=2")
    assert with_secrets("https://h/get.tar") == "https://h/get.tar?id=2"
    without_secrets("https://me:word@h/get.tar")  # had none: nothing to tell


def test_secrets_go_to_a_process_that_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_secrets", {})
    clean = without_secrets("https://me:word@host/a.tar?sig=1")
    carried = json.loads(json.dumps(addresses.all_secrets()))
    monkeypatch.setattr(addresses, "_secrets", {})
    assert with_secrets(clean) == clean
    addresses.remember_secrets(carried)
    assert with_secrets(clean) == "https://me:word@host/a.tar?sig=1"
