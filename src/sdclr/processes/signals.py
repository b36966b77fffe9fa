"""Stop on request: SIGTERM, SIGINT, SIGUSR1 and SIGHUP ask a run to save and end; a second signal ends it at once.

SIGHUP is what a closed terminal or a dropped connection sends; started with nohup a run ignores it, as it should.

Before there is anything to save, the first one ends it too, as Preempted. One of several processes gets a signal more
than once in a moment, from the terminal or the scheduler and from the launcher that passes it on: that counts as one.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from sdclr.errors import Preempted

_NAMES = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")
# not every system has them all
_SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))


class StoppedEarly(BaseException):
    """A signal before anybody awaits one; no handler of ordinary exceptions may take it for one of its own."""


class StopRequest:
    """``signal_name`` is None until somebody asks."""

    signal_name: str | None = None
    awaited: bool = False
    """Whether the run looks at ``signal_name`` after every step; until then a signal raises StoppedEarly."""


@contextmanager
def stop_on_signal(
    *, same_for_seconds: float = 0.0, announce: Callable[[str], None] = lambda text: None
) -> Iterator[StopRequest]:
    """Inside, the first signal only sets a flag (saving in a handler can hang); the old handlers return with it.

    Preempted is raised out of the block at once while nobody awaits the flag. ``same_for_seconds``: how long further
    signals count as the first one. ``announce`` is called in the handler of the first one, with what to tell the user.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # handlers belong to the main thread; a library call elsewhere leaves them alone
        return
    owner = os.getpid()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    if before.get(getattr(signal, "SIGHUP", None)) is signal.SIG_IGN:
        del before[signal.SIGHUP]  # nohup

    def restore() -> None:
        for number, handler in before.items():
            if handler is not None:  # None: not set from Python, and not ours to put back
                signal.signal(number, handler)

    same_until = 0.0

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal same_until
        if os.getpid() != owner:  # forked workers inherit the handler, not the job
            restore()
            return
        if request.signal_name is not None:  # again
            if time.monotonic() > same_until:
                restore()
                signal.raise_signal(number)
            return
        request.signal_name, same_until = (
            signal.Signals(number).name,
            time.monotonic() + same_for_seconds,
        )
        if not same_for_seconds:
            restore()
        if not request.awaited:
            raise StoppedEarly(
                f"stopped by {request.signal_name} before the first step. Give the same command again."
            )
        again = "" if same_for_seconds else " Once more: at once."
        announce(f"{request.signal_name}: stopping once this step is done and saved.{again}")

    for number, handler in before.items():
        if handler is not None:
            signal.signal(number, on_signal)
    try:
        yield request
    except StoppedEarly as stopped:
        raise Preempted(str(stopped)) from None
    finally:
        restore()
