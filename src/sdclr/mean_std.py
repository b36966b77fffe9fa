"""Mean and standard deviation over n values: what every table shows for several splits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True)
class MeanStd:
    """Mean and population std (ddof 0, the paper's) over ``n`` splits, as fractions.

    Both are ``nan`` for an empty group of classes.

    >>> found = MeanStd.over([0.5, 0.75])
    >>> found.mean, found.std, found.n
    (0.625, 0.125, 2)
    """

    mean: float
    std: float
    n: int

    @classmethod
    def over(cls, values: Sequence[float]) -> Self:
        """The mean and std of the values of n splits."""
        array = np.asarray(values, dtype=np.float64)
        return cls(float(array.mean()), float(array.std()), len(array))

    @property
    def spread(self) -> float:
        """The std to display: ``nan`` for a single split, whose spread is not known.

        >>> MeanStd.over([0.5]).spread
        nan
        """
        return self.std if self.n > 1 else math.nan
