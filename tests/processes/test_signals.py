"""Which signals ask to save and end, and which stay what they were."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sdclr.errors import Preempted
from sdclr.processes import signals
from sdclr.processes.signals import signals_in_start_up, stop_on_signal

pytestmark = pytest.mark.usefixtures("started_from_a_terminal")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP"])
def test_a_signal_asks_to_stop_and_its_handler_returns(name: str) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with stop_on_signal() as stop:
        stop.awaited = True
        os.kill(os.getpid(), number)
        assert stop.signal_name == name
    assert signal.getsignal(number) == before


def test_before_anything_is_to_be_saved_a_closed_terminal_ends_the_run() -> None:
    with pytest.raises(Preempted, match="SIGHUP"), stop_on_signal():
        os.kill(os.getpid(), signal.SIGHUP)


def test_nohup_keeps_its_meaning() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signal() as stop:
            stop.awaited = True
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.signal_name is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_system_without_some_of_them_has_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_SIGNALS", (signal.SIGTERM, signal.SIGINT))
    before = signal.getsignal(signal.SIGHUP)
    with stop_on_signal():
        assert signal.getsignal(signal.SIGHUP) == before


def test_a_job_takes_over_from_its_start_up_and_a_second_signal_is_the_systems() -> None:
    """Otherwise the second signal would only raise, and a run that hangs would not end."""
    before = signal.getsignal(signal.SIGTERM)
    with signals_in_start_up():
        assert signal.getsignal(signal.SIGTERM) != before
        with stop_on_signal() as stop:
            stop.awaited = True
            os.kill(os.getpid(), signal.SIGTERM)
            assert signal.getsignal(signal.SIGTERM) == before
        assert signal.getsignal(signal.SIGTERM) == before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_that_comes_twice_in_start_up_is_one() -> None:
    def twice() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Preempted, match="SIGTERM"), signals_in_start_up():
        twice()


IMPORTS = """
import importlib.abc, os, signal, sys

class Stops(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            os.kill(os.getpid(), signal.{name})

sys.meta_path.insert(0, Stops())
sys.argv = ["sdclr", *{words}]
from sdclr.cli.entry import main
main()
"""


@pytest.mark.processes
def test_a_command_that_only_shows_something_is_not_to_be_given_again(tmp_path: Path) -> None:
    source = IMPORTS.format(name="SIGTERM", words=["pretrain", "digits_simclr", "--dry-run"])
    done = subprocess.run([sys.executable, "-c", source], cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == -signal.SIGTERM


@pytest.mark.processes
@pytest.mark.parametrize("milliseconds", [1, 5, 20, 80])
def test_a_second_signal_from_outside_does_not_cut_the_stop_short(
    tmp_path: Path, milliseconds: int
) -> None:
    """The terminal signals every process, and the launcher of several forwards it as well."""
    source = IMPORTS.format(name="SIGINT", words=["pretrain", "digits_simclr", "--out", "x"])
    later = f"os.system('(sleep {milliseconds / 1000}; kill -TERM %d) &' % os.getpid())"
    source = source.replace("os.kill(", f"{later}; os.kill(", 1)
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 75, done.stderr
    assert "stopped: by SIGINT before the first step." in done.stderr


@pytest.mark.processes
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
@pytest.mark.parametrize(
    "words",
    [
        ["pretrain", "digits_simclr", "--out", "x"],
        ["resume", "x"],
        ["finetune", "x", "--labels", "l.csv", "--out", "m"],
        ["grid", "g.yaml"],
    ],
    ids=lambda words: words[0],
)
def test_a_signal_while_torch_is_imported_is_a_stop_as_well(
    tmp_path: Path, words: list[str], name: str
) -> None:
    (tmp_path / "g.yaml").write_text("base: digits_sdclr\narms: {sdclr: {}}\n")
    (tmp_path / "l.csv").write_text("path,label\n")
    source = IMPORTS.format(name=name, words=words)
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 75, done.stderr
    rest = " before the first step. Give the same command again."
    if words[0] == "grid":  # its own work has begun
        rest = "; every run is saved. The same command continues from here."
    assert f"stopped: by {name}{rest}" in done.stderr
    assert not (tmp_path / "x").exists()
