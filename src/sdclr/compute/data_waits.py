"""How long steps wait for their data: the host on a CPU, the device itself on CUDA."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import torch

T = TypeVar("T")


class Mark(Protocol):
    """A moment on the host or in a device's queue."""

    def is_past(self) -> bool:
        """Whether it has been reached; does not wait."""

    def seconds_since(self, other: Any) -> float:
        """Seconds since an earlier mark of the same kind; waits until this one is reached."""


class DataWaits:
    """Counts how long the steps of an epoch wait for their batches.

    On CUDA that is the device's own time from the end of a step to the start of the next, including the views that are
    made there. The host's time would be meaningless: it only queues work, and runs ahead of the device. On other
    devices it is the host's time, on a CPU including the making of the views.

    ``mark``: makes a mark of now (for tests).

    >>> waits = DataWaits(torch.device("cpu"))
    >>> list(waits.of(iter("ab")))
    ['a', 'b']
    >>> waits.seconds() < 0.1
    True
    """

    def __init__(self, device: torch.device, mark: Callable[[], Mark] | None = None) -> None:
        own = (lambda: DeviceMark(device)) if device.type == "cuda" else HostMark
        self._mark: Callable[[], Mark] = mark or own
        self._spans: deque[tuple[Mark, Mark]] = deque()
        self._seconds = 0.0

    def of(self, batches: Iterator[T]) -> Iterator[T]:
        """The same batches; the time until each arrives is counted."""
        end = object()
        while True:
            begun = self._mark()
            batch = next(batches, end)
            self._spans.append((begun, self._mark()))
            while self._spans and self._spans[0][1].is_past():  # an epoch may have 10^6 steps
                self._count()
            if batch is end:
                return
            yield batch  # type: ignore[misc]

    def seconds(self) -> float:
        """All waiting so far; on a device, waits for the work queued up to the last batch."""
        while self._spans:
            self._count()
        return self._seconds

    def _count(self) -> None:
        begun, ended = self._spans.popleft()
        self._seconds += ended.seconds_since(begun)


class HostMark:
    """Now, on the host."""

    def __init__(self) -> None:
        self._time = time.perf_counter()

    def is_past(self) -> bool:
        return True

    def seconds_since(self, other: HostMark) -> float:
        return self._time - other._time


class DeviceMark:
    """The moment when a CUDA device will have finished the work queued so far."""

    def __init__(self, device: torch.device) -> None:
        self._event = torch.cuda.Event(enable_timing=True)
        self._event.record(torch.cuda.current_stream(device))

    def is_past(self) -> bool:
        return bool(self._event.query())

    def seconds_since(self, other: DeviceMark) -> float:
        self._event.synchronize()
        return float(other._event.elapsed_time(self._event)) / 1e3
