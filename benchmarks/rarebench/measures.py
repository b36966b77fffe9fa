"""Scores and labels -> numbers, with intervals.

N images. Ties between scores keep the order of the rows, which is shuffled before. The AUROC and classes seen are the
package's own, sdclr.evaluation.rarity.judging.
"""

from __future__ import annotations

import numpy as np
from sklearn.metrics import average_precision_score

from sdclr.evaluation.rarity.judging import Flags, Floats


def average_precision(score: Floats, wanted: Flags) -> float:
    """Mean precision at the places of the wanted images."""
    return float(average_precision_score(wanted, score))


def lift(score: Floats, wanted: Flags, share: float) -> float:
    """Share of wanted images among the first ``share`` of the order, over their share in all.

    >>> lift(np.array([4.0, 3.0, 2.0, 1.0]), np.array([True, False, False, False]), 0.25)
    4.0
    """
    count = max(1, round(share * len(score)))
    first = np.argsort(-score, kind="stable")[:count]
    return float(wanted[first].mean() / wanted.mean())
