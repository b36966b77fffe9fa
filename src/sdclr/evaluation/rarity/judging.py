"""Judge a score by labels: how well it ranks the images of rare classes. No score sees the labels.

N images, C classes. Ties between scores count half in the AUROC.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln
from scipy.stats import mannwhitneyu, rankdata, t

from sdclr.errors import DataError
from sdclr.evaluation.balancedness import class_groups

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int64]
RESAMPLES = 200


class Judged(NamedTuple):
    """AUROC for the images of the few classes, with its 95 % interval."""

    auroc: float
    low: float
    high: float
    """The middle 95 % of RESAMPLES resamples of the images; with groups, Student's interval by their spread."""
    few: list[int]
    """The classes that count as few: the last third by size."""
    num_images: int
    """Images of these classes."""
    p_value: float
    """Two-sided: how often chance is as far from .50. Of the Mann-Whitney test, since for a handful of images the
    bootstrap interval is far too narrow; with groups, of Student's."""
    num_groups: int | None = None
    """Groups with images of the few classes, where whole groups were resampled."""


def few_classes(labels: Labels) -> list[int]:
    """The classes that an evaluation by thirds calls few, of those with images, the smallest first.

    >>> few_classes(np.array([0, 0, 0, 1, 1, 2]))
    [2]
    """
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2:
        raise DataError("rare classes need at least 2 classes; all labels are of one.")
    return [int(classes[place]) for place in class_groups(counts.tolist(), "thirds")["few"]]


def judged(score: Floats, labels: Labels, groups: Labels | None = None, seed: int = 0) -> Judged:
    """How well a score [N] (higher = rarer) ranks the images of the few classes of ``labels`` [N].

    ``groups`` [N]: whole groups are resampled if images are not independent. The degrees of freedom are then those of
    the fewer groups: those with images of the few classes, or those with others; with one such group nothing is known.

    >>> judged(np.array([0.0, 1.0, 2.0, 3.0]), np.array([0, 0, 0, 1])).auroc
    1.0
    """
    few = few_classes(labels)
    wanted = np.isin(labels, few)
    resampled = bootstrap({"score": score}, wanted, groups, seed)["score"]
    if groups is not None:
        return _judged_by_groups(auroc(score, wanted), resampled, few, wanted, groups)
    # the exact test would not finish for 8 among 10^6, and for so few the asymptotic one is conservative
    by_chance = mannwhitneyu(score[wanted], score[~wanted], method="asymptotic").pvalue
    return Judged(
        auroc(score, wanted), *interval(resampled), few, int(wanted.sum()), float(by_chance)
    )


def _judged_by_groups(
    found: float, resampled: Floats, few: list[int], wanted: Flags, groups: Labels
) -> Judged:
    num_groups, num_others = (len(np.unique(groups[some])) for some in (wanted, ~wanted))
    degrees = min(num_groups, num_others) - 1
    low, high, p_value = 0.0, 1.0, 1.0
    if degrees > 0:
        error = float(np.nanstd(resampled, ddof=1))
        reach = error * float(t.ppf(0.975, degrees))
        low, high = max(found - reach, 0.0), min(found + reach, 1.0)
        away = abs(found - 0.5)
        p_value = float(2 * t.sf(away / error, degrees)) if error else float(away == 0)
        # of few groups, so many orders are equally extreme by chance
        p_value = max(p_value, min(2 / math.comb(num_groups + num_others, num_groups), 1.0))
    return Judged(found, low, high, few, int(wanted.sum()), p_value, num_groups)


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


def classes_seen(order: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], count: int) -> int:
    """Distinct classes in the first ``count`` images of an order."""
    return len(np.unique(labels[order[:count]]))


def classes_seen_by_chance(counts: npt.NDArray[np.int64], count: int) -> float:
    """Expectation of classes_seen for a random order, drawing without replacement.

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

    Whole groups are drawn if there are groups: images of one burst are not independent. Using the
    same resamples for all scores of a set makes differences between scores paired.
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
    """AUROC with image i repeated ``weights[i]`` times."""
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
