"""The blocks of docs/extending.md run as they are, one after another."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from sdclr import Run
from sdclr.backbones import BACKBONES
from sdclr.data import SOURCES
from sdclr.evaluation.probes import PROBES
from sdclr.evaluation.rarity import SCORES
from sdclr.methods import METHODS
from sdclr.presentation.report import CURVES
from sdclr.recipes import RECIPES

pytestmark = [pytest.mark.journeys, pytest.mark.usefixtures("light_figures")]

PAGE = (Path(__file__).parent.parent / "docs" / "extending.md").read_text(encoding="utf-8")
TABLES = (METHODS, BACKBONES, SOURCES, RECIPES, PROBES, SCORES)


def test_the_blocks_run_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names, curves = {"__name__": "extending"}, dict(CURVES)
    try:
        with ExitStack() as stack:
            for table in TABLES:
                stack.enter_context(table.temporarily())
            for block in re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL):
                exec(compile(block, "docs/extending.md", "exec", dont_inherit=True), names)
            added = [[row.name for row in table.values() if row.origin] for table in TABLES]
    finally:
        for key in CURVES.keys() - curves.keys():
            del CURVES[key]
    assert added == [
        ["far_apart"],
        ["tinynet"],
        ["stripes"],
        ["tiny_digits"],
        ["ridge", "strong_ridge"],
        ["length"],
    ]
    out = capsys.readouterr().out
    assert "Ridge classifier" in out
    assert "As the schedule set it" in Path("runs/digits/report.html").read_text()
    assert "{'alpha': 10.0}" in out
    assert set(Run("runs/digits").read_evaluation("cached")["probes"]) == {
        "linear",
        "ridge",
        "strong_ridge",
    }


def test_the_table_of_probes_is_what_the_package_has() -> None:
    rows = [f"| `{row.name}` | {row.display_name} | {row.summary} |" for row in PROBES.values()]
    assert [line for line in PAGE.splitlines() if line.startswith("| `")] == rows
