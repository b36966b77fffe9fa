"""Cross-validated probes on frozen features, for labelled images without a test set.

N images, F feature dim, C classes. Every image is predicted once, by a probe that was fitted on the other folds.
A class needs two images: one to learn from while the other is predicted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from sdclr.errors import DataError
from sdclr.evaluation.features import Labels
from sdclr.evaluation.knn import knn_predict
from sdclr.evaluation.logistic_probe import INVERSE_REGULARISATIONS, fit_logistic_probe
from sdclr.stateless_random import Stream, derive, permutation

NUM_FOLDS = 5
"""Also the number of inner folds of which one chooses the strength of a linear probe."""


@dataclass(frozen=True)
class CrossValidated:
    """Predictions of all images and how they were made."""

    predictions: Labels
    """[N]"""
    num_folds: int
    accuracies: list[float]
    """Plain accuracy on each fold, in order."""
    detail: str = ""

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
    dealt = 0  # goes on from class to class, so that small classes do not all start in the first fold
    for c in range(len(counts)):
        members = np.flatnonzero(labels == c)
        order = permutation(derive(seed, Stream.FOLDS, c), len(members)).numpy()
        folds[members[order]] = (dealt + np.arange(len(members))) % num_folds
        dealt += len(members)
    return folds


def cross_validate_linear(
    features: Tensor,
    labels: Labels,
    folds: Labels,
    *,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> CrossValidated:
    """Logistic regression on ``features`` [N, F]; its strength is chosen inside the training folds.

    One of five inner folds chooses, then the probe is fitted on all training images with the chosen strength.
    ``advance`` is called after every outer fold.
    """
    strengths: list[float] = []
    converged: list[bool] = []

    def predict(train: Labels, test: Labels) -> Labels:
        strength = _choose_strength(features[train], labels[train], seed)
        probe = fit_logistic_probe(features[train], labels[train], features[:0], labels[:0], (strength,))
        strengths.append(strength)
        converged.append(probe.converged)
        return probe.predict(features[test])

    found = _cross_validate(labels, folds, predict, advance)
    detail = f"C = {' or '.join(f'{one:g}' for one in sorted(set(strengths)))}, chosen inside the training folds"
    return replace(found, detail=detail if all(converged) else f"{detail}, NOT converged")


def cross_validate_few_shot(
    features: Tensor,
    labels: Labels,
    folds: Labels,
    *,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> CrossValidated:
    """As :func:`cross_validate_linear`, fitted on as many images of each class as the rarest class has.

    The strength is 1.0: nothing is left to choose it on.
    """
    shots: list[int] = []

    def predict(train: Labels, test: Labels) -> Labels:
        chosen = train[_balanced(labels[train], seed)]
        shots.append(len(chosen) // len(np.unique(labels[train])))
        probe = fit_logistic_probe(features[chosen], labels[chosen], features[:0], labels[:0], (1.0,))
        return probe.predict(features[test])

    found = _cross_validate(labels, folds, predict, advance)
    return replace(found, detail=f"C = 1, {' or '.join(map(str, sorted(set(shots))))} images a class")


def cross_validate_knn(features: Tensor, labels: Labels, folds: Labels) -> CrossValidated:
    """Nearest neighbours by :func:`knn_predict`; the bank is the other folds."""

    def predict(train: Labels, test: Labels) -> Labels:
        return knn_predict(features[train], labels[train], features[test])

    return replace(_cross_validate(labels, folds, predict), detail="k = 10, cosine, bank: the other folds")


def _cross_validate(
    labels: Labels,
    folds: Labels,
    predict: Callable[[Labels, Labels], Labels],
    advance: Callable[[int], None] | None = None,
) -> CrossValidated:
    """``predict`` is called with the rows of the training folds and those of the fold to predict."""
    predictions = np.empty_like(labels)
    accuracies: list[float] = []
    for fold in np.unique(folds):
        test = np.flatnonzero(folds == fold)
        predictions[test] = predict(np.flatnonzero(folds != fold), test)
        accuracies.append(float((predictions[test] == labels[test]).mean()))
        if advance:
            advance(1)
    return CrossValidated(predictions, len(accuracies), accuracies)


def _choose_strength(features: Tensor, labels: Labels, seed: int) -> float:
    """The best strength on an inner fold; 1.0 where no class has an image to spare for one."""
    classes, inner = np.unique(labels, return_inverse=True)
    if len(classes) < 2 or np.bincount(inner).max() < 2:
        return 1.0
    folds = stratified_folds(inner, seed=seed)
    rest, held_out = np.flatnonzero(folds != 0), np.flatnonzero(folds == 0)
    if len(np.unique(labels[rest])) < 2 or not len(held_out):
        return 1.0
    probe = fit_logistic_probe(
        features[rest], labels[rest], features[held_out], labels[held_out], INVERSE_REGULARISATIONS
    )
    return probe.inverse_regularisation


def _balanced(labels: Labels, seed: int) -> Labels:
    """Rows with as many images of each class as the rarest one has."""
    shots = int(np.bincount(labels)[np.unique(labels)].min())
    rows = []
    for c in np.unique(labels).tolist():
        members = np.flatnonzero(labels == c)
        order = permutation(derive(seed, Stream.IMAGE_ORDER, c), len(members)).numpy()
        rows.append(members[order][:shots])
    return np.sort(np.concatenate(rows))
