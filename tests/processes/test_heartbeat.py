"""Signs of life: who gives them is heard, who has stopped or never begun is told apart."""

from __future__ import annotations

import threading

import pytest
import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d

from patience import wait_until
from sdclr.errors import DistributedError
from sdclr.processes import heartbeat, messages
from sdclr.processes.heartbeat import Listener
from sdclr.processes.signals import StoppedEarly
from sdclr.processes.world import World


@pytest.fixture
def store() -> c10d.Store:
    return c10d.PrefixStore(
        "run", dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    )


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(messages, "BEAT_SECONDS", 0.01)


def test_who_gives_signs_is_heard_and_who_stops_is_silent(store: c10d.Store) -> None:
    listener = Listener(store, [1, 2])
    with heartbeat.heartbeat(1, store):

        def heard() -> bool:
            listener.listen()
            return listener.alive == {1}

        wait_until(heard, "no sign is heard")
        assert listener.silent(60) == listener.never_seen(60) == []

        def absent() -> bool:
            listener.listen()
            return listener.never_seen(0.05) == [2]

        wait_until(absent, "the other one has begun")

    def silent() -> bool:
        listener.listen()
        return listener.silent(0.05) == [1]

    wait_until(silent, "signs go on")
    assert "signs of life" not in {thread.name for thread in threading.enumerate()}


def test_silence_while_nobody_listened_is_none(
    store: c10d.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that was stopped as a whole, and goes on: who looks first has heard nothing of the others for long."""
    now = [0.0]
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: now[0])
    store.set("alive/1", "1")
    listener = Listener(store, [1, 2])
    now[0] = 1000.0
    listener.listen()
    assert listener.silent(100) == listener.never_seen(100) == []
    for _ in range(101):
        now[0] += 1.0
        listener.listen()
    assert (listener.silent(100), listener.never_seen(100)) == ([1], [2])


def test_the_first_process_waits_as_long_as_the_others_live(
    store: c10d.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "SILENT_SECONDS", 0.05)
    first = World(0, 3, store, start_seconds=60)
    store.set("alive/2", "1")  # and then it is killed
    with (
        heartbeat.heartbeat(1, store),
        pytest.raises(DistributedError, match=r"process 2 of 3 sent no heartbeat for 0\.05 s"),
    ):
        first.messages.wait_for("never")


def test_the_others_look_at_the_first_one_alone(
    store: c10d.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "SILENT_SECONDS", 0.05)
    second = World(1, 3, store, start_seconds=60)
    store.set("alive/0", "1")
    store.set("alive/2", "1")
    with pytest.raises(DistributedError, match="process 0 of 3 sent no heartbeat"):
        second.messages.wait_for("never")


def test_a_process_that_never_starts_is_named(store: c10d.Store) -> None:
    first = World(0, 3, store, start_seconds=0.05)
    with (
        heartbeat.heartbeat(1, store),
        pytest.raises(DistributedError, match=r"2 of 3 did not start in 0\.05 s"),
    ):
        first.messages.wait_for("never")


def test_who_lives_is_not_gone(store: c10d.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "GRACE_SECONDS", 60)
    worlds = [World(rank, 3, store) for rank in range(3)]
    for world in worlds[1:]:
        assert world.messages.take_number()
    worlds[2].messages.report_stop()
    with heartbeat.heartbeat(1, store):
        assert worlds[0].messages.gone() == [], "neither who lives nor who was stopped"
    monkeypatch.setattr(messages, "GRACE_SECONDS", 0.1)
    assert worlds[0].messages.gone() == [1]


def test_a_store_that_is_gone_is_the_first_process_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "GRACE_SECONDS", 0.1)
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    client = dist.TCPStore("127.0.0.1", server.port, is_master=False, wait_for_workers=False)
    second = World(1, 2, client)
    del server
    with (
        pytest.raises(DistributedError, match="process 0 of 2 ended without an error message"),
        second.explaining(),
    ):
        raise StoppedEarly("stopped by SIGTERM")
