"""The matrix: what a cell needs is read off its folder, whatever happened before."""

from __future__ import annotations

import io
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

import outside_probes
from patience import PATIENCE_SECONDS, wait_until
from sdclr import cli, register_probe
from sdclr.backbones import BackboneConfig
from sdclr.backbones.weights import read_backbone
from sdclr.errors import ConfigError, Preempted
from sdclr.evaluation.probes import PROBES as TABLE
from sdclr.jobs.evaluate.measurement import Measurement
from sdclr.presentation.progress import NoProgress
from sdclr.storage import locks
from sdclr.storage.tensor_files import write_tensors
from sdclr.workflows.matrix import Cell, carry_out, commands, plan, show_plan

pytestmark = pytest.mark.journeys

TINY = (
    "backbone.width=2",
    "views.size=8",
    "epochs=2",
    "batch_size=100",
    "checkpoint_every_epochs=1",
    "health_every_epochs=0",
)
PROBES = ("linear", "few_shot")
ARMS = ("simclr", "sdclr")


def tiny_plan(out: Path, splits: tuple[int, ...] = (1,)) -> list[Cell]:
    return plan("digits", out, arms=ARMS, splits=splits, overrides=TINY)


def run_all(cells: list[Cell]) -> list[Cell]:
    return carry_out(cells, protocol="cached", probes=PROBES, progress=NoProgress())


def states(cells: list[Cell]) -> list[str]:
    return [cell.state("cached", PROBES) for cell in cells]


class StopAfter(NoProgress):
    """Asks the run to stop at one step."""

    def __init__(self, step: int) -> None:
        self.left = step

    def advance(self, task: int, amount: int = 1, note: str | None = None) -> None:
        self.left -= amount
        if amount and self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def test_the_plan_is_every_arm_on_every_split_with_every_seed(tmp_path: Path) -> None:
    cells = plan(
        "digits",
        tmp_path,
        arms=["simclr", "sdclr", "simclr"],
        splits=[2, 3],
        seeds=[1, 7],
        overrides=TINY,
    )
    found = [(c.arm, c.config.data.split, c.config.seed, c.run.folder.name) for c in cells]
    assert len(found) == len({name for *_, name in found}) == 8
    assert found[0] == ("simclr", 2, 1, "simclr-split2-seed1")
    assert {c.config.recipe for c in cells} == {"digits_simclr", "digits_sdclr"}
    assert all(c.config.backbone.width == 2 for c in cells)


def test_a_cell_goes_from_missing_to_done_and_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = tiny_plan(tmp_path)
    assert states(cells) == ["missing", "missing"]
    with pytest.raises(Preempted):
        carry_out(cells, protocol="cached", probes=PROBES, progress=StopAfter(3))
    assert states(cells)[0] == "interrupted"
    assert run_all(cells[:1]) == cells[:1]
    assert states(cells) == ["done", "missing"]
    cells[0].run.evaluation_path("cached").unlink()
    assert states(cells)[0] == "trained"
    run_all(cells)
    assert states(cells) == ["done", "done"]
    for name in ("pretrain", "evaluate"):
        monkeypatch.setattr(f"sdclr.jobs.{name}.{name}", lambda *_, **__: pytest.fail("done twice"))
    assert run_all(cells) == cells


def test_a_probe_that_is_missing_is_measured_and_the_others_stay(tmp_path: Path) -> None:
    cells = tiny_plan(tmp_path)[:1]
    carry_out(cells, protocol="cached", probes=["few_shot"], progress=NoProgress())
    before = cells[0].run.read_json("evaluation/cached.json")["probes"]["few_shot"]
    assert cells[0].missing_probes("cached", PROBES) == ["linear"]
    run_all(cells)
    assert cells[0].run.read_json("evaluation/cached.json")["probes"]["few_shot"] == before, (
        "seconds included"
    )
    assert cells[0].state("sdclr", PROBES) == "trained", "protocols are counted apart"


def test_a_cell_that_another_process_holds_is_left_to_it(tmp_path: Path) -> None:
    cells = tiny_plan(tmp_path)
    with tiny_plan(tmp_path)[0].run:
        assert states(cells) == ["running", "missing"]
        assert [cell.arm for cell in run_all(cells)] == ["sdclr"]
    assert states(cells) == ["missing", "done"]


def test_a_cell_is_held_while_it_is_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells, seen = tiny_plan(tmp_path)[:1], []
    measure = Measurement.run
    others = tiny_plan(tmp_path)[:1]

    def look(self: Measurement, *arguments: str) -> object:
        seen.append(states(others))
        seen.append([len(run_all(others))])
        return measure(self, *arguments)

    monkeypatch.setattr(Measurement, "run", look)
    run_all(cells)
    assert seen == [["running"], [0]] * len(PROBES), "left alone, not measured twice"


def test_a_look_at_the_lock_does_not_keep_its_owner_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """in_use holds the lock for a moment, which a busy machine makes a long one; the owner waits that long."""
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", PATIENCE_SECONDS)
    run, stop = tiny_plan(tmp_path)[0].run, threading.Event()
    with run:
        pass

    def watch() -> None:
        while not stop.is_set():
            tiny_plan(tmp_path)[0].run.in_use()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(50):
            with run:
                pass
    finally:
        stop.set()
        watcher.join()


def test_what_was_measured_on_another_backbone_is_measured_again(tmp_path: Path) -> None:
    cells = tiny_plan(tmp_path)[:1]
    run_all(cells)
    shutil.rmtree(cells[0].run.folder / "checkpoints")
    file = read_backbone(cells[0].run.folder)
    write_tensors(
        cells[0].run.backbone_path,
        {name: tensor * 2 for name, tensor in file.tensors.items()},
        file.facts,
    )
    assert states(cells) == ["trained"]
    before = cells[0].run.read_evaluation("cached")
    with pytest.warns(UserWarning, match=r"few_shot in .*another backbone.* are replaced"):
        carry_out(cells, protocol="cached", probes=["linear"], progress=NoProgress())
    assert list(before["probes"]) == ["linear", "few_shot"]
    assert list(cells[0].run.read_evaluation("cached")["probes"]) == ["linear"], (
        "nothing of the other one is left"
    )


def test_the_authors_checkpoints_are_not_reported_as_trained_here(tmp_path: Path) -> None:
    cells = tiny_plan(tmp_path)[:1]
    run_all(cells)
    facts = cells[0].run.read_json("environment.json")
    with pytest.raises(ConfigError, match="holds a run trained here"):
        plan("digits", tmp_path, arms=ARMS, splits=[1], overrides=TINY, adopted=True)
    cells[0].run.write_json("environment.json", facts | {"adopted": {}})
    with pytest.raises(ConfigError, match="an authors' checkpoint, not a run trained here"):
        tiny_plan(tmp_path)


def test_the_plan_shows_what_is_done_and_what_is_missing(tmp_path: Path) -> None:
    cells = tiny_plan(tmp_path, splits=(1, 2))
    run_all(cells[:1])
    with pytest.raises(Preempted):
        carry_out(cells[1:2], protocol="cached", probes=PROBES, progress=StopAfter(5))
    console = Console(file=io.StringIO(), width=80)
    show_plan(cells, "cached", PROBES, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert (
        "1 done (trained and evaluated), 1 interrupted (continues where it stopped), 2 missing (to be tr"
        in text
    )
    assert "interrupted (epoch 1 of 2)" in text


def test_the_printed_commands_make_the_very_same_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    cells = tiny_plan(Path("runs with a space"))
    run_all(cells[1:])
    lines = commands(cells, "cached", PROBES)
    assert len(lines) == 1, "what is done needs no command"
    for command in lines[0].split(" && "):
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code
    assert states(cells) == ["done", "done"]
    assert tiny_plan(Path("runs with a space")), "the folders hold the settings of the plan"


def test_a_probe_with_other_settings_than_before_is_measured_anew(tmp_path: Path) -> None:
    cells = tiny_plan(tmp_path)[:1]
    with TABLE.temporarily():
        register_probe(outside_probes.Ridge)
        probes = ("linear", "ridge")
        carry_out(cells, protocol="cached", probes=probes, progress=NoProgress())
        assert cells[0].missing_probes("cached", probes) == []
    with TABLE.temporarily():
        config = type(
            "Config",
            (outside_probes.RidgeConfig,),
            {"__annotations__": {"alpha": float}, "alpha": 30.0},
        )
        stronger = type(
            "Ridge", (outside_probes.Ridge,), {"Config": config, "__module__": "outside_probes"}
        )
        register_probe(stronger)
        assert cells[0].missing_probes("cached", probes) == ["ridge"]
        carry_out(cells, protocol="cached", probes=probes, progress=NoProgress())
        assert cells[0].run.read_evaluation("cached")["probes"]["ridge"]["settings"] == {
            "alpha": 30.0
        }


def test_a_damaged_evaluation_does_not_keep_the_plan_from_being_shown(tmp_path: Path) -> None:
    cells = tiny_plan(tmp_path)
    run = cells[0].run
    (run.folder / "evaluation").mkdir(parents=True)
    (run.folder / "config.yaml").write_text("")
    run.backbone_path.write_text("")
    run.evaluation_path("cached").write_text("{")
    assert cells[0].state("cached", PROBES) == "trained"
    assert cells[0].missing_probes("cached", PROBES) == list(PROBES)


def test_the_printed_commands_download_where_that_was_said(tmp_path: Path) -> None:
    cells = tiny_plan(tmp_path)
    assert all("--download" in line for line in commands(cells, "cached", PROBES, download=True))
    assert not any("--download" in line for line in commands(cells, "cached", PROBES))


def test_no_advice_names_an_option_that_the_command_does_not_have(tmp_path: Path) -> None:
    cells = tiny_plan(tmp_path)
    run_all(cells[:1])
    with pytest.raises(ConfigError, match="is finished, with other settings") as caught:
        plan("digits", tmp_path, arms=[cells[0].arm], splits=[1], overrides=["epochs=7"])
    assert "--weights" not in str(caught.value)


def test_what_cannot_be_planned_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="digits has no arm 'byol'; it has simclr_balanced, simclr, sdclr"
    ):
        plan("digits", tmp_path, arms=["byol"], splits=[1])
    for name, by in (
        ("seed=1", "--seeds"),
        ("data.split=2", "--splits"),
        ("data.subset=balanced", "--arms"),
        ("method.name=simclr", "--arms"),
        ("recipe=mine", "--arms"),
        ("data.name=cifar10", "the data set"),
    ):
        with pytest.raises(ConfigError, match=f"is decided by {by}"):
            plan("digits", tmp_path, arms=ARMS, splits=[1], overrides=[name])
    run_all(tiny_plan(tmp_path)[:1])
    with pytest.raises(ConfigError, match="other settings"):
        plan("digits", tmp_path, arms=ARMS, splits=[1], overrides=[*TINY, "epochs=3"])


def files_written(folder: Path) -> int:
    """How far a matrix is: its files, and the epochs that its runs have logged."""
    found = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return len(found) + sum(
        path.read_bytes().count(b"\n") for path in found if path.name == "metrics.jsonl"
    )


@pytest.mark.slow
def test_killed_at_random_points_it_ends_in_the_same_table(tmp_path: Path) -> None:
    """SIGKILL, again and again, until the command gets through; the tables are equal to the last digit."""
    arguments = [
        "reproduce",
        "digits",
        "--splits",
        "1-2",
        "--arms",
        "simclr,sdclr",
        "--scale",
        "tiny",
        *TINY,
        "epochs=6",
    ]
    command = [sys.executable, "-m", "sdclr", *arguments, "--out"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    rng, kills = random.Random(0), 0
    for _ in range(60):
        process = subprocess.Popen(
            [*command, str(tmp_path / "killed")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        before = files_written(tmp_path / "killed")
        # each attempt gets on, so that it ends
        for goal in range(before + 1, before + rng.randrange(2, 12)):
            wait_until(
                lambda process=process, goal=goal: (  # type: ignore[misc]
                    process.poll() is not None or files_written(tmp_path / "killed") >= goal
                ),
                "nothing more is written",
            )
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        kills += 1
    assert process.returncode == 0
    assert kills >= 2, "killed too rarely to show anything"
    tables = [(tmp_path / name / "paper.csv").read_text() for name in ("whole", "killed")]
    assert tables[0] == tables[1]


def test_a_network_of_others_replaces_that_of_a_scale_with_its_width(tmp_path: Path) -> None:
    narrow = {"backbone.width": 8}
    cell = plan("digits", tmp_path, arms=["sdclr"], splits=[1], values=narrow)[0]
    assert cell.config.backbone.width == 8
    overrides = ["backbone.name=timm:test_resnet"]
    cell = plan("digits", tmp_path, arms=["sdclr"], splits=[1], values=narrow, overrides=overrides)[
        0
    ]
    assert cell.config.backbone == BackboneConfig(name="timm:test_resnet")
    with pytest.raises(ConfigError, match="applies to our ResNets only"):
        plan(
            "digits",
            tmp_path,
            arms=["sdclr"],
            splits=[1],
            overrides=[*overrides, "backbone.width=8"],
        )
