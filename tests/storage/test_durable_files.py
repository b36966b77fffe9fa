from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from sdclr.errors import StorageError
from sdclr.storage import durable_files
from sdclr.storage.durable_files import temporary_name, write_atomically
from sdclr.storage.locks import remove_leftovers, writing
from sdclr.storage.tensor_files import write_tensors


def test_a_failing_disk_leaves_the_old_file_and_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.zeros(2)}, {})
    before = path.read_bytes()

    def full(_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sdclr.storage.durable_files.os.fsync", full)
    with pytest.raises(StorageError, match="Free space"):
        write_tensors(path, {"a": torch.ones(2)}, {})
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_an_interrupt_leaves_the_old_file_and_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.json"
    write_atomically(path, "old")

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(durable_files.files, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, "new")
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("x.json", "old")]


def test_a_writer_removes_what_killed_writers_of_the_same_name_have_left(tmp_path: Path) -> None:
    out, other = temporary_name(tmp_path / "a.csv"), temporary_name(tmp_path / "b.csv")
    out.mkdir()
    (out / "part").write_text("half")
    other.write_text("in progress")
    (tmp_path / "a.csv").symlink_to(tmp_path / "elsewhere")
    with writing(tmp_path / "a.csv"):
        assert not out.exists()
        assert other.exists()
    remove_leftovers(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["a.csv"]
