"""The events that the training loop reports to observers, which it does not know by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn


@dataclass(frozen=True)
class TrainingBegins:
    """A run starts or resumes."""

    label: str
    """Its name on a display."""
    total_steps: int
    step: int
    """Steps already done."""
    num_epochs: int
    settings: Mapping[str, Any]
    """The whole config as nested plain values."""
    folder: str = ""
    """The run folder; empty if there is none."""


@dataclass(frozen=True)
class StepDone:
    """One step; nothing has been read from the device, so that the host need not wait."""

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
    """loss (mean over the epoch's images), learning_rate, views_per_second, data_share (share of the time, in [0, 1],
    that steps waited for views), seconds, the method's measurements, and those of a health check (docs/health.md)."""
    backbone: nn.Module
    """The current backbone, in train mode, which must be kept. Images [B, C, S, S] -> features [B, F]."""
    image_records: Tensor | None = None
    """With record_images: the columns sdclr.image_records.COLUMNS for each training image, float32 [N, 3], NaN
    for images that were not seen."""


class Observer:
    """Base class of observers of a training. Each method does nothing; override those you need.

    It runs in the first process only, and must not change the run: neither the weights nor the global random state. An
    observer that fails is reported in a warning and removed; the run continues.

    >>> class Loudest(Observer):
    ...     def on_epoch(self, done):
    ...         print(f"epoch {done.epoch}: loss {done.measured['loss']:.2f}")
    >>> from sdclr.observers import EpochDone
    >>> Loudest().on_epoch(EpochDone(1, 10, 50, {"loss": 5.678}, nn.Identity()))
    epoch 1: loss 5.68
    """

    required: ClassVar[bool] = False
    """Whether a run depends on it: its errors then end the run."""

    def on_begin(self, begins: TrainingBegins) -> None:
        """Called before the first step of this session."""

    def on_step(self, done: StepDone) -> None:
        """Called after every step."""

    def on_epoch(self, done: EpochDone) -> None:
        """Called after every epoch, before its checkpoint is written."""

    def on_end(self, done: EpochDone) -> None:
        """Called after the last epoch of a run, with everything saved. Not after a stop or an error."""
