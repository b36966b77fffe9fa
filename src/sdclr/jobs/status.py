"""JOB: a run folder -> its state and what to do next. Takes no lock, reads no tensors, changes nothing."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sdclr.errors import DataError, MissingInputError, SdclrError
from sdclr.run import Run
from sdclr.run.consistency import foreign_metrics, require_own_backbone
from sdclr.run.files import CLASSIFIER_FILE, FINETUNE_FILE, MINE_FILE, STATUS_FILE
from sdclr.run.folder import why_no_run
from sdclr.run.next_step import next_command
from sdclr.safe_text import command, shown

State = Literal["running", "done", "preempted", "interrupted", "failed"]


@dataclass(frozen=True)
class RunStatus:
    """The state of a run; unknown values are None."""

    run: str
    state: State
    """interrupted: killed without a chance to record it; no process holds the lock of its folder."""
    step: int | None
    """Steps done according to the folder: a running run is ahead of it by an epoch at most."""
    total_steps: int | None
    epoch: int | None
    loss: float | None
    """Mean loss of that epoch."""
    checkpoint_step: int | None
    """The step from which the run would resume."""
    exit_code: int | None
    error: str | None
    """Class of the error that ended the run."""
    message: str | None
    next: str | None
    """The command to give next; None while the run is running, before its settings are written, and when nothing is
    left to do."""
    pid: int | None
    host: str | None
    started: str | None
    """Start of the last session, UTC."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """The state in readable lines."""
        where = (
            f" on {self.host} (process {self.pid}) since {self.started}"
            if self.state == "running" and self.pid
            else ""
        )
        lines = [f"{self.run}: {self.state}{where}"]
        if self.step is not None:
            lines.append(f"  steps: {self.step} of {self.total_steps or 'an unknown number'}")
        if self.epoch is not None:
            lines.append(
                f"  last epoch: {self.epoch}, loss {self.loss if self.loss is None else format(self.loss, '.4g')}"
            )
        if self.state != "done":
            found = "none" if self.checkpoint_step is None else f"step {self.checkpoint_step}"
            lines.append(f"  last checkpoint: {found}")
        if self.message is not None and self.error is None:
            lines.append(f"  note: {self.message}")
        elif self.message is not None:
            lines.append(f"  why: {self.error} (exit code {self.exit_code}): {self.message}")
        lines.append(
            f"  next: {self.next or _WITHOUT_A_COMMAND.get(self.state, 'the same command again')}"
        )
        return lines


_WITHOUT_A_COMMAND = {"running": "wait", "done": "nothing is left to do"}
"""The next step for a run in this state if there is no command to give."""


def _of_another_command(folder: Path) -> str | None:
    """What a folder of another command is, and what to do with it; None if it belongs to no command."""
    name = shown(folder)
    if (folder / CLASSIFIER_FILE).is_file():
        predict = command("sdclr", "predict", folder)
        return (
            f"{name} is a finished classifier of sdclr finetune, which has no status. Use it: `{predict} IMAGES --out "
            "predictions.csv`."
        )
    if (folder / FINETUNE_FILE).is_file():
        return (
            f"{name} is of sdclr finetune, which has not finished it: the same command continues."
        )
    if (folder / MINE_FILE).is_file():
        done = (folder / "scores.csv").is_file()
        after = "has no status" if done else "has not finished it: the same command continues"
        return f"{name} is of sdclr mine, which {after}."
    return None


def read_status(folder: Path | str) -> RunStatus:
    """The state of the run in ``folder``. Raises MissingInputError if there is none."""
    run = Run(folder)
    if not run.exists and not (run.folder / STATUS_FILE).is_file():
        lack = f"it has neither config.yaml nor {STATUS_FILE}"
        raise MissingInputError(_of_another_command(run.folder) or why_no_run(run.folder, lack))
    recorded: dict[str, Any] = {}
    metrics: list[dict[str, Any]] = []
    damage: list[str] = []  # the rest of the folder is still informative
    try:
        recorded = run.read_status()
    except DataError as error:
        damage.append(str(error))
    try:
        metrics, damaged_lines = run.metrics_file.sound()
        damage += damaged_lines[:3]
    except DataError as error:
        damage.append(str(error))
    damage += _contradictions(run)
    last = metrics[-1] if metrics else {}
    checkpoints = run.checkpoints.steps()
    state = _state(run, recorded)
    steps = [
        step
        for step in (recorded.get("step"), last.get("step"), *checkpoints[:1])
        if isinstance(step, int)
    ]
    ended = state in ("failed", "preempted")
    return RunStatus(
        run=str(run.folder),
        state=state,
        step=max(steps, default=None),
        total_steps=recorded.get("total_steps") or _total_steps(run, last),
        epoch=last.get("epoch"),
        loss=last.get("loss"),
        checkpoint_step=checkpoints[0] if checkpoints else None,
        exit_code=recorded.get("exit_code") if ended else 0 if state == "done" else None,
        error=recorded.get("error") if ended else None,
        message=" ".join(
            [*([str(recorded["message"])] if ended and recorded.get("message") else []), *damage]
        )
        or None,
        next=next_command(run, state, recorded.get("exit_code")),
        pid=recorded.get("pid"),
        host=recorded.get("host"),
        started=recorded.get("started"),
    )


def _contradictions(run: Run) -> list[str]:
    """Files that do not belong to a finished run."""
    try:
        require_own_backbone(run)
        foreign = foreign_metrics(run)
    except SdclrError as error:
        return [str(error)]
    return [foreign] if foreign else []


def _state(run: Run, recorded: dict[str, Any]) -> State:
    if run.backbone_path.is_file():
        return "done"  # also while it is evaluated, which takes the lock
    if run.in_use():
        return "running"
    return recorded["state"] if recorded.get("state") in ("preempted", "failed") else "interrupted"


def _total_steps(run: Run, last: dict[str, Any]) -> int | None:
    """Total steps of a run without a status.json: epochs times the steps of one."""
    with contextlib.suppress(DataError, KeyError, TypeError, ValueError, ZeroDivisionError):
        return int(last["step"]) // int(last["epoch"]) * int(run.settings()["epochs"])
    return None
