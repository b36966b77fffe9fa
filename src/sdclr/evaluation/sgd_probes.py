"""The paper's probes (protocol sdclr): a linear classifier trained by SGD on random crops."""

from __future__ import annotations

from torch import Tensor

from sdclr.evaluation.features import Labels
from sdclr.evaluation.linear_probe import (
    CIFAR,
    IMAGENET,
    LinearProbe,
    ProbeSchedule,
    train_linear_probe,
)
from sdclr.evaluation.probe import ProbeConfig, ProbeTask

SCHEDULES = {"cifar": CIFAR, "imagenet": IMAGENET}


class LinearOnCrops:
    """The linear and the few-shot probe; the family of data sets decides the schedule."""

    def __init__(self, config: ProbeConfig) -> None:
        self.config = config
        self.probe: LinearProbe | None = None
        self.schedule: ProbeSchedule | None = None

    def fit(self, task: ProbeTask) -> None:
        assert task.network is not None
        assert task.crops is not None
        schedules = SCHEDULES[task.conventions]
        schedule = schedules.linear if task.subset == "train" else schedules.few_shot
        total = schedule.epochs * len(task.labels)
        with task.progress(f"linear probe ({task.subset})", total, "images") as advance:
            self.probe = train_linear_probe(
                task.network,
                task.crops,
                task.labels,
                task.validation.features,
                task.validation.labels,
                num_classes=task.num_classes,
                schedule=schedule,
                seed=task.seed,
                advance=advance,
            )
        self.schedule = schedule

    def predict(self, features: Tensor) -> Labels:
        assert self.probe is not None
        return self.probe.predict(features)

    @property
    def detail(self) -> str:
        assert self.probe is not None
        assert self.schedule is not None
        top_k = self.schedule.top_k
        measure = "accuracy" if top_k == 1 else f"top-{top_k} accuracy"
        return (
            f"epoch {self.probe.best_epoch} of {self.schedule.epochs}, "
            f"validation {measure} {self.probe.validation_accuracy:.4f}"
        )
