"""A verdict by a predefined rule: paired differences, their interval, and d, the smallest relevant difference.

n pairs of runs, each pair on one split with one seed; m comparisons in the same question. The interval is Student's t
at 1 - 0.05 / m (Bonferroni), so that all m hold simultaneously with 95 %: the interval shown is the one that decides.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

Verdict = Literal["helps", "harms", "no effect worth having", "open"]
Key = TypeVar("Key", bound=Hashable)
LARGEST_N = 10**7
ROUNDING = 1e-12
"""Relative to the numbers whose differences are taken: a smaller spread counts as equal."""


@dataclass(frozen=True)
class Effect:
    """Arm minus baseline over the cells that both have, in the unit of the values."""

    mean: float
    low: float
    """nan, like ``high``, for fewer than two pairs and for equal differences, which have no interval."""
    high: float
    std: float
    """Of the differences, ddof 1; exactly 0 if they are equal up to rounding."""
    n: int
    num_comparisons: int

    @property
    def confidence(self) -> float:
        """The confidence of this single interval: 1 - 0.05 / m."""
        return 1 - 0.05 / self.num_comparisons

    def verdict(self, d: float) -> Verdict:
        """helps: the interval is above +d; harms: below -d; no effect worth having: within -d .. d; otherwise open.

        Differences that are all equal give no estimate of their spread, so they are open, too.

        >>> paired_effect({1: 0.0, 2: 0.0}, {1: 5.0, 2: 5.1}, 1).verdict(1.0)
        'helps'
        """
        if math.isnan(self.low):
            return "open"
        if self.low > d:
            return "helps"
        if self.high < -d:
            return "harms"
        return "no effect worth having" if self.low >= -d and self.high <= d else "open"

    def cells_needed(self, half_width: float) -> int | None:
        """How many pairs make the interval's half-width that small, if their spread stays the same.

        None if the spread is not known yet, or if more than LARGEST_N would be needed.
        """
        if self.n < 2 or self.std == 0:
            return None
        return cells_needed(self.std, half_width, self.num_comparisons)


def paired_effect(
    baseline: Mapping[Key, float], arm: Mapping[Key, float], num_comparisons: int = 1
) -> Effect:
    """Compare two arms cell by cell; the keys pair their values.

    >>> found = paired_effect({"a": 1.0, "b": 2.0}, {"a": 2.0, "b": 5.0, "c": 9.0})
    >>> found.mean, found.n
    (2.0, 2)
    """
    shared = [key for key in baseline if key in arm]
    differences = np.array([arm[key] - baseline[key] for key in shared])
    n = len(differences)
    if n < 2:
        mean = float(differences[0]) if n else math.nan
        return Effect(mean, math.nan, math.nan, math.nan, n, num_comparisons)
    largest = max(max(abs(arm[key]), abs(baseline[key])) for key in shared)
    mean, std = float(differences.mean()), spread_of(differences, largest)
    half = half_width(std, n, num_comparisons) if std else math.nan
    return Effect(mean, mean - half, mean + half, std, n, num_comparisons)


def spread_of(values: Sequence[float] | npt.NDArray[np.float64], largest: float) -> float:
    """The standard deviation, ddof 1, of two values or more; exactly 0 if they are equal up to rounding.

    ``largest``: the largest absolute value of the numbers that the values were computed from.

    >>> spread_of([1.0, 2.0], 2.0) > 0, spread_of([0.8 - 0.7, 0.7 - 0.6], 0.8)
    (True, 0.0)
    """
    if float(np.ptp(values)) <= ROUNDING * largest:
        return 0.0
    return float(np.std(values, ddof=1))


def mean_interval(values: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """The mean and its 95 % t-interval; None for one value, or equal ones, whose spread is unknown.

    >>> mean_interval([0.5]), mean_interval([0.5, 0.5])
    ((0.5, None), (0.5, None))
    """
    mean, n = float(np.mean(values)), len(values)
    std = spread_of(values, float(np.max(np.abs(values)))) if n > 1 else 0.0
    if not std:
        return mean, None
    half = half_width(std, n)
    return mean, (mean - half, mean + half)


def half_width(std: float, n: int, num_comparisons: int = 1) -> float:
    """Half-width of the interval of n differences: t(1 - 0.025 / m, n - 1) std / sqrt(n).

    >>> round(half_width(1.0, 5), 2)
    1.24
    """
    from scipy.stats import t  # the import takes a second, and only intervals need it

    return float(t.ppf(1 - 0.025 / num_comparisons, n - 1)) * std / math.sqrt(n)


def cells_needed(std: float, wanted: float, num_comparisons: int = 1) -> int | None:
    """The smallest n of at least 2 whose interval has a half-width of at most ``wanted``.

    >>> cells_needed(1.0, 1.25), cells_needed(1.0, 1.24)
    (5, 6)
    """
    low, high = 1, 2  # the half-width shrinks as n grows: double, then halve
    while half_width(std, high, num_comparisons) > wanted:
        low, high = high, 2 * high
        if high > LARGEST_N:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if half_width(std, middle, num_comparisons) > wanted:
            low = middle
        else:
            high = middle
    return high
