"""The whole example of docs/finetune.md runs as it is, and its words are true of the settings."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, get_args

import pandas
import pytest

from page_blocks import run_command
from sdclr.jobs.finetune.config import Balance

pytestmark = pytest.mark.journeys

PAGE = (Path(__file__).parent.parent / "docs" / "finetune.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python|bash)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_the_whole_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "finetune"}
    for language, block in BLOCKS:
        if language == "python":
            exec(compile(block, "docs/finetune.md", "exec", dont_inherit=True), names)
            continue
        for line in block.splitlines():
            run_command(shlex.split(line), monkeypatch)
    said = capsys.readouterr().out
    assert re.search(r"^validation: [\d.]+% right of \d+ images", said, flags=re.MULTILINE)
    assert "sdclr predict models/photos IMAGES" in said
    table = pandas.read_csv("predictions.csv")
    wanted = ["path", "label", "confidence", "calibrated", "label_2", "confidence_2", "entropy"]
    assert table.columns.tolist() == wanted
    assert len(table) == 100
    again = pandas.read_csv("again.csv")
    assert again["label"].tolist() == table["label"].tolist(), "Python and the command line agree"
    assert Path("photos.safetensors").is_file()


def test_the_page_names_every_way_to_balance() -> None:
    rows = re.findall(r"^\| `(none|weights|sampling|logits)` \|", PAGE, flags=re.MULTILINE)
    assert rows == list(get_args(Balance))
