"""Cross-validated probes on frozen features, for labelled images without a test set.

N images, F feature dim, C classes. Every image is predicted once, by a probe that was fitted on the other folds.
A class needs two images: one to learn from while the other is predicted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdclr.compute.stateless_random import Stream, derive, permutation
from sdclr.errors import DataError
from sdclr.evaluation.features import Labels
from sdclr.evaluation.probe import GivenImages, Probe, ProbeTask, checked_predictions
from sdclr.evaluation.probes import Subset

NUM_FOLDS = 5
"""Also the number of inner folds of which one chooses the strength of a linear probe."""
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class CrossValidated:
    """Predictions of all images, and how well the folds were predicted."""

    predictions: Labels
    """[N]"""
    num_folds: int
    accuracies: list[float]
    """Plain accuracy on each fold, in order."""

    def spread(self) -> str:
        """ "5 folds, accuracy 58.1 to 66.0 % on them"."""
        low, high = min(self.accuracies), max(self.accuracies)
        return f"{self.num_folds} folds, accuracy {100 * low:.1f} to {100 * high:.1f} % on them"


def stratified_folds(labels: Labels, num_folds: int = NUM_FOLDS, *, seed: int = 0) -> Labels:
    """The fold of each image, int64 [N]: the images of every class are dealt out evenly, in a random order.

    There are as many folds as the largest class has images, at most ``num_folds``. ``seed`` decides who goes where.
    Raises DataError where no class has two images.
    """
    counts = np.bincount(labels)
    num_folds = min(num_folds, int(counts.max(initial=0)))
    if num_folds < 2:
        raise DataError("cross-validation needs a class with at least 2 labelled images.")
    folds = np.empty(len(labels), dtype=np.int64)
    dealt = (
        0  # goes on from class to class, so that small classes do not all start in the first fold
    )
    for c in range(len(counts)):
        members = np.flatnonzero(labels == c)
        order = permutation(derive(seed, Stream.FOLDS, c), len(members)).numpy()
        folds[members[order]] = (dealt + np.arange(len(members))) % num_folds
        dealt += len(members)
    return folds


def grouped_folds(
    labels: Labels, groups: Labels, num_folds: int = NUM_FOLDS, *, seed: int = 0
) -> Labels:
    """The fold of each image, int64 [N], with the images of a group in one fold.

    ``groups`` int64 [N]. The groups of each class, the class of the fewest groups first, are dealt in
    a random order to the fold that has the fewest images of it: with two groups of its own, a class
    is in two folds, which scikit-learn's StratifiedGroupKFold does not promise. There are as many
    folds as a class has groups, at most ``num_folds``. Raises DataError where no class has two groups.

    >>> grouped_folds(np.array([0, 0, 0, 1, 1]), np.array([4, 4, 5, 6, 7])).tolist()
    [0, 0, 1, 1, 0]
    """
    if len(groups) != len(labels):
        raise DataError(f"got {len(groups)} groups for {len(labels)} images; give one an image.")
    members = [np.unique(groups[labels == c]) for c in range(int(labels.max(initial=-1)) + 1)]
    num_folds = min(num_folds, max(map(len, members), default=0))
    if num_folds < 2:
        raise DataError("cross-validation needs a class with labelled images in 2 groups.")
    folds = np.full(len(labels), -1, dtype=np.int64)
    for c in sorted(range(len(members)), key=lambda c: len(members[c])):
        order = permutation(derive(seed, Stream.FOLDS, c), len(members[c])).numpy()
        for group in members[c][order]:
            if (folds[groups == group] >= 0).any():
                continue  # with another class
            of_class = np.bincount(folds[(labels == c) & (folds >= 0)], minlength=num_folds)
            of_all = np.bincount(folds[folds >= 0], minlength=num_folds)
            folds[groups == group] = np.lexsort((of_all, of_class))[0]
    return folds


def cross_validate(
    probe: Probe,
    features: Tensor,
    labels: Labels,
    folds: Labels,
    *,
    num_classes: int | None = None,
    groups: Labels | None = None,
    subset: Subset = "train",
    seed: int = 0,
    device: torch.device = _CPU,
    advance: Callable[[int], None] | None = None,
) -> CrossValidated:
    """Fit ``probe`` once for each fold, on the other ones, and predict the fold.

    ``features`` [N, F]. ``groups`` int64 [N]: what a probe holds out inside a fold keeps them together too.
    ``subset`` few_shot: of the other folds as many images of each class as
    the rarest class has there. ``num_classes``: the highest label + 1 if it is not given.
    ``device`` is where a probe may compute; ``advance`` is called after every fold.
    """
    total = int(labels.max()) + 1 if num_classes is None else num_classes
    predictions = np.empty_like(labels)
    accuracies: list[float] = []
    for fold in np.unique(folds):
        test, rows = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        if subset == "few_shot":
            rows = rows[_balanced(labels[rows], seed)]
        own = None if groups is None else groups[rows]
        probe.fit(_fold_task(features[rows], labels[rows], own, total, subset, seed, device))
        predictions[test] = checked_predictions(probe.predict(features[test]), len(test), total)
        accuracies.append(float((predictions[test] == labels[test]).mean()))
        if advance:
            advance(1)
    return CrossValidated(predictions, len(accuracies), accuracies)


def _fold_task(
    features: Tensor,
    labels: Labels,
    groups: Labels | None,
    num_classes: int,
    subset: Subset,
    seed: int,
    device: torch.device,
) -> ProbeTask:
    return ProbeTask(
        training=GivenImages(features, labels),
        validation=GivenImages(features[:0], labels[:0]),
        num_classes=num_classes,
        groups=groups,
        subset=subset,
        cross_validated=True,
        seed=seed,
        device=device,
    )


def _balanced(labels: Labels, seed: int) -> Labels:
    """Rows with as many images of each class as the rarest one has."""
    shots = int(np.bincount(labels)[np.unique(labels)].min())
    rows = []
    for c in np.unique(labels).tolist():
        members = np.flatnonzero(labels == c)
        order = permutation(derive(seed, Stream.IMAGE_ORDER, c), len(members)).numpy()
        rows.append(members[order][:shots])
    return np.sort(np.concatenate(rows))
