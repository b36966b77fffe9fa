"""Evidence -> each score of the table. The formulas are in density, clusters, training_signals.

N images. Every function returns float64 [N], higher = rarer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdclr.evaluation.rarity import clusters, density, training_signals
from sdclr.evaluation.rarity.evidence import Evidence
from sdclr.evaluation.rarity.preparation import unit_rows

COVERED = 1000
"""Images that k-centre takes one by one; more are never viewed."""


def random(evidence: Evidence) -> Tensor:
    return evidence.random


def knn_1(evidence: Evidence) -> Tensor:
    return _knn(evidence, 1)


def knn_20(evidence: Evidence) -> Tensor:
    return _knn(evidence, 20)


def knn_50(evidence: Evidence) -> Tensor:
    return _knn(evidence, 50)


def knn_200(evidence: Evidence) -> Tensor:
    return _knn(evidence, 200)


def density_of_surroundings(evidence: Evidence) -> Tensor:
    return _knn(evidence, surroundings(evidence.num_images))


def surroundings(num_images: int) -> int:
    """A twentieth of the images, at least 10 and at most 50: enough to reach beyond a burst.

    In small collections more neighbours would reach into every class; in large ones fewer would stay
    inside a burst, and more would wash out small classes (docs/rarebench.md).

    >>> surroundings(100), surroundings(1000), surroundings(100_000)
    (10, 50, 50)
    """
    return max(10, min(50, round(num_images / 20)))


def white_knn_20(evidence: Evidence) -> Tensor:
    return _knn(evidence, 20, "white")


def white_knn_200(evidence: Evidence) -> Tensor:
    return _knn(evidence, 200, "white")


def fiftyone(evidence: Evidence) -> Tensor:
    distances = evidence.cosine_distances(3)
    missing = 3 - distances.shape[1]
    if missing > 0:  # with fewer than 4 images, the farthest one replaces missing neighbours
        distances = torch.cat([distances, distances[:, -1:].expand(-1, missing)], dim=1)
    return density.fiftyone_uniqueness(distances)


def cleanlab(evidence: Evidence) -> Tensor:
    distances = evidence.cosine_distances(10)
    return density.mean_distance(distances, distances.shape[1])


def lof_20(evidence: Evidence) -> Tensor:
    neighbours = evidence.neighbours(20)
    return density.local_outlier_factor(neighbours, neighbours.distances.shape[1])


def centre_distance(evidence: Evidence) -> Tensor:
    return clusters.centre_distance(evidence.components, evidence.clusters)


def cluster_size(evidence: Evidence) -> Tensor:
    return clusters.cluster_size(evidence.clusters)


def k_centre(evidence: Evidence) -> Tensor:
    return clusters.k_centre(evidence.components, COVERED)


def covering_2(evidence: Evidence) -> Tensor:
    return _covering(evidence, 2)


def covering_4(evidence: Evidence) -> Tensor:
    return _covering(evidence, 4)


def _covering(evidence: Evidence, k: int) -> Tensor:
    """k-centre over modes: directions from the mean, averaged over k neighbours, of length one."""
    k = min(k, evidence.num_images // 10)  # otherwise a few images would all become their mean
    if k == 0:
        return clusters.k_centre(evidence.directions)
    nearest = evidence.neighbours(k, "directions").indices
    modes = unit_rows(clusters.smoothed(evidence.directions, nearest))
    if (modes == modes[0]).all():  # many equal images and a few odd ones, averaged into them
        modes = evidence.directions
    return clusters.k_centre(modes, COVERED)


def typiclust(evidence: Evidence) -> Tensor:
    return clusters.typiclust(evidence.clusters, -_knn(evidence, 20))


def mahalanobis(evidence: Evidence) -> Tensor:
    return evidence.white.norm(dim=1)


def rare_clusters(evidence: Evidence) -> Tensor:
    """One typical image of each cluster, the cluster in the sparsest neighbourhood first."""
    found = evidence.clusters
    lonely = _knn(evidence, 50)
    totals = torch.zeros(len(found.centres), dtype=torch.float64).index_add(0, found.labels, lonely)
    return clusters.one_per_cluster(found, totals / found.sizes.clamp_min(1), -_knn(evidence, 20))


def loss(evidence: Evidence) -> Tensor:
    assert evidence.losses is not None
    return training_signals.loss(evidence.losses)


def loss_average(evidence: Evidence) -> Tensor:
    assert evidence.losses is not None
    return training_signals.loss_average(evidence.losses)


def colt(evidence: Evidence) -> Tensor:
    assert evidence.masses is not None
    return -training_signals.hardest_mass_average(evidence.masses)


def disagreement_cosine(evidence: Evidence) -> Tensor:
    assert evidence.projections is not None
    assert evidence.competitor_projections is not None
    return training_signals.disagreement_by_cosine(
        evidence.projections, evidence.competitor_projections
    )


def disagreement_loss(evidence: Evidence) -> Tensor:
    assert evidence.view_losses is not None
    assert evidence.competitor_view_losses is not None
    return training_signals.disagreement_by_loss(
        evidence.view_losses, evidence.competitor_view_losses
    )


def disagreement_rank(evidence: Evidence) -> Tensor:
    assert evidence.view_losses is not None
    assert evidence.competitor_view_losses is not None
    return training_signals.disagreement_by_rank(
        evidence.view_losses, evidence.competitor_view_losses
    )


def _knn(evidence: Evidence, k: int, preparation: str = "unit") -> Tensor:
    distances = evidence.distances(k, preparation)
    return density.mean_distance(distances, distances.shape[1])
