"""Approximate nearest neighbours of large collections: a row is compared with rows of near cells.

N rows, F feature dim, C cells, P searched cells, k neighbours. An inverted file: k-means on a sample
makes cells, and the neighbours of a row are searched in the P cells whose centres are nearest to it.
Distances are exact, so the only possible error is a missed neighbour. How many are missed is measured
on random rows, which also determine P.

Cells are computed in whole numbers, which float32 adds without rounding in any order: they are the
same on every machine and with any number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sdclr.compute.stateless_random import permutation
from sdclr.evaluation.rarity.neighbours import (
    SPARE,
    Neighbours,
    exact_distances,
    exact_search,
    largest_entry,
    nearest_first,
    require_k,
    rough_rows,
    share_group,
)
from sdclr.evaluation.rarity.preparation import blocks_of, mean_of, require_usable

NUM_QUERIES = 200
"""Random rows whose neighbours are searched exactly as well."""
COUNTED = 20
"""Nearest neighbours of each of these rows that are counted."""
WANTED_RECALL = 0.97
"""P is the smallest number of cells that contain this share of them ..."""
DOUBTFUL_RECALL = 0.9
LARGEST_SHARE = 1 / 8
"""... but at most this share of the cells, or an exact search would be as fast."""
NEAREST_CELLS = 2
"""Cells searched first, to bound how near a row must be to be kept."""
ROWS_PER_CELL = 50
"""Rows per cell in the sample for k-means."""
ROUNDS = 8
"""Rounds of k-means."""
SPAN = 2048
"""Length of a long row in whole numbers: three products of two of them stay below 2**24."""
QUERY_ROWS = 16_384
"""Rows of a block."""
LARGEST_TILE = 4096
"""Rows on either side of one product; a cell of many equal rows is larger."""
_SAMPLE_KEY, _QUERIES_KEY = 0, 1


def usual_number_of_cells(num_rows: int) -> int:
    """Twice the square root of N.

    >>> usual_number_of_cells(1_000_000)
    2000
    """
    return max(1, round(2 * math.sqrt(num_rows)))


class Approximation(NamedTuple):
    """How approximate a search was."""

    recall: float
    """Share of the ``counted`` nearest of random rows that were found, in [0, 1]."""
    recall_of_nearest: float
    """Share of these rows whose nearest neighbour was found."""
    counted: int
    num_rows: int
    """Number of queried rows."""
    searched_cells: int
    """P."""
    num_cells: int
    """C."""

    @property
    def is_doubtful(self) -> bool:
        """Whether so many neighbours are missed that scores may be off."""
        return self.recall < DOUBTFUL_RECALL

    def in_words(self) -> str:
        """The recall in a readable sentence.

        >>> Approximation(0.975, 1.0, 20, 200, 31, 632).in_words()
        '97.5 % of the 20 nearest of 200 random images and 100.0 % of the very nearest were found'
        """
        return (
            f"{self.recall:.1%} of the {self.counted} nearest of {self.num_rows} random images and "
            f"{self.recall_of_nearest:.1%} of the very nearest were found"
        ).replace("%", " %")


def nearest_in_cells(
    features: Tensor,
    k: int,
    *,
    groups: Tensor | None = None,
    watch: Callable[[str, int], Callable[[int], None]] | None = None,
    searched_cells: int | None = None,
) -> tuple[Neighbours, Approximation]:
    """The k nearest other rows of each row of ``features`` [N, F] within the cells nearest to it.

    Like :func:`neighbours.nearest`, except that some of the nearest may be missed; how many is
    estimated. ``searched_cells`` is P; None: by WANTED_RECALL. For a row with fewer than k
    neighbours in its cells, as in a large group, more cells are searched, if needed all of them.
    ``watch`` is called with "cells" or "neighbours" and a number of rows when that begins; the
    function it returns, with the rows done. Deterministic, with any number of threads.

    >>> x = torch.tensor([[0.0], [1.0], [3.0], [9.0]])
    >>> found, approximation = nearest_in_cells(x, k=1, searched_cells=4)
    >>> found.distances.flatten().tolist(), approximation.recall
    ([1.0, 1.0, 2.0, 6.0], 1.0)
    """
    require_usable(features)
    require_k(k, len(features), groups)
    own = torch.arange(len(features)) if groups is None else groups
    query_rows = permutation(_QUERIES_KEY, len(features))[:NUM_QUERIES]
    truth = exact_search(features, features[query_rows], min(k, COUNTED), own, own[query_rows])
    watch = watch or (lambda what, num_rows: lambda done: None)
    cells = _Cells(features, own, watch("cells", _rows_for_cells(len(features))))
    searched = searched_cells or cells.enough(query_rows, truth)
    distances = torch.empty(len(features), k, dtype=torch.float64)
    indices = torch.empty(len(features), k, dtype=torch.int64)
    advance = watch("neighbours", len(features))
    for start in range(0, len(features), QUERY_ROWS):
        places = torch.arange(start, min(start + QUERY_ROWS, len(features)))
        rows = cells.row[places]
        distances[rows], indices[rows] = cells.search(places, k, searched)
        advance(len(places))
    found = Neighbours(distances, indices)
    return found, _approximation(found, query_rows, truth, searched, len(cells.centres))


def _approximation(
    found: Neighbours, query_rows: Tensor, truth: Neighbours, searched: int, num_cells: int
) -> Approximation:
    """Recall by distances: it does not matter which of several equally near rows was found."""
    k = truth.distances.shape[1]
    near = truth.distances * (1 + 1e-9)
    got = found.distances[query_rows, :k]
    recall = (got <= near[:, -1:]).double().mean()
    return Approximation(
        recall=float(recall),
        recall_of_nearest=float((got[:, 0] <= near[:, 0]).double().mean()),
        counted=k,
        num_rows=len(query_rows),
        searched_cells=min(searched, num_cells),
        num_cells=num_cells,
    )


def _sample_size(num_rows: int) -> int:
    return min(num_rows, usual_number_of_cells(num_rows) * ROWS_PER_CELL)


def _rows_for_cells(num_rows: int) -> int:
    """Rows compared with centres until each has its cell: a sample in each round, then all."""
    return ROUNDS * _sample_size(num_rows) + num_rows


class _Cells:
    """Rows in the order of their cells, so that a cell is a slice. A place is a row's position in that order."""

    def __init__(
        self, features: Tensor, own: Tensor, advance: Callable[[int], None] = lambda done: None
    ) -> None:
        self.features = features
        self.centre = mean_of(features).float().double()  # rounded, as sums depend on threads
        self._unit = _length_of_whole_one(features, self.centre)
        self.centres = self._centres(advance)
        cells = []
        for part in features.split(8192):
            cells.append(self._nearest_cells(part, 1)[:, 0])
            advance(len(part))
        cell = torch.cat(cells)
        counts = torch.bincount(cell, minlength=len(self.centres))
        self.centres = self.centres[counts > 0]
        self.cell = ((counts > 0).cumsum(0) - 1)[cell]
        """int64 [N], the cell of each row."""
        counts = counts[counts > 0]
        self.row = cell.argsort(stable=True)
        """int64 [N], the row at each place."""
        self.own = (own.unsqueeze(1) if own.dim() == 1 else own)[self.row]
        """int64 [N, 1 or 2], by place."""
        self.ends = counts.cumsum(0)
        self.starts = self.ends - counts
        self.rough = _rough(features, self.row, self.centre)
        """float32 [N, F], by place."""
        self.squares = self.rough.square().sum(dim=1)

    def enough(self, query_rows: Tensor, truth: Neighbours) -> int:
        """P: the number of cells nearest to ``query_rows`` that contain WANTED_RECALL of their neighbours."""
        order = self._nearest_cells(self.features[query_rows], len(self.centres))
        turn = order.argsort(dim=1).gather(1, self.cell[truth.indices]).flatten().sort().values
        found = int(turn[math.ceil(WANTED_RECALL * len(turn)) - 1]) + 1
        return max(NEAREST_CELLS, min(found, round(LARGEST_SHARE * len(self.centres))))

    def search(self, places: Tensor, k: int, searched: int) -> Neighbours:
        """The k nearest of the rows at ``places``."""
        searched = min(searched, len(self.centres))
        rows = self.row[places]
        probes = torch.cat(
            [self._nearest_cells(part, searched) for part in self.features[rows].split(8192)]
        )
        candidates = self._candidates(places, probes, k + SPARE)
        missing = candidates < 0
        found_rows = self.row[candidates.clamp_min(0)]
        queries = self.features[rows].double() - self.centre
        distances = exact_distances(self.features, queries, found_rows, self.centre)
        found = nearest_first(distances.masked_fill_(missing, torch.inf), found_rows, k)
        short = found.distances[:, -1].isinf().nonzero()[:, 0]
        if len(short) and searched < len(self.centres):
            more = self.search(places[short], k, 4 * searched)
            found.distances[short], found.indices[short] = more
        return found

    def _whole(self, rows: Tensor) -> Tensor:
        """Rows in whole numbers, float32; a row longer than SPAN is scaled to that length."""
        centred = (rows.double() - self.centre) / self._unit
        length = centred.norm(dim=1, keepdim=True).clamp_min(1)
        return (centred * (SPAN / length).clamp_max(1)).trunc_().float()

    def _nearest_cells(self, rows: Tensor, count: int) -> Tensor:
        return _nearest_centres(self._whole(rows), self.centres, count)

    def _centres(self, advance: Callable[[int], None]) -> Tensor:
        """Centres by Lloyd's k-means on a sample, in whole numbers."""
        n = len(self.features)
        wanted = usual_number_of_cells(n)
        sample = permutation(_SAMPLE_KEY, n)[: _sample_size(n)]
        rows = self._whole(self.features[sample])
        centres = rows[:wanted]
        for _ in range(ROUNDS):
            cell = torch.cat([_nearest_centres(p, centres, 1)[:, 0] for p in rows.split(8192)])
            counts = torch.bincount(cell, minlength=len(centres))
            sums = torch.zeros(centres.shape, dtype=torch.float64).index_add_(
                0, cell, rows.double()
            )
            means = (sums / counts.clamp_min(1).unsqueeze(1)).trunc().float()
            centres = means[counts > 0]
            advance(len(rows))
        return centres

    def _candidates(self, places: Tensor, probes: Tensor, wanted: int) -> Tensor:
        """Places nearest by a float32 product, int64 [n, wanted]; -1 where there are none."""
        best = _Best(len(places), wanted)
        self._merge(best, places, torch.arange(len(places)), probes[:, :NEAREST_CELLS])
        open_ = best.reach.isinf()
        far = probes[:, NEAREST_CELLS:]
        if open_.any():
            left = open_.nonzero()[:, 0]
            self._merge(best, places, left, far[left])
        left = (~open_).nonzero()[:, 0]
        return self._with_nearer(best, places, left, far[left])

    def _merge(self, best: _Best, places: Tensor, of: Tensor, probes: Tensor) -> None:
        for start, which, scores in self._scores(places[of], probes):
            best.add(of[which], start, scores)

    def _with_nearer(self, best: _Best, places: Tensor, of: Tensor, probes: Tensor) -> Tensor:
        reach = best.reach
        rows, values, found = [], [], []
        for start, which, scores in self._scores(places[of], probes):
            near, column = (scores < reach[of[which]].unsqueeze(1)).nonzero(as_tuple=True)
            rows.append(of[which[near]])
            values.append(scores[near, column])
            found.append((column + start).int())
        return best.with_more(rows, values, found)

    def _scores(self, places: Tensor, probes: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """For each cell: its start, which of the ``places`` search it, and |b|² - 2 q·b [n, size]."""
        if not probes.numel():
            return
        queries = self.rough[places]
        by_cell = probes.flatten().argsort(stable=True)
        which = by_cell // probes.shape[1]
        counts = torch.bincount(probes.flatten(), minlength=len(self.centres))
        for cell, searchers in enumerate(which.split(counts.tolist())):
            for start in range(int(self.starts[cell]), int(self.ends[cell]), LARGEST_TILE):
                tile = slice(start, min(start + LARGEST_TILE, int(self.ends[cell])))
                for part in searchers.split(LARGEST_TILE):
                    if len(part):
                        yield start, part, self._products(queries[part], places[part], tile)

    def _products(self, queries: Tensor, places: Tensor, tile: slice) -> Tensor:
        scores = torch.addmm(self.squares[tile], queries, self.rough[tile].T, alpha=-2)
        same = share_group(self.own[places].unsqueeze(1), self.own[tile])
        return scores.masked_fill_(same, torch.inf)


class _Best:
    """The nearest candidates so far of n rows."""

    def __init__(self, num_rows: int, wanted: int) -> None:
        self.values = torch.full((num_rows, wanted), torch.inf)
        self.places = torch.full((num_rows, wanted), -1, dtype=torch.int32)

    @property
    def reach(self) -> Tensor:
        """The farthest kept candidate, [n]; infinite if there is room."""
        return self.values.amax(dim=1)

    def add(self, rows: Tensor, start: int, scores: Tensor) -> None:
        wanted = self.values.shape[1]
        near = scores.topk(min(wanted, scores.shape[1]), dim=1, largest=False, sorted=False)
        values = torch.cat([self.values[rows], near.values], dim=1)
        places = torch.cat([self.places[rows], (near.indices + start).int()], dim=1)
        kept = values.topk(wanted, dim=1, largest=False, sorted=False)
        self.values[rows] = kept.values
        self.places[rows] = places.gather(1, kept.indices)

    def with_more(self, rows: list[Tensor], values: list[Tensor], places: list[Tensor]) -> Tensor:
        """The nearest of the kept and the given candidates, int64 [n, wanted]; -1 where there are none."""
        n, wanted = self.values.shape
        row = torch.cat([torch.arange(n).repeat_interleave(wanted), *rows])
        value = torch.cat([self.values.flatten(), *values])
        place = torch.cat([self.places.flatten(), *places])
        by_value = value.argsort(stable=True)
        order = by_value[row[by_value].argsort(stable=True)]
        counts = torch.bincount(row, minlength=n)
        first = (counts.cumsum(0) - counts).unsqueeze(1) + torch.arange(wanted)
        found = place[order[first]]
        return found.masked_fill(value[order[first]].isinf(), -1).long()


def _rough(features: Tensor, order: Tensor, centre: Tensor) -> Tensor:
    """Rows in another order as float32, entries of at most 1."""
    scale = largest_entry(features, centre)
    rough = torch.empty(features.shape, dtype=torch.float32)
    for part, rows in zip(rough.split(8192), order.split(8192), strict=True):
        part.copy_(rough_rows(features[rows], centre, scale))
    return rough


def _length_of_whole_one(features: Tensor, centre: Tensor) -> float:
    """The unit in which a row of twice the median length is as long as SPAN."""
    lengths = torch.cat([(part.double() - centre).norm(dim=1) for part in blocks_of(features)])
    usual = float(lengths.median()) or float(lengths.max())
    return 2 * usual / SPAN


def _nearest_centres(rows: Tensor, centres: Tensor, count: int) -> Tensor:
    """The ``count`` nearest centres, nearest first, int64 [n, count]; in whole numbers, so that no sum is rounded."""
    scores = torch.addmm(centres.square().sum(dim=1), rows, centres.T, alpha=-2)
    return scores.topk(count, dim=1, largest=False).indices
