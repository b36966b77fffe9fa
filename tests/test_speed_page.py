"""docs/speed.md shows what the newest results of `make bench` give."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).parent.parent / "docs" / "speed.md").read_text(encoding="utf-8")


@pytest.fixture
def speed_page() -> Any:
    path = Path(__file__).parent.parent / "benchmarks" / "speed_page.py"
    spec = importlib.util.spec_from_file_location("speed_page", path)
    assert spec is not None
    assert spec.loader is not None
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    return table


def test_the_section_on_speed_is_what_the_newest_results_give(speed_page: Any) -> None:
    assert speed_page.rewritten(PAGE) == PAGE, "run: python benchmarks/speed_page.py"


def test_the_section_on_speed_takes_each_makers_newest_file_and_says_what_is_not_met(
    speed_page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    monkeypatch.setattr(speed_page, "ROOT", tmp_path)
    assert speed_page.section() == "On CUDA: no results file yet."
    key = "views_over_pil"
    bound = {
        "key": key,
        "meaning": "ours / theirs",
        "device": "cpu",
        "direction": ">=",
        "limit": 2,
        "why": "",
    }
    straw_man = {"key": "withdrawn", "value": 9.0, "met": True, "meaning": "straw man"}
    for day, value, maker in ((2, 1.5, "x"), (1, 3.0, "x"), (3, 2.5, "y(R) z")):
        facts = {
            "kind": "bench", "created": f"2026-01-0{day}", "date": f"2026-01-0{day}",
            "hardware": f"CPU: {maker}, 2 threads",
            "settings": {"backbone": "resnet18", "width": 64, "size": 32, "batch": 128,
                         "work": ["resnet18", 64, 32, 128]}, "n": 3, "elapsed_seconds": 60.0,
            "torch": "2", "load_before": 0.0,
            "bounds": [bound | {"value": value, "met": value >= 2}, bound | straw_man],
            "ratio_ranges": {key: [1.0, 4.0]}, "ratios": {},
            "seconds": {"sdclr_step[fp32]": {"median": 2.0}}, "matmul_flops_per_second": {"fp32": 10.0},
            "flops_per_step": 10, "peak_memory_bytes": {}, "not_installed": [],
        }  # fmt: skip
        (results / f"{day}.json").write_text(json.dumps(facts))
    facts["settings"]["work"] = ["resnet10", 2, 32, 4]  # newer, but not what the promises are for
    (results / "4.json").write_text(json.dumps(facts | {"created": "2026-01-04"}))
    section = speed_page.section()
    assert section.startswith("CPU: y(R) z, 2 threads")
    assert "| ours / theirs | 2.50 |" in section, "each maker's newest"
    assert "| ours / theirs | 3.00 |" not in section
    assert "| ours / theirs | 1.50 | 1.00 .. 4.00 | at least 2 | not met |" in section
    assert "straw man" not in section, "a comparison that was withdrawn since"
    assert "| sdclr_step[fp32] | 2 | 128 | 50% |" in section
    assert "On CUDA: no results file yet." in section
