"""Scores from clusters and coverings: small clusters are rare, distant images come first.

N images, F feature dim, K clusters.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from sdclr.errors import ConfigError, DataError
from sdclr.evaluation.rarity.preparation import blocks_of, require_usable, whitened


class Clusters(NamedTuple):
    """Images in clusters."""

    labels: Tensor
    """int64 [N], the cluster of each image."""
    centres: Tensor
    """float64 [K, F]."""

    @property
    def sizes(self) -> Tensor:
        """int64 [K]."""
        return torch.bincount(self.labels, minlength=len(self.centres))


def usual_number_of_clusters(num_images: int) -> int:
    """The square root of N, at most 500.

    >>> usual_number_of_clusters(10_000)
    100
    """
    return max(1, min(500, round(math.sqrt(num_images))))


def k_means(features: Tensor, num_clusters: int, seed: int = 0) -> Clusters:
    """Lloyd's k-means from k-means++ (scikit-learn), the same for the same seed.

    >>> k_means(torch.tensor([[0.0], [0.1], [9.0]]), 2).sizes.sort().values.tolist()
    [1, 2]
    """
    require_usable(features)
    if not 1 <= num_clusters <= len(features):
        raise ConfigError(f"num_clusters must be 1 to {len(features)}, got {num_clusters}.")
    distinct = len(torch.unique(features, dim=0))  # with fewer, scikit-learn warns
    rows = features.double().numpy()
    fitted = KMeans(min(num_clusters, distinct), n_init=1, random_state=seed % 2**32).fit(rows)
    labels = torch.from_numpy(fitted.labels_.astype("int64"))
    return Clusters(labels, torch.from_numpy(fitted.cluster_centers_))


def centre_distance(features: Tensor, clusters: Clusters) -> Tensor:
    """Distance of each image to the centre of its cluster, [N].

    >>> clusters = Clusters(torch.tensor([0, 0]), torch.tensor([[1.0]]).double())
    >>> centre_distance(torch.tensor([[0.0], [3.0]]), clusters).tolist()
    [1.0, 2.0]
    """
    return (features.double() - clusters.centres[clusters.labels]).norm(dim=1)


def cluster_size(clusters: Clusters) -> Tensor:
    """Minus the number of images in the image's cluster, float64 [N].

    >>> cluster_size(Clusters(torch.tensor([0, 0, 1]), torch.zeros(2, 1))).tolist()
    [-2.0, -2.0, -1.0]
    """
    return -clusters.sizes[clusters.labels].double()


def mahalanobis(features: Tensor, dims: int | None = None) -> Tensor:
    """Distance from the mean in units of the spread in that direction, on unit rows, [N].

    sqrt((x - m)' S^+ (x - m)) with the sample covariance S of the unit rows; directions without
    variance are left out, and with ``dims`` all but the largest principal components: with as many
    directions as images, all images would be equally far.

    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    >>> mahalanobis(x).round(decimals=3).tolist()
    [1.225, 1.225, 1.225, 1.225]
    """
    return whitened(features, dims).norm(dim=1)


def k_centre(features: Tensor, count: int | None = None) -> Tensor:
    """The order of greedy k-centre (Gonzalez, 1985; Sener and Savarese, ICLR 2018) as a score, [N].

    Each step takes the image that is farthest from the mean and from all images taken before; its
    score is that distance, which decreases from step to step. ``count``: how many are taken (None:
    all, N² distances); the others follow by their distance to the nearest image taken.

    >>> k_centre(torch.tensor([[0.0], [1.0], [2.0], [9.0]])).tolist()
    [3.0, 1.0, 1.0, 6.0]
    """
    require_usable(features)
    rows = features.double() - features.double().mean(dim=0)
    squares = rows.square().sum(dim=1)
    to_taken = squares.sqrt()  # [N], from the mean
    score = torch.full((len(rows),), -1.0, dtype=torch.float64)
    for _ in range(len(rows) if count is None else min(count, len(rows))):
        taken = int(to_taken.argmax())
        score[taken] = to_taken[taken]
        distance = (squares + squares[taken] - 2 * (rows @ rows[taken])).clamp_min(0).sqrt()
        to_taken = torch.minimum(to_taken, distance)
        to_taken[score >= 0] = -1
    return torch.where(score >= 0, score, to_taken)


def smoothed(features: Tensor, neighbours: Tensor) -> Tensor:
    """Each row averaged with its nearest ones, float64 [N, F]; ``neighbours`` int64 [N, k].

    Modes stay in place; single odd images move into the nearest mode, so that a covering of the
    result shows kinds rather than oddities.

    >>> smoothed(torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[1], [0], [1]])).tolist()
    [[0.5], [0.5], [3.0]]
    """
    found = torch.empty(features.shape, dtype=torch.float64)
    parts = zip(blocks_of(found), blocks_of(features), blocks_of(neighbours), strict=True)
    for part, rows, near in parts:
        around = features[near].double().sum(dim=1)
        part.copy_((rows.double() + around) / (neighbours.shape[1] + 1))
    return found


def one_per_cluster(clusters: Clusters, cluster_score: Tensor, image_score: Tensor) -> Tensor:
    """Rounds over the clusters as a score, float64 [N]: minus the place of each image.

    A round takes from every cluster, highest ``cluster_score`` [K] first, the remaining image with
    the highest ``image_score`` [N]. The first of equal ones is taken.

    >>> clusters = Clusters(torch.tensor([0, 0, 1]), torch.zeros(2, 1))
    >>> one_per_cluster(clusters, torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0, 2.0])).tolist()
    [-2.0, -1.0, -0.0]
    """
    n = len(clusters.labels)
    if len(image_score) != n or len(cluster_score) != len(clusters.centres):
        raise DataError("one_per_cluster needs a score for each cluster and for each image.")
    place_of_cluster = torch.empty(len(cluster_score), dtype=torch.int64)
    by_score = cluster_score.argsort(descending=True, stable=True)
    place_of_cluster[by_score] = torch.arange(len(cluster_score))
    best_first = image_score.argsort(descending=True, stable=True)
    turn = torch.empty(n, dtype=torch.int64)
    taken = [0] * len(cluster_score)
    for image in best_first.tolist():
        cluster = int(clusters.labels[image])
        turn[image] = taken[cluster]
        taken[cluster] += 1
    order = (turn * len(cluster_score) + place_of_cluster[clusters.labels]).argsort(stable=True)
    score = torch.empty(n, dtype=torch.float64)
    score[order] = -torch.arange(n, dtype=torch.float64)
    return score


def typiclust(clusters: Clusters, typicality: Tensor) -> Tensor:
    """TypiClust's order (Hacohen et al., ICML 2022) as a score, [N].

    From the largest cluster to the smallest, the most typical image of each, round by round.
    ``typicality`` [N]: one over the mean distance to the 20 nearest neighbours.

    >>> clusters = Clusters(torch.tensor([0, 0, 1]), torch.zeros(2, 1))
    >>> typiclust(clusters, torch.tensor([1.0, 2.0, 3.0])).tolist()
    [-2.0, -0.0, -1.0]
    """
    return one_per_cluster(clusters, clusters.sizes.double(), typicality)
