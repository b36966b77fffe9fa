"""Probes on one frozen backbone: features are extracted once and shared by the probes that need them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sdclr.data import Data, Images
from sdclr.data.decode import printable
from sdclr.errors import DataError
from sdclr.evaluation.features import Labels, extract_features, per_class_accuracy
from sdclr.evaluation.knn import knn_predict
from sdclr.evaluation.linear_probe import CIFAR, IMAGENET, ProbeSchedule, predict, train_linear_probe
from sdclr.evaluation.logistic_probe import INVERSE_REGULARISATIONS, fit_logistic_probe
from sdclr.jobs.evaluate.choices import Untested
from sdclr.jobs.pretrain import PretrainConfig
from sdclr.presentation.progress import AnyProgress, NoProgress

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
    """The images of one split at the size the backbone was trained on, and their features, extracted when needed."""

    def __init__(
        self,
        backbone: nn.Module,
        data: Data,
        config: PretrainConfig,
        progress: AnyProgress | None,
        untested: Untested = "raise",
    ) -> None:
        self.backbone, self.data = backbone, data
        self.size = config.views.size
        self.split = data.labelled_split()
        self.show = progress or NoProgress()
        self.num_classes = len(data.class_names)
        self._parts: dict[str, Images] = {}
        self._features: dict[str, Tensor] = {}
        self.untested = self._untested(untested)
        self.test_labels = self._labels("test")

    def _untested(self, untested: Untested) -> list[int]:
        """Classes without a usable test or training image; DataError that names them where they are not left out."""
        found: dict[str, list[int]] = {}
        for part, what in (("test", "test"), ("train", "training")):
            labels = self.data.part(part).labels
            counts = np.bincount([] if labels is None else labels, minlength=self.num_classes)
            found[what] = np.flatnonzero(counts == 0).tolist()
        classes = sorted({c for lost in found.values() for c in lost})
        if not classes:
            return []
        said = "; ".join(f"no usable {what} image: {self._names(lost)}" for what, lost in found.items() if lost)
        if untested == "raise":
            raise DataError(
                f"{len(classes)} of {self.num_classes} classes cannot be measured ({said}). Add images of them, or "
                "evaluate the others with --untested leave_out."
            )
        if len(classes) == self.num_classes:
            raise DataError(f"no class can be measured ({said}).")
        warnings.warn(f"{len(classes)} of {self.num_classes} classes are left out ({said}).", stacklevel=4)
        return classes

    def _names(self, classes: Sequence[int]) -> str:
        shown = ", ".join(self.data.class_names[c] for c in classes[:5])
        return shown + (f" and {len(classes) - 5} more" if len(classes) > 5 else "")

    def run(self, protocol: str, probe: str) -> ProbeResult:
        begun = time.perf_counter()
        if probe == "knn":
            predictions, detail = self._knn()
        elif protocol == "cached":
            predictions, detail = self._cached("train" if probe == "linear" else "few_shot")
        else:
            schedules = PROBE_SCHEDULES[self.data.conventions]
            chosen = ("train", schedules.linear) if probe == "linear" else ("few_shot", schedules.few_shot)
            predictions, detail = self._sgd(*chosen)
        return self._result(predictions, begun, detail)

    def classifier(self, classifier: nn.Linear, detail: str) -> ProbeResult:
        """A ready classifier [F -> C] on the test set."""
        begun = time.perf_counter()
        return self._result(predict(classifier, self.features("test")), begun, detail)

    def _result(self, predictions: Labels, begun: float, detail: str) -> ProbeResult:
        accuracies = per_class_accuracy(predictions, self.test_labels, self.num_classes, self.untested)
        counts = np.bincount(self.test_labels, minlength=self.num_classes).tolist()
        return ProbeResult(accuracies, counts, round(time.perf_counter() - begun, 3), detail)

    def _knn(self) -> tuple[Labels, str]:
        predictions = knn_predict(self.features("train"), self._labels("train"), self.features("test"))
        return predictions, "k = 10, cosine, bank: every training image"

    def _cached(self, subset: str) -> tuple[Labels, str]:
        features, validation = self.features(subset), self.features("validation")
        task = self.show.add(f"logistic probe ({subset})", total=len(INVERSE_REGULARISATIONS), unit="fits")
        probe = fit_logistic_probe(
            features,
            self._labels(subset),
            validation,
            self._labels("validation"),
            advance=self._advance(task),
        )
        self.show.finish(task)
        detail = f"C = {probe.inverse_regularisation:g}"
        if probe.validation_accuracy is not None:
            detail += f", validation accuracy {probe.validation_accuracy:.4f}"
        return probe.predict(self.features("test")), detail + ("" if probe.converged else ", NOT converged")

    def _sgd(self, subset: str, schedule: ProbeSchedule) -> tuple[Labels, str]:
        images = self._images(subset)
        task = self.show.add(f"linear probe ({subset})", total=schedule.epochs * len(images), unit="images")
        probe = train_linear_probe(
            self.backbone,
            lambda batches, epoch: images.probe_crops(batches, self.size, seed=0, epoch=epoch),
            self._labels(subset),
            self.features("validation"),
            self._labels("validation"),
            num_classes=self.num_classes,
            schedule=schedule,
            advance=self._advance(task),
        )
        self.show.finish(task)
        measure = "accuracy" if schedule.top_k == 1 else f"top-{schedule.top_k} accuracy"
        detail = f"epoch {probe.best_epoch} of {schedule.epochs}, validation {measure} {probe.validation_accuracy:.4f}"
        return probe.predict(self.features("test")), detail

    def features(self, part: str) -> Tensor:
        """[N, F] of the test set or of one subset of the split, extracted once."""
        if part not in self._features:
            images = self._images(part)
            task = self.show.add(f"features ({part})", total=len(images), unit="images")
            batches = images.stills(self.size)
            self._features[part] = extract_features(
                self.backbone, batches, self._advance(task), lambda position: _name(images, position, part)
            )
            self.show.finish(task)
        return self._features[part]

    def _images(self, part: str) -> Images:
        if part not in self._parts:
            self._parts[part] = self.data.part(part).to(
                torch.device("cpu")
            )  # files are all looked for, before any work
        return self._parts[part]

    def _labels(self, part: str) -> Labels:
        labels = self._images(part).labels
        assert labels is not None
        return labels

    def _advance(self, task: int) -> Callable[[int], None]:
        return lambda amount: self.show.advance(task, amount)


def _name(images: Images, position: int, part: str) -> str:
    """What an error calls one image: its file where it has one."""
    paths = getattr(images, "paths", None)
    return f"image {position} of {part}" if paths is None else printable(str(paths[position]))
