"""What scores may read about a collection; everything that several scores share is computed once.

N images, F feature dim, E epochs, V views, D projection dim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from sdclr.errors import DataError
from sdclr.evaluation.rarity.cells import Approximation, nearest_in_cells
from sdclr.evaluation.rarity.clusters import Clusters, k_means, usual_number_of_clusters
from sdclr.evaluation.rarity.neighbours import (
    Neighbours,
    most_neighbours,
    nearest,
    without_own_group,
)
from sdclr.evaluation.rarity.preparation import (
    principal_components,
    require_usable,
    unit_rows,
    whitened,
)

MOST_NEIGHBOURS = 200
"""No score of the table reads more."""


FEW_NEIGHBOURS = 8
"""Neighbours of directions and components, which are only used for smoothing."""
ENOUGH_NEIGHBOURS = 50
"""As many as the default score reads; a score that reads more searches again."""
EXACT_UP_TO = 100_000
"""The largest number of images for exact search, whose time grows with N x N."""


@dataclass(eq=False)
class Evidence:
    """What is known of N images. Give what is available; a score that needs more raises an error.

    Neighbours and clusters are computed once, on unit rows of the features, and shared by the scores.

    >>> evidence = Evidence(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]]))
    >>> evidence.num_images, evidence.neighbours(1).indices.flatten().tolist()
    (3, [1, 2, 1])
    """

    features: Tensor | None = None
    """[N, F]"""
    groups: Tensor | None = None
    """int64 [N]: images of one group (a burst, a tile) are not neighbours of each other; [N, 2]: two kinds of groups,
    where sharing either is enough."""
    losses: Tensor | None = None
    """[E, N], the loss of each image by epoch; NaN where an epoch left it out."""
    masses: Tensor | None = None
    """[E, N], COLT's mass (:func:`sdclr.methods.hardest_mass.hardest_mass`) of each image by epoch; NaN likewise."""
    projections: Tensor | None = None
    """[V, N, D], of the dense branch."""
    competitor_projections: Tensor | None = None
    """[V, N, D], of the pruned branch, for the same views."""
    view_losses: Tensor | None = None
    """[V, N], losses of the dense branch at one point in training."""
    competitor_view_losses: Tensor | None = None
    """[V, N], of the pruned branch, for the same views."""
    seed: int = 0
    searched: int = MOST_NEIGHBOURS
    """Neighbours searched at once; a score that reads more searches again."""
    watch: Callable[[str, int], Callable[[int], None]] | None = None
    """Called when a search for neighbours, or the computation of cells for one, begins: with its name and the number of
    rows; the function it returns is called with the rows done."""
    exact_up_to: int = EXACT_UP_TO
    """For more images than this, neighbours are searched approximately and rows are kept in float32."""
    approximations: dict[str, Approximation] = field(default_factory=dict, init=False, repr=False)
    """How approximate the searches were, by preparation; empty if all were exact."""
    _neighbours: dict[str, Neighbours] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.features is not None:
            require_usable(self.features)
        lengths = {name: self._length(name) for name in NEEDS if getattr(self, name) is not None}
        if len(set(lengths.values())) > 1:
            raise DataError(f"what is given is of different numbers of images: {lengths}.")
        if self.groups is not None:
            most_neighbours(self.num_images, self.groups)

    def _length(self, name: str) -> int:
        value = getattr(self, name)
        return len(value) if name == "features" else value.shape[1]

    @property
    def num_images(self) -> int:
        """N."""
        for name in NEEDS:
            if getattr(self, name) is not None:
                return self._length(name)
        raise DataError("nothing is known of the images: give features, losses or projections.")

    def has(self, name: str) -> bool:
        """Whether this is known, one of NEEDS."""
        return getattr(self, name) is not None

    @property
    def dims(self) -> int:
        """D: 128 principal components, or a quarter of the images if there are few.

        With as many components as images, all whitened rows would be equally far apart.
        """
        return max(1, min(128, self.num_images // 4))

    @property
    def is_exact(self) -> bool:
        """Whether neighbours are searched exactly."""
        return self.num_images <= self.exact_up_to

    @property
    def _dtype(self) -> torch.dtype:
        return torch.float64 if self.is_exact else torch.float32

    @cached_property
    def unit(self) -> Tensor:
        """Features with rows of length one, float64 [N, F]; float32 if the search is not exact."""
        assert self.features is not None
        return unit_rows(self.features, self._dtype)

    @cached_property
    def white(self) -> Tensor:
        """The largest principal components with variance one, float64 [N, D]."""
        assert self.features is not None
        return whitened(self.features, self.dims)

    @cached_property
    def components(self) -> Tensor:
        """The largest principal components of unit rows, float64 [N, D]."""
        assert self.features is not None
        return principal_components(self.features, self.dims)[0]

    @cached_property
    def directions(self) -> Tensor:
        """Principal components as rows of length one: the direction from the mean, [N, D]."""
        return unit_rows(self.components, self._dtype)

    def neighbours(self, k: int, preparation: str = "unit") -> Neighbours:
        """The k nearest neighbours of each image, outside its own group if groups are given.

        k is capped at the number of neighbours available to every image, as in small collections.
        ``preparation``: "unit" rows, "components", "directions" or "white".
        """
        least = self.searched if preparation in ("unit", "white") else FEW_NEIGHBOURS
        most = min(most_neighbours(self.num_images, self.groups), max(k, least))
        found = self._neighbours.get(preparation)
        if found is None or found.distances.shape[1] < min(k, most):
            found = self._search(preparation, most)
            self._neighbours[preparation] = found
        return found.first(min(k, most))

    def _search(self, preparation: str, k: int) -> Neighbours:
        rows = getattr(self, preparation)
        if self.is_exact:
            advance = None if self.watch is None else self.watch("neighbours", self.num_images)
            return nearest(rows, k, groups=self.groups, advance=advance)
        found, how = nearest_in_cells(rows, k, groups=self.groups, watch=self.watch)
        self.approximations[preparation] = how
        return found

    def with_groups(self, groups: Tensor) -> Evidence:
        """The same images in groups; earlier searches are reused if enough neighbours are left.

        Raises DataError if one group covers all images.

        >>> evidence = Evidence(torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.3], [0.0, 1.0]]))
        >>> grouped = evidence.with_groups(torch.tensor([0, 0, 1, 2]))
        >>> int(evidence.neighbours(1).indices[0]), int(grouped.neighbours(1).indices[0])
        (1, 2)
        """
        grouped = replace(self, groups=groups)
        for name in ("unit", "white", "components", "directions", "clusters"):
            if name in self.__dict__:  # computed already
                grouped.__dict__[name] = self.__dict__[name]
        most = most_neighbours(self.num_images, groups)
        for name, found in self._neighbours.items():
            left = without_own_group(found, groups)
            # as many as scores need, or all available ones
            enough = ENOUGH_NEIGHBOURS if name in ("unit", "white") else FEW_NEIGHBOURS
            if left.distances.shape[1] >= min(enough, most):
                grouped._neighbours[name] = left
                if name in self.approximations:
                    grouped.approximations[name] = self.approximations[name]
        return grouped

    def distances(self, k: int, preparation: str = "unit") -> Tensor:
        """Euclidean distances to the neighbours, float64 [N, at most k]."""
        return self.neighbours(k, preparation).distances

    def cosine_distances(self, k: int) -> Tensor:
        """1 - cosine to the neighbours, float64 [N, at most k]: half the squared distance."""
        return self.distances(k).square() / 2

    @cached_property
    def clusters(self) -> Clusters:
        """k-means on principal components, with the square root of N clusters, at most 500."""
        return self.clusters_of(usual_number_of_clusters(self.num_images))

    def clusters_of(self, num_clusters: int) -> Clusters:
        """k-means on principal components."""
        return k_means(self.components, min(num_clusters, self.num_images), self.seed)

    @cached_property
    def random(self) -> Tensor:
        """Uniform numbers, float64 [N], a function of only the seed and the position."""
        from sdclr.compute.stateless_random import Stream, derive, uniforms

        key = derive(self.seed, Stream.RARITY)
        return uniforms(key, torch.arange(self.num_images), 1).flatten().double()


NEEDS = (
    "features",
    "losses",
    "masses",
    "projections",
    "competitor_projections",
    "view_losses",
    "competitor_view_losses",
)
"""What a score can need."""
