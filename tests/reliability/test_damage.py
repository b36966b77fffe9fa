"""Flipped, cut, zeroed and exchanged bytes of a checkpoint: always noticed, set aside, and the one before is used."""

from __future__ import annotations

import hashlib
import random
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sdclr.storage import tensor_files
from sdclr.storage.checkpoint import Checkpoint, CheckpointFolder

PAGE = 512  # of the small file here; what a disk loses are multiples of it
FAST = 61


def flipped(content: bytes, stride: int) -> Iterator[bytes]:
    """One bit of every byte."""
    rng = random.Random(0)
    for position in range(0, len(content), stride):
        yield (
            content[:position]
            + bytes([content[position] ^ 1 << rng.randrange(8)])
            + content[position + 1 :]
        )


def cut(content: bytes, stride: int) -> Iterator[bytes]:
    for length in range(0, len(content), stride):
        yield content[:length]


def zeroed_pages(content: bytes, stride: int) -> Iterator[bytes]:
    """Pages that were never written, one at a time, and from one to the end."""
    for begin in range(0, len(content), PAGE):
        end = min(begin + PAGE, len(content))
        yield content[:begin] + bytes(end - begin) + content[end:]
        yield content[:begin] + bytes(len(content) - begin)


def exchanged_pages(content: bytes, stride: int) -> Iterator[bytes]:
    pages = [content[begin : begin + PAGE] for begin in range(0, len(content), PAGE)]
    for first in range(len(pages)):
        for second in range(first + 1, len(pages)):
            swapped = list(pages)
            swapped[first], swapped[second] = pages[second], pages[first]
            yield b"".join(swapped)


KINDS = {kind.__name__: kind for kind in (flipped, cut, zeroed_pages, exchanged_pages)}


def survey(tmp_path: Path, kind: str, stride: int) -> tuple[int, int]:
    """(damages, damages that were noticed with the older checkpoint used)."""
    folder = CheckpointFolder(tmp_path / "checkpoints")
    weights = torch.rand(300, generator=torch.Generator().manual_seed(0))
    for step in (4, 8):
        tensors = {"w": weights * step, "mask": weights > 0.5, "n": torch.tensor(step)}
        folder.save(Checkpoint(step, tensors, {"text": "x" * 300}))
    older, newest = (folder.folder / f"ckpt-{step:012d}.safetensors" for step in (4, 8))
    whole = newest.read_bytes()
    before = hashlib.sha256(older.read_bytes()).digest()
    damages = noticed = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for content in KINDS[kind](whole, stride):
            damages += 1
            newest.write_bytes(content)
            found = folder.newest()
            aside = newest.with_name(newest.name + ".corrupt")
            noticed += found is not None and found.step == 4 and aside.read_bytes() == content
            aside.unlink(missing_ok=True)
    assert hashlib.sha256(older.read_bytes()).digest() == before
    return damages, noticed


@pytest.mark.parametrize("kind", KINDS)
def test_every_damage_is_noticed_and_the_checkpoint_before_is_used(
    tmp_path: Path, kind: str
) -> None:
    damages, noticed = survey(tmp_path, kind, FAST)
    assert damages > 5
    assert noticed == damages


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["flipped", "cut"])
def test_every_single_byte(tmp_path: Path, kind: str) -> None:
    damages, noticed = survey(tmp_path, kind, 1)
    assert damages > 2000
    assert noticed == damages


def test_the_survey_notices_a_checksum_that_is_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensor_files, "_sum", lambda content, where: content[where : where + 64])
    damages, noticed = survey(tmp_path, "flipped", FAST)
    assert noticed < damages / 2
