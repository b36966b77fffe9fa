"""Probes without a test set: every labelled image is predicted once, by probes fitted on the others."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from sdclr.data.splits import Positions
from sdclr.errors import ConfigError, DataError
from sdclr.evaluation.cross_validation import (
    CrossValidated,
    cross_validate,
    grouped_folds,
    stratified_folds,
    undivided_classes,
)
from sdclr.evaluation.features import Labels, per_class_accuracy
from sdclr.evaluation.probe import Probe, Progress
from sdclr.evaluation.probes import ProbeRow, Protocol
from sdclr.evaluation.results import ProbeResult
from sdclr.jobs.evaluate.choices import Untested
from sdclr.jobs.evaluate.contract import detail_of, facts_of, held_to_contract
from sdclr.jobs.evaluate.frozen_features import FrozenFeatures
from sdclr.jobs.evaluate.untested import leave_out, untested_classes


class CrossValidation:
    """Probes on the labelled training images alone; they were seen in pre-training, without their labels."""

    def __init__(
        self,
        frozen: FrozenFeatures,
        untested: Untested,
        *,
        seed: int,
        progress: Progress | None = None,
    ) -> None:
        """``seed`` decides which images share a fold; ``progress`` shows the folds (default: as ``frozen`` does).

        Raises DataError if fewer than 2 classes are left.
        """
        self.frozen, self.seed = frozen, seed
        self._progress = progress or frozen.progress
        self.untested = untested_classes(frozen.data, ("folds",), untested)
        self._require_two_classes()
        labels = self.tested_labels()
        folds = self._dealt(labels)
        if lost := undivided_classes(labels, folds):
            lacking = {"all their groups in one fold, with those of other classes": lost}
            kept = ~np.isin(labels, lost)
            self.untested = sorted([*self.untested, *leave_out(frozen.data, lacking, untested)])
            self._require_two_classes()
            folds = folds[kept]
        self.folds = folds
        """The fold of each tested image."""

    def _require_two_classes(self) -> None:
        if self.num_predicted < 2:
            raise DataError(
                "cross-validation needs 2 classes with at least 2 usable labelled images each."
            )

    @property
    def num_predicted(self) -> int:
        """Classes that are not left out."""
        return self.frozen.num_classes - len(self.untested)

    def run(self, protocol: Protocol, row: ProbeRow) -> ProbeResult:
        """Measure one probe. Raises ConfigError for a protocol or a probe that needs a test set."""
        begun = time.perf_counter()
        labels, found, detail, facts = self._predicted(protocol, row)
        num_classes = self.frozen.num_classes
        return ProbeResult(
            per_class_accuracy=per_class_accuracy(
                found.predictions, labels, num_classes, self.untested
            ),
            num_test=np.bincount(labels, minlength=num_classes).tolist(),
            seconds=round(time.perf_counter() - begun, 3),
            detail="; ".join(filter(None, [f"cross-validated: {found.spread()}", detail])),
            **facts,
        )

    def predictions(self, protocol: Protocol, row: ProbeRow) -> tuple[Labels, Labels]:
        """The classes of the tested images [N], and the classes that the probes predict."""
        labels, found, _, _ = self._predicted(protocol, row)
        return labels, found.predictions

    def tested_groups(self) -> Labels | None:
        """The group of each tested image, [N]; None if images are not grouped."""
        groups = self.frozen.data.groups_of("train")
        return None if groups is None else groups[self._tested()]

    def tested_labels(self) -> Labels:
        """The labels of the tested images, [N]."""
        return self.frozen.labels("train")[self._tested()]

    def _tested(self) -> Positions:
        return np.flatnonzero(~np.isin(self.frozen.labels("train"), self.untested))

    def _dealt(self, labels: Labels) -> Labels:
        """The fold of each tested image."""
        groups = self.tested_groups()
        if groups is None:
            return stratified_folds(labels, seed=self.seed)
        return grouped_folds(labels, groups, seed=self.seed)

    def _predicted(
        self, protocol: Protocol, row: ProbeRow
    ) -> tuple[Labels, CrossValidated, str, dict[str, Any]]:
        require_cross_validated(protocol)
        require_features(row, protocol)
        labels = self.frozen.labels("train")
        tested, groups = self._tested(), self.tested_groups()
        labels, features = labels[tested], self.frozen.features("train")[tested]
        with held_to_contract(row, self.frozen, needs_crops=False) as untouched:
            untouched.watch("the features", [features])
            probe, settings = row.build(protocol)
            found = self._cross_validated(probe, row, features, labels, groups)
            detail = detail_of(probe)
        return labels, found, detail, facts_of(row, settings)

    def _cross_validated(
        self,
        probe: Probe,
        row: ProbeRow,
        features: Tensor,
        labels: Labels,
        groups: Labels | None,
    ) -> CrossValidated:
        description = f"cross-validation ({row.name})"
        with self._progress(description, len(np.unique(self.folds)), "folds") as advance:
            return cross_validate(
                probe,
                features,
                labels,
                self.folds,
                num_classes=self.frozen.num_classes,
                groups=groups,
                subset=row.subset,
                seed=self.seed,
                device=self.frozen.probe_device,
                advance=advance,
            )


def cross_validated_rows(
    rows: Sequence[ProbeRow], protocol: Protocol, *, named: bool
) -> list[ProbeRow]:
    """The probes that can be measured without a test set.

    Raises ConfigError for any protocol but cached. A probe that learns from crops raises ConfigError
    if it was ``named``; otherwise it is left out with a warning.
    """
    require_cross_validated(protocol)
    kept = []
    for row in rows:
        if named:
            require_features(row, protocol)
        if row.fitters[protocol].needs == "features":
            kept.append(row)
        else:
            warnings.warn(
                f"probe {row.name} is left out: it learns from random crops, and there is no test set.",
                stacklevel=3,
            )
    return kept


def require_features(row: ProbeRow, protocol: Protocol) -> None:
    """Raise ConfigError for a probe that learns from crops, which is only defined with a test set."""
    if row.fitters[protocol].needs != "features":
        raise ConfigError(
            f"probe {row.name} learns from random crops and needs a labelled test set: give "
            "data.test_path=FOLDER or a list. Without one, probes on features alone are cross-validated."
        )


def require_cross_validated(protocol: Protocol) -> None:
    """Raise ConfigError for a protocol that is only defined with a test set."""
    if protocol != "cached":
        raise ConfigError(
            f"protocol {protocol} needs a labelled test set: give data.test_path=FOLDER or a list. Without one, "
            "--protocol cached cross-validates the labelled images."
        )
