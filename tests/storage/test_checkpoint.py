from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from sdclr.errors import CheckpointError, MissingInputError, StorageError
from sdclr.storage.checkpoint import (
    Checkpoint,
    CheckpointFolder,
    Files,
    _dtypes,
    load_strictly,
    read_tensors,
    write_tensors,
)


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    return {
        "a": torch.arange(6.0).view(2, 3),
        "mask": torch.tensor([True, False]),
        "n": torch.tensor(7),
    }


def test_tensors_and_facts_come_back_exactly(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    facts = {"step": 3, "text": 'quote " "sha256":" and ä', "nested": {"x": [1.5, None]}}
    tensors["strided"] = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    write_tensors(tmp_path / "x.safetensors", tensors, facts)
    back, back_facts = read_tensors(tmp_path / "x.safetensors")
    assert back_facts == facts
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[k], v) and back[k].dtype == v.dtype for k, v in tensors.items())
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_every_kind_of_number_is_written_as_safetensors_writes_it(tmp_path: Path) -> None:
    tensors = {name: torch.tensor([[0, 1], [1, 1]]).to(dtype) for dtype, name in _dtypes().items()}
    tensors |= {
        "none": torch.zeros(0, 3),
        "number": torch.tensor(3, dtype=torch.int16),
        "odd": torch.ones(3).bool(),
    }
    write_tensors(tmp_path / "x.safetensors", tensors, {})
    ours = safetensors.torch.load((tmp_path / "x.safetensors").read_bytes())
    theirs = safetensors.torch.load(safetensors.torch.save(tensors))
    assert ours.keys() == theirs.keys() == tensors.keys()
    for name, tensor in ours.items():
        assert (tensor.dtype, tensor.shape) == (theirs[name].dtype, theirs[name].shape), name
        bits, expected = (one.reshape(-1).view(torch.uint8) for one in (tensor, theirs[name]))
        assert torch.equal(bits, expected), name


def test_a_flipped_bit_in_any_byte_and_a_cut_at_any_byte_are_detected(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, tensors, {"step": 1})
    content = path.read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            read_tensors(path)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            read_tensors(path)


def test_foreign_and_missing_files_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"none\.safetensors"):
        read_tensors(tmp_path / "none.safetensors")
    foreign = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(2)}, foreign)
    with pytest.raises(CheckpointError, match="not written by sdclr"):
        read_tensors(foreign)
    torch.save({"a": torch.zeros(2)}, tmp_path / "pickle.pt")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        read_tensors(tmp_path / "pickle.pt")


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


def test_a_failing_disk_leaves_the_old_file_and_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.zeros(2)}, {})
    before = path.read_bytes()

    def full(_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sdclr.storage.checkpoint.os.fsync", full)
    with pytest.raises(StorageError, match="Free space"):
        write_tensors(path, {"a": torch.ones(2)}, {})
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_partial_match_is_never_loaded() -> None:
    network = nn.Linear(2, 3)
    state = {"weight": torch.zeros(3, 5), "extra": torch.zeros(1)}
    with pytest.raises(CheckpointError) as error:
        load_strictly(network, state, "x")
    for words in ("1 missing (bias)", "1 unknown (extra)", "weight [3, 5] instead of [3, 2]"):
        assert words in str(error.value)


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
