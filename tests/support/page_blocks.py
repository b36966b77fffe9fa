"""The blocks of a page of the documentation, and small photographs for its commands."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdclr import cli

DOCS = Path(__file__).parents[2] / "docs"
TINY = [
    "epochs=1",
    "backbone.name=resnet10",
    "backbone.width=2",
    "views.size=16",
    "batch_size=16",
]
"""Settings with which a page's training takes no time."""


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of the blocks of docs/``page`` that are run, in order."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.findall(r"^```(python|bash)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [(language, block) for language, block in found]


def run_page(page: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run all blocks one after another, trainings of photographs small; the Python names."""
    names: dict[str, Any] = {"__name__": Path(page).stem}
    for language, block in blocks(page):
        if language == "python":
            exec(compile(block, page, "exec", dont_inherit=True), names)
            continue
        for line in block.splitlines():
            command = shlex.split(line, comments=True)
            tiny = TINY if command[1:3] == ["pretrain", "./photos"] else []
            run_command(command + tiny, monkeypatch)
    return names


def run_command(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`sdclr ...` in this process; it must end well."""
    assert command[0] == "sdclr"
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code, command


def small_photos(folder: Path, count: int, first: int = 0) -> None:
    """``count`` pictures of noise, dark ones and bright ones in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        rng = np.random.default_rng(number)
        level = 60 if number % 2 else 190
        pixels = rng.integers(level - 50, level + 50, (24, 28, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def labelled_photos(place: Path) -> None:
    """photos/ of 40 pictures, and labels.csv of half of them."""
    small_photos(place / "photos", 40)
    rows = [f"{number}.png,{'dark' if number % 2 else 'bright'}" for number in range(20)]
    (place / "labels.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
