"""Near-duplicates and bursts: near by features, confirmed by a perceptual hash, folded into one.

N images, F feature dim. Features alone call all images of a small class copies; hashes alone call
all plain backgrounds copies. Both together are needed. Equal files are found by data/duplicates.
"""

from __future__ import annotations

from collections.abc import Iterable

import imagehash
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from sdclr.errors import DataError
from sdclr.evaluation.rarity.neighbours import Neighbours

Hashes = npt.NDArray[np.uint8]
MOST_BITS = 10
"""Of 64: hashes of unrelated images differ in 32 on average, of a brighter copy in 0 to 6."""
REACH = 0.7
"""Copies are nearer than this share of the distance at which images usually have 10 neighbours."""


def perceptual_hashes(images: Iterable[npt.NDArray[np.uint8] | Tensor | Image.Image]) -> Hashes:
    """The 64 bits of each image's perceptual hash (imagehash.phash), uint8 [N, 8].

    An image: a Pillow image, or uint8 [H, W], [H, W, 3] or [3, H, W]; sizes may differ.

    >>> grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    >>> perceptual_hashes([grey, grey // 2]).shape
    (2, 8)
    """
    bits = [imagehash.phash(_as_pillow(image)).hash.reshape(-1) for image in images]
    return np.packbits(np.array(bits, dtype=bool).reshape(-1, 64), axis=1)


def near_duplicates(
    neighbours: Neighbours, hashes: Hashes, *, most_bits: int = MOST_BITS, reach: float = REACH
) -> Tensor:
    """The group of near-duplicates of each image, int64 [N]: the row of the group's first image.

    Two images are copies of each other where one is among the neighbours of the other, at less than
    ``reach`` times the median distance to the last neighbour given (10 of them is a good number),
    and their hashes differ in at most ``most_bits``. Copies of copies belong together.

    >>> from sdclr.evaluation.rarity import nearest
    >>> x = torch.tensor([[0.0], [5.0], [0.01], [9.0], [14.0]])
    >>> near_duplicates(nearest(x, k=2), np.zeros((5, 8), np.uint8)).tolist()
    [0, 1, 0, 3, 4]
    """
    n, k = neighbours.indices.shape
    if len(hashes) != n:
        raise DataError(f"got {len(hashes)} hashes for {n} images; give one an image.")
    indices = neighbours.indices.numpy()
    limit = reach * float(neighbours.distances[:, -1].median())
    near = neighbours.distances.numpy() <= limit
    rows, columns = np.repeat(np.arange(n), k)[near.ravel()], indices[near]
    bits = np.bitwise_count(hashes[rows] ^ hashes[columns]).sum(axis=1)
    same = bits <= most_bits
    pairs = (np.ones(int(same.sum()), dtype=np.int8), (rows[same], columns[same]))
    _, labels = connected_components(coo_array(pairs, shape=(n, n)), directed=False)
    _, first = np.unique(labels, return_index=True)
    return torch.from_numpy(first[labels].astype(np.int64))


def fold(order: Tensor, groups: Tensor) -> Tensor:
    """``order`` (rows, best first) with only the first row of each group, int64 [M].

    >>> fold(torch.tensor([2, 0, 1, 3]), groups=torch.tensor([0, 1, 0, 3])).tolist()
    [2, 1, 3]
    """
    _, first = np.unique(groups[order].numpy(), return_index=True)
    return order[torch.from_numpy(np.sort(first))]


def _as_pillow(image: npt.NDArray[np.uint8] | Tensor | Image.Image) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    pixels = image.numpy() if isinstance(image, Tensor) else image
    if pixels.ndim == 3 and pixels.shape[0] == 3 and pixels.shape[2] != 3:
        pixels = pixels.transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(pixels))
