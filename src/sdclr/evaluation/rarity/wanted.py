"""Other rankings of a collection: by likeness to given images, and by a user's marks.

N images, F feature dim, Q given images, M marked images.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from sdclr.errors import DataError
from sdclr.evaluation.rarity.preparation import require_usable, unit_rows

PENALTY = 1.0
"""Inverse strength of the L2 penalty (scikit-learn's C), on unit rows."""
FEWEST_FOLDS, MOST_FOLDS = 3, 10


class Feedback(NamedTuple):
    """A ranking learnt from marks, and its expected yield."""

    score: Tensor
    """float64 [N], log-odds of being wanted; higher = more likely wanted."""
    expected_next: float | None
    """How many wanted images are expected among the next, unmarked ones; None: too few marks."""
    num_next: int
    """The number of these next images: 100, or all that are left."""


def likeness(features: Tensor, like: Tensor) -> Tensor:
    """Largest cosine of each image with any of the given ones, float64 [N]; ``like`` [Q, F].

    >>> likeness(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0]])).tolist()
    [1.0, 0.0]
    """
    require_usable(features)
    if not len(like):
        raise DataError("likeness needs at least one image to compare with.")
    queries = unit_rows(like)
    parts = [(unit_rows(rows) @ queries.T).amax(dim=1) for rows in features.split(65_536)]
    return torch.cat(parts)


def from_feedback(
    features: Tensor,
    rows: Tensor,
    wanted: Tensor,
    seed: int = 0,
    num_next: int = 100,
    listable: Tensor | None = None,
) -> Feedback:
    """Rank by a logistic regression with an L2 penalty on unit rows, trained on the marked images.

    ``rows`` int64 [M]: which images are marked; ``wanted`` bool [M]. Both classes have equal weight;
    otherwise a few wanted ones would hardly count. ``expected_next``: the marked images are scored by
    cross-validation (as many folds as the rarer mark has images, 3 to 10); an isotonic regression
    turns these scores into shares of wanted ones, and the shares of the best ``num_next`` unmarked
    images are added up, among those that are ``listable`` (bool [N], which excludes copies and junk;
    None: all). This is correct if the marked images are like the rest of the collection: if only
    promising images are marked, the number is too high. Raises DataError unless both marks occur.

    >>> x = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9], [1.0, 0.1]])
    >>> found = from_feedback(x, torch.tensor([0, 2]), torch.tensor([True, False]))
    >>> bool(found.score[4] > found.score[3]), found.expected_next, found.num_next
    (True, None, 3)
    """
    require_usable(features)
    marks = wanted.numpy().astype(bool)
    if marks.all() or not marks.any():
        mark_text = "wanted" if len(marks) and marks.all() else "not wanted"
        raise DataError(
            f"all {len(marks)} marked images are {mark_text}; mark at least one of each kind, or use "
            "likeness to given images instead."
        )
    known = unit_rows(features[rows]).numpy()
    model = _fitted(known, marks)
    weights, offset = torch.from_numpy(model.coef_[0]), float(model.intercept_[0])
    parts = [unit_rows(part) @ weights + offset for part in features.split(65_536)]
    score = torch.cat(parts)
    unmarked = torch.ones(len(features), dtype=torch.bool) if listable is None else listable.clone()
    unmarked[rows] = False
    best = score[unmarked].sort(descending=True).values[:num_next]
    expected = _expected(known, marks, best.numpy(), seed)
    return Feedback(score, expected, len(best))


def _fitted(known: npt.NDArray[np.float64], marks: npt.NDArray[np.bool_]) -> LogisticRegression:
    return LogisticRegression(C=PENALTY, class_weight="balanced", max_iter=1000).fit(known, marks)


def _expected(
    known: npt.NDArray[np.float64],
    marks: npt.NDArray[np.bool_],
    best: npt.NDArray[np.float64],
    seed: int,
) -> float | None:
    """How many of the unmarked images with the scores ``best`` are wanted; None: too few marks to estimate."""
    from sklearn.isotonic import IsotonicRegression

    folds = min(MOST_FOLDS, int(marks.sum()), int((~marks).sum()))
    if folds < FEWEST_FOLDS:
        return None
    held_out = np.empty(len(marks))
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed % 2**32)
    for train, test in splits.split(known, marks):
        held_out[test] = _fitted(known[train], marks[train]).decision_function(known[test])
    shares = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(held_out, marks)
    return float(shares.predict(best).sum()) if len(best) else 0.0
