"""Heartbeats: each process sends one every half second; one that waits without a limit checks those of the others.

They come from a thread of their own, so that a process that computes for an hour still sends them (except in code of
other languages that holds Python's lock throughout), and one that was killed or stopped does not.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator

from torch.distributed.distributed_c10d import Store

BEAT_SECONDS = 0.5


@contextlib.contextmanager
def heartbeat(rank: int, store: Store) -> Iterator[None]:
    """Inside the block, this process sends heartbeats.

    They use a connection of their own: on the usual one a thread of this process may wait for a minute.
    """
    over = threading.Event()

    def beat() -> None:
        number = 0
        # the store has ended, and with it the process that would check
        with contextlib.suppress(RuntimeError):
            own = store.clone()
            while not over.wait(BEAT_SECONDS if number else 0):
                number += 1
                own.set(_KEY.format(rank), str(number))

    thread = threading.Thread(target=beat, name="signs of life", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_LAST_SECONDS)  # longer only where the store does not answer


_KEY = "alive/{}"
_LAST_SECONDS = 2.0


class Listener:
    """Checks the heartbeats of some processes, from now on."""

    def __init__(self, store: Store, ranks: Iterable[int]) -> None:
        self._store = store
        self._listened = now = time.monotonic()
        self._last = {rank: (self._sign_of(rank), now) for rank in ranks}
        self.alive: set[int] = set()
        """Those that have sent a heartbeat since."""

    def listen(self) -> None:
        """Check for new heartbeats. Silence between distant checks (all were stopped, for example) does not count."""
        now = time.monotonic()
        was_away, self._listened = now - self._listened > _AWAY_SECONDS, now
        for rank, (before, last_seen) in self._last.items():
            if (sign := self._sign_of(rank)) != before:
                self.alive.add(rank)
                self._last[rank] = sign, now
            elif was_away:
                self._last[rank] = before, now
            else:
                self._last[rank] = before, last_seen

    def silent(self, seconds: float) -> list[int]:
        """Those that have sent heartbeats, but none for ``seconds``."""
        return [
            rank
            for rank, (sign, last_seen) in self._last.items()
            if sign and self._since(last_seen) > seconds
        ]

    def never_seen(self, seconds: float) -> list[int]:
        """Those that have not sent any heartbeat in ``seconds``."""
        return [
            rank
            for rank, (sign, last_seen) in self._last.items()
            if not sign and self._since(last_seen) > seconds
        ]

    def _since(self, last_seen: float) -> float:
        return self._listened - last_seen

    def _sign_of(self, rank: int) -> bytes:
        key = _KEY.format(rank)
        return self._store.get(key) if self._store.check([key]) else b""


_AWAY_SECONDS = 5.0
"""A process that has not checked for this long was stopped, and the others may have been, too."""
