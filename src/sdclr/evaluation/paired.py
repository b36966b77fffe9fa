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
    ours: Floats, theirs: Floats, labels: Labels, classes: Collection[int] = (), seed: int = 0
) -> PairedDifference:
    """Whether ``ours`` is better than ``theirs``, [N] each: how often an image was classified right, in [0, 1].

    ``classes``: which count (default: all that have images). Images are resampled within their class, the same for
    both sides; what another training run would give is not in the interval.

    >>> paired_difference(np.ones(4), np.zeros(4), np.array([0, 0, 1, 1])).verdict
    'better'
    """
    rng = np.random.default_rng(seed)
    present = [c for c in np.unique(labels).tolist() if not classes or c in classes]
    totals, found = np.zeros(RESAMPLES), 0.0
    for c in present:
        gain = (ours - theirs)[labels == c]
        n = len(gain)
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
        totals += drawn @ gain / n
        found += float(gain.mean())
    low, high = np.percentile(totals / len(present), [2.5, 97.5])
    return PairedDifference(found / len(present), float(low), float(high))
