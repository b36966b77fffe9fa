"""The ``cached`` protocol's classifier: regularised logistic regression on features that were extracted once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdclr.errors import DataError
from sdclr.evaluation.features import Labels, require_finite
from sdclr.evaluation.logistic_regression import COARSE, ROWS, LogisticRegression, Weights
from sdclr.evaluation.probe_settings import INVERSE_REGULARISATIONS as INVERSE_REGULARISATIONS

_MAX_ITERATIONS = 500
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Standardised:
    """Scale each feature to mean 0 and variance 1 over the training images, as scikit-learn's StandardScaler."""

    mean: Tensor
    """fp64 [F]."""
    scale: Tensor
    """fp64 [F]; 1 for a feature that is constant."""

    @classmethod
    def over(cls, features: Tensor) -> Standardised:
        """The statistics of features [N, F]."""
        num = len(features)
        mean = features.mean(dim=0, dtype=torch.float64)
        squares = [(part - mean).square().sum(dim=0) for part in features.split(ROWS)]
        variance = torch.stack(squares).sum(dim=0) / num
        rounding = torch.finfo(torch.float64).eps
        constant = variance <= num * rounding * variance + (num * mean * rounding) ** 2
        return cls(mean, variance.sqrt().masked_fill(constant, 1.0))

    def apply(self, features: Tensor) -> Tensor:
        """fp32 [N, F] on the device of the statistics."""
        device = self.mean.device
        parts = [(part.to(device) - self.mean) / self.scale for part in features.split(ROWS)]
        return torch.cat([part.float() for part in parts]) if parts else features.float().to(device)


@dataclass(frozen=True)
class LogisticProbe:
    """A fitted classifier and how it was chosen."""

    standardised: Standardised
    weights: Weights
    classes: Labels
    """[C]: the label of each column of scores."""
    inverse_regularisation: float
    validation_accuracy: float | None
    """None if there was no validation set to choose on."""
    converged: bool

    def predict(self, features: Tensor) -> Labels:
        """Classes [N] of features [N, F]. Raises NonFiniteError for features that are not finite."""
        require_finite(features)
        return self.classes[_best_columns(self.weights, self.standardised.apply(features.float()))]


@torch.inference_mode()
def _best_columns(weights: Weights, x: Tensor) -> Labels:
    parts = [weights.scores(part).argmax(dim=1).cpu() for part in x.split(ROWS)]
    return torch.cat(parts).numpy()


def fit_logistic_probe(
    features: Tensor,
    labels: Labels,
    validation_features: Tensor,
    validation_labels: Labels,
    inverse_regularisations: Sequence[float] = INVERSE_REGULARISATIONS,
    advance: Callable[[int], None] | None = None,
    device: torch.device = _CPU,
) -> LogisticProbe:
    """Fit on standardised features [N, F]; the strength is the first best on validation.

    Without validation images it is 1.0, or the given one if only one is given.

    The objective is that of scikit-learn's LogisticRegression at the same C. Strengths are tried from
    strong to weak, each starting from the previous solution, at a coarse tolerance; the best one is then
    fitted to convergence. ``advance`` is called after each strength. ``device``: where to compute.
    Raises NonFiniteError for features that are not finite and DataError for labels of a single class.
    """
    require_finite(features, "training row {}".format)
    require_finite(validation_features, "validation row {}".format)
    classes, columns = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise DataError(
            "a probe needs training images of at least 2 classes; these are all of one."
        )
    features = features.float().to(device)
    standardised = Standardised.over(features)
    targets = torch.from_numpy(columns.astype(np.int64)).to(device)
    regression = LogisticRegression(standardised.apply(features), targets, len(classes))
    x_validation = standardised.apply(validation_features.float())
    if not len(validation_labels) and len(inverse_regularisations) > 1:
        inverse_regularisations = (1.0,)

    def accuracy(weights: Weights) -> float | None:
        if not len(validation_labels):
            return None
        predicted = classes[_best_columns(weights, x_validation)]
        return float((predicted == validation_labels).mean())

    best: tuple[float, Weights, float] | None = None
    start: Weights | None = None
    for c in inverse_regularisations:
        start = regression.fit(c, start, _MAX_ITERATIONS, COARSE).weights
        found = accuracy(start) or 0.0
        if best is None or found > best[2]:
            best = c, start, found
        if advance:
            advance(1)
    assert best is not None
    strength, start, _ = best
    fit = regression.fit(strength, start, _MAX_ITERATIONS)
    weights = fit.weights
    return LogisticProbe(standardised, weights, classes, strength, accuracy(weights), fit.converged)
