"""Exact nearest neighbours of every image, in blocks: memory does not grow with N x N.

N images, F feature dim, k neighbours. Compared in benchmarks/rarebench/neighbours.md: the exact
searches of scikit-learn and FAISS were 1.5 and 3 times as fast, but support neither groups nor float64.
Time grows with N x N; cells.py has the search for collections that are too large for this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sdclr.errors import ConfigError, DataError
from sdclr.evaluation.rarity.preparation import BLOCK_ROWS, blocks_of, mean_of, require_usable

QUERY_ROWS, BANK_ROWS = 1024, 8192
"""Rows of a block: its products take 32 MB."""
CACHED = 2**18
"""Numbers in a block of differences: 2 MB, which fit in a processor's cache."""
SPARE = 8
"""Extra candidates: this many may be misplaced by rounding without any effect."""


class Neighbours(NamedTuple):
    """The nearest other images of each image, nearest first."""

    distances: Tensor
    """float64 [N, k], Euclidean."""
    indices: Tensor
    """int64 [N, k], rows of the bank."""

    def first(self, k: int) -> Neighbours:
        """The k nearest of them. Raises ConfigError if there are fewer."""
        if not 1 <= k <= self.distances.shape[1]:
            raise ConfigError(f"k must be 1 to {self.distances.shape[1]}, got {k}.")
        return Neighbours(self.distances[:, :k], self.indices[:, :k])


def most_neighbours(num_images: int, groups: Tensor | None = None) -> int:
    """The largest k with which every image has k neighbours outside its own group.

    Raises DataError if an image has no neighbour at all.

    >>> most_neighbours(5), most_neighbours(5, torch.tensor([0, 0, 0, 1, 2]))
    (4, 2)
    """
    if groups is None:
        return num_images - 1
    if len(groups) != num_images:
        raise DataError(f"got {len(groups)} groups for {num_images} images; give one an image.")
    largest = int(_num_excluded(groups).max())
    if largest == num_images:
        raise DataError(
            f"one group covers all {num_images} images, so no image has a neighbour outside its "
            "own group. Give finer groups, or none."
        )
    return num_images - largest


def _num_excluded(groups: Tensor) -> Tensor:
    """How many images each image shares a group with, including itself, int64 [N]; ``groups`` [N] or [N, 2]."""

    def sizes(labels: Tensor) -> Tensor:
        _, number, counts = torch.unique(labels, dim=0, return_inverse=True, return_counts=True)
        return counts[number]

    if groups.dim() == 1:
        return sizes(groups)
    return sizes(groups[:, 0]) + sizes(groups[:, 1]) - sizes(groups)


def share_group(a: Tensor, b: Tensor) -> Tensor:
    """Which of the rows ``a`` and ``b`` have a group in common, bool: ... x L groups broadcast to ...

    >>> share_group(torch.tensor([[1, 7]]), torch.tensor([[1, 8], [2, 7], [7, 1]])).tolist()
    [True, True, False]
    """
    same = a[..., 0] == b[..., 0]
    for column in range(1, a.shape[-1]):
        same |= a[..., column] == b[..., column]
    return same


def _in_columns(groups: Tensor) -> Tensor:
    return groups.unsqueeze(1) if groups.dim() == 1 else groups


def nearest(
    features: Tensor,
    k: int,
    *,
    groups: Tensor | None = None,
    advance: Callable[[int], None] | None = None,
) -> Neighbours:
    """The k nearest other rows of each row of ``features`` [N, F], by Euclidean distance.

    ``groups`` int64 [N]: images of one group (a burst, a tile, a patient) are not neighbours of
    each other; or [N, 2], where it is enough to share either. Ties go to the row that comes first.
    ``advance`` is called with the number of rows done. Raises DataError for unusable features, and
    ConfigError if some image has fewer than k neighbours.

    >>> nearest(torch.tensor([[0.0], [1.0], [3.0]]), k=1).distances.flatten().tolist()
    [1.0, 1.0, 2.0]
    """
    require_usable(features)
    require_k(k, len(features), groups)
    own = torch.arange(len(features)) if groups is None else groups
    return exact_search(features, features, k, own, own, advance)


def require_k(k: int, num_images: int, groups: Tensor | None = None) -> None:
    """Raise ConfigError if some image has fewer than k neighbours."""
    most = most_neighbours(num_images, groups)
    if not 1 <= k <= most:
        whose = "outside the largest group" if groups is not None else "besides itself"
        raise ConfigError(
            f"k must be 1 to {most}, the number of images {whose}, got {k} for {num_images} images."
        )


def nearest_in(bank: Tensor, queries: Tensor, k: int) -> Neighbours:
    """The k nearest rows of ``bank`` [M, F] of each row of ``queries`` [N, F].

    >>> nearest_in(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.5]]), k=1)
    Neighbours(distances=tensor([[0.5000]], dtype=torch.float64), indices=tensor([[1]]))
    """
    require_usable(bank, queries)
    if not 1 <= k <= len(bank):
        raise ConfigError(f"k must be 1 to {len(bank)}, the rows of the bank, got {k}.")
    return exact_search(bank, queries, k, None, None)


def without_own_group(neighbours: Neighbours, groups: Tensor) -> Neighbours:
    """The neighbours of each image that are in other groups, as many as every image has left.

    They are what :func:`nearest` finds with these ``groups`` (int64 [N] or [N, 2]), without another
    search; there may be no column left.

    >>> found = nearest(torch.tensor([[0.0], [1.0], [3.0], [7.0]]), k=3)
    >>> without_own_group(found, torch.tensor([0, 0, 1, 2])).indices.tolist()
    [[2, 3], [2, 3], [1, 0], [2, 1]]
    """
    groups = _in_columns(groups)
    blocks = list(zip(neighbours.indices.split(BLOCK_ROWS), groups.split(BLOCK_ROWS), strict=True))
    counts = [(~share_group(groups[n], own.unsqueeze(1))).sum(dim=1).min() for n, own in blocks]
    left = int(torch.stack(counts).min())
    distances = neighbours.distances.new_empty(len(groups), left)
    indices = neighbours.indices.new_empty(len(groups), left)
    for number, (near, own) in enumerate(blocks):
        part = slice(number * BLOCK_ROWS, (number + 1) * BLOCK_ROWS)
        same = share_group(groups[near], own.unsqueeze(1))
        places = same.to(torch.int8).argsort(dim=1, stable=True)[:, :left]
        distances[part] = neighbours.distances[part].gather(1, places)
        indices[part] = near.gather(1, places)
    return Neighbours(distances, indices)


def merged(a: Neighbours, b: Neighbours) -> Neighbours:
    """The nearest of both, as many as ``a`` has: merges neighbours in two banks.

    The indices of ``b`` must already use the common numbering.

    >>> one = nearest_in(torch.tensor([[0.0], [9.0]]), torch.tensor([[2.0]]), k=1)
    >>> two = nearest_in(torch.tensor([[3.0], [8.0]]), torch.tensor([[2.0]]), k=1)
    >>> merged(one, two._replace(indices=two.indices + 2)).indices.tolist()
    [[2]]
    """
    return nearest_first(
        torch.cat([a.distances, b.distances], dim=1),
        torch.cat([a.indices, b.indices], dim=1),
        a.distances.shape[1],
    )


def nearest_first(distances: Tensor, indices: Tensor, k: int) -> Neighbours:
    """The k nearest of candidates [n, m], in order."""
    by_index = indices.argsort(dim=1)  # ties go to the row that comes first
    distances, indices = distances.gather(1, by_index), indices.gather(1, by_index)
    order = distances.argsort(dim=1, stable=True)[:, :k]
    return Neighbours(distances.gather(1, order), indices.gather(1, order))


def exact_search(
    bank: Tensor,
    queries: Tensor,
    k: int,
    bank_own: Tensor | None,
    query_own: Tensor | None,
    advance: Callable[[int], None] | None = None,
) -> Neighbours:
    """The k nearest rows of ``bank`` [M, F] of each of ``queries`` [N, F].

    ``bank_own``, ``query_own`` int64 [M], [N], or [M, 2], [N, 2]: rows with equal numbers are not
    neighbours of each other.
    """
    centre = mean_of(bank)  # without centring, the squares of a common offset lose digits
    scale = largest_entry(bank, centre)
    rough = _Rough(rough_rows(bank, centre, scale), bank_own)
    parts = []
    for first in range(0, len(queries), QUERY_ROWS):
        block = slice(first, first + QUERY_ROWS)
        rows = queries[block].double() - centre
        own = None if query_own is None else query_own[block]
        candidates, excluded = rough.candidates((rows / scale).float(), k + SPARE, own)
        distances = exact_distances(bank, rows, candidates, centre)
        parts.append(nearest_first(distances.masked_fill(excluded, torch.inf), candidates, k))
        if advance is not None:
            advance(len(rows))
    distances, indices = (torch.cat(part) for part in zip(*parts, strict=True))
    return Neighbours(distances, indices)


class _Rough(NamedTuple):
    """Candidates from a float32 product, which is twice as fast; exact distances decide between them."""

    bank: Tensor
    """float32 [M, F]"""
    own: Tensor | None
    """int64 [M] or [M, 2], the group of each row."""

    def candidates(self, rows: Tensor, wanted: int, own: Tensor | None) -> tuple[Tensor, Tensor]:
        """Rows of the bank [n, m], and which of them are not neighbours, bool [n, m]."""
        values, indices = rows.new_empty(len(rows), 0), torch.empty(len(rows), 0, dtype=torch.int64)
        for start in range(0, len(self.bank), BANK_ROWS):
            tile = self.bank[start : start + BANK_ROWS]
            squares = tile.square().sum(dim=1)
            scores = torch.addmm(squares, rows, tile.T, alpha=-2)  # |b|² - 2 q·b
            if own is not None and self.own is not None:
                theirs = _in_columns(self.own[start : start + BANK_ROWS])
                same = share_group(_in_columns(own).unsqueeze(1), theirs)
                scores.masked_fill_(same, torch.inf)
            found = scores.topk(min(wanted, len(tile)), dim=1, largest=False, sorted=False)
            values = torch.cat([values, found.values], dim=1)
            indices = torch.cat([indices, found.indices + start], dim=1)
            if values.shape[1] > wanted:
                kept = values.topk(wanted, dim=1, largest=False, sorted=False)
                values, indices = kept.values, indices.gather(1, kept.indices)
        return indices, values.isinf()


def rough_rows(bank: Tensor, centre: Tensor, scale: float) -> Tensor:
    """Centred rows as float32 [M, F], entries of at most 1."""
    rough = torch.empty(bank.shape, dtype=torch.float32)
    for part, block in zip(rough.split(BANK_ROWS), bank.split(BANK_ROWS), strict=True):
        part.copy_((block.double() - centre) / scale)
    return rough


def largest_entry(bank: Tensor, centre: Tensor) -> float:
    """The largest absolute value in the centred rows; above 0."""
    found = max(float((part.double() - centre).abs().max()) for part in blocks_of(bank))
    return max(found, torch.finfo(torch.float64).tiny)


def exact_distances(bank: Tensor, rows: Tensor, indices: Tensor, centre: Tensor) -> Tensor:
    """Distances [n, m] from differences, not from the product: equal rows are at distance 0.

    ``rows`` float64 [n, F] are centred, those of ``bank`` are not.
    """
    distances = torch.empty(indices.shape, dtype=rows.dtype)
    block_rows = max(1, CACHED // (indices.shape[1] * bank.shape[1]))
    for start in range(0, len(rows), block_rows):
        block = slice(start, start + block_rows)
        chosen = bank.index_select(0, indices[block].flatten())  # 4 times as fast as bank[...]
        centred = (
            chosen.double().sub_(centre) if chosen.dtype != torch.float64 else chosen.sub_(centre)
        )
        difference = centred.view(*indices[block].shape, -1).sub_(rows[block].unsqueeze(1))
        distances[block] = difference.norm(dim=2)
    return distances
