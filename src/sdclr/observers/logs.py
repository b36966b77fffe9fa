"""Observers for other tools, by their names on the command line; each imports its package when it is created."""

from __future__ import annotations

from collections.abc import Mapping

from sdclr.errors import ConfigError
from sdclr.observers.mlflow_log import MLflowLog
from sdclr.observers.observer import Observer
from sdclr.observers.tensorboard_log import TensorBoardLog
from sdclr.observers.wandb_log import WandbLog
from sdclr.safe_text import shown

LOGS: Mapping[str, type[TensorBoardLog] | type[WandbLog] | type[MLflowLog]] = {
    "tensorboard": TensorBoardLog,
    "wandb": WandbLog,
    "mlflow": MLflowLog,
}
"""Name, which is also that of the package and of the extra, -> class."""


def logs_named(text: str) -> list[Observer]:
    """The logs in a comma-separated list of names, each once; ConfigError for an unknown name or missing package.

    >>> logs_named("")
    []
    """
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in LOGS:
            raise ConfigError(f"--log knows {', '.join(LOGS)}, got {shown(name)}.")
    return [LOGS[name]() for name in names]
