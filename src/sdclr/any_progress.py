"""What a job asks of a progress display, and one that shows nothing."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self


class AnyProgress(Protocol):
    """What a job asks of a progress display."""

    def add(self, description: str, total: int, unit: str = "steps", done: int = 0) -> int: ...

    def advance(self, task: int, amount: int = 1, note: str | None = None) -> None: ...

    def finish(self, task: int, note: str | None = None) -> None: ...

    def print(self, text: str) -> None: ...

    def announce(self, text: str) -> None: ...


class NoProgress:
    """The interface of Progress, silent: for use as a library."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def add(self, description: str, total: int, unit: str = "steps", done: int = 0) -> int:
        return 0

    def advance(self, task: int, amount: int = 1, note: str | None = None) -> None:
        pass

    def finish(self, task: int, note: str | None = None) -> None:
        pass

    def print(self, text: str) -> None:
        pass

    def announce(self, text: str) -> None:
        pass
