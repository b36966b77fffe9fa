"""Exact nearest neighbours of every image, in blocks: memory does not grow with N x N.

N images, F feature dim, k neighbours. Compared in benchmarks/rarebench/neighbours.md: the exact
searches of scikit-learn and FAISS were 1.5 and 3 times as fast, and know neither groups nor float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sdclr.errors import ConfigError, DataError
from sdclr.evaluation.rarity.preparation import require_usable

QUERY_ROWS, BANK_ROWS = 1024, 8192
"""Rows of a block: its products take 32 MB."""
SPARE = 8
"""Candidates beyond those asked for: as many may be misplaced by rounding without any effect."""


class Neighbours(NamedTuple):
    """The nearest other images of each image, nearest first."""

    distances: Tensor
    """float64 [N, k], Euclidean."""
    indices: Tensor
    """int64 [N, k], rows of the bank."""

    def first(self, k: int) -> Neighbours:
        """The k nearest of them. Raises ConfigError where there are fewer."""
        if not 1 <= k <= self.distances.shape[1]:
            raise ConfigError(f"k must be 1 to {self.distances.shape[1]}, got {k}.")
        return Neighbours(self.distances[:, :k], self.indices[:, :k])


def most_neighbours(num_images: int, groups: Tensor | None = None) -> int:
    """The largest k with which every image has k neighbours outside its own group.

    Raises DataError where an image has no neighbour at all.

    >>> most_neighbours(5), most_neighbours(5, torch.tensor([0, 0, 0, 1, 2]))
    (4, 2)
    """
    if groups is None:
        return num_images - 1
    if len(groups) != num_images:
        raise DataError(f"got {len(groups)} groups for {num_images} images; give one an image.")
    largest = int(torch.unique(groups, return_counts=True)[1].max())
    if largest == num_images:
        raise DataError(
            f"one group covers all {num_images} images, so no image has a neighbour outside its "
            "own group. Give finer groups, or none."
        )
    return num_images - largest


def nearest(
    features: Tensor,
    k: int,
    *,
    groups: Tensor | None = None,
    advance: Callable[[int], None] | None = None,
) -> Neighbours:
    """The k nearest other rows of each row of ``features`` [N, F], by Euclidean distance.

    ``groups`` int64 [N]: images of one group (a burst, a tile, a patient) are no neighbours of
    each other. Ties go to the row that comes first. ``advance`` is called with the number of rows
    done. Raises DataError for features of which no score can be made, and ConfigError for a k that
    some image has not that many neighbours for.

    >>> nearest(torch.tensor([[0.0], [1.0], [3.0]]), k=1).distances.flatten().tolist()
    [1.0, 1.0, 2.0]
    """
    require_usable(features)
    most = most_neighbours(len(features), groups)
    if not 1 <= k <= most:
        whose = "outside the largest group" if groups is not None else "besides itself"
        raise ConfigError(
            f"k must be 1 to {most}, the number of images {whose}, got {k} for {len(features)} images."
        )
    rows = features.double()
    own = torch.arange(len(rows)) if groups is None else groups
    return _search(rows, rows, k, own, own, advance)


def nearest_in(bank: Tensor, queries: Tensor, k: int) -> Neighbours:
    """The k nearest rows of ``bank`` [M, F] of each row of ``queries`` [N, F].

    >>> nearest_in(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.5]]), k=1)
    Neighbours(distances=tensor([[0.5000]], dtype=torch.float64), indices=tensor([[1]]))
    """
    require_usable(torch.cat([bank, queries]))
    if not 1 <= k <= len(bank):
        raise ConfigError(f"k must be 1 to {len(bank)}, the rows of the bank, got {k}.")
    return _search(bank.double(), queries.double(), k, None, None)


def without_own_group(neighbours: Neighbours, groups: Tensor) -> Neighbours:
    """Of the nearest of each image those of other groups, as many as all images have left.

    That is what :func:`nearest` finds with these ``groups`` (int64 [N]), without another search; no
    column may be left.

    >>> found = nearest(torch.tensor([[0.0], [1.0], [3.0], [7.0]]), k=3)
    >>> without_own_group(found, torch.tensor([0, 0, 1, 2])).indices.tolist()
    [[2, 3], [2, 3], [1, 0], [2, 1]]
    """
    other = groups[neighbours.indices] != groups.unsqueeze(1)
    left = int(other.sum(dim=1).min())
    places = (~other).to(torch.int8).argsort(dim=1, stable=True)[:, :left]
    return Neighbours(neighbours.distances.gather(1, places), neighbours.indices.gather(1, places))


def merged(a: Neighbours, b: Neighbours) -> Neighbours:
    """The nearest of both, as many as ``a`` has: neighbours in one bank and in another.

    The indices of ``b`` must be those of the common numbering already.

    >>> one = nearest_in(torch.tensor([[0.0], [9.0]]), torch.tensor([[2.0]]), k=1)
    >>> two = nearest_in(torch.tensor([[3.0], [8.0]]), torch.tensor([[2.0]]), k=1)
    >>> merged(one, two._replace(indices=two.indices + 2)).indices.tolist()
    [[2]]
    """
    return _nearest_of(
        torch.cat([a.distances, b.distances], dim=1),
        torch.cat([a.indices, b.indices], dim=1),
        a.distances.shape[1],
    )


def _nearest_of(distances: Tensor, indices: Tensor, k: int) -> Neighbours:
    by_index = indices.argsort(dim=1)  # ties go to the row that comes first
    distances, indices = distances.gather(1, by_index), indices.gather(1, by_index)
    order = distances.argsort(dim=1, stable=True)[:, :k]
    return Neighbours(distances.gather(1, order), indices.gather(1, order))


def _search(
    bank: Tensor,
    queries: Tensor,
    k: int,
    bank_own: Tensor | None,
    query_own: Tensor | None,
    advance: Callable[[int], None] | None = None,
) -> Neighbours:
    centre = bank.mean(dim=0)  # without it, squares of a common offset eat the digits
    bank = bank - centre
    scale = float(bank.abs().max().clamp_min(torch.finfo(bank.dtype).tiny))
    rough = _Rough((bank / scale).float(), bank_own)
    parts = []
    for first in range(0, len(queries), QUERY_ROWS):
        block = slice(first, first + QUERY_ROWS)
        rows = queries[block] - centre
        own = None if query_own is None else query_own[block]
        candidates, excluded = rough.candidates((rows / scale).float(), k + SPARE, own)
        distances = _exact_distances(bank, rows, candidates)
        parts.append(_nearest_of(distances.masked_fill(excluded, torch.inf), candidates, k))
        if advance is not None:
            advance(len(rows))
    distances, indices = (torch.cat(part) for part in zip(*parts, strict=True))
    return Neighbours(distances, indices)


class _Rough(NamedTuple):
    """Candidates by a float32 product, which is twice as fast; exact distances decide between them."""

    bank: Tensor
    """float32 [M, F]"""
    own: Tensor | None
    """int64 [M], the group of each row."""

    def candidates(self, rows: Tensor, wanted: int, own: Tensor | None) -> tuple[Tensor, Tensor]:
        """Rows of the bank [n, m], and which of them are no neighbours, bool [n, m]."""
        values, indices = rows.new_empty(len(rows), 0), torch.empty(len(rows), 0, dtype=torch.int64)
        for start in range(0, len(self.bank), BANK_ROWS):
            tile = self.bank[start : start + BANK_ROWS]
            squares = tile.square().sum(dim=1)
            scores = torch.addmm(squares, rows, tile.T, alpha=-2)  # |b|² - 2 q·b
            if own is not None and self.own is not None:
                theirs = self.own[start : start + BANK_ROWS]
                scores.masked_fill_(own.unsqueeze(1) == theirs, torch.inf)
            found = scores.topk(min(wanted, len(tile)), dim=1, largest=False, sorted=False)
            values = torch.cat([values, found.values], dim=1)
            indices = torch.cat([indices, found.indices + start], dim=1)
            if values.shape[1] > wanted:
                kept = values.topk(wanted, dim=1, largest=False, sorted=False)
                values, indices = kept.values, indices.gather(1, kept.indices)
        return indices, values.isinf()


def _exact_distances(bank: Tensor, rows: Tensor, indices: Tensor) -> Tensor:
    """From differences, not from the product: equal rows are at distance 0. [n, m]"""
    distances = torch.empty(indices.shape, dtype=rows.dtype)
    for start in range(0, len(rows), 64):
        block = slice(start, start + 64)
        chosen = bank.index_select(0, indices[block].flatten())  # 4 times as fast as bank[...]
        difference = chosen.view(*indices[block].shape, -1).sub_(rows[block].unsqueeze(1))
        distances[block] = difference.norm(dim=2)
    return distances
