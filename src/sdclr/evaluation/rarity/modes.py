"""Estimate how many kinds of images a collection has: modes, their sizes, and an interval.

N images, D dims, K modes. A mode is everything within one radius of the image that covers it: greedy
k-centre over smoothed directions takes the farthest image as the next centre, so one run gives the
number of modes for every radius. The radius at which two images are "the same" cannot be derived from
a collection alone; a few answers to "same or different?" determine it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import beta
from torch import Tensor

from sdclr.compute.stateless_random import permutation
from sdclr.errors import DataError
from sdclr.evaluation.rarity.clusters import smoothed
from sdclr.evaluation.rarity.evidence import Evidence
from sdclr.evaluation.rarity.neighbours import nearest_in
from sdclr.evaluation.rarity.preparation import unit_rows

RARE_SHARE = 0.01
"""A mode with less than a hundredth of the images is rare."""
AVERAGED = 4
"""Neighbours with which a direction is averaged, as in the order covering_4."""
MOST_MODES = 1000
"""The most centres taken; if they do not suffice, the number of modes is at least this."""
KNOWN_WITHIN = 4.0
"""An interval whose ends differ by more than this factor counts as unknown."""
FEWEST_ANSWERS = 10
RESAMPLES = 200

Floats = npt.NDArray[np.float64]
RadiusBy = Literal["answers", "all same", "all different", "images"]


class Between(NamedTuple):
    """An estimate and its interval."""

    estimate: float
    low: float
    high: float

    @property
    def is_known(self) -> bool:
        """Whether the interval is narrow enough to be informative."""
        return self.low == self.high or (self.low > 0 and self.high <= KNOWN_WITHIN * self.low)


class Answer(NamedTuple):
    """Whether two images, by row, are of the same kind."""

    a: int
    b: int
    same: bool


class Covering:
    """The modes of a collection at every radius.

    >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [-1.0, 0.0], [-1.0, 0.1], [-1.0, 0.2]])
    >>> covering = Covering(x, averaged=0)
    >>> covering.number(0.5), covering.sizes(0.5).tolist()
    (3, [3, 2, 1])
    """

    def __init__(
        self,
        features: Tensor,
        averaged: int = AVERAGED,
        advance: Callable[[int], None] = lambda done: None,
    ) -> None:
        """``advance`` is called with 1 for each of up to MOST_MODES centres."""
        evidence = Evidence(features, searched=10)
        directions = evidence.directions
        self.rows = directions
        """[N, D] of length one."""
        if averaged and (k := min(averaged, evidence.num_images // 10)):
            nearest = evidence.neighbours(k, "directions").indices
            self.rows = unit_rows(smoothed(directions, nearest))
        self.approximation = evidence.approximations.get("directions")
        """That of the search for the averaged neighbours; None if it was exact."""
        self.centres, self.radii = _centres(self.rows, MOST_MODES, advance)
        """[K] rows, and the distance of each from all taken before it, decreasing."""

    def number(self, radius: float) -> int:
        """How many modes leave no image farther than ``radius`` from a centre; at least 1."""
        return max(1, int((self.radii > radius).sum()))

    def modes(self, radius: float) -> Tensor:
        """The mode of each image, int64 [N]: that of the nearest centre."""
        centres = self.centres[: self.number(radius)]
        return nearest_in(self.rows[centres], self.rows, 1).indices[:, 0]

    def sizes(self, radius: float) -> npt.NDArray[np.int64]:
        """Images of each mode, largest first."""
        counts = torch.bincount(self.modes(radius)).numpy()
        found: npt.NDArray[np.int64] = np.sort(counts)[::-1]
        return found

    def distance(self, pairs: Sequence[tuple[int, int]]) -> Floats:
        """The distance between the two images of each pair."""
        a, b = (torch.tensor([pair[side] for pair in pairs]) for side in (0, 1))
        found: Floats = (self.rows[a] - self.rows[b]).norm(dim=1).numpy()
        return found

    def plausible_radii(self, seed: int = 0) -> Between:
        """The radii that the collection alone allows: from the nearest neighbour's distance to that of a random pair.

        Nothing is known in between; the estimate is their geometric mean.
        """
        rows = self.rows[permutation(seed, len(self.rows))[:2000]]
        others = self.rows[permutation(seed + 1, len(self.rows))[: len(rows)]]
        low = float(nearest_in(self.rows, rows, 2).distances[:, 1].median())
        high = float((rows - others).norm(dim=1).quantile(0.25))
        high = max(low, high)
        return Between(float(np.sqrt(max(low, 1e-12) * high)), low, high)


def _centres(rows: Tensor, most: int, advance: Callable[[int], None]) -> tuple[Tensor, Floats]:
    """Greedy k-centre, starting from the image nearest to the mean, since the first mode needs a centre."""
    taken = [int((rows - rows.mean(dim=0)).norm(dim=1).argmin())]
    radii = [float("inf")]
    to_taken = (rows - rows[taken[0]]).norm(dim=1)
    while len(taken) < min(most, len(rows)):
        farthest = int(to_taken.argmax())
        if to_taken[farthest] <= 0:
            break  # the remaining images equal a centre
        taken.append(farthest)
        radii.append(float(to_taken[farthest]))
        to_taken = torch.minimum(to_taken, (rows - rows[farthest]).norm(dim=1))
        advance(1)
    return torch.tensor(taken), np.array(radii)


def gini(sizes: npt.NDArray[np.int64]) -> float:
    """Inequality of sizes, in [0, 1): 0 if all are equal.

    >>> gini(np.array([5, 5])), gini(np.array([0, 10]))
    (0.0, 0.5)
    """
    ascending = np.sort(np.asarray(sizes, dtype=np.float64))
    n, total = len(ascending), ascending.sum()
    return float((2 * np.arange(1, n + 1) - n - 1) @ ascending / (n * total))


def radius_by_answers(covering: Covering, answers: Sequence[Answer], seed: int = 0) -> Between:
    """The distance at which "same" and "different" are equally likely, with a bootstrap interval.

    From the range of all thresholds with the fewest wrong answers; answers are resampled, separately
    for both kinds. Raises DataError for fewer than FEWEST_ANSWERS, or if all are of one kind.
    """
    same = np.array([answer.same for answer in answers], dtype=bool)
    if len(answers) < FEWEST_ANSWERS or not same.any() or same.all():
        raise DataError(
            f"a radius needs at least {FEWEST_ANSWERS} answers, some of them same and some "
            f"different; got {len(answers)}, {int(same.sum())} of them same."
        )
    distance = covering.distance([(answer.a, answer.b) for answer in answers])
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(RESAMPLES):
        near = rng.choice(distance[same], int(same.sum()))
        far = rng.choice(distance[~same], int((~same).sum()))
        found.append(_best_thresholds(near, far))
    lows, highs = np.array(found).T
    begin, end = _best_thresholds(distance[same], distance[~same])
    return Between(
        (begin + end) / 2,
        min(float(np.percentile(lows, 2.5)), begin),
        max(float(np.percentile(highs, 97.5)), end),
    )


def radius_by_one_kind(covering: Covering, answers: Sequence[Answer]) -> Between:
    """The radii allowed by at least FEWEST_ANSWERS answers that are all of one kind.

    All same: from the farthest of these pairs up to the radius of a single mode. All different: from the smallest
    radius that the collection alone allows up to the nearest of these pairs. The estimate is the geometric mean of both
    ends.
    """
    distance = covering.distance([(answer.a, answer.b) for answer in answers])
    if answers[0].same:
        low = float(distance.max())
        high = max(low, float(covering.radii[1]) if len(covering.radii) > 1 else low)
    else:
        high = float(distance.min())
        low = min(high, covering.plausible_radii().low)
    return Between(float(np.sqrt(max(low, 1e-12) * high)), low, high)


def _best_thresholds(near: Floats, far: Floats) -> tuple[float, float]:
    """The range of thresholds with the fewest errors: same pairs at ``near``, different ones at ``far``."""
    points = np.unique(np.concatenate([[0.0], near, far]))  # nothing changes between two of them
    wrong = [(near > t).mean() + (far <= t).mean() for t in points]
    best = np.flatnonzero(np.isclose(wrong, min(wrong)))
    return float(points[best[0]]), float(points[min(best[-1] + 1, len(points) - 1)])


def effective_modes(num_same: int, num_pairs: int) -> Between:
    """Effective number of modes, 1 / P(two random images are of the same mode), from answers on random pairs alone.

    Hill's number of order 2; the interval is Clopper and Pearson's exact one, 95 %.

    >>> [round(end, 1) for end in effective_modes(5, 25)]
    [5.0, 2.5, 14.6]
    """
    if not num_pairs > 0 or not 0 <= num_same <= num_pairs:
        raise DataError(f"{num_same} of {num_pairs} pairs cannot be the same.")
    low = beta.ppf(0.025, num_same, num_pairs - num_same + 1) if num_same else 0.0
    high = beta.ppf(0.975, num_same + 1, num_pairs - num_same) if num_same < num_pairs else 1.0
    return Between(
        num_pairs / num_same if num_same else float("inf"),
        float(1 / high),
        float(1 / low) if low else float("inf"),
    )


def questions(covering: Covering, count: int, seed: int = 0) -> list[tuple[int, int, str]]:
    """Pairs to ask "same or different?" about: (row, row, kind), half of them of each kind.

    ``random``: two images at random, for effective_modes. ``near``: an image and one of its 10
    nearest or of its 200 nearest, at random, where the answer is least clear.
    """
    n = len(covering.rows)
    first = permutation(seed, n)[: min(count, n)].tolist()
    second = permutation(seed + 1, n)[: min(count, n)].tolist()
    found: list[tuple[int, int, str]] = []
    for number, (a, b) in enumerate(zip(first, second, strict=True)):
        if number % 2 == 0:
            if a != b:
                found.append((a, b, "random"))
            continue
        reach = min(n - 1, 10 if number % 4 == 1 else 200)
        near = nearest_in(covering.rows, covering.rows[a : a + 1], reach + 1).indices[0]
        others = near[near != a]
        pick = int(permutation(seed + 2 + number, len(others))[0])
        found.append((a, int(others[pick]), "near"))
    return found


class CollectionModes(NamedTuple):
    """What is known of the modes of a collection."""

    radius: Between
    number: Between
    rare: Between
    """Modes with less than RARE_SHARE of the images."""
    effective: Between | None
    """From answers on random pairs; None without any."""
    gini: float
    """That of the sizes at the estimated radius."""
    sizes: list[int]
    """At the estimated radius, largest first."""
    num_answers: int
    radius_by: RadiusBy
    """The basis of the radius: answers of both kinds, of one kind, or the images alone."""


def collection_modes(
    covering: Covering, answers: Sequence[Answer] = (), random_pairs: Sequence[Answer] = ()
) -> CollectionModes:
    """Modes and their interval: from the answers if they suffice, otherwise from what the collection allows.

    ``random_pairs``: those of the answers whose images were drawn at random.
    """
    radius_by = _radius_by(answers)
    if radius_by == "answers":
        radius = radius_by_answers(covering, answers)
    elif radius_by == "images":
        radius = covering.plausible_radii()
    else:
        radius = radius_by_one_kind(covering, answers)
    ends = [radius.estimate, radius.high, radius.low]  # a larger radius has fewer modes
    sizes = [covering.sizes(end) for end in ends]
    total = len(covering.rows)
    rare = [int((of_modes < RARE_SHARE * total).sum()) for of_modes in sizes]
    same = sum(answer.same for answer in random_pairs)
    return CollectionModes(
        radius=radius,
        number=_open_ended(Between(*map(len, sizes)), covering),
        rare=_open_ended(Between(rare[0], *sorted(rare[1:])), covering, len(sizes[2])),
        effective=effective_modes(same, len(random_pairs)) if random_pairs else None,
        gini=gini(sizes[0]),
        sizes=sizes[0].tolist(),
        num_answers=len(answers),
        radius_by=radius_by,
    )


def _radius_by(answers: Sequence[Answer]) -> RadiusBy:
    if len(answers) < FEWEST_ANSWERS:
        return "images"
    kinds = {answer.same for answer in answers}
    if len(kinds) == 2:
        return "answers"
    return "all same" if True in kinds else "all different"


def _open_ended(value: Between, covering: Covering, most: int | None = None) -> Between:
    """``value`` without an upper end if the centres taken do not cover all images: there may be more modes."""
    cut_off = len(covering.centres) == MOST_MODES < len(covering.rows)
    if cut_off and (value.high if most is None else most) >= MOST_MODES:
        return value._replace(high=float("inf"))
    return value
