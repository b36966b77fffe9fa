"""Two sets of predictions of the same images: how far apart, with an interval that is paired.

N test images, C classes, S ways to deal folds.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student_t

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
RESAMPLES = 1000
FEWEST_GROUPS = 5
"""Groups below which resampling them says nothing of other groups."""


class PairedDifference(NamedTuple):
    """Accuracy of one less that of the other, mean over the classes, in [-1, 1]."""

    difference: float
    low: float
    high: float
    """Of a 95 % interval: what other images of each class would give, and other ways to deal the folds."""

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
    """Whether ``ours`` is better than ``theirs``, [N] or [S, N] each: how often an image was right, in [0, 1].

    S: ways to deal the folds, or to draw what is learned from, the same for both sides; each gives its own accuracies,
    and the mean over them counts. ``classes``: which count, one with an image among them (default: all that have
    images). ``groups`` [N]: which images belong together, such as the pictures of one burst.

    The interval has two sources of chance, added in squares. Images are resampled within their class, or whole groups
    where there are any, the same for both sides: the middle 95 % of RESAMPLES resamples. A class of few images is
    resampled together with two more, whose spread is that of all classes, since two images that happen to agree would
    else seem certain; with fewer than FEWEST_GROUPS groups the interval is [-1, 1]. And the S differences have a
    standard error, with Student's t; of one way there is none. What another training run would give is not in it.

    >>> paired_difference(np.ones(4), np.zeros(4), np.array([0, 0, 1, 1])).verdict
    'better'
    """
    present = [c for c in np.unique(labels).tolist() if classes is None or c in classes]
    assert present, "no class of these has an image"
    gains, rng = np.atleast_2d(ours - theirs), np.random.default_rng(seed)
    gain = gains.mean(axis=0)
    by_way = np.array([np.mean([one[labels == c].mean() for c in present]) for one in gains])
    difference = float(by_way.mean())
    if groups is None:
        resampled = _of_images(gain, labels, present, rng)
    elif len(np.unique(groups[np.isin(labels, present)])) < FEWEST_GROUPS:
        return PairedDifference(difference, -1.0, 1.0)
    else:
        resampled = _of_groups(gain, labels, present, groups, rng)
    low, high = np.percentile(resampled, [2.5, 97.5])
    of_ways = _half_width(by_way)
    below, above = np.hypot([difference - low, high - difference], of_ways)
    low, high = np.clip([difference - below, difference + above], -1, 1)  # it cannot be more
    return PairedDifference(difference, float(low), float(high))


def _half_width(values: Floats) -> float:
    """Of a 95 % t-interval of their mean; 0 for one value."""
    if len(values) < 2:
        return 0.0
    error = values.std(ddof=1) / np.sqrt(len(values))
    return float(error * student_t.ppf(0.975, len(values) - 1))


def _of_images(
    gain: Floats, labels: Labels, classes: Collection[int], rng: np.random.Generator
) -> Floats:
    """The mean over the classes in each resample, [RESAMPLES]."""
    totals, spread = np.zeros(RESAMPLES), _spread_within_classes(gain, labels)
    for c in classes:
        own = gain[labels == c]
        n = len(own)
        # on average a resample then varies as the mean of n images does
        known = np.append(own, own.mean() + np.sqrt(1.5) * spread * np.array([-1, 1]))
        totals += rng.multinomial(n, np.full(n + 2, 1 / (n + 2)), size=RESAMPLES) @ known / n
    return totals / len(classes)


def _spread_within_classes(gain: Floats, labels: Labels) -> float:
    """Standard deviation within a class, of all classes together."""
    deviations = [gain[labels == c] - gain[labels == c].mean() for c in np.unique(labels)]
    freedom = len(gain) - len(deviations)
    return float(np.sqrt(sum((d**2).sum() for d in deviations) / freedom)) if freedom else 1.0


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
