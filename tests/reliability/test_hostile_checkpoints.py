"""Anyone's checkpoint can be opened: nothing in it is executed, and what it claims is not believed."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from counted_work import bytes_read, calls_made
from hostile_files import CANARY, Witness, greedy, liars, peak_bytes, pickles
from killing import ended, forked
from sdclr import convert, load_backbone
from sdclr.backbones.authors_checkpoint import read_authors_checkpoint
from sdclr.errors import CheckpointError, SdclrError
from sdclr.storage.checkpoint import CheckpointFolder
from sdclr.storage.tensor_files import read_tensors

MOST_BYTES = 200_000_000
COUNTED_BYTES = 50_000
"""Of a file whose reader's calls are counted, which makes it slow: larger ones have small siblings."""


LOADED_WHEN_USED = ("safetensors.torch", "timm", "torchvision.models")
"""What readers import at their first use: an import runs code and reads files, and is none of the file's doing."""


def most_calls(size: int) -> int:
    """A walk through a pickle makes four calls a byte; what a file claims beyond its own size must cost nothing."""
    return 5_000 + 8 * size


def most_bytes_read(size: int) -> int:
    return 50_000 + 4 * size


def readers(path: Path) -> list[Callable[[Path], object]]:
    if path.suffix == ".pt":
        return [read_authors_checkpoint, lambda p: convert(p, p.with_suffix(".safetensors"))]
    return [load_backbone]


def open_all(folder: Path, out: Path) -> None:
    """In a process of its own: read every file of ``folder`` and write down what became of it."""
    os.chdir(folder)
    for name in LOADED_WHEN_USED:
        importlib.import_module(name)
    witness, found = Witness(), {}
    for path in sorted(folder.iterdir()):
        for read in readers(path):
            result: dict[str, Any] = {"error": "none", "message": "", "exit_code": 0}

            def attempt(
                path: Path = path, read: Any = read, result: dict[str, Any] = result
            ) -> None:
                try:
                    read(path)
                except Exception as error:
                    code = error.exit_code if isinstance(error, SdclrError) else 70
                    result |= {"error": repr(error)[:300], "message": str(error), "exit_code": code}

            begun = bytes_read()
            result["bytes"] = peak_bytes(attempt)
            result["bytes_read"] = bytes_read() - begun
            small = path.stat().st_size < COUNTED_BYTES
            result["calls"] = calls_made(attempt).total() if small else None
            found[f"{path.name} {len(found)}"] = result
    out.write_text(
        json.dumps({"files": found, "seen": witness.seen, "canary": Path(CANARY).exists()})
    )


def report(
    tmp_path: Path, files: dict[str, bytes], opener: Callable[[Path, Path], None] = open_all
) -> dict[str, Any]:
    folder = tmp_path / "files"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    assert ended(forked(lambda: opener(folder, tmp_path / "found.json"))) == 0
    return json.loads((tmp_path / "found.json").read_text())


@pytest.mark.parametrize("kind", [pickles, greedy, liars])
@pytest.mark.processes
def test_hostile_files_are_refused_by_name_without_running_or_believing_them(
    tmp_path: Path, kind: Callable[[], dict[str, bytes]]
) -> None:
    files = kind()
    found = report(tmp_path, files)
    assert found["seen"] == []
    assert not found["canary"]
    for name, result in found["files"].items():
        file = name.rpartition(" ")[0]
        assert result["exit_code"] == 76, (name, result["error"])
        assert file in result["message"], (name, result["message"])
        assert result["bytes"] < MOST_BYTES, (name, result["bytes"])
        size = len(files[file])
        assert result["bytes_read"] < most_bytes_read(size), (name, result["bytes_read"])
        assert (result["calls"] is None) == (size >= COUNTED_BYTES)
        assert (result["calls"] or 0) < most_calls(size), (name, result["calls"])
        assert "weights_only=False" not in result["message"], (
            "torch's advice to load it all the same"
        )
    if kind is pickles:
        assert len(files) >= 20
        refused = [
            result
            for result in found["files"].values()
            if "more than tensors and plain" in result["message"]
        ]
        assert len(refused) >= 50, "by the unpickler, for what they hold"


def open_trusting(folder: Path, out: Path) -> None:
    """What our readers must never do."""
    os.chdir(folder)
    witness, caught = Witness(), []
    for path in sorted(folder.iterdir()):
        del witness.seen[:]
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.load(path, weights_only=False)
        caught += [path.name] if witness.seen else []
    out.write_text(json.dumps({"caught": caught, "canary": Path(CANARY).exists()}))


def test_the_witness_sees_what_a_trusting_reader_runs(tmp_path: Path) -> None:
    # it would ask the network
    files = {name: content for name, content in pickles().items() if name != "torch.hub.pt"}
    found = report(tmp_path, files, open_trusting)
    assert found["canary"]
    assert len(found["caught"]) >= 15, "the files are what they are meant to be"


def test_a_lying_checkpoint_of_a_run_is_set_aside(tmp_path: Path) -> None:
    for number, (name, content) in enumerate(liars().items()):
        folder = CheckpointFolder(tmp_path / str(number))
        folder.folder.mkdir()
        (folder.folder / "ckpt-000000000004.safetensors").write_bytes(content)
        with (
            pytest.warns(UserWarning, match="set aside"),
            pytest.raises(CheckpointError, match="no checkpoint in"),
        ):
            folder.newest()
        assert name


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    for suffix, read in ((".safetensors", read_tensors), (".pt", read_authors_checkpoint)):
        path = tmp_path / f"x{suffix}"
        {"pipe": os.mkfifo, "folder": os.mkdir, "device": lambda p: os.symlink("/dev/zero", p)}[
            kind
        ](path)
        with pytest.raises(SdclrError, match="does not exist or is not a file") as error:
            read(path)
        assert error.value.exit_code == 66
