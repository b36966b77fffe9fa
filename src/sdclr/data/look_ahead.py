"""Run a stream of batches of calls in threads, a little ahead of their consumer. Knows nothing about images."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import TypeVar

from sdclr.processes.environment import processes_here

T = TypeVar("T")


def num_cores() -> int:
    """The number of CPU cores that this process may use: its share where several processes use the machine."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, cores // processes_here())


_of_thread = threading.local()
_NEVER = threading.Event()


def _begin(is_over: threading.Event) -> None:
    _of_thread.is_over = is_over


def abandoned() -> threading.Event:
    """Set once nothing waits for this thread's results any more, so that it can stop waiting for others, too."""
    found: threading.Event = getattr(_of_thread, "is_over", _NEVER)
    return found


def look_ahead(
    batches: Iterable[tuple[T, Sequence[Callable[[], object]]]],
    *,
    num_workers: int | None = None,
    ahead: int = 2,
) -> Generator[T, None, None]:
    """Yield the item of every (item, calls) in order, as soon as all its calls have returned.

    While one item is used, the calls of the next ``ahead`` batches run, in ``num_workers`` threads (default: one for
    every core that this process may use); nothing but speed depends on their number. The exception of the first call,
    in order, that raised is raised here. However this ends, early or by an exception, calls that have not started never
    will.
    """
    is_over = threading.Event()
    pool = ThreadPoolExecutor(
        num_workers or num_cores(),
        thread_name_prefix="sdclr-images",
        initializer=_begin,
        initargs=(is_over,),
    )
    waiting: deque[tuple[T, list[Future[object]]]] = deque()

    def finished() -> T:
        item, futures = waiting.popleft()
        for future in futures:
            future.result()
        return item

    try:
        for item, calls in batches:
            waiting.append((item, [pool.submit(call) for call in calls]))
            if len(waiting) > ahead:
                yield finished()
        while waiting:
            yield finished()
    finally:
        is_over.set()
        pool.shutdown(wait=True, cancel_futures=True)


def in_pieces(
    num: int,
    piece: int,
    work: Callable[[range], object],
    advance: Callable[[int], None],
    *,
    num_workers: int | None = None,
) -> None:
    """Call ``work`` in threads for range(num), cut into ranges of ``piece``; ``advance`` receives each length."""
    starts = range(0, num, piece)
    ranges = (range(start, min(start + piece, num)) for start in starts)
    calls = ((len(r), [partial(work, r)]) for r in ranges)
    workers = num_workers or num_cores()
    with closing(look_ahead(calls, num_workers=workers, ahead=2 * workers)) as done:
        for length in done:
            advance(length)
