"""status.json: the state of a run, written by the run itself; a killed run shows only in the lock of its folder."""

from __future__ import annotations

import contextlib
import os
import platform
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from sdclr.errors import EXIT_BUG, CheckpointError, DataError, Preempted, SdclrError
from sdclr.processes.signals import StoppedEarly
from sdclr.run import Run
from sdclr.run.files import STATUS_FILE
from sdclr.run.next_step import next_command


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
        self._run.require_in_place()
        steps = self._run.checkpoints.steps()
        failure = {
            "exit_code": error.exit_code if isinstance(error, SdclrError) else EXIT_BUG,
            "error": type(error).__name__,
            "message": str(error),
        }
        facts = {"state": state, **self._facts, "updated": _now(), "step": step}
        facts["checkpoint_step"] = steps[0] if steps else None
        if not steps:
            with contextlib.suppress(SdclrError):  # damaged, and replaced now
                facts["checkpoint_step"] = last_checkpoint_step(self._run)
        facts["next"] = next_command(
            self._run, state, error.exit_code if isinstance(error, SdclrError) else None
        )
        self._run.write_json(STATUS_FILE, facts | (failure if error is not None else {}))

    @contextlib.contextmanager
    def recorded(self, step: Callable[[], int]) -> Iterator[None]:
        """Record how the block ends; ``step`` returns the number of steps done. A killed process writes nothing."""
        try:
            yield
        except StoppedEarly as stopped:
            self._try_to_write("preempted", step(), Preempted(str(stopped)))
            raise
        except Preempted as error:
            if self._run.backbone_path.is_file():  # the signal came with the last step
                self._try_to_write("done", step())
            else:
                self._try_to_write("preempted", step(), error)
            raise
        except Exception as error:
            self._try_to_write("failed", step(), error)
            raise
        self.write("done", step())

    def _try_to_write(self, state: str, step: int, error: Exception | None = None) -> None:
        # the disk may be what failed; its error is the one to show
        with contextlib.suppress(SdclrError):
            self.write(state, step, error)


def last_checkpoint_step(run: Run) -> int | None:
    """The step of the newest checkpoint recorded in status.json. Raises DataError if the file is damaged."""
    return run.read_status().get("checkpoint_step")


def require_no_history(run: Run) -> None:
    """Raise CheckpointError if a run without a checkpoint once had one: restarting silently would discard it."""
    advice = "Restore its checkpoints from a backup, or start again in another --out."
    try:
        lost = last_checkpoint_step(run)
    except DataError as error:
        raise CheckpointError(
            f"{run.folder} has no checkpoint, and may have had one: {error} {advice}"
        ) from None
    if lost is not None:
        raise CheckpointError(
            f"{run.folder} had a checkpoint of step {lost}, and now it has none. {advice}"
        )
    # as an earlier version left it when it was killed before its first checkpoint
    if epochs := len(run.metrics()):
        warnings.warn(
            f"{run.folder} has no checkpoint: it begins again, and its {epochs} epochs are lost.",
            stacklevel=3,
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
