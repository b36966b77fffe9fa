"""Probes on one frozen backbone: features are extracted once and shared by the probes that need them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from torch import Tensor, nn

from sdclr.data.label_sets import draw_labelled
from sdclr.data.splits import Positions
from sdclr.evaluation.features import Labels, per_class_accuracy
from sdclr.evaluation.linear_probe import predict
from sdclr.evaluation.probe import ProbeTask, Untouched, checked_predictions
from sdclr.evaluation.probes import ProbeRow, Protocol
from sdclr.evaluation.results import ProbeResult
from sdclr.jobs.evaluate.choices import Untested
from sdclr.jobs.evaluate.contract import WatchedImages, detail_of, facts_of, held_to_contract
from sdclr.jobs.evaluate.frozen_features import FrozenFeatures
from sdclr.jobs.evaluate.untested import untested_classes


class Measurement:
    """Probes that learn from the training images of a split and are measured on its test set."""

    def __init__(self, frozen: FrozenFeatures, untested: Untested = "raise") -> None:
        self.frozen = frozen
        self.untested = untested_classes(frozen.data, ("test", "train"), untested)
        self.test_labels = frozen.labels("test")
        self.num_predicted = len(np.unique(frozen.labels("train")))
        """Classes with a training image, including those without a test image."""

    def run(
        self, protocol: Protocol, row: ProbeRow, learned: Positions | None = None
    ) -> ProbeResult:
        """Measure one probe; ``learned``: positions in its subset of the images it learns from (None: the default)."""
        begun = time.perf_counter()
        predictions, detail, facts = self._predicted(protocol, row, learned)
        return self._measured(predictions, begun, detail, facts)

    def predictions(self, protocol: Protocol, row: ProbeRow) -> tuple[Labels, Labels]:
        """The classes of the test images [N], and the classes that the probe predicts."""
        return self.test_labels, self._predicted(protocol, row)[0]

    def _predicted(
        self, protocol: Protocol, row: ProbeRow, learned: Positions | None = None
    ) -> tuple[Labels, str, dict[str, Any]]:
        needs_crops = row.fitters[protocol].needs == "crops"
        with held_to_contract(row, self.frozen, needs_crops=needs_crops) as untouched:
            probe, settings = row.build(protocol)
            probe.fit(self._task(row, needs_crops, untouched, learned))
            tested = WatchedImages(self.frozen, "test", untouched)
            found = probe.predict(tested.features)
            predictions = checked_predictions(found, len(self.test_labels), self.frozen.num_classes)
            detail = detail_of(probe)
        return predictions, detail, facts_of(row, settings)

    def classifier(self, classifier: nn.Linear, detail: str, row: ProbeRow) -> ProbeResult:
        """Measure a trained classifier [F -> C] on the test set; ``row``: the probe it was tuned as."""
        begun = time.perf_counter()
        predictions = predict(classifier, self.frozen.features("test"))
        return self._measured(predictions, begun, detail, {"display_name": row.display_name})

    def _task(
        self,
        row: ProbeRow,
        needs_crops: bool,
        untouched: Untouched,
        learned: Positions | None,
    ) -> ProbeTask:
        frozen, images = self.frozen, self.frozen.images(row.subset)
        if learned is None and row.shots is not None:
            split = frozen.data.labelled_split()
            per_class = [row.shots] * frozen.num_classes
            learned = draw_labelled(frozen.labels(row.subset), per_class, split.number)
        groups = frozen.data.groups_of(row.subset)
        if learned is not None:
            images = images.at(learned)
            groups = None if groups is None else groups[learned]

        def crops(batches: Iterable[Tensor], epoch: int) -> Iterator[Tensor]:
            return images.probe_crops(batches, frozen.size, seed=0, epoch=epoch)

        return ProbeTask(
            training=WatchedImages(frozen, row.subset, untouched, learned),
            validation=WatchedImages(frozen, "validation", untouched),
            num_classes=frozen.num_classes,
            groups=groups,
            subset=row.subset,
            conventions=frozen.data.conventions,
            network=frozen.backbone if needs_crops else None,
            crops=crops if needs_crops else None,
            device=frozen.probe_device,
            progress=frozen.progress,
        )

    def _measured(
        self, predictions: Labels, begun: float, detail: str, facts: dict[str, Any]
    ) -> ProbeResult:
        labels, num_classes = self.test_labels, self.frozen.num_classes
        return ProbeResult(
            per_class_accuracy=per_class_accuracy(predictions, labels, num_classes, self.untested),
            num_test=np.bincount(labels, minlength=num_classes).tolist(),
            seconds=round(time.perf_counter() - begun, 3),
            detail=detail,
            **facts,
        )
