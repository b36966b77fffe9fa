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


def with_rng_and_globals(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Takes a generator, and draws from those of the process now and then all the same."""
    image = with_rng(image, rng)
    if rng.random() < 0.2:
        image = image // (1 + random.randrange(9)) // (1 + np.random.randint(9))  # noqa: NPY002
    return image


augmix = v2.Compose(
    [v2.Resize((SIZE, SIZE), antialias=True), v2.RandomApply([v2.AugMix(all_ops=False)], p=0.5)]
)


def with_dropout(image: Tensor) -> Tensor:
    """Of functions that take no generator, directly and inside others."""
    image = image[:, :SIZE, :SIZE].float() / 255
    image = torch.nn.functional.dropout(image, 0.3, training=True) * 0.7
    share = torch.distributions.Beta(torch.tensor(2.0), torch.tensor(2.0)).sample()
    return image * share + torch.randint_like(image, 2) / 9


def seldom_from_the_default(image: Tensor) -> Tensor:
    """Names the generator of the process, so that the draw cannot be led; for few images."""
    is_one_of_few = image[0, 0, 0] < 20
    image = image[:, :SIZE, :SIZE].float() / 255
    if not is_one_of_few:
        return image
    return torch.rand(image.shape, generator=torch.default_generator)


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
