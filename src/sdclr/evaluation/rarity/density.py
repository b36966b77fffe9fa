"""Scores from distances to the nearest neighbours: isolated images are rare.

N images, k neighbours; ``distances`` [N, k], nearest first, as returned by neighbours.nearest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdclr.errors import ConfigError
from sdclr.evaluation.rarity.neighbours import Neighbours

SMALLEST_REACH = 1e-10
"""Added to the mean reach, which is 0 for copies, as in scikit-learn's LocalOutlierFactor."""


def mean_distance(distances: Tensor, k: int) -> Tensor:
    """Mean distance to the k nearest neighbours, [N].

    k = 1: the distance to the nearest. k = 10 on cosine distances is cleanlab's out-of-distribution
    score (Kuan and Mueller, 2022), before its exponential. k = 20 is the reciprocal of TypiClust's
    typicality (Hacohen et al., ICML 2022), which LightlyStudio sorts by.

    >>> mean_distance(torch.tensor([[1.0, 2.0], [3.0, 5.0]]), k=2).tolist()
    [1.5, 4.0]
    """
    return _first(distances, k).mean(dim=1)


def fiftyone_uniqueness(distances: Tensor) -> Tensor:
    """(.6 d1 + .3 d2 + .1 d3) / 3, divided by its maximum: FiftyOne's uniqueness, [N].

    >>> distances = torch.tensor([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])
    >>> fiftyone_uniqueness(distances).tolist()
    [0.5, 1.0]
    """
    weights = torch.tensor([0.6, 0.3, 0.1], dtype=distances.dtype)
    weighted = (_first(distances, 3) * weights).mean(dim=1)
    return weighted / weighted.max().clamp_min(torch.finfo(weighted.dtype).tiny)


def local_outlier_factor(neighbours: Neighbours, k: int) -> Tensor:
    """How much sparser an image's neighbourhood is than its neighbours', [N]; about 1 inside a cluster.

    LOF (Breunig et al., SIGMOD 2000): mean over the k neighbours of their density over one's own;
    density is 1 / mean reach, reach(a, b) = max(distance(a, b), distance of b to its k-th).

    >>> from sdclr.evaluation.rarity import nearest
    >>> x = torch.tensor([[0.0], [1.0], [2.0], [9.0]])
    >>> local_outlier_factor(nearest(x, k=2), k=2).round(decimals=2).tolist()
    [0.88, 1.33, 0.88, 4.37]
    """
    distances, indices = neighbours.first(k)
    reach = torch.maximum(distances, distances[:, -1][indices])  # [N, k]
    density = 1 / (reach.mean(dim=1) + SMALLEST_REACH)
    return density[indices].mean(dim=1) / density


def _first(distances: Tensor, k: int) -> Tensor:
    if not 1 <= k <= distances.shape[1]:
        raise ConfigError(f"k must be 1 to {distances.shape[1]}, the neighbours given, got {k}.")
    return distances[:, :k]
