"""The difference between two sets of predictions of the same images, with a paired interval.

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
"""With fewer groups, resampling them gives no information about other groups."""


class PairedDifference(NamedTuple):
    """Accuracy of one minus that of the other, mean over the classes, in [-1, 1]."""

    difference: float
    low: float
    high: float
    """``low`` and ``high`` bound a 95 % interval over other images of each class and other ways to deal the folds."""

    @property
    def verdict(self) -> str:
        """better, worse, or open if the interval contains 0."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "open"


def paired_difference(
    ours: Floats,
    theirs: Floats,
    labels: Labels,
    classes: Collection[int] | None = None,
    seed: int = 0,
    groups: Labels | None = None,
) -> PairedDifference:
    """Whether ``ours`` is better than ``theirs``, [N] or [S, N] each: how often an image was correct, in [0, 1].

    S: ways to deal the folds, or to draw the learned images, the same for both sides; each gives its own accuracies,
    which are averaged. ``classes``: the classes that count, at least one of which has an image (default: all with
    images). ``groups`` [N]: which images belong together, such as the pictures of one burst.

    The interval combines two sources of variation, added in squares. First, images are weighted at random within their
    class (the Bayesian bootstrap), or whole groups if there are any, the same for both sides: the middle 95 % of
    RESAMPLES draws. Each class also gets unseen images, one and a half in total, for which ours only, both or neither,
    and theirs only are correct: otherwise a few images that agree would seem certain. They pull the draws towards 0,
    the more so the fewer images a class has. So the end away from 0 is that of the draws moved back onto the
    difference; the end towards 0 stays, on the safe side. With fewer than FEWEST_GROUPS groups the interval is [-1, 1].
    Second, the S differences have a standard error, with Student's t; a single way has none. The variation between
    training runs is not included.

    >>> paired_difference(np.ones(20), np.zeros(20), np.arange(20) % 2).verdict
    'better'
    >>> paired_difference(np.ones(4), np.zeros(4), np.arange(4) % 2).verdict
    'open'
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
    pulled = difference - resampled.mean()  # by unseen images, towards 0
    low, high = min(low, low + pulled), max(high, high + pulled)
    of_ways = _half_width(by_way)
    below, above = np.hypot([difference - low, high - difference], of_ways)
    low, high = np.clip([difference - below, difference + above], -1, 1)  # the possible range
    return PairedDifference(difference, float(low), float(high))


def _half_width(values: Floats) -> float:
    """Half the width of a 95 % t-interval of their mean; 0 for one value."""
    if len(values) < 2:
        return 0.0
    error = values.std(ddof=1) / np.sqrt(len(values))
    return float(error * student_t.ppf(0.975, len(values) - 1))


UNSEEN, WEIGHT_OF_UNSEEN = np.array([-1.0, 0.0, 1.0]), 0.5
"""Possible gains of unseen images, and how many of each are added to a class."""


def _of_images(
    gain: Floats, labels: Labels, classes: Collection[int], rng: np.random.Generator
) -> Floats:
    """The mean over the classes in each draw, [RESAMPLES]."""
    totals = np.zeros(RESAMPLES)
    for c in classes:
        own = gain[labels == c]
        unseen = rng.standard_gamma(WEIGHT_OF_UNSEEN, (RESAMPLES, len(UNSEEN)))
        sums, sizes = unseen @ UNSEEN, unseen.sum(axis=1)
        # memory does not grow with the images
        for part in np.array_split(own, len(own) // 4096 + 1):
            weights = rng.standard_exponential((RESAMPLES, len(part)))
            sums += weights @ part
            sizes += weights.sum(axis=1)
        totals += sums / sizes
    return totals / len(classes)


def _of_groups(
    gain: Floats,
    labels: Labels,
    classes: Collection[int],
    groups: Labels,
    rng: np.random.Generator,
) -> Floats:
    """The same, weighting groups; the unseen groups of a class have its average group size."""
    counted = np.isin(labels, list(classes))
    names, of_image = np.unique(groups[counted], return_inverse=True)
    gain, labels, num = gain[counted], labels[counted], len(names)
    weights = rng.standard_exponential((RESAMPLES, num))
    totals = np.zeros(RESAMPLES)
    for c in classes:
        own = labels == c
        sums = np.bincount(of_image[own], gain[own], minlength=num)
        sizes = np.bincount(of_image[own], minlength=num).astype(np.float64)
        unseen = sizes[sizes > 0].mean() * rng.standard_gamma(
            WEIGHT_OF_UNSEEN, (RESAMPLES, len(UNSEEN))
        )
        totals += (weights @ sums + unseen @ UNSEEN) / (weights @ sizes + unseen.sum(axis=1))
    return totals / len(classes)
