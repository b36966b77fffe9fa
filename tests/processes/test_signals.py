"""Which signals ask to save and end, and which stay what they were."""

from __future__ import annotations

import os
import signal

import pytest

from sdclr.errors import Preempted
from sdclr.processes import signals
from sdclr.processes.signals import stop_on_signal

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
