"""Log every epoch's measurements to Weights & Biases; offline by default."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from sdclr.observers.log_ids import record_id, recorded_id
from sdclr.observers.logged_values import finite, folder_of, require_package
from sdclr.observers.observer import EpochDone, Observer, TrainingBegins


class WandbLog(Observer):
    """A Weights & Biases run in RUN/wandb; needs ``sdclr[wandb]``.

    ``mode``: offline (``wandb sync`` sends it later), online or disabled; None: the variable WANDB_MODE, or offline by
    default. ``project``: its W&B project. ``folder``: another place than RUN. A resumed run keeps its id, which is in
    RUN/logs.json. Raises ConfigError if the package is not installed.

    >>> log = WandbLog("rare-birds", mode="online")  # doctest: +SKIP
    >>> sdclr.pretrain(config, "runs/x", observers=[log])  # doctest: +SKIP
    """

    def __init__(
        self, project: str = "sdclr", *, mode: str | None = None, folder: Path | str | None = None
    ) -> None:
        require_package("wandb")
        self._project, self._mode, self._folder = project, mode, folder
        self._run: Any = None

    def on_begin(self, begins: TrainingBegins) -> None:
        import wandb

        folder = folder_of(begins, ".", self._folder)
        folder.mkdir(parents=True, exist_ok=True)
        earlier = recorded_id(begins.folder, "wandb")
        own_id = earlier or secrets.token_hex(8)
        # wandb itself rejects unknown modes
        mode: Any = self._mode or os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(
            project=self._project,
            name=begins.label,
            id=own_id,
            resume="allow",
            mode=mode,
            dir=str(folder),
            config=dict(begins.settings),
            settings=wandb.Settings(silent=True, console="off"),
        )
        if earlier is None:
            record_id(begins.folder, "wandb", own_id)

    def on_epoch(self, done: EpochDone) -> None:
        self._run.log({**finite(done.measured), "epoch": done.epoch}, step=done.step)

    def on_end(self, done: EpochDone) -> None:
        self._run.finish()
