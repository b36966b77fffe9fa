from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from killing import ended, forked
from sdclr import Run, cli, pretrain, recipe, resume
from sdclr.errors import MissingInputError, NonFiniteError, Preempted, StorageError
from sdclr.jobs.status import read_status
from sdclr.methods.simclr import SimCLR
from sdclr.presentation.progress import NoProgress

pytestmark = pytest.mark.usefixtures("light_figures")

# 3 steps an epoch
CONFIG = recipe("digits_simclr").with_overrides(
    [
        "backbone.width=2",
        "views.size=8",
        "batch_size=200",
        "epochs=2",
        "checkpoint_every_epochs=1",
        "health_every_epochs=0",
    ]
)


class CallAt(NoProgress):
    """Calls something after so many steps."""

    def __init__(self, step: int, call: Any) -> None:
        self.left, self.call = step, call

    def advance(self, task: int, amount: int = 1, note: str | None = None) -> None:
        self.left -= amount
        if amount and self.left == 0:
            self.call()


def test_a_run_tells_of_itself_while_it_runs_and_when_it_is_done(tmp_path: Path) -> None:
    seen = []
    run = pretrain(
        CONFIG, tmp_path / "x", progress=CallAt(4, lambda: seen.append(read_status(tmp_path / "x")))
    )
    (running,) = seen
    assert (running.state, running.pid, running.next) == ("running", os.getpid(), None)
    assert (running.step, running.total_steps, running.epoch, running.checkpoint_step) == (
        3,
        6,
        1,
        3,
    )
    assert f"(process {os.getpid()})" in running.lines()[0]
    done = read_status(run.folder)
    assert (done.state, done.step, done.total_steps, done.exit_code) == ("done", 6, 6, 0)
    assert done.loss == run.metrics()[-1]["loss"]
    assert done.next == f"sdclr evaluate {run.folder}"
    told = json.loads((run.folder / "status.json").read_text())
    assert {
        "state",
        "pid",
        "host",
        "started",
        "updated",
        "step",
        "checkpoint_step",
        "next",
    } <= told.keys()


def test_a_preempted_run_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(Preempted):
        pretrain(
            CONFIG,
            tmp_path / "x y",
            progress=CallAt(2, lambda: os.kill(os.getpid(), signal.SIGUSR1)),
        )
    found = read_status(tmp_path / "x y")
    assert (found.state, found.exit_code, found.error, found.checkpoint_step) == (
        "preempted",
        75,
        "Preempted",
        2,
    )
    assert found.next == f"sdclr resume '{tmp_path / 'x y'}'"
    assert "SIGUSR1" in (found.message or "")
    resume(tmp_path / "x y")
    assert read_status(tmp_path / "x y").state == "done"


def test_a_failed_run_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            SimCLR, "forward", lambda self, views: self.network(views.a).mean(dim=1) * float("nan")
        )
        with pytest.raises(NonFiniteError):
            pretrain(CONFIG, tmp_path / "x")
    found = read_status(tmp_path / "x")
    assert (found.state, found.exit_code, found.error, found.checkpoint_step) == (
        "failed",
        79,
        "NonFiniteError",
        0,
    )
    assert found.next is not None
    assert "--out ANOTHER" in found.next, "the same steps would fail again"
    assert "loss of step 1" in " ".join(found.lines())

    def bug(*_: Any) -> None:
        raise ZeroDivisionError("division by zero")

    with pytest.raises(ZeroDivisionError):
        pretrain(CONFIG, tmp_path / "y", progress=CallAt(1, bug))
    assert (read_status(tmp_path / "y").exit_code, read_status(tmp_path / "y").error) == (
        70,
        "ZeroDivisionError",
    )


def test_a_disk_that_fails_shows_its_own_error_though_nobody_can_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="No space left"):
        pretrain(
            CONFIG,
            tmp_path / "x",
            progress=CallAt(
                1, lambda: monkeypatch.setattr("sdclr.storage.durable_files.os.fsync", full)
            ),
        )
    assert read_status(tmp_path / "x").state == "interrupted"


def test_a_killed_run_is_interrupted_not_running(tmp_path: Path) -> None:
    def run() -> None:
        pretrain(
            CONFIG, tmp_path / "x", progress=CallAt(4, lambda: os.kill(os.getpid(), signal.SIGKILL))
        )

    assert ended(forked(run)) == -signal.SIGKILL
    assert json.loads((tmp_path / "x" / "status.json").read_text())["state"] == "running"
    found = read_status(tmp_path / "x")
    assert (found.state, found.step, found.checkpoint_step) == ("interrupted", 3, 3)
    assert found.next == f"sdclr resume {tmp_path / 'x'}"


def test_a_run_of_a_version_without_status_gets_an_answer(tmp_path: Path) -> None:
    run = pretrain(CONFIG, tmp_path / "x")
    (run.folder / "status.json").unlink()
    assert read_status(run.folder).state == "done"
    run.backbone_path.unlink()
    found = read_status(run.folder)
    assert (found.state, found.step, found.total_steps, found.epoch) == ("interrupted", 6, 6, 2)
    with Run(run.folder):
        assert read_status(run.folder).state == "running"
    for name in ("status.json", "metrics.jsonl", "config.yaml"):
        (run.folder / name).write_text("{")  # damaged: the rest still says something
    assert read_status(run.folder).checkpoint_step == 6
    with pytest.raises(MissingInputError, match="is not a run folder"):
        read_status(tmp_path)


def test_the_verb_prints_lines_or_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [str(pretrain(CONFIG, tmp_path / name).folder) for name in "ab"]
    for extra in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["sdclr", "status", *folders, *extra])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code
    text = capsys.readouterr().out
    assert f"{folders[0]}: done" in text
    assert [json.loads(line)["state"] for line in text.splitlines()[-2:]] == ["done", "done"]


def test_a_run_that_ended_before_its_settings_were_written_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        monkeypatch.undo()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sdclr.storage.durable_files.os.fsync", full)
    (tmp_path / "x").mkdir()
    with pytest.raises(StorageError):
        pretrain(CONFIG, tmp_path / "x")
    found = read_status(tmp_path / "x")
    assert (found.state, found.exit_code, found.next) == ("failed", 74, None)
    assert "next: the same command again" in found.lines()[-1]
    assert pretrain(CONFIG, tmp_path / "x").backbone_path.exists()


def test_a_finished_run_is_done_while_it_is_evaluated_and_when_its_checkpoints_are_damaged(
    tmp_path: Path,
) -> None:
    run = pretrain(CONFIG, tmp_path / "x")
    with Run(run.folder):  # evaluation takes the lock as well
        assert (read_status(run.folder).state, read_status(run.folder).next) == (
            "done",
            f"sdclr evaluate {run.folder}",
        )
    for path in (run.folder / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    resume(run.folder)  # finished is finished
    assert (
        json.loads((run.folder / "status.json").read_text())["state"]
        == read_status(run.folder).state
        == "done"
    )


def test_a_signal_with_the_last_step_leaves_a_run_that_is_done(tmp_path: Path) -> None:
    with pytest.raises(Preempted, match="is finished"):
        pretrain(
            CONFIG, tmp_path / "x", progress=CallAt(6, lambda: os.kill(os.getpid(), signal.SIGTERM))
        )
    assert json.loads((tmp_path / "x" / "status.json").read_text())["state"] == "done"


@pytest.mark.parametrize("damaged", ["status.json", "metrics.jsonl"])
def test_damage_is_shown_and_does_not_hide_the_rest(tmp_path: Path, damaged: str) -> None:
    with pytest.raises(Preempted):
        pretrain(
            CONFIG, tmp_path / "x", progress=CallAt(4, lambda: os.kill(os.getpid(), signal.SIGTERM))
        )
    (tmp_path / "x" / damaged).write_text(
        '{"epoch": 1, "loss": "x"}\n' if damaged == "metrics.jsonl" else "{"
    )
    found = read_status(tmp_path / "x")
    assert found.checkpoint_step == 4
    if damaged == "status.json":
        assert found.state == "interrupted"
        assert "status.json is damaged" in "\n".join(found.lines())
    else:
        assert found.state == "preempted"
        assert "metrics.jsonl, line 1, is damaged: loss must be a valid number, got 'x'" in (
            found.message or ""
        )
        with pytest.warns(UserWarning, match="It is left out"):
            assert Run(tmp_path / "x").metrics() == []


def test_what_to_do_after_a_loss_that_is_not_finite_is_not_the_same_again(tmp_path: Path) -> None:
    wild = CONFIG.with_overrides(["optimizer.learning_rate=1e30", "optimizer.warmup_epochs=0"])
    with pytest.raises(NonFiniteError):
        pretrain(wild, tmp_path / "x")
    found = read_status(tmp_path / "x")
    assert found.state == "failed"
    assert (found.next or "").endswith("--out ANOTHER optimizer.learning_rate=1e+29")
    assert found.step is not None
    assert f"the loss of step {found.step + 1} is not" in (found.message or "")
