"""Cross-validated probes on frozen features, for labelled images without a test set.

N images, F feature dim, C classes. Every image is predicted once, by a probe that was fitted on the other folds.
A class needs two images: one to learn from while the other is predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
"""Also the number of inner folds, one of which chooses the strength of a linear probe."""
MOVES_PER_CLASS = 50
"""Moves of groups, per class, after which the search for folds that divide every class is given up."""
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
        """For example "5 folds, accuracy 58.1 to 66.0 % on them"."""
        low, high = min(self.accuracies), max(self.accuracies)
        return f"{self.num_folds} folds, accuracy {100 * low:.1f} to {100 * high:.1f} % on them"


def stratified_folds(labels: Labels, num_folds: int = NUM_FOLDS, *, seed: int = 0) -> Labels:
    """The fold of each image, int64 [N]: the images of every class are dealt out evenly, in a random order.

    There are as many folds as the largest class has images, at most ``num_folds``. ``seed`` decides the assignment.
    Raises DataError if no class has two images.
    """
    counts = np.bincount(labels)
    num_folds = min(num_folds, int(counts.max(initial=0)))
    if num_folds < 2:
        raise DataError("cross-validation needs a class with at least 2 labelled images.")
    folds = np.empty(len(labels), dtype=np.int64)
    dealt = (
        0  # continues from class to class, so that small classes do not all start in the first fold
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

    ``groups`` int64 [N]. The groups of each class, starting with the class with the fewest groups, are
    dealt in a random order to the fold with the fewest images of that class. There are as many folds as
    the largest number of groups in a class, at most ``num_folds``. If groups with images of several
    classes have put a class with two groups into one fold, there are as many folds as groups, at most
    ``num_folds``, and groups are moved until every such class is in two folds, which scikit-learn's
    StratifiedGroupKFold does not guarantee. If this fails, :func:`undivided_classes` names the
    remaining ones. Raises DataError if no class has two groups.

    >>> grouped_folds(np.array([0, 0, 0, 1, 1]), np.array([4, 4, 5, 6, 7])).tolist()
    [0, 0, 1, 1, 0]
    """
    if len(groups) != len(labels):
        raise DataError(f"got {len(groups)} groups for {len(labels)} images; give one an image.")
    members = [np.unique(groups[labels == c]) for c in range(int(labels.max(initial=-1)) + 1)]
    most = max(map(len, members), default=0)
    if min(num_folds, most) < 2:
        raise DataError("cross-validation needs a class with labelled images in 2 groups.")
    folds = _dealt(labels, groups, members, min(num_folds, most), seed)
    divisible = {c for c, own in enumerate(members) if len(own) > 1}
    if divisible.isdisjoint(undivided_classes(labels, folds)):
        return folds
    names, of_image = np.unique(groups, return_inverse=True)
    num_folds = min(num_folds, len(names))
    fold_of = np.empty(len(names), dtype=np.int64)
    fold_of[of_image] = _dealt(labels, groups, members, num_folds, seed)
    own_groups = [np.searchsorted(names, members[c]) for c in sorted(divisible)]
    fold_of = _divided(fold_of, own_groups, np.bincount(of_image), num_folds)
    # renumbered without empty folds
    return np.unique(fold_of[of_image], return_inverse=True)[1].astype(np.int64)


def undivided_classes(labels: Labels, folds: Labels) -> list[int]:
    """Classes whose images are all in one fold: when it is predicted, nothing was learned about them.

    >>> undivided_classes(np.array([0, 0, 1, 1]), np.array([0, 1, 2, 2]))
    [1]
    """
    return [c for c in np.unique(labels).tolist() if len(np.unique(folds[labels == c])) == 1]


def _dealt(
    labels: Labels, groups: Labels, members: Sequence[Labels], num_folds: int, seed: int
) -> Labels:
    """The fold of each image, int64 [N]; ``members``: the groups of each class."""
    folds = np.full(len(labels), -1, dtype=np.int64)
    for c in sorted(range(len(members)), key=lambda c: len(members[c])):
        order = permutation(derive(seed, Stream.FOLDS, c), len(members[c])).numpy()
        for group in members[c][order]:
            if (folds[groups == group] >= 0).any():
                continue  # already dealt with another class
            of_class = np.bincount(folds[(labels == c) & (folds >= 0)], minlength=num_folds)
            of_all = np.bincount(folds[folds >= 0], minlength=num_folds)
            folds[groups == group] = np.lexsort((of_all, of_class))[0]
    return folds


def _divided(fold_of: Labels, classes: Sequence[Labels], sizes: Labels, num_folds: int) -> Labels:
    """``fold_of`` each group [G], with groups moved until no class is in a single fold, if such folds are found.

    ``classes``: the groups, from 0, of each class that has two. ``sizes``: images of each group [G]. Of the moves that
    divide a class, the one that leaves the fewest undivided is made; groups that were moved least recently go first, so
    that no move is undone at once.
    """
    if len(fold_of) <= num_folds:
        return np.arange(len(fold_of))
    fold_of, best, fewest = fold_of.copy(), fold_of, len(classes) + 1
    with_group: list[list[Labels]] = [[] for _ in fold_of]
    for own in classes:
        for group in own:
            with_group[group].append(own)
    last_moved = np.zeros(len(fold_of), dtype=np.int64)
    for move in range(1, MOVES_PER_CLASS * len(classes) + 1):
        undivided = [own for own in classes if len(np.unique(fold_of[own])) == 1]
        if len(undivided) < fewest:
            best, fewest = fold_of.copy(), len(undivided)
        if not undivided:
            break
        in_fold = np.bincount(fold_of, sizes, num_folds)
        ranked = []
        for group in undivided[0].tolist():
            others = [fold_of[own[own != group]] for own in with_group[group]]
            here = fold_of[group]
            for fold in range(num_folds):
                if fold == here:
                    continue
                more = sum(int((one == fold).all()) - int((one == here).all()) for one in others)
                ranked.append((more, last_moved[group], in_fold[fold], group, fold))
        *_, group, fold = min(ranked)
        fold_of[group], last_moved[group] = fold, move
    return best


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

    ``features`` [N, F]. ``groups`` int64 [N]: probes that hold images out inside a fold keep groups together, too.
    With ``subset`` few_shot, the probe learns from as many images of each class as the rarest class has in the other
    folds. ``num_classes``: the highest label + 1 by default.
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
