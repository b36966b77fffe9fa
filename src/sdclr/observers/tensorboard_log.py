"""Log every epoch's measurements as scalars for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdclr.observers.logged_values import finite, flat, folder_of, require_package
from sdclr.observers.observer import EpochDone, Observer, TrainingBegins


class TensorBoardLog(Observer):
    """Event files in RUN/tensorboard, one point per epoch over the number of steps; needs ``sdclr[tensorboard]``.

    ``folder``: another place. View them with ``tensorboard --logdir runs``. A resumed run hides what it had
    logged beyond its checkpoint. Raises ConfigError if the package is not installed.

    >>> log = TensorBoardLog("elsewhere")  # doctest: +SKIP
    >>> sdclr.pretrain(config, "runs/x", observers=[log])  # doctest: +SKIP
    """

    def __init__(self, folder: Path | str | None = None) -> None:
        require_package("tensorboard")
        self._folder = folder
        self._writer: Any = None

    def on_begin(self, begins: TrainingBegins) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = str(folder_of(begins, "tensorboard", self._folder))
        # points of an interrupted session are superseded from the next step on
        self._writer = SummaryWriter(folder, purge_step=begins.step + 1 if begins.step else None)
        lines = [f"    {name}: {value}" for name, value in flat(begins.settings)]
        self._writer.add_text("settings", "\n".join(lines), begins.step)
        self._writer.flush()

    def on_epoch(self, done: EpochDone) -> None:
        for name, value in finite(done.measured).items():
            self._writer.add_scalar(name, value, done.step)
        self._writer.add_scalar("epoch", done.epoch, done.step)
        self._writer.flush()

    def on_end(self, done: EpochDone) -> None:
        self._writer.close()
