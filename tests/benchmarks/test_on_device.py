"""What a device's time is spent on: nothing twice, nothing that cannot end, nothing unsaid."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from on_device import GPU_TESTS, Session, Stage, planned, problems, run_stage

ROOT = Path(__file__).parents[2]


class Clock:
    """Time that passes as stages say."""

    def __init__(self, takes: dict[str, float]) -> None:
        self.now, self.takes, self.ran = 0.0, takes, list[str]()

    def __call__(self) -> float:
        return self.now

    def run(self, stage: Stage, log: Path, seconds: float) -> int | None:
        self.ran.append(stage.name)
        needed = self.takes[stage.name]
        self.now += min(needed, seconds)
        if needed > seconds:
            return None
        return 1 if stage.name == "bad" else 0


def session(
    folder: Path, clock: Clock, minutes: float, say: Callable[[str], object] = lambda words: None
) -> Session:
    limits = {"first": (60, 120), "bad": (10, 50), "long": (60, 900), "last": (5, 20)}
    stages = [Stage(name, (), *limits[name]) for name in clock.takes]
    return Session(folder, stages, minutes, clock, clock.run, say)


TAKES = {"first": 100.0, "bad": 10.0, "long": 700.0, "last": 10.0}


def test_what_does_not_fit_is_left_out_and_the_next_command_goes_on(tmp_path: Path) -> None:
    clock = Clock(TAKES)
    assert not session(tmp_path, clock, 5).carry_out()
    states = json.loads((tmp_path / "device.json").read_text())["stages"]
    assert {name: found["state"] for name, found in states.items()} == {
        "first": "done",
        "bad": "failed",
        "long": "stopped",
        "last": "left out",
    }
    assert "needs 5 s, 0 s are left" in states["last"]["why"]
    clock.ran.clear()
    clock.now = 0
    assert not session(tmp_path, clock, 15).carry_out(), "one has failed"
    assert clock.ran == ["long", "last"]
    clock.ran.clear()
    session(tmp_path, clock, 15).carry_out()
    assert clock.ran == []


def test_a_stage_that_cannot_end_is_not_begun_and_one_that_was_stopped_stays_so(
    tmp_path: Path,
) -> None:
    clock = Clock({"long": 700.0})
    session(tmp_path, clock, 5).carry_out()
    said: list[str] = []
    session(tmp_path, clock, 1, said.append).carry_out()
    assert clock.ran == ["long"]
    assert said == ["long: stopped after 290 s, its 290 s were over"]


def test_what_times_nothing_runs_at_once_and_before_what_does(tmp_path: Path) -> None:
    both, ran = threading.Barrier(2, timeout=60), list[str]()

    def run(stage: Stage, log: Path, seconds: float) -> int:
        if stage.beside:
            both.wait()  # breaks unless the other one runs, too
        ran.append(stage.name)
        return 0

    stages = [
        Stage("timing", (), 1, 9),
        Stage("tests", (), 1, 9, beside=True),
        Stage("compile", (), 1, 9, beside=True),
    ]
    assert Session(tmp_path, stages, 5, Clock({}), run, lambda words: None).carry_out()
    assert set(ran[:2]) == {"tests", "compile"}
    assert ran[2:] == ["timing"]


def test_a_stage_that_breaks_loses_nothing_of_the_others(tmp_path: Path) -> None:
    def run(stage: Stage, log: Path, seconds: float) -> int:
        if stage.name == "bad":
            raise OSError("no such program")
        return 0

    stages = [Stage(name, (), 1, 9, beside=True) for name in ("bad", "good")]
    assert not Session(tmp_path, stages, 5, Clock({}), run, lambda words: None).carry_out()
    found = json.loads((tmp_path / "device.json").read_text())["stages"]
    assert (found["bad"]["state"], found["good"]["state"]) == ("failed", "done")
    assert found["bad"]["why"] == "OSError: no such program"


def test_a_stage_is_stopped_with_its_children_and_keeps_its_words(tmp_path: Path) -> None:
    script = "print('begun', flush=True); import time; time.sleep(60)"
    log = tmp_path / "log"
    assert run_stage(Stage("s", (sys.executable, "-c", script), 1, 1), log, 11.5) is None
    assert log.read_text() == "begun\n"
    assert run_stage(Stage("s", (sys.executable, "-c", "raise SystemExit(3)"), 1, 1), log, 60) == 3


def test_every_file_with_tests_for_a_device_is_among_those_that_are_run() -> None:
    marked = {
        str(path.relative_to(ROOT / "tests"))
        for path in (ROOT / "tests").rglob("test_*.py")
        if "mark.gpu" in path.read_text() and path.name != "test_on_device.py"
    }
    assert marked == set(GPU_TESTS)


def test_what_would_waste_a_device_is_said_first(tmp_path: Path) -> None:
    absent = tmp_path / "c.npz"
    assert f"{absent} is not there" in problems(absent, tmp_path, rehearse=True)
    assert "--data and --splits-dir go together" in problems(None, tmp_path, rehearse=True)
    names = [stage.name for stage in planned(tmp_path, tmp_path, tmp_path, "python")]
    assert names == ["tests", "compile", "paper", "bench", "bench-large", "facts", "paper-on"]


@pytest.mark.slow
def test_the_rehearsal_starts_every_stage_and_writes_it_down(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks/on_device.py"), "--rehearse", "--out"]
    result = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    stages = json.loads((tmp_path / "device.json").read_text())["stages"]
    assert {found["state"] for found in stages.values()} == {"done"}
    assert json.loads((tmp_path / "facts.json").read_text())["small"] is True
