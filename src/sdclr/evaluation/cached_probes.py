"""Probes on features that were extracted once: logistic regression and nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sdclr.evaluation.cross_validation import grouped_folds, stratified_folds
from sdclr.evaluation.features import Labels
from sdclr.evaluation.knn import knn_predict
from sdclr.evaluation.logistic_probe import LogisticProbe, fit_logistic_probe
from sdclr.evaluation.probe import ProbeTask
from sdclr.evaluation.probe_settings import (
    INVERSE_REGULARISATIONS,
    EqualNeighboursConfig,
    LogisticConfig,
    NeighboursConfig,
)

_CPU = torch.device("cpu")


class LogisticOnFeatures:
    """The linear and the few-shot probe under protocol cached.

    C is chosen on validation. In cross-validation it is chosen inside the training folds, on one of
    five inner folds; then the probe is fitted on all training images. Few-shot sets leave no images
    to choose it on; there it is 1.
    """

    def __init__(self, config: LogisticConfig) -> None:
        self.config = config
        self.probe: LogisticProbe | None = None
        self._strengths: list[float] = []
        self._converged: list[bool] = []
        self._how: list[str] = []
        """How C was chosen in each fit."""
        self._shots: list[int] = []

    def fit(self, task: ProbeTask) -> None:
        if task.cross_validated:
            probe = self._fit_in_fold(task)
        else:
            strengths = self.config.inverse_regularisations
            features, validation = task.features, task.validation
            held_out = validation.features
            with task.progress(
                f"logistic probe ({task.subset})", len(strengths), "fits"
            ) as advance:
                probe = fit_logistic_probe(
                    features,
                    task.labels,
                    held_out,
                    validation.labels,
                    strengths,
                    advance,
                    task.device,
                )
            if probe.validation_accuracy is not None:
                self._how.append(f"validation accuracy {probe.validation_accuracy:.4f}")
        self._strengths.append(probe.inverse_regularisation)
        self._converged.append(probe.converged)
        self.probe = probe

    def _fit_in_fold(self, task: ProbeTask) -> LogisticProbe:
        features, labels = task.features, task.labels
        if task.subset == "few_shot":
            strength = 1.0
            self._shots.append(len(labels) // len(np.unique(labels)))
        else:
            strengths = self.config.inverse_regularisations
            strength = choose_strength(
                features, labels, task.seed, strengths, task.device, task.groups
            )
            self._how.append("chosen inside the training folds")
        return fit_logistic_probe(
            features, labels, features[:0], labels[:0], (strength,), device=task.device
        )

    def predict(self, features: Tensor) -> Labels:
        assert self.probe is not None
        return self.probe.predict(features)

    @property
    def detail(self) -> str:
        parts = [f"C = {_either(self._strengths)}", *dict.fromkeys(self._how)]
        if self._shots:
            parts.append(f"{_either(self._shots)} images a class")
        if not all(self._converged):
            parts.append("NOT converged")
        return ", ".join(parts)


def _either(values: Sequence[float]) -> str:
    """For example "0.01 or 0.1"."""
    return " or ".join(f"{one:g}" for one in sorted(set(values)))


def choose_strength(
    features: Tensor,
    labels: Labels,
    seed: int,
    strengths: Sequence[float] = INVERSE_REGULARISATIONS,
    device: torch.device = _CPU,
    groups: Labels | None = None,
) -> float:
    """The best strength on an inner fold; 1.0 if no class has an image, or a group, to spare for it."""
    classes, inner = np.unique(labels, return_inverse=True)
    if len(classes) < 2 or np.bincount(inner).max() < 2:
        return 1.0
    if groups is None:
        folds = stratified_folds(inner, seed=seed)
    elif max(len(np.unique(groups[inner == c])) for c in range(len(classes))) < 2:
        return 1.0
    else:
        folds = grouped_folds(inner, groups, seed=seed)
    rest, held_out = np.flatnonzero(folds != 0), np.flatnonzero(folds == 0)
    if len(np.unique(labels[rest])) < 2 or not len(held_out):
        return 1.0
    probe = fit_logistic_probe(
        features[rest],
        labels[rest],
        features[held_out],
        labels[held_out],
        strengths,
        device=device,
    )
    return probe.inverse_regularisation


class NearestNeighbours:
    """The nearest training images vote; nothing is fitted."""

    def __init__(self, config: NeighboursConfig) -> None:
        self.k = config.k
        self.temperature: float | None = config.temperature
        self.task: ProbeTask | None = None

    def fit(self, task: ProbeTask) -> None:
        self.task = task

    def predict(self, features: Tensor) -> Labels:
        assert self.task is not None
        bank, labels = self.task.features, self.task.labels
        return knn_predict(bank, labels, features, k=self.k, temperature=self.temperature)

    @property
    def detail(self) -> str:
        assert self.task is not None
        bank = "the other folds" if self.task.cross_validated else "every training image"
        return f"k = {self.k}, cosine, bank: {bank}"


class EqualNeighbours(NearestNeighbours):
    """The nearest images of the long-tailed set vote, each with one vote, as TS's authors count.

    They use the Euclidean distance of features of length 1, which gives the same order as the cosine.
    """

    def __init__(self, config: EqualNeighboursConfig) -> None:
        self.k = config.k
        self.temperature = None
        self.task = None

    @property
    def detail(self) -> str:
        assert self.task is not None
        num = len(self.task.labels)
        return f"k = {self.k}, one vote each, bank: {num:,} images of the long-tailed set"
