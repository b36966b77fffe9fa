"""Stop on request: SIGTERM, SIGINT, SIGUSR1 and SIGHUP ask a run to save and end; a second signal ends it at once.

SIGHUP is sent by a closed terminal or a dropped connection; a run started with nohup ignores it, as it should.

Before there is anything to save, the first signal ends the run too, as Preempted. One of several processes may get a
signal twice within a moment, from the terminal or the scheduler and from the launcher that forwards it: that counts as
one.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from sdclr.errors import Preempted

_NAMES = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")
# not every system has all of them
_SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))


class StoppedEarly(BaseException):
    """A signal before a run awaits one; not an Exception, so that ordinary handlers do not catch it."""


class StopRequest:
    """``signal_name`` is None until a stop is requested."""

    signal_name: str | None = None
    awaited: bool = False
    """Whether the run checks ``signal_name`` after every step; until then a signal raises StoppedEarly."""

    def __init__(self) -> None:
        self.restore: Callable[[], None] = lambda: None
        """Sets the handlers as they were."""


@contextmanager
def stop_on_signal(
    *,
    same_for_seconds: float = 0.0,
    announce: Callable[[str], None] = lambda text: None,
    lingers: bool = False,
) -> Iterator[StopRequest]:
    """Inside the block, the first signal only sets a flag (saving in a handler can hang).

    The old handlers return with it, or with ``same_for_seconds`` at the first signal after that time. Preempted is
    raised out of the block at once while the flag is not awaited. ``same_for_seconds``: how long further signals count
    as the first one. ``announce`` is called in the handler of the first one, with a message for the user. ``lingers``:
    whether this handler stays after that Preempted, until the first signal after that time: the process is ending.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # handlers belong to the main thread; a library call elsewhere leaves them alone
        return
    # this job takes over; what it restores at its end is what was before the start-up
    while _start_ups:
        _start_ups.pop()()
    owner = os.getpid()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    if before.get(getattr(signal, "SIGHUP", None)) is signal.SIG_IGN:
        del before[signal.SIGHUP]  # nohup

    def restore() -> None:
        for number, handler in before.items():
            if handler is not None:  # None: not set from Python, so not ours to restore
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
        again = "" if same_for_seconds else " Once more stops at once."
        announce(f"{request.signal_name}: stopping once this step is done and saved.{again}")

    request.restore = restore
    for number, handler in before.items():
        if handler is not None:
            signal.signal(number, on_signal)
    try:
        yield request
    except StoppedEarly as stopped:
        if lingers:
            # at exit the interpreter gives up its handlers, and takes a moment to end
            atexit.register(_ignore_signals)
        else:
            restore()
        raise Preempted(str(stopped)) from None
    except BaseException:
        restore()
        raise
    restore()


def _ignore_signals() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


_start_ups: list[Callable[[], None]] = []
"""What restores the handlers from before :func:`signals_in_start_up`, while no job has taken over."""
_FORWARDED_WITHIN_SECONDS = 2.0


@contextmanager
def signals_in_start_up() -> Iterator[None]:
    """Inside the block, a signal raises Preempted until a job has its own :func:`stop_on_signal`.

    Without it, one that comes while torch is imported would kill the process, as if nothing could continue.
    """
    # two may come at once: from the terminal and from the launcher of several processes
    with stop_on_signal(same_for_seconds=_FORWARDED_WITHIN_SECONDS, lingers=True) as request:
        _start_ups.append(request.restore)
        try:
            yield
        finally:
            _start_ups.clear()
