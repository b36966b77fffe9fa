"""Of ``random`` and ``numpy.random``, which all threads share, a view that seeds them is alone with them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sdclr.data.views.own import _Shared


def test_an_owner_is_alone_and_others_are_together() -> None:
    shared, together = _Shared(), threading.Barrier(3, timeout=60)
    inside: list[str] = []
    seen: list[tuple[str, ...]] = []

    def leave(_: int) -> None:
        with shared.left_alone():
            inside.append("leaves")
            seen.append(tuple(inside))
            inside.remove("leaves")

    def own(_: int) -> None:
        with shared.owned(), shared.owned():  # a call inside a call
            inside.append("owns")
            seen.append(tuple(inside))
            inside.remove("owns")

    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit((leave, own)[i % 3 == 0], i) for i in range(600)]
        for one in waiting:
            one.result(timeout=60)
    assert len(seen) == 600
    assert all(others == ("owns",) for others in seen if "owns" in others)

    def leave_together(_: int) -> None:
        with shared.left_alone():
            together.wait()  # all three are inside at once, or this breaks

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(leave_together, range(3)))


def test_what_fails_inside_keeps_nobody_out() -> None:
    shared = _Shared()
    for entered in (shared.owned, shared.left_alone, shared.owned):
        with pytest.raises(ValueError, match="theirs"), entered():
            raise ValueError("theirs")
    with shared.owned():
        pass
