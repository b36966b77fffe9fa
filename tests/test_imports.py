"""What a command imports, not how long it takes: torch and its kin only where they are used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sdclr import Run, evaluate, examine, pretrain, recipe
from sdclr.presentation.progress import NoProgress
from sdclr.workflows.reports import report as write_first_page

pytestmark = pytest.mark.processes

TINY = ["backbone.width=2", "views.size=8", "epochs=1", "batch_size=200"]
HEAVY = ("torch", "torchvision", "timm", "sklearn", "scipy", "torch._dynamo")
LOOK = f"""
import json, sys
from sdclr.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["sdclr", *arguments]
    try:
        main()
    except SystemExit as ended:
        code = ended.code or 0
    found = [name for name in {HEAVY!r} if name in sys.modules]
    print(json.dumps({{"code": code, "found": found, "matplotlib": "matplotlib" in sys.modules}}))
"""
"""Commands one after another in one process: what the first imports is there for all, so the order counts."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """One run that was evaluated, and one that was examined alone."""
    folder = tmp_path_factory.mktemp("imports")
    config = recipe("digits_sdclr").with_overrides(TINY)
    found = {name: pretrain(config, folder / name) for name in ("evaluated", "examined")}
    evaluate(found["evaluated"], probes=["knn"])
    examine(found["examined"])
    return found


def imported_by(*commands: list[str]) -> list[dict[str, object]]:
    """What is imported after each of the commands."""
    ran = [sys.executable, "-c", LOOK, json.dumps(commands)]
    result = subprocess.run(ran, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if line.startswith('{"code": ')]
    found: list[dict[str, object]] = [json.loads(line) for line in lines]
    assert [one["code"] for one in found] == [0] * len(commands), result.stderr
    return found


def test_a_command_that_only_answers_imports_nothing_heavy(runs: dict[str, Run]) -> None:
    commands = [
        ["--help"],
        ["--version"],
        ["pretrain", "--help"],
        ["evaluate", "--help"],
        ["reproduce", "--help"],
        ["recipes", "list"],
        ["recipes", "show", "cifar10_lt_sdclr"],
        ["status", str(runs["evaluated"].folder)],
    ]
    for words, found in zip(commands, imported_by(*commands), strict=True):
        assert found == {"code": 0, "found": [], "matplotlib": False}, words


def test_a_report_of_finished_runs_does_without_torch_and_numbers_without_scipy(
    runs: dict[str, Run], light_figures: None
) -> None:
    # the first page has made what needs the network: layers, neighbours, map
    for run in runs.values():
        write_first_page([run.folder], {"html"}, progress=NoProgress())
    pages = [["report", str(run.folder), "--format", "terminal,html"] for run in runs.values()]
    numbers, *drawn = imported_by(["report", str(runs["evaluated"].folder), "--json"], *pages)
    assert numbers["matplotlib"] is False
    assert numbers["found"] == []
    assert [found["found"] for found in drawn] == [[], []]


def imported_with(module: str) -> set[str]:
    code = f"import {module}, sys; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def test_settings_run_folders_tables_and_results_are_read_without_torch() -> None:
    settings = "sdclr.settings, sdclr.recipes.cifar, sdclr.run, sdclr.jobs.status"
    results = "sdclr.evaluation.probes, sdclr.evaluation.results, sdclr.presentation.report"
    assert not imported_with(f"{settings}, {results}") & {*HEAVY}


def test_a_training_imports_torch_and_of_our_networks_no_network_library(tmp_path: Path) -> None:
    code = (
        "import sys, sdclr.jobs.pretrain\n"
        f"print(*[name for name in {(*HEAVY, 'matplotlib')!r} if name in sys.modules])\n"
        "from sdclr.backbones import BackboneConfig, offers_pretrained\n"
        "assert offers_pretrained(BackboneConfig(stem='large'))  # asked of one's own images\n"
        f"sdclr.pretrain(sdclr.recipe('digits_simclr').with_overrides({TINY!r}), {str(tmp_path / 'x')!r})\n"
        "print(*[name for name in ('timm', 'torchvision') if name in sys.modules], 'done')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines() == ["torch", "done"]
