"""The images of one split at the size a backbone was trained on, and their features, each extracted once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sdclr.compute.device_choices import Precision
from sdclr.data import Data, Images
from sdclr.data.decoding.decode import printable
from sdclr.evaluation.features import Labels, extract_features
from sdclr.presentation.progress import AnyProgress


class FrozenFeatures:
    """What every probe of one backbone on one split shares. Parts are "test" and the subsets of the split."""

    def __init__(
        self,
        backbone: nn.Module,
        data: Data,
        size: int,
        show: AnyProgress,
        precision: Precision = "fp32",
    ) -> None:
        """``size``: side of the images in pixels; ``precision``: bf16, or anything else for the backbone's own."""
        self.precision: Precision = precision
        self.backbone, self.data, self.size, self.show = backbone, data, size, show
        self._images: dict[str, Images] = {}
        self._features: dict[str, Tensor] = {}

    @property
    def device(self) -> torch.device:
        """Where the backbone is."""
        return next(self.backbone.parameters()).device

    @property
    def num_classes(self) -> int:
        return len(self.data.class_names)

    def features(self, part: str) -> Tensor:
        """[N, F], extracted at the first call."""
        if part not in self._features:
            images = self.images(part)
            task = self.show.add(f"features ({part})", total=len(images), unit="images")
            self._features[part] = extract_features(
                self.backbone,
                images.stills(self.size),
                self.advance(task),
                lambda position: _name(images, position, part),
                self.precision,
            )
            self.show.finish(task)
        return self._features[part]

    def images(self, part: str) -> Images:
        """The images, all looked for at the first call, before any work."""
        if part not in self._images:
            self._images[part] = self.data.part(part).to(torch.device("cpu"))
        return self._images[part]

    def labels(self, part: str) -> Labels:
        """int64 [N]."""
        labels = self.images(part).labels
        assert labels is not None
        return labels

    def advance(self, task: int) -> Callable[[int], None]:
        """What counts the finished units of a task of the progress display."""
        return lambda amount: self.show.advance(task, amount)

    @contextmanager
    def progress(self, description: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """A task of the progress display; gives what is called with the number of units done."""
        task = self.show.add(description, total=total, unit=unit)
        yield self.advance(task)
        self.show.finish(task)


def _name(images: Images, position: int, part: str) -> str:
    """What an error calls one image: its file where it has one."""
    paths = getattr(images, "paths", None)
    return f"image {position} of {part}" if paths is None else printable(str(paths[position]))
