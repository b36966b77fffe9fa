"""The scripts in examples/ run, and what they show is there."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from sdclr import Run, cli

pytestmark = pytest.mark.usefixtures("light_figures")

EXAMPLES = Path(__file__).parent.parent / "examples"
TINY = ["epochs=1", "backbone.name=resnet10", "backbone.width=2", "views.size=32"]


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """photos/ with 30 common and 8 rare ones, labels.csv for a third of them, and more/ to measure on."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for folder, counts in (("photos", (30, 8)), ("more", (4, 4))):
        for name, count, level in zip(("common", "rare"), counts, (60, 190), strict=True):
            place = tmp_path / folder / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(level - 50, level + 50, (36, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"IMG {number}.jpg")
    names = [
        f"{name}/IMG {number}.jpg,{name}"
        for name in ("common", "rare")
        for number in range(0, 8, 2)
    ]
    (tmp_path / "labels.csv").write_text("path,label\n" + "\n".join(names) + "\n")
    return tmp_path


@pytest.fixture
def in_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[list[str]], str]:
    """`sdclr` in this process, which has imported torch already."""

    def run(words: list[str]) -> str:
        monkeypatch.setattr(sys, "argv", ["sdclr", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out = capsys.readouterr()
        assert not stop.value.code, (words, out.err)
        return out.out

    return run


def verbs(done: list[list[str]]) -> list[str]:
    return [words[0] for words in done]


def test_every_command_that_is_proposed_on_the_first_day_works(
    photos: Path, in_process: Callable[[list[str]], str]
) -> None:
    walk = example("first_day").walk
    done = walk("photos", "runs/a", TINY, labels="labels.csv", test="more", run=in_process)
    road = ["pretrain", "report", "embed", "evaluate", "report", "evaluate", "report"]
    assert verbs(done) == road
    assert (photos / "runs/a/features.npz").is_file()
    assert Run("runs/a").read_evaluation("cached")["tested_on"] == "test set"
    assert "nothing is left to do" in in_process(["status", "runs/a"])


def test_class_folders_and_a_test_folder_are_walked_to_the_end(
    photos: Path, in_process: Callable[[list[str]], str]
) -> None:
    labelled = ["data.labels=folders", "data.test_path=more"]
    done = example("first_day").walk("photos", "runs/b", [*TINY, *labelled], run=in_process)
    assert verbs(done) == ["pretrain", "evaluate", "report", "embed"]


def test_class_folders_without_a_test_set_are_cross_validated(
    photos: Path, in_process: Callable[[list[str]], str]
) -> None:
    done = example("first_day").walk(
        "photos", "runs/c", [*TINY, "data.labels=folders"], run=in_process
    )
    assert verbs(done) == ["pretrain", "evaluate", "report", "embed"]
    assert Run("runs/c").read_evaluation("cached")["tested_on"] == "cross-validation"


def test_an_odd_folder_name_is_proposed_so_that_a_shell_reads_it(
    photos: Path, in_process: Callable[[list[str]], str]
) -> None:
    done = example("first_day").walk("photos", "runs/my $HOME 'x'", TINY, run=in_process)
    assert verbs(done) == ["pretrain", "report", "embed"]


def test_a_recipe_is_walked_to_its_end(
    tmp_path: Path, in_process: Callable[[list[str]], str]
) -> None:
    tiny = ["epochs=1", "backbone.width=2", "views.size=8", "batch_size=200"]
    done = example("first_day").follow(
        ["pretrain", "digits_sdclr", "--out", str(tmp_path / "x"), *tiny], in_process
    )
    assert verbs(done) == ["pretrain", "evaluate", "report"]


@pytest.mark.slow
def test_the_script_itself_runs(photos: Path) -> None:
    command = [
        sys.executable,
        str(EXAMPLES / "first_day.py"),
        "photos",
        *TINY,
        "--labels",
        "labels.csv",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "$ sdclr embed runs/first-day" in result.stdout
    assert "The page to look at: runs/first-day/report.html" in result.stdout
