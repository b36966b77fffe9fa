"""Signals at any moment lead to exit 75 and a run that goes on; every kind of end has its own exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from killing import SignalAt, config, ended, forked, kill_campaign, state_hash
from one_training import around_steps
from patience import PATIENCE_SECONDS, wait_until
from sdclr import Run, cli, errors, pretrain
from sdclr.data.sources.split_files import read_positions
from sdclr.jobs.pretrain import job as job_module
from sdclr.jobs.pretrain import step as step_module
from sdclr.jobs.pretrain.training import TrainingState
from sdclr.jobs.status import read_status
from sdclr.storage.checkpoint import CheckpointFolder
from sdclr.storage.durable_files import Files

pytestmark = pytest.mark.usefixtures("started_from_a_terminal")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    return state_hash(pretrain(config(), tmp_path_factory.mktemp("whole") / "x").folder)


def command(*arguments: str) -> None:
    """The command line, in this process; ends it with the exit code."""
    sys.argv = ["sdclr", *arguments]
    try:
        cli.main()
    except SystemExit as stop:
        os._exit(int(stop.code or 0))


def pretrain_command(out: Path) -> None:
    command("pretrain", "digits_sdclr", "--out", str(out), *kill_campaign.SETTINGS)


def ended_soon(child: int) -> int:
    wait_until(
        lambda: os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT),
        "the process goes on",
    )
    return ended(child)


def session_members(session: int) -> list[int]:
    """Processes that still belong to a session."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            members.append(int(stat.parent.name))
    return members


def struck(where: str, out: Path, send: Callable[[], None]) -> None:
    """Run the command in a session of its own; ``send`` is called once, at the moment called ``where``."""
    os.setsid()
    left = [1]

    def once(call: Any) -> Any:
        def first_send(*arguments: Any, **keywords: Any) -> Any:
            if left:
                left.pop()
                send()
            return call(*arguments, **keywords)

        return first_send

    if where == "start-up":
        job_module.build = once(job_module.build)  # type: ignore[attr-defined]
    elif where == "the first checkpoint":
        Files.sync = once(Files.sync)  # type: ignore[method-assign]
    elif where == "a save":
        save = CheckpointFolder.save

        def later(self: CheckpointFolder, moment: Any, **keywords: Any) -> None:
            if moment.step == 4:
                Files.sync = once(Files.sync)  # type: ignore[method-assign]
            save(self, moment, **keywords)

        CheckpointFolder.save = later  # type: ignore[method-assign]
    else:

        def fifth(_: object, state: TrainingState) -> None:
            if state.step == 4 and left:
                left.pop()
                send()

        step_module.train_step = around_steps(fifth)
    pretrain_command(out)


STRIKES = [
    (where, number)
    for where in ("start-up", "a step")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
]
STRIKES += [
    ("the first checkpoint", signal.SIGTERM),
    ("a save", signal.SIGTERM),
    ("a step", signal.SIGHUP),
]


AT_ONCE = {
    ("start-up", signal.SIGINT),
    ("a step", signal.SIGTERM),
    ("a step", signal.SIGUSR1),
    ("a save", signal.SIGTERM),
}
"""The others differ from one of these in the place or in the signal alone."""


@pytest.mark.parametrize(
    ("where", "number"),
    [
        pytest.param(*strike, marks=() if strike in AT_ONCE else pytest.mark.slow)
        for strike in STRIKES
    ],
)
@pytest.mark.processes
def test_a_signal_ends_with_75_and_the_run_goes_on(
    tmp_path: Path, expected: str, where: str, number: int
) -> None:
    child = forked(lambda: struck(where, tmp_path / "x", lambda: os.kill(os.getpid(), number)))
    assert ended_soon(child) == 75
    assert session_members(child) == [], "no orphans"
    if (tmp_path / "x").exists():
        assert read_status(tmp_path / "x").state == "preempted"
        if where in ("a save", "a step"):
            assert read_status(tmp_path / "x").checkpoint_step == 5, "at most one step later"
    assert ended_soon(forked(lambda: pretrain_command(tmp_path / "x"))) == 0
    assert state_hash(tmp_path / "x") == expected


@pytest.mark.usefixtures("writing_thread")
@pytest.mark.processes
def test_a_signal_while_a_thread_writes_ends_with_75_and_everything_saved(
    tmp_path: Path, expected: str
) -> None:
    child = forked(
        lambda: struck("a save", tmp_path / "x", lambda: os.kill(os.getpid(), signal.SIGTERM))
    )
    assert ended_soon(child) == 75
    assert session_members(child) == [], "no orphans"
    told = read_status(tmp_path / "x")
    assert told.state == "preempted"
    assert told.checkpoint_step == told.step, "the last write was waited for"
    assert told.step in (5, 6), "the loop was at most one step on when the thread was struck"
    assert not list((tmp_path / "x").rglob("*.tmp"))
    assert ended_soon(forked(lambda: pretrain_command(tmp_path / "x"))) == 0
    assert state_hash(tmp_path / "x") == expected


@pytest.mark.usefixtures("writing_thread")
@pytest.mark.processes
def test_a_second_signal_while_a_thread_writes_ends_at_once(tmp_path: Path, expected: str) -> None:
    def twice() -> None:
        before = signal.getsignal(signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        # the main thread receives it between two of its steps, and puts the old handler back
        wait_until(
            lambda: signal.getsignal(signal.SIGTERM) != before, "the first signal is not received"
        )
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(PATIENCE_SECONDS)

    assert ended_soon(forked(lambda: struck("a save", tmp_path / "x", twice))) == -signal.SIGTERM
    assert read_status(tmp_path / "x").state == "interrupted"
    pretrain(config(), tmp_path / "x")
    assert state_hash(tmp_path / "x") == expected


@pytest.mark.processes
def test_a_signal_to_the_whole_group_is_one_signal(tmp_path: Path) -> None:
    child = forked(lambda: struck("a step", tmp_path / "x", lambda: os.killpg(0, signal.SIGTERM)))
    assert ended_soon(child) == 75


@pytest.mark.processes
def test_a_second_signal_ends_at_once_and_the_run_goes_on(tmp_path: Path, expected: str) -> None:
    def run() -> None:
        pretrain(config(), tmp_path / "x", progress=SignalAt(5, signal.SIGTERM, signal.SIGTERM))

    assert ended_soon(forked(run)) == -signal.SIGTERM
    assert read_status(tmp_path / "x").state == "interrupted"
    pretrain(config(), tmp_path / "x")
    assert state_hash(tmp_path / "x") == expected


CODES = {
    "ConfigError": 78,
    "DataError": 65,
    "MissingInputError": 66,
    "RunFolderError": 73,
    "StorageError": 74,
    "Preempted": 75,
    "CheckpointError": 76,
    "NonFiniteError": 79,
    "DistributedError": 80,
    "FailedRunsError": 81,
    "Interrupted": 130,
    "RemoteError": 69,
}


def test_every_error_has_the_documented_exit_code() -> None:
    assert {c.__name__: c.exit_code for c in errors.SdclrError.__subclasses__()} == CODES
    assert all(f"{name:<21}{code}" in (errors.__doc__ or "") for name, code in CODES.items())


@pytest.mark.parametrize("name", CODES)
def test_the_command_line_ends_with_the_code_of_its_error(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: str) -> None:
        raise getattr(errors, name)("what, where, how to mend")

    monkeypatch.setattr("sdclr.recipes.recipe", fail)
    monkeypatch.setattr(sys, "argv", ["sdclr", "recipes", "show", "digits_sdclr"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == CODES[name]
    shown = capsys.readouterr().err
    assert "how to mend" in shown
    assert "Traceback" not in shown


def quick_exit(*arguments: str) -> int:
    return ended_soon(forked(lambda: command(*arguments)))


@pytest.mark.processes
def test_several_processes_are_refused_with_80_where_one_would_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert quick_exit("report", str(tmp_path)) == 80
    assert "sdclr report runs on one process" in capfd.readouterr().err
    assert quick_exit("pretrain", "digits_sdclr", "--out", str(tmp_path / "x"), "--dry-run") == 80
    capfd.readouterr()
    assert ended_soon(forked(lambda: pretrain_command(tmp_path / "x"))) == 80
    assert "needs RANK, MASTER_ADDR and MASTER_PORT too" in capfd.readouterr().err.replace(
        "\n", " "
    )
    assert not (tmp_path / "x").exists()


@pytest.mark.processes
def test_a_locked_and_a_read_only_folder_are_73(tmp_path: Path) -> None:
    with Run(tmp_path / "x"):
        assert ended_soon(forked(lambda: pretrain_command(tmp_path / "x"))) == 73
    (tmp_path / "file").write_text("")
    assert ended_soon(forked(lambda: pretrain_command(tmp_path / "file" / "x"))) == 73


@pytest.mark.parametrize("kind", ["pipe", "device", "cut", "text"])
def test_an_image_that_is_none_ends_with_65_before_the_first_step_and_nothing_hangs(
    tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(8):
        Image.fromarray(np.full((16, 16, 3), 30 * number, np.uint8)).save(folder / f"{number}.png")
    bad = folder / "bad.png"
    if kind == "pipe":
        os.mkfifo(bad)  # to open it would wait for a writer for ever
    elif kind == "device":
        bad.symlink_to("/dev/zero")
    else:
        bad.write_bytes((folder / "1.png").read_bytes()[:40] if kind == "cut" else b"hello")
    (tmp_path / "list.txt").write_text(
        "".join(f"{path.name}\n" for path in sorted(folder.iterdir()))
    )
    settings = [
        f"data.root={folder}",
        "data.links=anywhere",
        "epochs=1",
        "batch_size=4",
        "backbone.name=resnet10",
        "views.size=8",
    ]
    out = tmp_path / "x"
    assert (
        quick_exit(
            "pretrain", str(tmp_path / "list.txt"), "--out", str(out), *settings, "backbone.width=2"
        )
        == 65
    )
    assert not (out / "checkpoints").exists()


def test_a_signal_inside_a_reader_is_not_taken_for_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """numpy's reader is where anything may be raised, and is turned into a DataError."""

    def interrupted(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(PATIENCE_SECONDS)

    def read_list(*_: Any, **__: Any) -> Any:
        return read_positions(tmp_path / "list.npy", 3)

    np.save(tmp_path / "list.npy", np.arange(3))
    monkeypatch.setattr(np.lib.format, "read_magic", interrupted)
    monkeypatch.setattr("sdclr.jobs.pretrain.build.build_data", read_list)
    with pytest.raises(errors.Preempted, match="stopped by SIGTERM before the first step"):
        pretrain(config(), tmp_path / "x")
