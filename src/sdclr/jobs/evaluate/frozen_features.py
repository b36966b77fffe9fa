"""The images of one split at the size a backbone was trained on, and their features, each extracted once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sdclr.compute.device import device_of_draws
from sdclr.compute.device_choices import Precision
from sdclr.data import Data, Images
from sdclr.data.decoding.decode import printable
from sdclr.evaluation.features import Labels, extract_features
from sdclr.presentation.progress import AnyProgress
from sdclr.processes.world import World
from sdclr.storage.durable_files import make_folder
from sdclr.storage.row_parts import RowParts


class Shared(NamedTuple):
    """How several processes compute features together."""

    world: World
    folder: Path
    """Where the shards are gathered, on a file system visible to all processes."""
    identity: str
    """The backbone's identity."""


class FrozenFeatures:
    """What all probes of one backbone on one split share. Parts are "test" and the subsets of the split."""

    def __init__(
        self,
        backbone: nn.Module,
        data: Data,
        size: int,
        show: AnyProgress,
        precision: Precision = "fp32",
        shared: Shared | None = None,
    ) -> None:
        """``size``: side of the images in pixels; ``precision``: bf16, or anything else for the backbone's own.

        ``shared``: the other processes that help to compute the features.
        """
        self.precision: Precision = precision
        self._shared = shared if shared is not None and shared.world.several else None
        self._num_requests = 0
        self.backbone, self.data, self.size, self.show = backbone, data, size, show
        self._images: dict[str, Images] = {}
        self._features: dict[str, Tensor] = {}

    @property
    def device(self) -> torch.device:
        """The backbone's device."""
        return next(self.backbone.parameters()).device

    @property
    def probe_device(self) -> torch.device:
        """The device of the probes: the backbone's, unless that has no 64-bit floats."""
        return device_of_draws(self.device)

    @property
    def num_classes(self) -> int:
        return len(self.data.class_names)

    def features(self, part: str) -> Tensor:
        """[N, F], extracted on the first call."""
        if part not in self._features:
            images = self.images(part)
            if not len(images):  # nothing to show
                self._features[part] = self._extracted(images, part, 0, None)
                return self._features[part]
            if self._shared is None:
                task = self.show.add(f"features ({part})", total=len(images), unit="images")
                self._features[part] = self._extracted(images, part, 0, task)
            else:
                self._ask(part)
                task = self.show.add(
                    f"features ({part}), a share", total=len(images), unit="images"
                )
                self._features[part] = self._extracted_together(self._shared, images, part, task)
            self.show.finish(task)
        return self._features[part]

    def help(self) -> None:
        """In every process but the first: compute shards of the features the first one requests, until dismissed."""
        assert self._shared is not None
        while True:
            part = self._shared.world.messages.wait_for(f"features/{self._num_requests}")["part"]
            self._num_requests += 1
            if part is None:
                return
            images = self.images(part)
            task = self.show.add(f"features ({part})", total=len(images), unit="images")
            self._extracted_together(self._shared, images, part, task)

    def dismiss(self) -> None:
        """Release the other processes; called by the first one."""
        if self._shared is not None:
            self._ask(None)

    def _ask(self, part: str | None) -> None:
        assert self._shared is not None
        self._shared.world.messages.publish(f"features/{self._num_requests}", {"part": part})
        self._num_requests += 1

    def _extracted(self, images: Images, part: str, first: int, task: int | None) -> Tensor:
        return extract_features(
            self.backbone,
            images.stills(self.size),
            None if task is None else self.advance(task),
            lambda position: _name(images, position, f"{part}, from {first}" if first else part),
            self.precision,
        )

    def _extracted_together(self, shared: Shared, images: Images, part: str, task: int) -> Tensor:
        """All rows in the first process, an empty tensor in the others."""
        make_folder(shared.folder)
        identity = f"{shared.identity} {self.data.fingerprint} {part} {len(images)} {self.size} {self.precision}"
        folder = shared.folder / f"features-{part}.partial"
        parts = RowParts(folder, identity, team=shared.world.messages)
        parts.open(len(images))

        def rows_of(places: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
            own = images.at(places)
            return self._extracted(own, part, int(places[0]), task).float().numpy()

        parts.complete(len(images), rows_of)
        if not shared.world.is_first:
            return torch.empty(0)
        found = torch.from_numpy(np.concatenate(list(parts.parts())))
        parts.remove()
        return found

    def images(self, part: str) -> Images:
        """The images of a part, prepared on the first call."""
        if part not in self._images:
            self._images[part] = self.data.part(part).to(torch.device("cpu"))
        return self._images[part]

    def labels(self, part: str) -> Labels:
        """int64 [N]."""
        labels = self.images(part).labels
        assert labels is not None
        return labels

    def advance(self, task: int) -> Callable[[int], None]:
        """A function that advances a task of the progress display by a number of finished units."""
        return lambda amount: self.show.advance(task, amount)

    @contextmanager
    def progress(self, description: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """A task of the progress display; yields a function to call with the number of units done."""
        task = self.show.add(description, total=total, unit=unit)
        yield self.advance(task)
        self.show.finish(task)


def _name(images: Images, position: int, part: str) -> str:
    """How an error names an image: by its file if it has one."""
    paths = getattr(images, "paths", None)
    return f"image {position} of {part}" if paths is None else printable(str(paths[position]))
