"""The messages that processes exchange: ready, failed and why, over."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

from sdclr import errors
from sdclr.errors import DistributedError, Interrupted, Preempted, SdclrError
from sdclr.processes.heartbeat import BEAT_SECONDS, Listener
from sdclr.processes.rendezvous import launcher_keeps_store
from sdclr.processes.signals import StoppedEarly

T = TypeVar("T")
GRACE_SECONDS = 2.0
"""How long a process waits for others' reports of a failure before it ends."""
SILENT_SECONDS = 120.0
"""How long a process that is waited for without a limit may send no heartbeat."""
_POLL_SECONDS = 0.05
_STOPPED = "stopped/{}"
_OF_FIRST = "the first process's error"
_CURE = "Nothing that was saved is lost: the same command continues from there."
_TIMEOUT = re.compile(r"timed? ?out", re.IGNORECASE)


class Messages:
    """Messages that processes leave for each other in a store, which still answers when one of them has died.

    On one process there is no store: nothing is written, and there is nothing to wait for.
    """

    def __init__(self, rank: int, size: int, store: Store | None, start_seconds: float) -> None:
        self.rank, self.size = rank, size
        self._kept = store
        self._start_seconds = start_seconds

    @property
    def is_first(self) -> bool:
        """Whether this process prepares, writes and reports for all."""
        return self.rank == 0

    @property
    def _store(self) -> Store:
        assert self._kept is not None, "one process has no others to receive from"
        return self._kept

    def publish(self, key: str, words: dict[str, Any]) -> None:
        """Leave a message for the others."""
        if self.size > 1:
            with _store_ended():
                self._store.set(key, json.dumps(words))

    def wait_for(self, key: str, seconds: float | None = None) -> dict[str, Any]:
        """The message named ``key``, as soon as it exists; meanwhile a failure of another process is raised here.

        Where ``seconds`` is None, it waits as long as the first process (in the first: every other) sends heartbeats.
        """
        until = None if seconds is None else time.monotonic() + seconds
        with _store_ended():
            listener: Listener | None = None  # not needed if the message exists, or with a limit
            listens_at = time.monotonic()
            while not self._store.check([key]):
                self.raise_failure()
                if until is not None and time.monotonic() > until:
                    raise DistributedError(
                        f"{self._author_of(key)} did not get as far in {seconds:g} s ({key}); what it printed may say "
                        f"why. {_CURE}"
                    )
                if until is None and time.monotonic() > listens_at:
                    listener = listener or Listener(self._store, self._looked_after())
                    self._require_alive(listener)
                    listens_at = time.monotonic() + BEAT_SECONDS
                time.sleep(_POLL_SECONDS)
            return json.loads(self._store.get(key))

    def _author_of(self, key: str) -> str:
        """The process that is to leave the message ``key``, as far as its name says."""
        rank = re.search(r"/(\d+)$", key)
        if rank:
            return f"process {rank[1]}"
        return "another process" if self.is_first else "process 0"

    def _looked_after(self) -> Iterable[int]:
        """The processes whose heartbeats this one checks: the first checks all others, these check the first."""
        return range(1, self.size) if self.is_first else (0,)

    def _require_alive(self, listener: Listener) -> None:
        """DistributedError for processes whose heartbeats have stopped, or never started."""
        listener.listen()
        if silent := listener.silent(SILENT_SECONDS):
            raise DistributedError(
                f"{_processes(silent)} of {self.size} sent no heartbeat for {SILENT_SECONDS:g} s (killed, or "
                f"hanging?). {_CURE}"
            )
        if absent := listener.never_seen(self._start_seconds):
            raise DistributedError(
                f"{_processes(absent)} of {self.size} did not start in {self._start_seconds:g} s. Start as many "
                "processes as WORLD_SIZE says."
            )

    def broadcast(self, key: str, words: dict[str, Any]) -> dict[str, Any]:
        """The first process's ``words``, on all processes."""
        if self.is_first:
            self.publish(key, words)
            return words
        return self.wait_for(key, self._start_seconds)

    def claim(self, key: str, words: dict[str, str]) -> dict[str, str]:
        """The words under ``key``, written by the first process; of several that take its rank, the earliest one's."""
        if self.is_first:
            return json.loads(self._store.compare_set(key, "", json.dumps(words)))
        return self.wait_for(key, self._start_seconds)

    def take_number(self) -> bool:
        """Whether no other process of the same rank was here before."""
        return self._store.add(f"taken/{self.rank}", 1) == 1

    def raise_failure(self) -> None:
        """Raise another process's failure here, if there is one; DistributedError where the store has ended."""
        with _store_ended():
            self._raise_failure()

    def _raise_failure(self) -> None:
        if self.size > 1 and self._store.check(["failure"]):
            failure = json.loads(self._store.get("failure"))
            if failure["rank"] != self.rank:
                raise _failure_of(failure)

    def report_failure(self, error: BaseException) -> None:
        """Report to the others why this process ends; only the first failure is kept."""
        failure = {
            "rank": self.rank,
            "error": type(error).__name__,
            "exit_code": error.exit_code if isinstance(error, SdclrError) else errors.EXIT_BUG,
            "message": str(error),
        }
        within(GRACE_SECONDS, lambda: self._store.compare_set("failure", "", json.dumps(failure)))
        if self.is_first and self.size > 1:
            within(GRACE_SECONDS, lambda: self.publish(_OF_FIRST, {"message": str(error)}))

    def first_says(self, error: BaseException) -> bool:
        """Whether the first process ends with the same words, so that they need not be printed twice."""
        if self.is_first or self.size == 1:
            return False
        until, said = time.monotonic() + GRACE_SECONDS, None
        while said is None and time.monotonic() < until:
            said = within(GRACE_SECONDS, self._of_first)
            time.sleep(_POLL_SECONDS)
        return said == str(error)

    def _of_first(self) -> str | None:
        if not self._store.check([_OF_FIRST]):
            return None
        return str(json.loads(self._store.get(_OF_FIRST))["message"])

    def gone(self) -> list[int]:
        """Processes that were here, report no signal and send no heartbeat: a launcher ends all when one has died."""
        others = (other for other in range(self.size) if other != self.rank)
        here = {other for other in others if self._store.check([f"taken/{other}"])}
        listener = Listener(self._store, here)
        until = time.monotonic() + GRACE_SECONDS
        while here and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
            listener.listen()
            here = {
                other
                for other in here - listener.alive
                if not self._store.check([_STOPPED.format(other)])
            }
        return sorted(here)

    def require_none_gone(self, stopped: StoppedEarly) -> None:
        """DistributedError where ``stopped``, a signal, came because another process has died."""
        if self.size == 1:
            return
        gone = within(2 * GRACE_SECONDS, self.gone)
        if gone is None:  # the store does not answer either; the first process keeps it
            gone = [0]
        if gone:
            raise DistributedError(
                f"{_processes(gone)} of {self.size} ended without an error message before the first step (killed, out "
                f"of memory?), and then this one was {stopped}"
            ) from stopped

    def explanation(self, error: RuntimeError) -> SdclrError:
        # the process that keeps the store may be the one that ended
        reported, silent = within(2 * GRACE_SECONDS, self._reports) or (None, [0])
        if reported is not None:
            return reported
        who = _processes(silent) if silent else "a process"
        what = (
            "does not answer"
            if _TIMEOUT.search(str(error))
            else "ended without an error message (killed, out of memory?)"
        )
        reason = _reason(error)
        return DistributedError(
            f"{who} of {self.size} {what}. {_CURE} (The exchange reported: {reason})"
        )

    def _reports(self) -> tuple[SdclrError | None, list[int]]:
        """After a failed exchange: another process's failure, or else the processes that have noticed nothing."""
        self._store.set(f"noticed/{self.rank}", "")
        silent, until = list(range(self.size)), time.monotonic() + GRACE_SECONDS
        while silent and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
            try:
                self._raise_failure()
            except SdclrError as reported:
                return reported, []
            silent = [other for other in silent if not self._store.check([f"noticed/{other}"])]
        return None, silent

    def report_stop(self) -> None:
        """Report to the others that this process has received a signal, too."""
        self.publish(_STOPPED.format(self.rank), {})

    def wait_until_over(self, seconds: float) -> None:
        """Wait until the first process has written everything: a launcher ends all when one ends with an error."""
        if self.is_first:
            self.publish("over", {})
        else:
            self.wait_for("over", seconds)

    def leave(self) -> None:
        """The last step; the first process, if it keeps the store, stays a moment for those that still use it.

        With a launcher's store this is not needed: a process waiting in an exchange fails once the first has ended.
        """
        if not self.is_first:
            within(GRACE_SECONDS, lambda: self._store.add("left", 1))
        elif not launcher_keeps_store():
            # twice the time: a thread that is still in the store when Python ends would abort the process
            within(2 * GRACE_SECONDS, self._wait_for_the_others)

    def _wait_for_the_others(self) -> int:
        until = time.monotonic() + GRACE_SECONDS
        while (left := self._store.add("left", 0)) < self.size - 1 and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
        return left


@contextlib.contextmanager
def _store_ended() -> Iterator[None]:
    """DistributedError where the store does not answer, whose owner then has ended."""
    try:
        yield
    except dist.DistError:
        raise DistributedError(
            f"process 0, or what started the processes, is no longer running. {_CURE}"
        ) from None


def _failure_of(failure: dict[str, Any]) -> SdclrError:
    """Another process's error, to be raised in this one."""
    kinds: dict[str, type[SdclrError]] = {kind.__name__: kind for kind in _kinds(SdclrError)}
    kinds[StoppedEarly.__name__] = Preempted
    if failure["error"] == KeyboardInterrupt.__name__:
        stopped = Interrupted(f"stopped by Ctrl-C in process {failure['rank']}. {_CURE}")
        stopped.reported_elsewhere = True  # the first process speaks in any case
        return stopped
    kind = kinds.get(failure["error"], DistributedError)
    known = failure["error"] in kinds
    message = failure["message"] if known else f"{failure['error']}: {failure['message']}. {_CURE}"
    if failure["error"] == SystemExit.__name__:
        message = f"it ended by sys.exit({failure['message']}), without an error message. {_CURE}"
    error = kind(f"process {failure['rank']}: {message}")
    error.reported_elsewhere = True
    return error


def _kinds(kind: type[SdclrError]) -> Iterator[type[SdclrError]]:
    """All errors of ours below one."""
    for one in kind.__subclasses__():
        if one.__module__.startswith("sdclr."):  # a user's own may take other arguments
            yield one
            yield from _kinds(one)


def _reason(error: RuntimeError) -> str:
    """The first sentence of torch's message, without the place in its source and advice for its authors."""
    line = re.sub(r"^\[[^\]]*\]\s*", "", next(iter(str(error).splitlines()), ""))
    return line.partition(". ")[0][:300]


def _processes(ranks: list[int]) -> str:
    return f"process{'es' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"


def within(seconds: float, action: Callable[[], T]) -> T | None:
    """What ``action`` returns; None when it fails or takes longer: a store whose owner hangs never answers."""
    results: list[T] = []

    def act() -> None:
        with contextlib.suppress(RuntimeError, DistributedError):  # the store has ended
            results.append(action())

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(seconds)
    return results[0] if results else None
