"""What a search for neighbours says of its progress, written down."""

from __future__ import annotations

from collections.abc import Callable


class WatchedStages:
    """Evidence's ``watch``: the total of each stage by its name, and what was done in it, call by call."""

    def __init__(self) -> None:
        self.totals: dict[str, int] = {}
        self.done: dict[str, list[int]] = {}

    def __call__(self, what: str, num_rows: int) -> Callable[[int], None]:
        self.totals[what] = num_rows
        self.done[what] = []
        return self.done[what].append
