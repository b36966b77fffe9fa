"""The few training images on which the health of a run is measured: always the same views of the same images.

n images of the sample, S side of a view, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sdclr.batch import Views
from sdclr.compute.stateless_random import Stream, derive, permutation
from sdclr.data import Images
from sdclr.data.splits import Positions
from sdclr.data.trained_images import unseen_views
from sdclr.evaluation.balancedness import OF_DATA, class_groups
from sdclr.jobs.pretrain.training import Training

LARGEST_SAMPLE = 256
LARGEST_BYTES = 1 << 26
"""Largest size of the views, which stay in memory: with three channels, 256 images of up to 104 px, 55 of 224 px."""
_COARSE = 8
COPIES, PICTURES = 8, 4
"""Crops of each picture, and number of pictures, to check whether crops differ."""


@dataclass(frozen=True)
class HealthSample:
    """The sample, on the CPU."""

    views: Views
    """float32 [n, C, S, S] each; ``index`` are positions in the training images."""
    copies: Tensor
    """float32 [PICTURES, COPIES, C, S, S]: COPIES crops of each of a few pictures."""
    labels: Positions | None
    """int64 [n], or None if there are none."""
    pixels: Tensor | None
    """With labels: the images without augmentation, 8 x 8, minus their mean: float32 [n, 64 C]."""
    groups: dict[str, list[int]]
    """Class ids of many, medium and few; empty without labels."""


def health_sample(training: Training) -> HealthSample | None:
    """Views of an epoch that the run never reaches; None for fewer than four images.

    With labels the classes are represented as evenly as possible; otherwise the sample could miss the rare ones.
    """
    images, config = training.images, training.config
    bytes_per_image = 2 * 4 * images.channels * config.views.size**2  # two views in fp32
    num = min(len(images), LARGEST_SAMPLE, LARGEST_BYTES // bytes_per_image)
    if num < 4:
        return None
    order = permutation(derive(config.seed, Stream.HEALTH), len(images)).numpy()
    labels = images.labels
    if labels is not None:
        order = _classes_in_turn(order, labels)
    positions = np.sort(order[:num])
    views = _views(training, images.at(positions))
    pictures = np.repeat(positions[:: max(num // PICTURES, 1)][:PICTURES], COPIES)
    copies = _views(training, images.at(pictures)).a
    return HealthSample(
        views._replace(index=torch.from_numpy(positions)),
        copies.unflatten(0, (-1, COPIES)),
        None if labels is None else labels[positions],
        None if labels is None else _pixels(training, images.at(positions)),
        {} if labels is None else _groups(training),
    )


def _pixels(training: Training, images: Images) -> Tensor:
    small = [
        F.adaptive_avg_pool2d(batch.cpu().float() / 255, _COARSE).flatten(1)
        for batch in images.stills(training.config.views.size)
    ]
    pixels = torch.cat(small)
    return pixels - pixels.mean(dim=0)


def _classes_in_turn(order: Positions, labels: Positions) -> Positions:
    """The same positions: first one of every class, then the second of each, and so on."""
    turn = np.empty(len(order), dtype=np.int64)
    seen: dict[int, int] = {}
    for place, label in enumerate(labels[order].tolist()):
        turn[place] = seen.get(label, 0)
        seen[label] = turn[place] + 1
    return order[np.argsort(turn, kind="stable")]


def _groups(training: Training) -> dict[str, list[int]]:
    """As in an evaluation, also for a run on another subset."""
    return class_groups(training.data.long_tail_counts(), OF_DATA[training.data.conventions])


def _views(training: Training, images: Images) -> Views:
    """Views as in training, on the CPU."""
    config = training.config
    return unseen_views(images, config.views.spec(), config.seed, epoch=config.epochs)
