"""Groups of images that look alike, from nearest neighbours; each is shown as one finding.

N images, k neighbours, G groups. Chosen on the labels of RareBench's sets (docs/mining.md): purer
than k-means with as many or fewer images per group, and no further search is needed.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from sdclr.errors import DataError
from sdclr.evaluation.rarity.neighbours import Neighbours

MUTUAL = 3
"""Two images look alike if each is among this many nearest of the other."""
LARGEST_SHARE = 0.1
"""A group of more than a tenth of the images is a chain through all of them, and is not informative."""
SMALL = 10
"""A group of up to this many images is never too large."""


def look_alike(neighbours: Neighbours, copy_of: Tensor, mutual: int = MUTUAL) -> Tensor:
    """The group of each image, int64 [N], 0 .. G - 1 in order of the first image of each.

    Two images belong together if each is among the ``mutual`` nearest of the other; groups are the
    connected components. Copies are left out as neighbours, and belong to the group of the image
    that represents them, ``copy_of`` int64 [N] (near_duplicates; its own row if it is not a copy).
    If a group would contain more than a tenth of the images, and more than 10, groups are formed
    with fewer nearest, down to 1.

    >>> from sdclr.evaluation.rarity import nearest
    >>> x = torch.tensor([[0.0], [1.0], [5.0], [5.1], [20.0]])
    >>> look_alike(nearest(x, k=3), torch.tensor([0, 1, 2, 2, 4]), mutual=1).tolist()
    [0, 0, 1, 1, 2]
    """
    n = len(neighbours.indices)
    if len(copy_of) != n or mutual < 1:
        raise DataError(
            f"look_alike needs copy_of for each of {n} images and mutual of 1 or more, got "
            f"{len(copy_of)} and {mutual}."
        )
    stands_for = copy_of.numpy()
    is_copy = stands_for != np.arange(n)
    largest = max(SMALL, LARGEST_SHARE * n)
    for count in range(mutual, 0, -1):
        labels = _components(*_mutual_pairs(neighbours.indices.numpy(), is_copy, count), n)
        labels = labels[stands_for]
        if np.bincount(labels[~is_copy]).max() <= largest:
            break
    return torch.from_numpy(_in_order_of_appearance(labels))


def rarest_group_first(
    groups: Tensor, score: Tensor, shown: Tensor, by: Literal["mean", "best"] = "mean"
) -> tuple[Tensor, Tensor]:
    """The same groups numbered from the rarest, int64 [N], and their scores, float64 [G].

    A group's score is the mean, or the best, over its images that are ``shown`` (bool [N]: neither
    copies nor junk), or over all of them if none is. Ties keep their order.

    >>> groups, score = torch.tensor([0, 0, 1, 2]), torch.tensor([1.0, 3.0, 9.0, 5.0])
    >>> rarest_group_first(groups, score, torch.tensor([True, False, True, True]))
    (tensor([2, 2, 0, 1]), tensor([9., 5., 1.], dtype=torch.float64))
    """
    count = int(groups.max()) + 1
    sums = torch.zeros(2, count, dtype=torch.float64)
    sizes = torch.zeros(2, count, dtype=torch.float64)
    for row, weight in enumerate((shown.double(), torch.ones(len(groups), dtype=torch.float64))):
        sums[row].index_add_(0, groups, weight * score.double())
        sizes[row].index_add_(0, groups, weight)
    counted = sizes[0] > 0
    means = torch.where(counted, sums[0] / sizes[0].clamp_min(1), sums[1] / sizes[1].clamp_min(1))
    if by == "best":
        counts = shown | ~counted[groups]
        lowest = torch.full((count,), -torch.inf, dtype=torch.float64)
        means = lowest.scatter_reduce(0, groups[counts], score.double()[counts], "amax")
    order = means.argsort(descending=True, stable=True)
    place = torch.empty(count, dtype=torch.int64)
    place[order] = torch.arange(count)
    return place[groups], means[order]


def _mutual_pairs(
    indices: npt.NDArray[np.int64], is_copy: npt.NDArray[np.bool_], count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pairs of images that are not copies, each among the ``count`` nearest of the other."""
    n = len(indices)
    usable = ~is_copy[indices]
    first = usable & (usable.cumsum(axis=1) <= count) & ~is_copy[:, None]
    rows, places = np.nonzero(first)
    columns = indices[rows, places]
    both = np.isin(rows * n + columns, columns * n + rows)
    return rows[both], columns[both]


def _components(
    rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], n: int
) -> npt.NDArray[np.int64]:
    pairs = (np.ones(len(rows), dtype=np.int8), (rows, columns))
    _, labels = connected_components(coo_array(pairs, shape=(n, n)), directed=False)
    numbers: npt.NDArray[np.int64] = labels.astype(np.int64)
    return numbers


def _in_order_of_appearance(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    place = np.empty(len(first), dtype=np.int64)
    place[np.argsort(first)] = np.arange(len(first))
    return place[inverse]
