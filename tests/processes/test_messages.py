"""Words between processes: who waits, who fails, who leaves."""

from __future__ import annotations

import json
import re
import threading

import pytest
import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d

from patience import PATIENCE_SECONDS
from sdclr.errors import (
    ConfigError,
    DataError,
    DistributedError,
    Interrupted,
    InUseError,
    NoLabelsError,
    SdclrError,
)
from sdclr.processes import messages
from sdclr.processes.world import World


@pytest.fixture
def store() -> c10d.Store:
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def test_a_store_that_does_not_answer_is_given_up() -> None:
    answer = threading.Event()
    assert messages.within(0.05, lambda: answer.wait(PATIENCE_SECONDS)) is None, (
        "it was not waited for"
    )
    answer.set()


def test_an_error_in_a_thread_is_no_answer() -> None:
    def fail() -> int:
        raise RuntimeError("connection reset")

    assert messages.within(PATIENCE_SECONDS, fail) is None
    assert messages.within(PATIENCE_SECONDS, lambda: 3) == 3


def test_a_failure_is_still_told_to_ones_own(store: c10d.Store) -> None:
    first, second = World(0, 2, store), World(1, 2, store)
    second.messages.report_failure(ConfigError("a wrong setting"))
    with pytest.raises(ConfigError, match="process 1: a wrong setting"):
        first.messages.wait_for("never")
    assert json.loads(store.get("failure"))["rank"] == 1


def test_who_leaves_leaves_no_thread_in_the_store(
    store: c10d.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that asks for the interpreter's lock when Python ends, out of torch's store, aborts the process."""
    # the thread ends after this, and is waited for as long again: on a busy machine it needs some of that
    monkeypatch.setattr(messages, "GRACE_SECONDS", 1.0)
    before = set(threading.enumerate())
    World(0, 2, store).messages.leave()  # the other one never leaves
    assert set(threading.enumerate()) <= before


def test_words_that_the_first_process_ends_with_are_not_said_twice(
    store: c10d.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "GRACE_SECONDS", 0.5)
    first, second = (World(rank, 2, store).messages for rank in range(2))
    assert not second.first_says(DataError("a.png is damaged")), "it has not said anything"
    first.report_failure(DataError("a.png is damaged"))
    assert second.first_says(DataError("a.png is damaged"))
    assert not second.first_says(DataError("b.png is damaged"))
    assert not first.first_says(DataError("a.png is damaged")), "somebody has to"


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (InUseError("x is in use."), InUseError, "process 1: x is in use."),
        (NoLabelsError("no labels."), NoLabelsError, "process 1: no labels."),
        (KeyboardInterrupt(), Interrupted, "stopped by Ctrl-C in process 1. Nothing"),
        (SystemExit(3), DistributedError, "process 1: it ended by sys.exit(3)"),
    ],
)
def test_an_error_of_any_kind_is_the_same_kind_in_the_others(
    store: c10d.Store, error: BaseException, kind: type[SdclrError], words: str
) -> None:
    World(1, 2, store).messages.report_failure(error)
    with pytest.raises(kind, match=re.escape(words)) as caught:
        World(0, 2, store).messages.raise_failure()
    assert type(caught.value) is kind


def test_a_store_that_has_ended_is_an_error_of_the_other_processes() -> None:
    owner = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    other = World(1, 2, dist.TCPStore("127.0.0.1", owner.port, is_master=False)).messages
    other.raise_failure()
    del owner
    for asks in (other.raise_failure, lambda: other.publish("done/1", {})):
        with pytest.raises(DistributedError, match="process 0, or what started"):
            asks()


def test_of_what_an_exchange_reports_the_first_sentence_counts() -> None:
    text = "[/build/gloo/pair.cc:534] Connection closed by peer [::1]:57. This is ours. GLHF!\nmore"
    assert messages._reason(RuntimeError(text)) == "Connection closed by peer [::1]:57"
