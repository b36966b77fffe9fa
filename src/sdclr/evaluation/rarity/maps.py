"""A map of a collection: two coordinates for each image, so that images near each other on it look alike.

N images, D principal components. By default the first two of them; UMAP (McInnes et al. 2018, the package umap-learn)
keeps neighbours together but is slower: about a minute for 10,000 images on one core. It must be requested by name, so
that a page does not depend on what else is installed.
"""

from __future__ import annotations

import importlib.util
import warnings
from typing import Literal, NamedTuple, cast, get_args

import numpy as np
import numpy.typing as npt
from torch import Tensor

from sdclr.errors import ConfigError

MapName = Literal["pca", "umap"]
NEIGHBOURS = 15


class Map(NamedTuple):
    """The place of each image."""

    place: npt.NDArray[np.float32]
    """[N, 2]."""
    words: str
    """A description of the two coordinates."""


def checked_map(name: str) -> MapName:
    """The same name. Raises ConfigError for an unknown map, or one that is not installed."""
    if name not in get_args(MapName):
        raise ConfigError(f"--map must be {', '.join(get_args(MapName))}, got {name!r}.")
    if name == "umap" and not _is_installed():
        raise ConfigError('--map umap needs umap-learn: pip install "sdclr[map]".')
    return cast(MapName, name)


def map_of(components: Tensor, name: str = "pca") -> Map:
    """The map by ``name``. Raises ConfigError for umap if umap-learn is not installed.

    ``components`` [N, D]: principal components, largest first. Deterministic.

    >>> import torch
    >>> map_of(torch.eye(3), "pca").place.tolist()
    [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    """
    checked_map(name)
    if name == "umap":
        return Map(_umap(components), "UMAP of the principal components of their features")
    place = np.zeros((len(components), 2), dtype=np.float32)
    first = components[:, :2].numpy()  # only one if all images are on a line
    place[:, : first.shape[1]] = first
    return Map(place, "the two largest principal components of their features")


def _umap(components: Tensor) -> npt.NDArray[np.float32]:
    import umap  # compiles for several seconds

    neighbours = min(NEIGHBOURS, len(components) - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its own defaults
        reducer = umap.UMAP(n_neighbors=neighbours, random_state=0, n_jobs=1)
        placed = reducer.fit_transform(components.numpy().astype(np.float32))
    return np.ascontiguousarray(placed, dtype=np.float32)


def _is_installed() -> bool:
    return importlib.util.find_spec("umap") is not None
