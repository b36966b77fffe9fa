"""What the training loop tells whoever watches it: the loop knows none of them by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn


@dataclass(frozen=True)
class TrainingBegins:
    """A run starts, or goes on."""

    label: str
    """What it is called on a display."""
    total_steps: int
    step: int
    """Steps done already."""
    num_epochs: int
    settings: Mapping[str, Any]
    """The whole config as nested plain values."""
    folder: str = ""
    """Of the run; empty where there is none."""


@dataclass(frozen=True)
class StepDone:
    """One step; nothing of it has been read from the device, so that the host need not wait."""

    step: int
    """From 1."""


@dataclass(frozen=True)
class EpochDone:
    """The last step of an epoch."""

    epoch: int
    """From 1."""
    num_epochs: int
    step: int
    measured: Mapping[str, float]
    """loss (mean over the epoch's images), learning_rate, views_per_second, data_share (of the time, in [0, 1], that
    steps waited for views), seconds, what the method measures, and what a check of health does (docs/health.md)."""
    backbone: nn.Module
    """As it is now, in train mode, and to be left in it. Images [B, 3, S, S] -> features [B, F]."""
    image_records: Tensor | None = None
    """With record_images: what sdclr.image_records.COLUMNS says of each training image, float32 [N, 3], NaN
    where an image was not met."""


class Observer:
    """Base of whoever watches a training. Each method does nothing; override those you need.

    It runs in the first process only, and must not change the run: not the weights, not the global random state. One
    that fails is told of in a warning and is left out from there on; the run goes on.

    >>> class Loudest(Observer):
    ...     def on_epoch(self, done):
    ...         print(f"epoch {done.epoch}: loss {done.measured['loss']:.2f}")
    >>> from sdclr.observers import EpochDone
    >>> Loudest().on_epoch(EpochDone(1, 10, 50, {"loss": 5.678}, nn.Identity()))
    epoch 1: loss 5.68
    """

    required: ClassVar[bool] = False
    """Whether a run is nothing without it: what it raises then ends the run."""

    def on_begin(self, begins: TrainingBegins) -> None:
        """Before the first step of this sitting."""

    def on_step(self, done: StepDone) -> None:
        """After every step."""

    def on_epoch(self, done: EpochDone) -> None:
        """After every epoch, before its checkpoint is written."""

    def on_end(self, done: EpochDone) -> None:
        """After the last epoch of a run, with everything saved. Not after a stop or an error."""
