"""Preparation of features before scoring: checks, rows of length one, whitening.

N images, F feature dim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from sdclr.errors import DataError
from sdclr.evaluation.features import of_length_one

SMALLEST_SHARE = 1e-10
"""Directions with less than this share of the largest variance are rounding errors, not features."""

SMALLEST_VARIANCE = 1e-24
"""Below this variance, unit rows differ only by rounding."""

BLOCK_ROWS = 131_072
"""Rows converted to float64 at once; most collections fit in one block."""


def blocks_of(rows: Tensor) -> Iterator[Tensor]:
    """The rows [N, F] in blocks, so that intermediate results stay small."""
    yield from rows.split(BLOCK_ROWS)


def mean_of(rows: Tensor) -> Tensor:
    """The mean row, float64 [F]."""
    total = sum(part.double().sum(dim=0) for part in blocks_of(rows))
    assert isinstance(total, Tensor)
    return total / len(rows)


def require_usable(features: Tensor, *others: Tensor) -> None:
    """Raise DataError if no score can be computed from these features [N, F].

    That is: fewer than two rows, numbers that are not finite, or rows that are all equal. ``others``
    are further rows of the same kind.
    """
    if not isinstance(features, Tensor):
        raise DataError(
            f"features must be a tensor, got {type(features).__name__}; torch.as_tensor makes one of an array."
        )
    if features.ndim != 2 or not features.shape[1]:
        shape = tuple(features.shape)
        raise DataError(f"features must have the shape [images, features], got {shape}.")
    blocks = [block for rows in (features, *others) for block in blocks_of(rows)]
    num_images = sum(map(len, blocks))
    if num_images < 2:
        raise DataError(
            f"rarity compares images with each other and needs at least 2, got {num_images}."
        )
    finite = torch.cat([block.isfinite().all(dim=1) for block in blocks])
    if not finite.all():
        first = int((~finite).nonzero()[0])
        raise DataError(
            f"the features of {int((~finite).sum())} of {num_images} images are not finite "
            f"numbers, the first of them in row {first}. Leave these images out, or use weights "
            "from before a training diverged."
        )
    if all(bool((block == features[0]).all()) for block in blocks):
        raise DataError(
            f"the features of all {num_images} images are the same, so no image is rarer than "
            "another. Look whether the images differ, and whether the weights are a trained "
            "network's."
        )


def unit_rows(features: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """Rows of length one, [N, F]: distances between them rank as cosines do.

    A row of zeros is left unchanged. ``dtype`` float32 takes half the memory; rows are divided in
    float64 before rounding.

    >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    found = torch.empty(features.shape, dtype=dtype)
    for part, block in zip(blocks_of(found), blocks_of(features), strict=True):
        part.copy_(of_length_one(block.double()))
    return found


def whitened(features: Tensor, dims: int | None = 128) -> Tensor:
    """Principal components of unit rows, each with variance one: float64 [N, D], D <= dims.

    ``dims``: how many of the largest components are kept; None keeps all that vary, and the length
    of a row is then its Mahalanobis distance from the mean.

    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.5]])
    >>> torch.cov(whitened(x).T).round(decimals=6).abs().tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    components, variances = principal_components(features, dims)
    return components / variances.sqrt()


def principal_components(features: Tensor, dims: int | None = 128) -> tuple[Tensor, Tensor]:
    """Unit rows on their principal axes, float64 [N, D], largest first; and variances [D].

    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    >>> [part.shape for part in principal_components(x, dims=1)]
    [torch.Size([4, 1]), torch.Size([1])]
    """
    require_usable(features)
    mean = _sum_over_unit_rows(features, lambda rows: rows.sum(dim=0)) / len(features)
    products = _sum_over_unit_rows(features, lambda rows: (rows - mean).T @ (rows - mean))
    variances, axes = torch.linalg.eigh(products / (len(features) - 1))  # smallest first
    variances, axes = variances.flip(0), axes.flip(1)
    kept = variances > SMALLEST_SHARE * variances[0]
    if variances[0] <= SMALLEST_VARIANCE:
        raise DataError(
            "the features of all images point the same way, so no image is rarer than another."
        )
    count = int(kept.sum())
    if dims is not None:
        count = min(count, dims)
    # the sign of an axis is arbitrary: the largest entry is made positive, on any machine
    axes = axes[:, :count]
    largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    axes = axes * largest.sign()
    components = torch.empty(len(features), count, dtype=torch.float64)
    for part, block in zip(blocks_of(components), blocks_of(features), strict=True):
        part.copy_((unit_rows(block) - mean) @ axes)
    return components, variances[:count]


def _sum_over_unit_rows(features: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
    total = sum(of(unit_rows(block)) for block in blocks_of(features))
    assert isinstance(total, Tensor)
    return total
