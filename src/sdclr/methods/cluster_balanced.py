"""Cluster-balanced sampling: images are drawn so that clusters of their features come equally often.

The idea of Vo et al. (2024, "Automatic data curation for self-supervised learning: a clustering-based
approach"): k-means, k-means of its centres, and so on; then, from the top down, each cluster gets an
equal share of its parent's. Implemented from the description. N training images, D features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sdclr.batch import Views
from sdclr.compute.stateless_random import Stream, derive
from sdclr.config import user_path
from sdclr.errors import ConfigError, DataError, MissingInputError
from sdclr.methods.around import MethodAround, build_base, projection_dim_of
from sdclr.methods.config import ClusterBalancedConfig
from sdclr.methods.contrastive import ContrastiveMethod
from sdclr.methods.method import Parts
from sdclr.processes.exchange import of_first_process
from sdclr.safe_text import shown


def balanced_weights(features: Tensor, clusters: tuple[int, ...], key: int) -> Tensor:
    """How often each image should be drawn, float64 [N] with mean 1.

    ``clusters``: numbers of clusters from the finest level to the coarsest. The coarsest clusters get
    equal shares, each cluster's share is divided equally among the clusters whose centres it contains,
    and that of the finest among their images. Deterministic for equal features and ``key``.

    >>> features = torch.tensor([[0.0], [0.1], [0.2], [9.0]])
    >>> [round(weight, 3) for weight in balanced_weights(features, (2,), key=0).tolist()]
    [0.667, 0.667, 0.667, 2.0]
    """
    parents = []  # of each level's members: [N], then [K], ...
    members = features.cpu().double()
    for level, num in enumerate(clusters):
        labels, members = _k_means(members, num, derive(key, level))
        parents.append(labels)
    share = torch.full((len(members),), 1 / len(members), dtype=torch.float64)
    for labels in reversed(parents):
        share = (share / labels.bincount())[labels]
    return share * len(features)


def _k_means(points: Tensor, num: int, key: int) -> tuple[Tensor, Tensor]:
    """The cluster of each point, int64 [N], and the centres; fewer clusters if points coincide."""
    from sklearn.cluster import KMeans  # the import takes seconds, so only when needed
    from threadpoolctl import threadpool_limits

    num = min(num, len(torch.unique(points, dim=0)))
    with threadpool_limits(1):  # sums in a fixed order, whatever the number of cores
        fitted = KMeans(num, n_init=1, random_state=key % 2**32).fit(points.numpy())
    used, labels = np.unique(fitted.labels_, return_inverse=True)
    return torch.from_numpy(labels).long(), torch.from_numpy(fitted.cluster_centers_[used])


class ClusterBalanced(MethodAround):
    """``base`` on images that are drawn so that clusters come equally often.

    The clusters are those of ``features`` [N, D] or, without them, of the run's own projections of
    view a when each image was last seen, recomputed at the end of every ``refresh_every_epochs``
    epochs; until the first time each image comes once per epoch. ``num_epochs``: of the run, if
    known.
    """

    projection_memory: Tensor
    """[N, D], of length 1; zeros for an image that was not seen."""
    weight: Tensor
    """[N], mean 1."""
    is_clustered: Tensor
    """Scalar bool."""

    def __init__(
        self,
        base: ContrastiveMethod,
        num_images: int,
        projection_dim: int,
        *,
        clusters: tuple[int, ...] = (100, 10),
        refresh_every_epochs: int = 1,
        features: Tensor | None = None,
        seed: int = 0,
        num_epochs: int | None = None,
    ) -> None:
        super().__init__(base)
        # the run ends before there are clusters
        self.is_too_short = num_epochs == 1 and features is None
        self.clusters, self.refresh_every_epochs, self.seed = clusters, refresh_every_epochs, seed
        self.has_features = features is not None
        self.register_buffer("weight", torch.ones(num_images))
        self.register_buffer("is_clustered", torch.tensor(self.has_features))
        if features is None:
            self.register_per_image("projection_memory", torch.zeros(num_images, projection_dim))
        else:
            self.weight.copy_(balanced_weights(features, clusters, self._key(0)))

    @classmethod
    def from_config(cls, config: ClusterBalancedConfig, parts: Parts) -> Self:
        every = config.refresh_every_epochs or max(1, parts.num_epochs // 10)
        features = None
        if config.features is not None:
            features = _read_features(config.features, parts.num_images)
        elif every >= parts.num_epochs > 1:
            raise ConfigError(
                f"clusters would be found after epoch {every}, and the run has {parts.num_epochs}. "
                "Lower method.refresh_every_epochs, or raise epochs."
            )
        dim = projection_dim_of(config.base)
        return cls(
            build_base(config.base, parts),
            parts.num_images,
            dim,
            clusters=config.clusters,
            refresh_every_epochs=every,
            features=features,
            seed=parts.seed,
            num_epochs=parts.num_epochs,
        )

    def describe(self, config: ClusterBalancedConfig) -> list[str]:
        lines = super().describe(config)
        if self.is_too_short:
            lines.append(
                "cluster-balanced: clusters are first found after an epoch, and the run has one: it trains as its base "
                "does; raise epochs, or give method.features"
            )
        if (num := len(self.weight)) <= config.clusters[0]:
            lines.append(
                f"cluster-balanced: {num} images are no more than the {config.clusters[0]} clusters of "
                "method.clusters, so each is a cluster of its own and comes as often as before; use fewer"
            )
        return lines

    def losses(self, z_a: Tensor, z_b: Tensor, views: Views) -> Tensor:
        if not self.has_features:
            seen = F.normalize(z_a.detach().to(self.projection_memory.dtype), dim=1)
            self.projection_memory[views.index] = seen
        return super().losses(z_a, z_b, views)

    def on_epoch_end(self, epoch: int) -> None:
        super().on_epoch_end(epoch)
        if not self.has_features and (epoch + 1) % self.refresh_every_epochs == 0:
            weight = balanced_weights(self.projection_memory, self.clusters, self._key(epoch))
            # broadcast, so that every process draws the same images in spite of rounding
            self.weight.copy_(of_first_process(weight.to(self.weight)))
            self.is_clustered.fill_(True)

    def sampling_weights(self) -> Tensor | None:
        of_base = super().sampling_weights()
        if not self.is_clustered:
            return of_base
        return self.weight if of_base is None else self.weight * of_base

    def measurements(self) -> dict[str, Tensor]:
        """How much more often than on average the image that comes most often is drawn in the next epoch."""
        return {**super().measurements(), "largest_sampling_weight": self.weight.max()}

    def _key(self, epoch: int) -> int:
        return derive(self.seed, Stream.CLUSTERS, epoch)


def _read_features(text: str, num_images: int) -> Tensor:
    """float64 [N, D] of a .npy file."""
    path: Path = user_path(text)
    try:
        values = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise MissingInputError(f"method.features={shown(path)} does not exist.") from None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"method.features={shown(path)} is not a .npy file: {error}.") from None
    if (
        not isinstance(values, np.ndarray)
        or values.ndim != 2
        or len(values) != num_images
        or not np.issubdtype(values.dtype, np.number)
        or np.iscomplexobj(values)
    ):
        found = f"{getattr(values, 'dtype', type(values))} {list(getattr(values, 'shape', []))}"
        raise DataError(
            f"method.features={shown(path)} must hold numbers [{num_images}, D], a row for each "
            f"training image in their order; got {found}."
        )
    features = torch.from_numpy(values.astype(np.float64))
    if not features.isfinite().all():
        raise DataError(f"method.features={shown(path)} holds numbers that are not finite.")
    return features
