"""The blocks of docs/extending.md run as they are, one after another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sdclr import Run
from sdclr.evaluation.probes import PROBES
from sdclr.presentation.report import CURVES

PAGE = (Path(__file__).parent.parent / "docs" / "extending.md").read_text(encoding="utf-8")


def test_the_blocks_run_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names, curves = {"__name__": "extending"}, dict(CURVES)
    try:
        with PROBES.temporarily():
            for block in re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL):
                exec(compile(block, "docs/extending.md", "exec"), names)
    finally:
        for key in CURVES.keys() - curves.keys():
            del CURVES[key]
    out = capsys.readouterr().out
    assert "Ridge classifier" in out
    assert "As the schedule set it" in Path("runs/digits/report.html").read_text()
    assert "{'alpha': 10.0}" in out
    assert set(Run("runs/digits").read_evaluation("cached")["probes"]) == {"linear", "ridge", "strong_ridge"}


def test_the_table_of_probes_is_what_the_package_has() -> None:
    rows = [f"| `{row.name}` | {row.display_name} | {row.summary} |" for row in PROBES.values()]
    assert [line for line in PAGE.splitlines() if line.startswith("| `")] == rows
