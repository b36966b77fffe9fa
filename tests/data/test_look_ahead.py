"""Calls in threads, a bounded distance ahead, in order, and never after the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from patience import PATIENCE_SECONDS
from sdclr.data import look_ahead as module
from sdclr.data.look_ahead import in_pieces, look_ahead, num_cores


@pytest.mark.parametrize("threads", [1, 4])
def test_items_come_in_order_with_all_their_calls_done(
    monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr(module, "num_cores", lambda: threads)
    done: dict[int, list[int]] = {number: [] for number in range(6)}
    last_is_done = threading.Event()

    def call(number: int, row: int) -> None:
        if threads > 1 and (number, row) == (3, 0):
            assert last_is_done.wait(PATIENCE_SECONDS), "later batches are done first"
        done[number].append(row)
        if (number, row) == (5, 4):
            last_is_done.set()

    batches = [
        (number, [partial(call, number, row) for row in range(number)]) for number in range(6)
    ]
    for expected, number in enumerate(look_ahead(batches, ahead=2)):
        assert number == expected
        assert sorted(done[number]) == list(range(number))


@pytest.mark.parametrize("ahead", [0, 2])
def test_no_more_batches_are_taken_than_asked_for(ahead: int) -> None:
    taken = []

    def batches() -> Iterator[tuple[int, list]]:
        for number in range(10):
            taken.append(number)
            yield number, []

    for number in look_ahead(batches(), ahead=ahead):
        assert taken[-1] == min(number + ahead, 9)


def test_the_next_batch_is_worked_on_while_one_is_used() -> None:
    started = [threading.Event() for _ in range(3)]
    for number in look_ahead([(number, [event.set]) for number, event in enumerate(started)]):
        if number < 2:
            assert started[number + 1].wait(PATIENCE_SECONDS)


@pytest.fixture
def until_cancelled(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """A call that lasts until those that have not begun were to be cancelled."""
    cancelled = threading.Event()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            cancelled.set()
            super().shutdown(wait=wait)

    def call() -> None:
        assert cancelled.wait(PATIENCE_SECONDS)

    monkeypatch.setattr(module, "ThreadPoolExecutor", Pool)
    yield call
    cancelled.set()  # a test that fails leaves no thread that waits


def test_the_first_error_in_order_surfaces_and_the_rest_never_runs(
    until_cancelled: Callable[[], None],
) -> None:
    ran: list[int] = []
    second_has_failed = threading.Event()

    def fail(number: int) -> None:
        if number == 2:
            second_has_failed.set()
        assert second_has_failed.wait(PATIENCE_SECONDS)
        raise KeyError(number)

    batches = [(0, []), (1, [partial(fail, 1), partial(fail, 2)])]
    batches += [
        (number, [until_cancelled, partial(ran.append, number)] * 50) for number in range(2, 9)
    ]
    ready = look_ahead(batches, num_workers=2, ahead=2)
    assert next(ready) == 0
    with pytest.raises(KeyError, match="1"):
        next(ready)
    assert len(ran) <= 3, (
        "each of two threads has begun one call that lasts, and what came before it"
    )


def test_closing_early_cancels_what_has_not_begun_and_leaves_no_thread(
    until_cancelled: Callable[[], None],
) -> None:
    ran: list[int] = []

    def call(number: int) -> None:
        until_cancelled()
        ran.append(number)

    before = set(threading.enumerate())
    batches = [(number, [partial(call, number)] * 100) for number in range(1, 4)]
    ready = look_ahead(batches, num_workers=4, ahead=2)
    ready.close()  # before its first item: nothing was begun
    ready = look_ahead([(0, []), *batches], num_workers=4, ahead=2)
    assert next(ready) == 0
    ready.close()
    assert len(ran) <= 4, "one in each thread"
    assert set(threading.enumerate()) <= before


def test_an_error_of_the_batches_themselves_passes_through() -> None:
    def batches() -> Iterator[tuple[int, list]]:
        yield 0, []
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(look_ahead(batches()))


def test_threads_are_the_cores_this_process_may_use() -> None:
    assert num_cores() >= 1


@pytest.mark.parametrize(("num", "piece"), [(10, 3), (9, 3), (2, 5), (0, 4)])
def test_pieces_cover_everything_once_and_are_heard_of_in_order(num: int, piece: int) -> None:
    worked: list[int] = []
    heard: list[int] = []
    in_pieces(num, piece, worked.extend, heard.append)
    assert sorted(worked) == list(range(num))
    assert heard == [min(piece, num - start) for start in range(0, num, piece)]


def test_an_error_of_a_piece_surfaces_and_ends_the_threads() -> None:
    def fail(rows: range) -> None:
        if 5 in rows:
            raise KeyError(5)

    before = set(threading.enumerate())
    with pytest.raises(KeyError, match="5"):
        in_pieces(100, 2, fail, lambda done: None)
    assert set(threading.enumerate()) <= before
