"""Which images make up which batch: a pure function of (seed, epoch), so that nothing has to be saved."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sdclr.compute.stateless_random import Stream, derive, permutation, uniforms
from sdclr.errors import ConfigError


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Batches of one epoch, the short last one included.

    Raises ConfigError when the batch is larger than the data, or when one image would be left for the last batch:
    batch norm cannot work on it, and dropping it would be silent.
    """
    if batch_size > num_images:
        raise ConfigError(
            f"batch_size must not exceed the {num_images} training images, got {batch_size}. Lower batch_size."
        )
    if batch_size < 2 or num_images % batch_size == 1:
        larger, smaller = (
            range(max(batch_size, 1) + 1, num_images + 1),
            range(batch_size - 1, 1, -1),
        )
        works = next((size for size in (*larger, *smaller) if num_images % size != 1), None)
        raise ConfigError(
            f"batch_size={batch_size} leaves a last batch of one image ({num_images} images), which batch norm cannot "
            f"train on. " + (f"Use batch_size={works}." if works else "More images are needed.")
        )
    return -(-num_images // batch_size)


def epoch_batches(
    num_images: int,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    first: int = 0,
    weights: Tensor | None = None,
) -> Iterator[Tensor]:
    """The batches of one epoch from number ``first`` on: int64 positions [B], each image once.

    ``weights`` [N], at least 0: instead, N draws with replacement, each image in proportion to its weight. ConfigError
    where all are 0.
    """
    for draws in epoch_draws(
        num_images, batch_size, seed=seed, epoch=epoch, first=first, weights=weights
    ):
        yield draws % num_images


def epoch_draws(
    num_images: int,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    first: int = 0,
    weights: Tensor | None = None,
) -> Iterator[Tensor]:
    """The same batches as draws: position + N x how often the image has already occurred in this epoch.

    What is random about a view is a function of the draw, so that an image that occurs again in the same epoch gets
    other views. At its first occurrence, an image's draw is its position.
    """
    key = derive(seed, Stream.EPOCH_ORDER, epoch)
    if weights is None:
        order = permutation(key, num_images)
    else:
        order = _drawn(key, weights)
        order = order + num_images * _times_before(order)
    yield from order[first * batch_size :].split(batch_size)


def _times_before(order: Tensor) -> Tensor:
    """How often each value of ``order`` occurs before it."""
    values, place = order.sort(stable=True)
    times = torch.arange(len(order)) - torch.searchsorted(values, values)
    return torch.empty_like(order).index_copy_(0, place, times)


def _drawn(key: int, weights: Tensor) -> Tensor:
    """N positions, drawn independently in proportion to the weights [N]: int64 [N]."""
    total = weights.double().cumsum(0)
    if not total[-1] > 0:
        raise ConfigError("all sampling weights are 0: no image can be drawn.")
    chance = uniforms(key, torch.arange(len(weights)), 1).squeeze(1).double()  # [0, 1)
    return torch.searchsorted(total, chance * total[-1], right=True).clamp(max=len(weights) - 1)
