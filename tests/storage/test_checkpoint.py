from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from sdclr.errors import CheckpointError, MissingInputError, StorageError
from sdclr.storage.checkpoint import Checkpoint, CheckpointFolder
from sdclr.storage.durable_files import Files


def test_the_folder_keeps_the_newest_two_and_falls_back_over_a_damaged_one(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoints")
    assert folder.newest() is None
    for step in (4, 8, 12):
        folder.save(Checkpoint(step, {"w": torch.full((3,), float(step))}, {"k": step}))
    names = sorted(p.name for p in folder.folder.iterdir())
    assert names == ["ckpt-000000000008.safetensors", "ckpt-000000000012.safetensors"]
    newest = folder.folder / names[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="set aside"):
        found = folder.newest()
    assert found is not None
    assert found.step == 8
    assert found.facts["k"] == 8
    (folder.folder / names[0]).write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="set aside"),
        pytest.raises(CheckpointError, match="no checkpoint"),
    ):
        folder.newest()
    with pytest.raises(CheckpointError, match="no checkpoint"):
        folder.newest()  # and it stays refused: nothing starts afresh in silence


@pytest.mark.parametrize("kind", ["bad sector", "folder"])
def test_a_checkpoint_that_cannot_be_read_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Again and again: a bad sector stays bad. It is not renamed, and if there is no other the error is its own."""
    folder = CheckpointFolder(tmp_path)
    for step in (1, 2):
        folder.save(Checkpoint(step, {"x": torch.ones(3)}, {}))
    newest = tmp_path / "ckpt-000000000002.safetensors"
    if kind == "folder":
        newest.unlink()
        newest.mkdir()
    else:
        real = Files.read

        def read(self: Files, path: Path) -> bytes:
            if path == newest:
                raise OSError(errno.EIO, "Input/output error")
            return real(self, path)

        monkeypatch.setattr(Files, "read", read)
    for _ in range(2):
        with pytest.warns(UserWarning, match="The checkpoint before it is tried"):
            found = folder.newest()
        assert found is not None
        assert found.step == 1
    (tmp_path / "ckpt-000000000001.safetensors").unlink()
    with (
        pytest.warns(UserWarning, match="The checkpoint before it is tried"),
        pytest.raises(MissingInputError if kind == "folder" else StorageError),
    ):
        folder.newest()
