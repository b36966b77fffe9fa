"""Equal files are found by content, and nothing is read that cannot be equal."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sdclr.data.collections import duplicates as module
from sdclr.data.collections.duplicates import copies_of, duplicates
from sdclr.data.collections.image_files import ImageFiles
from sdclr.errors import DataError, MissingInputError


def collection(folder: Path, **contents: bytes) -> ImageFiles:
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return ImageFiles(folder, tuple(contents), None)


def test_groups_are_equal_files_in_the_order_of_the_collection(tmp_path: Path) -> None:
    images = collection(
        tmp_path, d=b"one", a=b"two", c=b"one", b=b"three", e=b"two", f=b"one", g=b"owt"
    )
    assert duplicates(images) == [["d", "c", "f"], ["a", "e"]]
    assert duplicates(ImageFiles(tmp_path, ("a", "b", "c"), None)) == []


def test_only_files_of_equal_size_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = collection(tmp_path, a=b"1", b=b"22", c=b"333", d=b"23")
    read: list[str] = []
    real = module._digest
    monkeypatch.setattr(
        module, "_digest", lambda file: (read.append(Path(file).name), real(file))[1]
    )
    told: list[int] = []
    assert duplicates(images, told.append) == []
    assert sorted(read) == ["b", "d"]
    assert sum(told) == 4


def test_what_is_no_file_is_named_and_never_opened(tmp_path: Path) -> None:
    images = collection(tmp_path, a=b"1")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe is a pipe, a socket or a device"):
        duplicates(ImageFiles(tmp_path, (*images.paths, "pipe"), None))
    with pytest.raises(MissingInputError, match="absent does not exist"):
        duplicates(ImageFiles(tmp_path, (*images.paths, "absent"), None))


def test_copies_of_another_collection_are_found_by_content_and_only_equal_sizes_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
    train = collection(tmp_path / "train", a=b"one", b=b"two", c=b"three", d=b"one", e=b"sixsix")
    test = collection(tmp_path / "test", x=b"two", y=b"one", z=b"four", w=b"tow")
    read: list[str] = []
    real = module._digest
    monkeypatch.setattr(
        module, "_digest", lambda file: (read.append(Path(file).name), real(file))[1]
    )
    assert copies_of(train, test) == [("x", "b"), ("y", "a")]
    assert sorted(read) == ["a", "b", "d", "w", "x", "y"]


def test_files_that_cannot_be_read_are_copies_of_nothing(tmp_path: Path) -> None:
    images = collection(tmp_path, a=b"one")
    os.mkfifo(tmp_path / "pipe")
    assert copies_of(images, ImageFiles(tmp_path, ("absent", "pipe", "a"), None)) == [("a", "a")]
