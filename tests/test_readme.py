"""Every block of the README runs: Python blocks are executed, shell blocks too where they need no other data."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import typer.main

from page_blocks import TINY, labelled_photos, run_command
from sdclr import cli
from sdclr.cli.settings import pretrain_settings

pytestmark = [pytest.mark.journeys, pytest.mark.usefixtures("light_figures")]

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    lines = [
        shlex.split(line, comments=True) for block in blocks("bash") for line in block.splitlines()
    ]
    return [line for line in lines if line]


def of_photos(command: list[str]) -> bool:
    """Whether it belongs to the five lines, whose images a test has to make first."""
    return any("photos" in word and "PATH" not in word for word in command[2:])


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.splitlines()[0])
def test_python_blocks_run(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def runnable() -> list[list[str]]:
    """The commands that need no other data."""
    return [
        c
        for c in commands()
        if not of_photos(c) and not any("PATH" in a or a.startswith("runs/c10") for a in c)
    ]


def run_all(chosen: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    for command in chosen:
        assert command[0] == "sdclr"
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code, command


def test_shell_commands_that_need_no_other_data_run_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = [command for command in runnable() if command[1] != "reproduce"]
    assert len(chosen) >= 5
    run_all(chosen, monkeypatch)


@pytest.mark.slow
def test_the_comparison_of_a_minute_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = [command for command in runnable() if command[1] == "reproduce"]
    assert len(chosen) == 1
    run_all(chosen, monkeypatch)


def test_the_commands_that_need_cifar_name_settings_that_exist() -> None:
    checked = [c for c in commands() if c[1] == "pretrain" and "PATH" in c]
    assert len(checked) >= 3
    for command in checked:
        positional = [a for a in command[2:] if "=" in a or a.startswith("cifar")]
        config, _, _ = pretrain_settings(positional, None, {"data.path": "PATH"}, None)
        assert config.data.path == "PATH"


def test_the_five_lines_for_own_photos_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    labelled_photos(tmp_path)
    lines = [c for c in commands() if of_photos(c)]
    assert [c[1] for c in lines] == ["pretrain", "report", "mine", "embed", "finetune"]
    for command in lines:
        run_command(command + TINY * (command[1] == "pretrain"), monkeypatch)
    assert (tmp_path / "runs/photos/rare/index.html").is_file()
    assert (tmp_path / "models/photos/classifier.safetensors").is_file()


def test_every_command_has_a_wish() -> None:
    table = README.partition("## Which command for which wish")[2].partition("\n## ")[0]
    group = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    assert set(re.findall(r"`sdclr (\w+)", table)) == set(group)
    for command in re.findall(r"`sdclr ([^`]+)`", table):
        verb, *arguments = shlex.split(command)
        group[verb].make_context(verb, arguments)


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
