from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sdclr.backbones.torch_files import read_tensors_of_torch
from sdclr.errors import CheckpointError


class Malicious:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("import pathlib; pathlib.Path('executed').touch()",)


def test_pickled_code_is_never_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"conv1.weight": Malicious()}}, "zip.pt")
    Path("plain.pt").write_bytes(pickle.dumps({"state_dict": Malicious()}, protocol=2))
    for name in ("zip.pt", "plain.pt"):
        with pytest.raises(CheckpointError, match="refused"):
            read_tensors_of_torch(Path(name))
    assert not Path("executed").exists()


def test_a_backbone_of_ours_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "backbone.safetensors"
    save_file({"conv1.weight": torch.zeros(2, 3, 3, 3)}, path)
    with pytest.raises(
        CheckpointError, match=r"is a safetensors file, which torch\.save has not written"
    ):
        read_tensors_of_torch(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"<html><body>404", 'it begins with "<html><bo"'),
        (b"\xff\xd8", "it begins with the bytes ff d8"),
    ],
)
def test_what_torch_has_not_written_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"not a PyTorch checkpoint: {reason}"):
        read_tensors_of_torch(path)


@pytest.fixture
def without_checksums() -> Iterator[None]:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    yield
    torch.serialization.set_crc32_options(before)


NUMBERS = torch.arange(5_000.0)


def test_every_bit_of_an_archive_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"weight": NUMBERS}, path)
    assert torch.equal(read_tensors_of_torch(path)["weight"], NUMBERS)
    content = bytearray(path.read_bytes())
    content[content.index(NUMBERS.numpy().tobytes()) + 10_000] ^= 1
    path.write_bytes(content)
    assert not torch.equal(torch.load(path, weights_only=True)["weight"], NUMBERS)  # torch does not
    with pytest.raises(CheckpointError, match=r"is damaged: the checksum of .*data/0"):
        read_tensors_of_torch(path)


@pytest.mark.usefixtures("without_checksums")
def test_an_archive_without_checksums_is_read(tmp_path: Path) -> None:
    torch.save({"weight": NUMBERS}, tmp_path / "model.pt")
    assert torch.equal(read_tensors_of_torch(tmp_path / "model.pt")["weight"], NUMBERS)


def test_files_of_torch_before_archives_are_read(tmp_path: Path) -> None:
    torch.save({"weight": NUMBERS}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(read_tensors_of_torch(tmp_path / "x.pt")["weight"], NUMBERS)
