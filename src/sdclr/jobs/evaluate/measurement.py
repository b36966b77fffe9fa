"""Probes on one frozen backbone: features are extracted once and shared by the probes that need them."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from torch import nn

from sdclr.evaluation.features import Labels, per_class_accuracy
from sdclr.evaluation.knn import knn_predict
from sdclr.evaluation.linear_probe import CIFAR, IMAGENET, ProbeSchedule, predict, train_linear_probe
from sdclr.evaluation.logistic_probe import INVERSE_REGULARISATIONS, fit_logistic_probe
from sdclr.jobs.evaluate.choices import Untested
from sdclr.jobs.evaluate.frozen_features import FrozenFeatures
from sdclr.jobs.evaluate.untested import untested_classes

PROBE_SCHEDULES = {"cifar": CIFAR, "imagenet": IMAGENET}


@dataclass(frozen=True)
class ProbeResult:
    """One probe on one backbone."""

    per_class_accuracy: list[float | None]
    """[C], fractions; None for a class that was not tested."""
    num_test: list[int]
    """[C] test images."""
    seconds: float
    detail: str
    """What was chosen on validation, and anything a reader should know."""


class Measurement:
    """Probes that learn from the training images of a split and are measured on its test set."""

    def __init__(self, frozen: FrozenFeatures, untested: Untested = "raise") -> None:
        self.frozen = frozen
        self.untested = untested_classes(frozen.data, ("test", "train"), untested)
        self.test_labels = frozen.labels("test")

    def run(self, protocol: str, probe: str) -> ProbeResult:
        begun = time.perf_counter()
        if probe == "knn":
            predictions, detail = self._knn()
        elif protocol == "cached":
            predictions, detail = self._cached("train" if probe == "linear" else "few_shot")
        else:
            schedules = PROBE_SCHEDULES[self.frozen.data.conventions]
            chosen = ("train", schedules.linear) if probe == "linear" else ("few_shot", schedules.few_shot)
            predictions, detail = self._sgd(*chosen)
        return self._result(predictions, begun, detail)

    def classifier(self, classifier: nn.Linear, detail: str) -> ProbeResult:
        """A ready classifier [F -> C] on the test set."""
        begun = time.perf_counter()
        return self._result(predict(classifier, self.frozen.features("test")), begun, detail)

    def _result(self, predictions: Labels, begun: float, detail: str) -> ProbeResult:
        accuracies = per_class_accuracy(predictions, self.test_labels, self.frozen.num_classes, self.untested)
        counts = np.bincount(self.test_labels, minlength=self.frozen.num_classes).tolist()
        return ProbeResult(accuracies, counts, round(time.perf_counter() - begun, 3), detail)

    def _knn(self) -> tuple[Labels, str]:
        predictions = knn_predict(
            self.frozen.features("train"), self.frozen.labels("train"), self.frozen.features("test")
        )
        return predictions, "k = 10, cosine, bank: every training image"

    def _cached(self, subset: str) -> tuple[Labels, str]:
        features, validation = self.frozen.features(subset), self.frozen.features("validation")
        task = self.frozen.show.add(f"logistic probe ({subset})", total=len(INVERSE_REGULARISATIONS), unit="fits")
        probe = fit_logistic_probe(
            features,
            self.frozen.labels(subset),
            validation,
            self.frozen.labels("validation"),
            advance=self.frozen.advance(task),
        )
        self.frozen.show.finish(task)
        detail = f"C = {probe.inverse_regularisation:g}"
        if probe.validation_accuracy is not None:
            detail += f", validation accuracy {probe.validation_accuracy:.4f}"
        return probe.predict(self.frozen.features("test")), detail + ("" if probe.converged else ", NOT converged")

    def _sgd(self, subset: str, schedule: ProbeSchedule) -> tuple[Labels, str]:
        images = self.frozen.images(subset)
        task = self.frozen.show.add(f"linear probe ({subset})", total=schedule.epochs * len(images), unit="images")
        probe = train_linear_probe(
            self.frozen.backbone,
            lambda batches, epoch: images.probe_crops(batches, self.frozen.size, seed=0, epoch=epoch),
            self.frozen.labels(subset),
            self.frozen.features("validation"),
            self.frozen.labels("validation"),
            num_classes=self.frozen.num_classes,
            schedule=schedule,
            advance=self.frozen.advance(task),
        )
        self.frozen.show.finish(task)
        measure = "accuracy" if schedule.top_k == 1 else f"top-{schedule.top_k} accuracy"
        detail = f"epoch {probe.best_epoch} of {schedule.epochs}, validation {measure} {probe.validation_accuracy:.4f}"
        return probe.predict(self.frozen.features("test")), detail
