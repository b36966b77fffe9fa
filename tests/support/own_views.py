"""Views of somebody's own, as a user would write them in a module."""

from __future__ import annotations

import itertools
import random

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

SIZE = 8

torchvision_views = v2.Compose(
    [
        v2.RandomResizedCrop(SIZE, antialias=True),
        v2.RandomHorizontalFlip(),
        v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
        v2.ToDtype(torch.float32, scale=True),
        v2.GaussianNoise(sigma=0.02, clip=True),
    ]
)


def with_rng(image: Tensor, rng: np.random.Generator) -> Tensor:
    top, left = rng.integers(0, [image.shape[1] - SIZE + 1, image.shape[2] - SIZE + 1])
    return image[:, top : top + SIZE, left : left + SIZE]


def with_globals(image: Tensor) -> Tensor:
    """As older code does: from the generators that a process has once."""
    top = random.randrange(image.shape[1] - SIZE + 1)
    left = np.random.randint(image.shape[2] - SIZE + 1)  # noqa: NPY002
    return image[:, top : top + SIZE, left : left + SIZE]


_COUNT = itertools.count()


def counting(image: Tensor) -> Tensor:
    """Keeps something from call to call."""
    return torch.full((image.shape[0], SIZE, SIZE), next(_COUNT) % 200, dtype=torch.uint8)


def as_numpy(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()[:SIZE, :SIZE]


def too_small(image: Tensor) -> Tensor:
    return image[:, : SIZE - 1]


def not_finite(image: Tensor) -> Tensor:
    return torch.full((image.shape[0], SIZE, SIZE), torch.nan)


def normalised(image: Tensor) -> Tensor:
    return torch.full((image.shape[0], SIZE, SIZE), -2.0)


def failing(image: Tensor) -> Tensor:
    raise KeyError("nothing here")


def no_image(image: Tensor) -> str:
    return "a view"


class Noise(nn.Module):
    """On the views of a batch."""

    def forward(self, views: Tensor) -> Tensor:
        return (views + 0.1 * torch.randn_like(views)).clamp(0, 1)


class BadRow(nn.Module):
    """Of the second image of a batch something that is no number."""

    def forward(self, views: Tensor) -> Tensor:
        views[1, 0, 0, 0] = torch.inf
        return views


def half(views: Tensor) -> Tensor:
    return views[: len(views) // 2]
