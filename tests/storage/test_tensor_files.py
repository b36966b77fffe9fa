from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from sdclr.errors import CheckpointError, MissingInputError
from sdclr.storage.tensor_files import _dtypes, read_tensors, write_tensors


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
