"""Every block of the README runs: Python blocks are executed, shell blocks too where they need no other data."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdclr import cli
from sdclr.cli.settings import pretrain_settings

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    lines = [
        shlex.split(line, comments=True) for block in blocks("bash") for line in block.splitlines()
    ]
    return [line for line in lines if line]


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.splitlines()[0])
def test_python_blocks_run(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_shell_commands_that_need_no_other_data_run_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runnable = [
        c for c in commands() if not any("PATH" in a or a.startswith("runs/c10") for a in c)
    ]
    assert len(runnable) >= 5
    for command in runnable:
        assert command[0] == "sdclr"
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code, command


def test_the_commands_that_need_cifar_name_settings_that_exist() -> None:
    checked = [c for c in commands() if c[1] == "pretrain" and "PATH" in c]
    assert len(checked) >= 3
    for command in checked:
        positional = [a for a in command[2:] if "=" in a or a.startswith("cifar")]
        config, _, _ = pretrain_settings(positional, None, {"data.path": "PATH"}, None)
        assert config.data.path == "PATH"


@pytest.fixture
def readme_table() -> Any:
    path = Path(__file__).parent.parent / "benchmarks" / "readme_table.py"
    spec = importlib.util.spec_from_file_location("readme_table", path)
    assert spec is not None
    assert spec.loader is not None
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    return table


def test_the_section_on_speed_is_what_the_newest_results_give(readme_table: Any) -> None:
    assert readme_table.rewritten(README) == README, "run: python benchmarks/readme_table.py"


def test_the_section_on_speed_takes_the_newest_file_and_says_what_is_not_met(
    readme_table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    monkeypatch.setattr(readme_table, "ROOT", tmp_path)
    assert "no results" in readme_table.section()
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
    for day, value in ((2, 1.5), (1, 3.0)):
        facts = {
            "kind": "bench", "created": f"2026-01-0{day}", "date": f"2026-01-0{day}", "hardware": "CPU: x",
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
    (results / "3.json").write_text(json.dumps(facts | {"created": "2026-01-03"}))
    section = readme_table.section()
    assert "| ours / theirs | 1.50 | 1.00 .. 4.00 | at least 2 | not met |" in section
    assert "straw man" not in section, "a comparison that was withdrawn since"
    assert "| sdclr_step[fp32] | 2 | 128 | 50% |" in section
    assert "On CUDA: `make bench` has not been run there yet" in section


def test_every_file_the_readme_links_to_exists() -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", README):
        assert (Path(__file__).parent.parent / target).exists(), target


def test_the_command_for_ones_own_arrays_in_the_docs_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parent.parent / "docs" / "data.md").read_text(encoding="utf-8")
    (line,) = (
        line for line in text.splitlines() if line.startswith("    sdclr ") and "mine.npz" in line
    )
    np.savez(
        "mine.npz", images=np.random.default_rng(0).integers(0, 256, (130, 9, 9, 3), dtype=np.uint8)
    )
    tiny = ["epochs=1", "backbone.width=2"]
    monkeypatch.setattr(
        sys, "argv", [*shlex.split(line.replace("views.size=64", "views.size=8")), *tiny]
    )
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
