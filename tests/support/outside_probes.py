"""Probes of a user's own: one as it should be, and some that break the contract in one way each."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pydantic import PositiveFloat, field_validator
from sklearn.linear_model import RidgeClassifier
from torch import Tensor

from sdclr import ProbeConfig, ProbeTask
from sdclr.evaluation.features import Labels


class RidgeConfig(ProbeConfig):
    """Settings of :class:`Ridge`."""

    alpha: PositiveFloat = 1.0


class Ridge:
    """Ridge regression on the classes."""

    name = "ridge"
    display_name = "Ridge classifier"
    Config = RidgeConfig

    def __init__(self, config: RidgeConfig) -> None:
        self.config = config

    def fit(self, task: ProbeTask) -> None:
        self.model = RidgeClassifier(alpha=self.config.alpha).fit(
            task.features.numpy(), task.labels
        )

    def predict(self, features: Tensor) -> Labels:
        return self.model.predict(features.numpy())

    @property
    def detail(self) -> str:
        return f"alpha = {self.config.alpha:g}"


class _Planted:
    """Predicts class 0."""

    display_name = "Planted"

    def fit(self, task: ProbeTask) -> None:
        self.task = task

    def predict(self, features: Tensor) -> Any:
        return np.zeros(len(features), dtype=np.int64)


class PlainAccuracy(_Planted):
    name = "plain_accuracy"

    def predict(self, features: Tensor) -> Any:
        return 0.93


class ClassAccuracies(_Planted):
    name = "class_accuracies"

    def predict(self, features: Tensor) -> Any:
        return [0.5] * self.task.num_classes


class Scores(_Planted):
    name = "scores"

    def predict(self, features: Tensor) -> Any:
        return torch.rand(len(features), generator=torch.Generator().manual_seed(0))


class OtherClasses(_Planted):
    name = "other_classes"

    def predict(self, features: Tensor) -> Any:
        return np.full(len(features), self.task.num_classes)


class ChangesTheNetwork(_Planted):
    name = "changes_the_network"
    needs = "crops"

    def fit(self, task: ProbeTask) -> None:
        assert task.network is not None
        next(task.network.parameters()).data.mul_(1.5)


class ChangesTheFeatures(_Planted):
    name = "changes_the_features"

    def fit(self, task: ProbeTask) -> None:
        task.features.numpy()[:] -= task.features.numpy().mean(axis=0)


class ChangesTheTestFeatures(_Planted):
    name = "changes_the_test_features"

    def predict(self, features: Tensor) -> Any:
        return features.mul_(2).argmax(dim=1) * 0


class Fails(_Planted):
    name = "fails"

    def fit(self, task: ProbeTask) -> None:
        raise ValueError("singular matrix")


class ReturnsNothing(_Planted):
    name = "returns_nothing"

    def predict(self, features: Tensor) -> Any:
        return None


class IsDrawnAnew(_Planted):
    name = "is_drawn_anew"

    def predict(self, features: Tensor) -> Any:
        return np.random.default_rng().integers(0, self.task.num_classes, len(features))


class LooksAtTheOthers(_Planted):
    """Standardises by the very images that it predicts."""

    name = "looks_at_the_others"

    def predict(self, features: Tensor) -> Any:
        return (features[:, 0] > features[:, 0].median()).long()


class DoublingConfig(ProbeConfig):
    """Another value each time it is read."""

    alpha: float = 1.0

    @field_validator("alpha")
    @classmethod
    def _double(cls, value: float) -> float:
        return 2 * value


class DoublesItsSetting(Ridge):
    name = "doubles_its_setting"
    Config = DoublingConfig


REFUSED: dict[type, str] = {
    PlainAccuracy: r"predict returned one value; it must return the class of each image",
    ReturnsNothing: r"predict returned one value; it must return the class of each image",
    ClassAccuracies: r"predict returned shape \[\d+\]; it must return the class of each image",
    Scores: r"predict returned float32; it must return the class of each image, whole numbers",
    OtherClasses: r"predict returned classes \d+ \.\. \d+; there are \d+, from 0",
    ChangesTheFeatures: r"it changed the features",
    ChangesTheTestFeatures: r"it changed the features",
    Fails: r"failed: ValueError: singular matrix \(.*outside_probes\.py, line \d+\)",
}
"""Planted probe -> what is said where it is measured."""
