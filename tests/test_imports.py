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

TINY = ["backbone.width=2", "views.size=8", "epochs=1", "batch_size=200"]
HEAVY = ("torch", "torchvision", "timm", "sklearn", "scipy", "torch._dynamo")
LOOK = f"""
import json, sys
from sdclr.cli import main
try:
    main()
except SystemExit as ended:
    code = ended.code or 0
found = [name for name in {HEAVY!r} if name in sys.modules]
print(json.dumps({{"code": code, "found": found, "matplotlib": "matplotlib" in sys.modules}}))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """One run that was evaluated, and one that was examined alone."""
    folder = tmp_path_factory.mktemp("imports")
    config = recipe("digits_sdclr").with_overrides(TINY)
    found = {name: pretrain(config, folder / name) for name in ("evaluated", "examined")}
    evaluate(found["evaluated"], probes=["knn"])
    examine(found["examined"])
    return found


def imported_by(*arguments: str) -> dict[str, object]:
    command = [sys.executable, "-c", LOOK, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    found: dict[str, object] = json.loads(result.stdout.splitlines()[-1])
    assert found["code"] == 0, result.stderr
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["pretrain", "--help"],
        ["evaluate", "--help"],
        ["reproduce", "--help"],
        ["recipes", "list"],
        ["recipes", "show", "cifar10_lt_sdclr"],
        ["status", "RUN"],
    ],
    ids=" ".join,
)
def test_a_command_that_only_answers_imports_nothing_heavy(
    runs: dict[str, Run], arguments: list[str]
) -> None:
    filled = [str(runs["evaluated"].folder) if word == "RUN" else word for word in arguments]
    assert imported_by(*filled) == {"code": 0, "found": [], "matplotlib": False}


@pytest.mark.parametrize(
    ("name", "formats"), [("evaluated", "terminal,html"), ("examined", "terminal,html")]
)
def test_a_report_of_finished_runs_does_without_torch(
    runs: dict[str, Run], name: str, formats: str
) -> None:
    # the first page has made what needs the network: layers, neighbours, map
    write_first_page([runs[name].folder], {"html"}, progress=NoProgress())
    found = imported_by("report", str(runs[name].folder), "--format", formats)
    assert found["found"] == []
    assert (runs[name].folder / "report.html").is_file()


def test_only_intervals_over_several_splits_import_scipy(runs: dict[str, Run]) -> None:
    assert imported_by("report", str(runs["evaluated"].folder), "--json")["matplotlib"] is False


def imported_with(module: str) -> set[str]:
    code = f"import {module}, sys; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def test_a_training_imports_torch_and_neither_timm_nor_torchvision_nor_scikit_learn() -> None:
    found = imported_with("sdclr.jobs.pretrain")
    assert "torch" in found
    assert not found & ({*HEAVY} - {"torch"})
    assert "matplotlib" not in found


@pytest.mark.parametrize(
    "module", ["sdclr.settings", "sdclr.recipes.cifar", "sdclr.run", "sdclr.jobs.status"]
)
def test_settings_and_run_folders_are_read_without_torch(module: str) -> None:
    assert not imported_with(module) & {*HEAVY}


def test_a_run_started_with_a_network_of_ours_needs_no_network_library(tmp_path: Path) -> None:
    code = (
        "import sys, sdclr\n"
        "from sdclr.backbones import BackboneConfig, offers_pretrained\n"
        "assert offers_pretrained(BackboneConfig(stem='large'))  # asked of one's own images\n"
        f"sdclr.pretrain(sdclr.recipe('digits_simclr').with_overrides({TINY!r}), {str(tmp_path / 'x')!r})\n"
        "print(*[name for name in ('timm', 'torchvision') if name in sys.modules], 'done')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["done"]


@pytest.mark.parametrize(
    "module", ["sdclr.evaluation.probes", "sdclr.evaluation.results", "sdclr.presentation.report"]
)
def test_tables_and_results_are_read_without_torch(module: str) -> None:
    assert not imported_with(module) & {*HEAVY}
