"""Near-duplicates and bursts: close in features, confirmed by a perceptual hash, folded into one.

N images, F feature dim. Features alone would take all images of a small class for copies, hashes
alone all plain backgrounds, so both are needed. Equal files are found by data/duplicates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
from sdclr.evaluation.rarity.preparation import BLOCK_ROWS

Hashes = npt.NDArray[np.uint8]
COPY_RULES = ((0.7, 14), (1.1, 6))
"""(reach, bits): very near images may differ more in their hashes, and vice versa.

The reach is a share of the usual distance to the last neighbour given; of the 64 bits of a hash, 32
differ between unrelated images on average, and 0 to 8 between an image and its brighter copy.
"""


NEAR = 20
"""Nearest neighbours among which copies are searched."""
MOST_FALSE = 0.01
"""Tolerated false pairs per image: one in a hundred images."""
EQUAL = (1e-6, 0)
"""The rule for images that both a network and a hash take for the same; it can be trusted in every collection."""
JUST_BEYOND = 1.25
"""Pairs at up to this multiple of a rule's reach show how alike the pairs are that it would fold wrongly."""
FEWEST_PAIRS = 100
"""The fewest pairs from which a share is estimated."""
SAME_PICTURE = 0.35
"""Share of the usual reach below which two images are the same picture, however many copies there are."""


def perceptual_hashes(images: Iterable[npt.NDArray[np.uint8] | Tensor | Image.Image]) -> Hashes:
    """The 64 bits of each image's perceptual hash (imagehash.phash), uint8 [N, 8].

    An image: a Pillow image, or uint8 [H, W], [H, W, 3] or [3, H, W]; sizes may differ.

    >>> grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    >>> perceptual_hashes([grey, grey // 2]).shape
    (2, 8)
    """
    bits = [imagehash.phash(_as_pillow(image)).hash.reshape(-1) for image in images]
    return np.packbits(np.array(bits, dtype=bool).reshape(-1, 64), axis=1)


_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1)
"""Bits of every byte; NumPy itself can count them from version 2.0."""


def differing_bits(a: Hashes, b: Hashes) -> npt.NDArray[np.int64]:
    """How many of the 64 bits of two hashes differ, over the last axis of [..., 8].

    >>> differing_bits(np.array([[255, 1]], np.uint8), np.array([[0, 3]], np.uint8)).tolist()
    [9]
    """
    found: npt.NDArray[np.int64] = _BITS[a ^ b].sum(axis=-1, dtype=np.int64)
    return found


def near_duplicates(
    neighbours: Neighbours,
    hashes: Hashes,
    rules: Sequence[tuple[float, int]] = COPY_RULES,
) -> Tensor:
    """The group of near-duplicates of each image, int64 [N]: the row of the group's first image.

    Two images are copies of each other if one is among the neighbours of the other (10 or 20 of
    them are a good number) and if, for one of the rules (reach, bits), their distance is at most
    ``reach`` times the median distance to the last neighbour and their hashes differ in at most
    ``bits`` bits. Copies of copies belong together. COPY_RULES cannot be trusted for small objects on
    a uniform background, whose hashes are alike although they are not copies (docs/rarebench.md,
    plankton): :func:`trusted_rules` adapts them to a collection.

    >>> from sdclr.evaluation.rarity import nearest
    >>> x = torch.tensor([[0.0], [5.0], [0.01], [9.0], [14.0]])
    >>> near_duplicates(nearest(x, k=2), np.zeros((5, 8), np.uint8), rules=[(0.7, 10)]).tolist()
    [0, 1, 0, 3, 4]
    """
    n, k = neighbours.indices.shape
    if len(hashes) != n:
        raise DataError(f"got {len(hashes)} hashes for {n} images; give one an image.")
    usual = usual_reach(neighbours)
    same = np.zeros((n, k), dtype=bool)
    for start in range(0, n, BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        reach = neighbours.distances[part].numpy() / usual
        bits = differing_bits(hashes[part, None], hashes[neighbours.indices[part].numpy()])
        for largest_reach, most_bits in rules:
            same[part] |= (reach <= largest_reach) & (bits <= most_bits)
    rows, places = np.nonzero(same)
    columns = neighbours.indices.numpy()[rows, places]
    pairs = (np.ones(len(rows), dtype=np.int8), (rows, columns))
    _, labels = connected_components(coo_array(pairs, shape=(n, n)), directed=False)
    _, first = np.unique(labels, return_index=True)
    return torch.from_numpy(first[labels].astype(np.int64))


def alike_by_chance(
    neighbours: Neighbours, hashes: Hashes, rows: Tensor, beyond: float = 0.0
) -> npt.NDArray[np.float64]:
    """How often hashes of different pictures that look alike differ in at most b bits, [65].

    ``neighbours`` of the images ``rows`` int64 [M] among all N (200 are a good number): pairs with
    those after the first quarter are counted, which are similar to the image but too many to be its
    copies. For random pairs the share is smaller. Pairs at a distance of ``beyond`` or less are the
    same picture and not counted: a burst may be longer than a quarter of the neighbours. Zeros if no
    pair is left.

    >>> from sdclr.evaluation.rarity import nearest
    >>> hashes = np.zeros((8, 8), np.uint8)
    >>> hashes[4:] = 255
    >>> neighbours = nearest(torch.arange(8.0).unsqueeze(1), k=7)
    >>> alike_by_chance(neighbours, hashes, torch.arange(8))[[0, 63, 64]].round(2).tolist()
    [0.35, 0.35, 1.0]
    """
    if len(rows) != len(neighbours.indices):
        raise DataError(f"got neighbours of {len(neighbours.indices)} images for {len(rows)} rows.")
    first = neighbours.indices.shape[1] // 4
    bits = differing_bits(
        hashes[rows.numpy()][:, None], hashes[neighbours.indices.numpy()[:, first:]]
    )
    differ = neighbours.distances.numpy()[:, first:] > beyond
    counts = np.bincount(bits[differ], minlength=65)
    shares: npt.NDArray[np.float64] = counts.cumsum() / max(1, counts.sum())
    return shares


def alike_just_beyond(
    neighbours: Neighbours, hashes: Hashes, rows: Tensor, reach: float
) -> npt.NDArray[np.float64]:
    """How often hashes differ in at most b bits, [65], for pairs slightly farther apart than ``reach``.

    Among the ``neighbours`` of the images ``rows`` int64 [M], those at a distance between ``reach`` and JUST_BEYOND
    times it: images that look more alike have more similar hashes, and no other pairs are as close to the ones that a
    rule accepts. Zeros if there are fewer than FEWEST_PAIRS of them.

    >>> from sdclr.evaluation.rarity import nearest
    >>> hashes = np.zeros((200, 8), np.uint8)
    >>> hashes[::2] = 255  # an image is unlike its two nearest neighbours, and like the next two
    >>> neighbours = nearest(torch.arange(200.0).unsqueeze(1), k=4)
    >>> alike_just_beyond(neighbours, hashes, torch.arange(200), reach=0.9)[[0, 63, 64]].tolist()
    [0.0, 0.0, 1.0]
    """
    distances = neighbours.distances.numpy()
    is_there = (distances > reach) & (distances <= JUST_BEYOND * reach)
    bits = differing_bits(hashes[rows.numpy()][:, None], hashes[neighbours.indices.numpy()])
    counts = np.bincount(bits[is_there], minlength=65)
    if counts.sum() < FEWEST_PAIRS:
        return np.zeros(65)
    shares: npt.NDArray[np.float64] = counts.cumsum() / counts.sum()
    return shares


def trusted_rules(
    neighbours: Neighbours,
    by_chance: npt.NDArray[np.float64],
    rules: Sequence[tuple[float, int]] = COPY_RULES,
    most_false: float = MOST_FALSE,
) -> list[tuple[float, int]]:
    """``rules`` with fewer bits if hashes of this collection are alike without being copies.

    A rule (reach, bits) is expected to give m x p false pairs per image: m is how many of the
    ``neighbours``, which near_duplicates uses, are within the reach, p the share of ``by_chance``
    [65] (alike_by_chance), or [number of rules, 65], at that many bits. The bits are lowered until
    this is at most ``most_false``; a rule that cannot be trusted with 0 bits is left out. There are
    more false pairs than expected if the pairs within a rule's reach are more alike than those
    counted in ``by_chance``.

    >>> from sdclr.evaluation.rarity import nearest
    >>> near = nearest(torch.arange(40.0).unsqueeze(1), k=20)
    >>> trusted_rules(near, np.linspace(0, 1, 65) ** 4), trusted_rules(near, np.ones(65))
    ([(0.7, 10), (1.1, 6)], [])
    """
    reach = neighbours.distances.numpy() / usual_reach(neighbours)
    shares = np.broadcast_to(by_chance, (len(rules), by_chance.shape[-1]))
    trusted = []
    for (largest_reach, most_bits), share in zip(rules, shares, strict=True):
        within = float((reach <= largest_reach).sum(axis=1).mean())
        allowed = np.flatnonzero(within * share <= most_false)
        if len(allowed):
            trusted.append((largest_reach, min(most_bits, int(allowed[-1]))))
    return trusted


def rules_of_collection(
    near: Neighbours, around: Neighbours, hashes: Hashes, rows: Tensor
) -> list[tuple[float, int]]:
    """The ``trusted_rules`` of a collection, by how often its different pictures are alike by chance.

    For each rule, the larger of alike_by_chance, which a long burst does not raise, and of
    alike_just_beyond the rule, which matters in a small collection, whose farther neighbours are of
    other kinds. ``near``: the neighbours that near_duplicates uses; ``around``: about 200 neighbours
    among all N of the images ``rows`` int64 [M]. EQUAL images can always be folded.

    >>> from sdclr.evaluation.rarity import nearest
    >>> near = nearest(torch.arange(40.0).unsqueeze(1), k=20)
    >>> rules_of_collection(near, near, np.zeros((40, 8), np.uint8), torch.arange(40))
    []
    """
    usual = usual_reach(near)
    far = alike_by_chance(around, hashes, rows, SAME_PICTURE * usual)
    beyond = [alike_just_beyond(around, hashes, rows, reach * usual) for reach, _ in COPY_RULES]
    return trusted_rules(near, np.maximum(far, beyond))


def represented(groups: Tensor, unfit: npt.NDArray[np.bool_]) -> Tensor:
    """``groups`` of near_duplicates, each named by its first image that is not ``unfit`` (bool [N]).

    So a blurred copy does not represent the sharp one. If all are unfit, the first one is kept.

    >>> represented(torch.tensor([0, 1, 0]), np.array([True, False, False])).tolist()
    [2, 1, 2]
    """
    n = len(groups)
    order = np.lexsort((np.arange(n), unfit, groups.numpy()))  # by group, fit ones first
    _, first = np.unique(groups.numpy()[order], return_index=True)
    stands_for = np.arange(n)
    stands_for[np.unique(groups.numpy())] = order[first]
    return torch.from_numpy(stands_for)[groups]


def usual_reach(neighbours: Neighbours) -> float:
    """Median distance to the last neighbour given; above 0 even if all of them are copies.

    >>> from sdclr.evaluation.rarity import nearest
    >>> usual_reach(nearest(torch.tensor([[0.0], [1.0], [4.0]]), k=1))
    1.0
    """
    reach = float(neighbours.distances[:, -1].median())
    return max(reach, float(np.finfo(np.float64).tiny))


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
