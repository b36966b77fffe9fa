"""The ``cached`` protocol's classifier: regularised logistic regression on features that were extracted once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from sdclr.compute.process_state import recorded_warnings
from sdclr.errors import DataError
from sdclr.evaluation.features import Labels, require_finite

INVERSE_REGULARISATIONS = (0.001, 0.01, 0.1, 1.0)
_MAX_ITERATIONS = 500


@dataclass(frozen=True)
class LogisticProbe:
    """A fitted classifier and how it was chosen."""

    scaler: StandardScaler
    classifier: LogisticRegression
    inverse_regularisation: float
    validation_accuracy: float | None
    """None where there was no validation set to choose on."""
    converged: bool

    def predict(self, features: Tensor) -> Labels:
        """Classes [N] of features [N, F]. Raises NonFiniteError for features that are not finite."""
        require_finite(features)
        return self.classifier.predict(self.scaler.transform(features.float().numpy()))


def fit_logistic_probe(
    features: Tensor,
    labels: Labels,
    validation_features: Tensor,
    validation_labels: Labels,
    inverse_regularisations: Sequence[float] = INVERSE_REGULARISATIONS,
    advance: Callable[[int], None] | None = None,
) -> LogisticProbe:
    """Fit on standardised features [N, F]; the strength is the first best on validation.

    Without validation it is 1.0, or the one that is given.

    Strengths are tried from strong to weak, each starting from the one before; ``advance`` is called after each fit.
    Raises NonFiniteError for features that are not finite and DataError for labels of a single class.
    """
    require_finite(features, "training row {}".format)
    require_finite(validation_features, "validation row {}".format)
    if len(np.unique(labels)) < 2:
        raise DataError("a probe needs training images of at least 2 classes; these are all of one.")
    scaler = StandardScaler().fit(features.float().numpy())
    x, x_validation = scaler.transform(features.float().numpy()), validation_features.float().numpy()
    if not len(validation_labels) and len(inverse_regularisations) > 1:
        inverse_regularisations = (1.0,)
    best: LogisticProbe | None = None
    start: tuple[np.ndarray, np.ndarray] | None = None
    for c in inverse_regularisations:
        classifier = LogisticRegression(C=c, max_iter=_MAX_ITERATIONS, tol=1e-4, warm_start=True)
        if start is not None:
            classifier.coef_, classifier.intercept_ = start[0].copy(), start[1].copy()
        with recorded_warnings(ConvergenceWarning) as caught:
            classifier.fit(x, labels)
        converged = not caught
        start = (classifier.coef_, classifier.intercept_)
        accuracy = None
        if len(validation_labels):
            accuracy = float((classifier.predict(scaler.transform(x_validation)) == validation_labels).mean())
        if advance:
            advance(1)
        if best is None or (accuracy or 0) > (best.validation_accuracy or 0):
            best = LogisticProbe(scaler, classifier, c, accuracy, converged)
    assert best is not None
    return best
