"""Measures of a ranking from the collection alone: is it stable, do scores agree, does it spread?

N images, F feature dim. No labels, and therefore no verdict: a ranking can be stable and rank the
wrong thing. Whether these numbers distinguish a good ranking from chance must be calibrated on sets
with known truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from sdclr.errors import DataError
from sdclr.evaluation.rarity.neighbours import nearest_in
from sdclr.evaluation.rarity.preparation import require_usable, unit_rows
from sdclr.evaluation.rarity.scoring import surroundings

SAMPLED = 2000
"""The most images measured; of more, this many are drawn at random."""


def stability_over_images(features: Tensor, seed: int = 0) -> float:
    """Rank correlation (Spearman) of the densities of a third of the images with respect to the other two thirds.

    The thirds are drawn at random. High: the ranking does not depend on single images.

    >>> x = torch.cat([torch.eye(4).repeat(9, 1), torch.full((4, 4), 0.5)])
    >>> -1 <= stability_over_images(x + torch.arange(40.0)[:, None] / 1000) <= 1
    True
    """
    rows = unit_rows(_sample(features, seed))
    if (rows == rows[0]).all():
        return 0.0
    order = _permutation(len(rows), seed + 1)
    queries, a, b = order.chunk(3)
    return _rank_correlation(
        _density(rows[a], rows[queries]),
        _density(rows[b], rows[queries]),
    )


def stability_over_dims(features: Tensor, seed: int = 0) -> float:
    """Rank correlation of the density on one random half of the features with that on the other.

    High: the ranking does not depend on single features. Features that are copies of each other also
    make it high.

    >>> x = torch.cat([torch.eye(4).repeat(9, 1), torch.full((4, 4), 0.5)])
    >>> -1 <= stability_over_dims(x + torch.arange(40.0)[:, None] / 1000) <= 1
    True
    """
    if features.shape[1] < 2:
        raise DataError("stability over features needs at least 2 of them.")
    sample = _sample(features, seed)
    first, second = _permutation(features.shape[1], seed + 2).chunk(2)
    scores = []
    for dims in (first, second):
        rows = unit_rows(sample[:, dims])
        if (rows == rows[0]).all():  # constant features are not informative
            return 0.0
        k = min(surroundings(len(rows)), len(rows) - 1)
        distances = nearest_in(rows, rows, k + 1).distances
        scores.append(distances[:, 1:].mean(dim=1))  # the nearest is the image itself
    return _rank_correlation(*scores)


def agreement(scores: Mapping[str, Tensor]) -> float:
    """Mean rank correlation of all pairs of scores [N].

    >>> a, b = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([3.0, 2.0, 1.0])
    >>> agreement({"a": a, "b": b}), agreement({"a": a, "also a": 10 * a})
    (-1.0, 1.0)
    """
    if len(scores) < 2:
        raise DataError("agreement needs at least two scores.")
    found = [_rank_correlation(a, b) for a, b in combinations(scores.values(), 2)]
    return float(np.mean(found))


def spread(score: Tensor) -> float:
    """How far the rarest stand out: (99th - 50th percentile) / (50th - 1st); 1: not at all.

    0 if the scores below the median do not differ.

    >>> spread(torch.arange(101.0)), spread(torch.arange(101.0).square()).__round__(1)
    (1.0, 2.9)
    """
    low, middle, high = np.quantile(score.double().numpy(), [0.01, 0.5, 0.99])
    return float((high - middle) / (middle - low)) if middle > low else 0.0


def _density(bank: Tensor, queries: Tensor) -> Tensor:
    if (bank == queries[0]).all() and (queries == queries[0]).all():
        return torch.zeros(len(queries), dtype=torch.float64)
    k = min(surroundings(len(bank)), len(bank))
    return nearest_in(bank, queries, k).distances.mean(dim=1)


def _sample(features: Tensor, seed: int) -> Tensor:
    require_usable(features)
    if len(features) <= SAMPLED:
        return features.double()
    return features[_permutation(len(features), seed)[:SAMPLED].sort().values].double()


def _permutation(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed % 2**32)
    return torch.randperm(count, generator=generator)


def _rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation; 0 if one of them is constant."""
    first, second = a.double().numpy(), b.double().numpy()
    if (first == first[0]).all() or (second == second[0]).all():
        return 0.0
    return round(float(spearmanr(first, second).statistic), 12)
