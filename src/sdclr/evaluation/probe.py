"""The contract of a probe: it learns from frozen features and predicts classes.

N training images, V validation images, F feature dim, C classes. A probe returns predictions, never
accuracies: those are computed in one place, per class. The contract is checked after each fit.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from sdclr.errors import ConfigError
from sdclr.evaluation.features import Labels
from sdclr.evaluation.probe_settings import ProbeConfig as ProbeConfig  # re-exported
from sdclr.evaluation.probes import Subset

Advance = Callable[[int], None]
Progress = Callable[[str, int, str], AbstractContextManager[Advance]]
"""(description, total, unit) -> a function to call with the number of units done."""
_CPU = torch.device("cpu")
Crops = Callable[[Iterable[Tensor], int], Iterator[Tensor]]


class Probe(Protocol):
    """What every probe does. One object is fitted once, or once for each fold."""

    def fit(self, task: ProbeTask) -> None:
        """Learn from the training images of ``task``."""

    def predict(self, features: Tensor) -> Labels:
        """Classes [N] of features [N, F]."""


class Images(Protocol):
    """Labelled images as a probe sees them; features may be extracted on first access."""

    @property
    def features(self) -> Tensor:
        """[N, F] on the CPU."""

    @property
    def labels(self) -> Labels:
        """int64 [N], in 0 .. C - 1."""


@dataclass(frozen=True)
class GivenImages:
    """Images with existing features."""

    features: Tensor
    labels: Labels


def no_progress(description: str, total: int, unit: str) -> AbstractContextManager[Advance]:
    return nullcontext(lambda amount: None)


@dataclass(frozen=True)
class ProbeTask:
    """What a probe learns from.

    >>> from types import SimpleNamespace
    >>> import numpy as np, torch
    >>> images = SimpleNamespace(features=torch.eye(3), labels=np.array([0, 1, 1]))
    >>> task = ProbeTask(training=images, validation=images, num_classes=2)
    >>> task.training.features.shape, task.subset
    (torch.Size([3, 3]), 'train')
    """

    training: Images
    """A class may be missing among them."""
    validation: Images
    """V is 0 if no images were held out."""
    num_classes: int
    """C."""
    groups: Labels | None = None
    """int64 [N]: training images that belong together, such as a burst, if known. A probe that holds images out should
    hold out whole groups."""
    subset: Subset = "train"
    """Which training images these are."""
    cross_validated: bool = False
    """Whether this is one of several folds; then no images are held out."""
    seed: int = 0
    conventions: str = "cifar"
    """The family of data sets: cifar or imagenet."""
    network: nn.Module | None = None
    """The frozen backbone [B, C, S, S] -> [B, F], for a probe that needs crops."""
    crops: Crops | None = None
    """(batches of positions [B], epoch from 1) -> uint8 images [B, C, S, S], cut at random."""
    device: torch.device = _CPU
    """Where the run computes; a probe may compute there too."""
    progress: Progress = no_progress
    """(description, total, unit) -> a context; it yields a function to call with the number of units done."""

    @property
    def features(self) -> Tensor:
        """Features of the training images, [N, F] on the CPU; do not modify them."""
        return self.training.features

    @property
    def labels(self) -> Labels:
        """Labels of the training images, int64 [N]."""
        return self.training.labels


class BrokenContract(ConfigError):
    """A probe has violated the contract of probes."""


def checked_predictions(found: Any, num_images: int, num_classes: int) -> Labels:
    """Predictions as int64 [N]. Raises BrokenContract for anything else."""
    predictions = found.detach().cpu().numpy() if isinstance(found, Tensor) else np.asarray(found)
    must = f"it must return the class of each image, whole numbers of shape [{num_images}]"
    if predictions.shape != (num_images,):
        shape = "one value" if predictions.ndim == 0 else f"shape {list(predictions.shape)}"
        raise BrokenContract(
            f"predict returned {shape}; {must}. Accuracies are computed from these."
        )
    if predictions.dtype.kind not in "iu":
        raise BrokenContract(f"predict returned {predictions.dtype}; {must}.")
    if num_images and not (int(predictions.min()) >= 0 and int(predictions.max()) < num_classes):
        raise BrokenContract(
            f"predict returned classes {predictions.min()} .. {predictions.max()}; there are {num_classes}, from 0."
        )
    return predictions.astype(np.int64)


class Untouched:
    """Tensors that a probe may only read: an error names those that it has changed."""

    def __init__(self) -> None:
        self._before: list[tuple[str, list[Tensor], int]] = []

    def watch(self, what: str, tensors: Iterable[Tensor]) -> None:
        """Record the current content of ``tensors``; ``what`` names them in the error."""
        kept = list(tensors)
        self._before.append((what, kept, content_of(kept)))

    def require(self) -> None:
        """Raise BrokenContract if the content of a tensor has changed."""
        for what, tensors, before in self._before:
            if content_of(tensors) != before:
                raise BrokenContract(
                    f"it changed {what}, which other probes and the run itself use. Work on a copy: tensor.clone()."
                )


def content_of(tensors: Iterable[Tensor]) -> int:
    """A checksum over the bytes of tensors."""
    value = 0
    for tensor in tensors:
        plain = tensor.detach().cpu().contiguous()
        if plain.numel():
            value = zlib.crc32(plain.reshape(-1).view(torch.uint8).numpy().data, value)
    return value
