"""Probes without a test set: every labelled image is predicted once, by probes fitted on the others."""

from __future__ import annotations

import time

import numpy as np

from sdclr.errors import ConfigError, DataError
from sdclr.evaluation.cross_validation import (
    CrossValidated,
    cross_validate_few_shot,
    cross_validate_knn,
    cross_validate_linear,
    stratified_folds,
)
from sdclr.evaluation.features import Labels, per_class_accuracy
from sdclr.jobs.evaluate.choices import Protocol, Untested
from sdclr.jobs.evaluate.frozen_features import FrozenFeatures
from sdclr.jobs.evaluate.measurement import ProbeResult
from sdclr.jobs.evaluate.untested import untested_classes


class CrossValidation:
    """Probes on the labelled training images alone; they were seen in pre-training, without their labels."""

    def __init__(self, frozen: FrozenFeatures, untested: Untested, *, seed: int) -> None:
        """``seed`` decides which images are in one fold. Raises DataError where fewer than 2 classes are left."""
        self.frozen, self.seed = frozen, seed
        self.untested = untested_classes(frozen.data, ("folds",), untested)
        if frozen.num_classes - len(self.untested) < 2:
            raise DataError("cross-validation needs 2 classes with at least 2 usable labelled images each.")

    def run(self, protocol: Protocol, probe: str) -> ProbeResult:
        """Raises ConfigError for a protocol that needs a test set."""
        require_cross_validated(protocol)
        begun = time.perf_counter()
        labels = self.frozen.labels("train")
        tested = np.flatnonzero(~np.isin(labels, self.untested))
        labels = labels[tested]
        found = self._predicted(probe, labels, tested)
        num_classes = self.frozen.num_classes
        accuracies = per_class_accuracy(found.predictions, labels, num_classes, self.untested)
        counts = np.bincount(labels, minlength=num_classes).tolist()
        seconds = round(time.perf_counter() - begun, 3)
        return ProbeResult(accuracies, counts, seconds, f"cross-validated: {found.spread()}; {found.detail}")

    def _predicted(self, probe: str, labels: Labels, tested: Labels) -> CrossValidated:
        features = self.frozen.features("train")[tested]
        folds = stratified_folds(labels, seed=self.seed)
        if probe == "knn":
            return cross_validate_knn(features, labels, folds)
        fit = cross_validate_linear if probe == "linear" else cross_validate_few_shot
        show = self.frozen.show
        task = show.add(f"cross-validation ({probe})", total=len(np.unique(folds)), unit="folds")
        found = fit(features, labels, folds, seed=self.seed, advance=self.frozen.advance(task))
        show.finish(task)
        return found


def require_cross_validated(protocol: Protocol) -> None:
    """ConfigError for a protocol that is defined on a test set alone."""
    if protocol != "cached":
        raise ConfigError(
            f"protocol {protocol} needs a labelled test set: give data.test_path=FOLDER or a list. Without one, "
            "--protocol cached cross-validates the labelled images."
        )
