"""Two sets of predictions of the same images: how far apart, with an interval that is paired.

N test images, C classes.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
RESAMPLES = 1000


class PairedDifference(NamedTuple):
    """Accuracy of one less that of the other, mean over the classes, in [-1, 1]."""

    difference: float
    low: float
    high: float
    """The middle 95 % of RESAMPLES resamples of the images of each class."""

    @property
    def verdict(self) -> str:
        """better, worse, or open where the interval holds 0."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "open"


def paired_difference(
    ours: Floats,
    theirs: Floats,
    labels: Labels,
    classes: Collection[int] | None = None,
    seed: int = 0,
    groups: Labels | None = None,
) -> PairedDifference:
    """Whether ``ours`` is better than ``theirs``, [N] each: how often an image was classified right, in [0, 1].

    ``classes``: which count, one with an image among them (default: all that have images). ``groups`` [N]: which images
    belong together, such as the pictures of one burst. Images are resampled within their class, or whole groups where
    there are any, the same for both sides; what another training run would give is not in the interval.

    >>> paired_difference(np.ones(4), np.zeros(4), np.array([0, 0, 1, 1])).verdict
    'better'
    """
    present = [c for c in np.unique(labels).tolist() if classes is None or c in classes]
    assert present, "no class of these has an image"
    gain, rng = ours - theirs, np.random.default_rng(seed)
    means = np.array([gain[labels == c].mean() for c in present])
    if groups is None:
        resampled = _of_images(gain, labels, present, rng)
    else:
        resampled = _of_groups(gain, labels, present, groups, rng)
    low, high = np.percentile(resampled, [2.5, 97.5])
    return PairedDifference(float(means.mean()), float(low), float(high))


def _of_images(
    gain: Floats, labels: Labels, classes: Collection[int], rng: np.random.Generator
) -> Floats:
    """The mean over the classes in each resample, [RESAMPLES]."""
    totals = np.zeros(RESAMPLES)
    for c in classes:
        own = gain[labels == c]
        n = len(own)
        totals += rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) @ own / n
    return totals / len(classes)


def _of_groups(
    gain: Floats,
    labels: Labels,
    classes: Collection[int],
    groups: Labels,
    rng: np.random.Generator,
) -> Floats:
    """The same, resampling groups; a class that a resample has no image of does not count in it."""
    counted = np.isin(labels, list(classes))
    names, of_image = np.unique(groups[counted], return_inverse=True)
    gain, labels, num = gain[counted], labels[counted], len(names)
    drawn = rng.multinomial(num, np.full(num, 1 / num), size=RESAMPLES)
    sums, sizes = np.zeros((2, num, len(classes)))
    for place, c in enumerate(classes):
        own = labels == c
        np.add.at(sums[:, place], of_image[own], gain[own])
        np.add.at(sizes[:, place], of_image[own], 1)
    sizes = drawn @ sizes
    means = np.divide(drawn @ sums, sizes, out=np.full(sizes.shape, np.nan), where=sizes > 0)
    return np.asarray(np.nanmean(means, axis=1))
