"""The one clock of the tests: it ends what hangs, and measures nothing.

A busy machine may take ten times as long as a quiet one, so a test counts work (calls, bytes, steps) and waits for
events. tests/test_no_wall_clock.py keeps every other clock, and every limit below PATIENCE_SECONDS, out of the tests.
"""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_SECONDS = 120.0
"""After so long something hangs, on any machine."""


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Return once ``condition()`` is true; fail with ``what`` where that never comes."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"it hangs: {what} after {PATIENCE_SECONDS:g} s"
        time.sleep(0.005)
