"""What every epoch measured, for Weights & Biases; without a network unless it is asked for."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from sdclr.observers.log_ids import record_id, recorded_id
from sdclr.observers.logged_values import finite, folder_of, require_package
from sdclr.observers.observer import EpochDone, Observer, TrainingBegins


class WandbLog(Observer):
    """A run of Weights & Biases in RUN/wandb; needs ``sdclr[wandb]``.

    ``mode``: offline (``wandb sync`` sends it later), online or disabled; None: what the variable WANDB_MODE says, else
    offline. ``project``: where it belongs. ``folder``: another place than RUN. A run that is resumed has the id that it
    had, which is in RUN/logs.json. Raises ConfigError where the package is not installed.

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
        mode: Any = self._mode or os.environ.get(
            "WANDB_MODE", "offline"
        )  # wandb says which there are
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
