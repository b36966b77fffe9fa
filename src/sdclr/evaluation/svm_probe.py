"""The ``ts`` protocol's classifier: a linear SVM on features of length 1.

As TS's authors use it: scikit-learn's LinearSVC with its defaults, one class against the rest.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sdclr.errors import DataError
from sdclr.evaluation.features import Labels, of_length_one, require_finite
from sdclr.evaluation.probe import ProbeTask
from sdclr.evaluation.probe_settings import SVMConfig

SOLVER_SEED = 42
"""Seed of LinearSVC's order of images, as in the authors' notebooks; it does not change the optimum."""


class LinearSVM:
    """The few-shot and the long-tail linear SVM of protocol ts."""

    def __init__(self, config: SVMConfig) -> None:
        self.config = config
        self._num_images = 0
        self._converged = True

    def fit(self, task: ProbeTask) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.svm import LinearSVC  # slow to import, so only when needed

        if len(np.unique(task.labels)) < 2:
            raise DataError(
                "a probe needs training images of at least 2 classes; these are all of one."
            )
        require_finite(task.features, "training row {}".format)
        self.svm = LinearSVC(
            C=self.config.inverse_regularisation,
            max_iter=self.config.max_iterations,
            # the same optimum either way; this picks the faster solver
            dual=len(task.labels) < task.features.shape[1],
            random_state=SOLVER_SEED,
        )
        with (
            task.progress(f"linear SVM ({task.subset})", 1, "fits") as advance,
            warnings.catch_warnings(record=True) as caught,
        ):
            warnings.simplefilter("always", ConvergenceWarning)
            self.svm.fit(_unit_length(task.features), task.labels)
            advance(1)
        self._converged = True
        for warning in caught:
            if issubclass(warning.category, ConvergenceWarning):
                self._converged = False
            else:
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno
                )
        self._num_images = len(task.labels)

    def predict(self, features: Tensor) -> Labels:
        require_finite(features)
        found: Labels = self.svm.predict(_unit_length(features)).astype(np.int64)
        return found

    @property
    def detail(self) -> str:
        found = f"C = {self.config.inverse_regularisation:g}, {self._num_images:,} images"
        return found if self._converged else f"{found}, NOT converged"


def _unit_length(features: Tensor) -> npt.NDArray[np.float64]:
    """fp64 [N, F] of length 1; a zero vector stays zero."""
    unit: npt.NDArray[np.float64] = of_length_one(features.to(torch.float64)).numpy()
    return unit
