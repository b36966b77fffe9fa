"""status.json: how a run stands, told by the run itself; of its sudden death only the lock of its folder tells."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from sdclr.errors import EXIT_BUG, Preempted, SdclrError
from sdclr.run import STATUS_FILE, Run


class Outcome:
    """Keeps the status.json of a run that this process has locked."""

    def __init__(self, run: Run, total_steps: int) -> None:
        self._run = run
        self._facts: dict[str, Any] = {
            "pid": os.getpid(),
            "host": platform.node(),
            "started": _now(),
            "total_steps": total_steps,
        }

    def write(self, state: str, step: int, error: Exception | None = None) -> None:
        """``state``: running, done, preempted or failed."""
        steps = self._run.checkpoints.steps()
        failure = {
            "exit_code": error.exit_code if isinstance(error, SdclrError) else EXIT_BUG,
            "error": type(error).__name__,
            "message": str(error),
        }
        facts = {"state": state, **self._facts, "updated": _now(), "step": step}
        facts["checkpoint_step"] = steps[0] if steps else last_checkpoint_step(self._run)
        facts["next"] = self._run.next_command(state, error.exit_code if isinstance(error, SdclrError) else None)
        self._run.write_json(STATUS_FILE, facts | (failure if error is not None else {}))

    @contextlib.contextmanager
    def told(self, step: Callable[[], int]) -> Iterator[None]:
        """Tell of the end, good or bad; ``step`` counts the steps done. What ends the process at once stays untold."""
        try:
            yield
        except Exception as error:
            with contextlib.suppress(SdclrError):  # the disk may be what failed; its error is the one to show
                self.write("preempted" if isinstance(error, Preempted) else "failed", step(), error)
            raise
        self.write("done", step())


def last_checkpoint_step(run: Run) -> int | None:
    """The newest checkpoint that status.json remembers."""
    with contextlib.suppress(SdclrError):
        return run.read_status().get("checkpoint_step")
    return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
