"""What a device's time is spent on: nothing twice, nothing that cannot end, nothing unsaid."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from on_device import (
    GPU_TESTS,
    REHEARSAL,
    Session,
    Stage,
    main,
    planned,
    problems,
    run_stage,
)

from patience import PATIENCE_SECONDS, wait_until

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


def test_what_is_ended_from_outside_is_stopped_with_its_children_and_written_down(
    tmp_path: Path,
) -> None:
    stages = '[on_device.Stage(n, (sys.executable, "-c", sys.argv[2]), 1, 60, True) for n in "ab"]'
    session = f"on_device.Session(Path(sys.argv[1]), {stages}, 5).carry_out()"
    code = (
        "import signal, sys; from pathlib import Path; import on_device; "
        f"signal.signal(signal.SIGTERM, on_device._end); {session}"
    )
    child = "import os, pathlib, sys, time; pathlib.Path(str(os.getpid())).touch(); time.sleep(600)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "benchmarks")}
    command = [sys.executable, "-c", code, str(tmp_path / "out"), child]
    with subprocess.Popen(command, cwd=tmp_path, env=environment) as process:
        wait_until(lambda: len(list(tmp_path.glob("[0-9]*"))) == 2, "the stages do not begin")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM
    found = json.loads((tmp_path / "out" / "device.json").read_text())["stages"]
    assert {one["state"] for one in found.values()} == {"stopped"}
    for path in tmp_path.glob("[0-9]*"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.name), 0)


def test_a_rehearsal_has_done_nothing_of_a_session(tmp_path: Path) -> None:
    clock = Clock({"last": 10.0})
    stages = [Stage("last", (), 5, 20)]

    def none(words: str) -> None:
        pass

    assert Session(tmp_path, stages, 5, clock, clock.run, none, REHEARSAL).carry_out()
    with pytest.raises(ValueError, match="of a device rehearsal, and this is a device session"):
        Session(tmp_path, stages, 5, clock, clock.run, none)
    (tmp_path / "device.json").write_text("{}")
    with pytest.raises(ValueError, match=r"device\.json is damaged"):
        Session(tmp_path, stages, 5, clock, clock.run, none)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--minutes", "nan"], "--minutes must be more than 0"),
        (["--minutes", "-1"], "--minutes must be more than 0"),
        (["--grid", "papers"], "invalid choice"),
        (["--out", __file__], "is a file; give a folder"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["on_device.py", "--out", str(tmp_path), "--rehearse", *words])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code in (2, 78)
    assert said in capsys.readouterr().err


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
