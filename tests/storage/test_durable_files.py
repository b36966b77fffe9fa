from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from sdclr.errors import StorageError
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
