"""Scores and labels -> numbers, with intervals.

N images, C classes. Ties between scores count half in the AUROC, and keep the order of the rows,
which is shuffled before, everywhere else.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
RESAMPLES = 200


def auroc(score: Floats, wanted: Flags) -> float:
    """Probability that a wanted image has a higher score than another one.

    >>> auroc(np.array([1.0, 2.0, 3.0]), np.array([False, True, True]))
    1.0
    """
    positives = int(wanted.sum())
    negatives = len(wanted) - positives
    if not positives or not negatives:
        return float("nan")
    ranks = rankdata(score)
    return float((ranks[wanted].sum() - positives * (positives + 1) / 2) / (positives * negatives))


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


def classes_seen(order: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], count: int) -> int:
    """Distinct classes in the first ``count`` images of an order."""
    return len(np.unique(labels[order[:count]]))


def classes_seen_by_chance(counts: npt.NDArray[np.int64], count: int) -> float:
    """Its expectation for a random order, drawing without replacement.

    Sum over classes of 1 - C(N - n_c, m) / C(N, m).

    >>> classes_seen_by_chance(np.array([1, 1]), 1)
    1.0
    """
    total = int(counts.sum())
    if count >= total:
        return float((counts > 0).sum())
    left = total - counts
    possible = left >= count
    with np.errstate(invalid="ignore"):
        log_missed = _log_binomial(left, count) - _log_binomial(np.array(total), count)
    missed = np.where(possible, np.exp(np.where(possible, log_missed, 0.0)), 0.0)
    return float(np.round((1 - missed).sum(), 9))


def _log_binomial(n: npt.NDArray[np.int64], k: int) -> Floats:
    result: Floats = gammaln(n + 1) - gammaln(k + 1) - gammaln(np.maximum(n - k, 0) + 1)
    return result


def bootstrap(
    scores: dict[str, Floats], wanted: Flags, groups: npt.NDArray[np.int64] | None, seed: int = 0
) -> dict[str, Floats]:
    """AUROC of each score in the same resamples of the images, float [RESAMPLES] each.

    Whole groups are drawn where there are groups: images of one burst are not independent. The same
    resamples for all scores of a set make differences between scores paired.
    """
    rng = np.random.default_rng(seed)
    n = len(wanted)
    unit = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    found = {name: np.empty(RESAMPLES) for name in scores}
    for i in range(RESAMPLES):
        drawn = np.bincount(
            rng.integers(0, unit.max() + 1, unit.max() + 1), minlength=unit.max() + 1
        )
        weights = drawn[unit].astype(np.float64)
        for name, score in scores.items():
            found[name][i] = _weighted_auroc(score, wanted, weights)
    return found


def _weighted_auroc(score: Floats, wanted: Flags, weights: Floats) -> float:
    """AUROC where image i is there ``weights[i]`` times."""
    _, place = np.unique(score, return_inverse=True)
    positive = np.bincount(place, weights * wanted)
    negative = np.bincount(place, weights * ~wanted)
    below = np.cumsum(negative) - negative
    pairs = positive.sum() * negative.sum()
    return float((positive * (below + negative / 2)).sum() / pairs) if pairs else float("nan")


def interval(resampled: Floats) -> tuple[float, float]:
    """The middle 95 %."""
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return float(low), float(high)
