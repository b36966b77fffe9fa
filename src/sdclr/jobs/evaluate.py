"""JOB: a finished run -> probes on its frozen backbone -> accuracy per class, in RUN/evaluation/<protocol>.json.

Protocols carry names and never mix: ``sdclr`` is the paper's (SGD on augmented images, epoch chosen on validation),
``cached`` extracts features once and fits regularised logistic regressions: seconds instead of minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from sdclr.backbones.weights import load_backbone
from sdclr.data import Data, build_data
from sdclr.device import keep_freed_memory, resolve_device
from sdclr.errors import ConfigError
from sdclr.evaluation.features import Labels, extract_features, per_class_accuracy
from sdclr.evaluation.knn import knn_predict
from sdclr.evaluation.linear_probe import CIFAR, IMAGENET, ProbeSchedule, train_linear_probe
from sdclr.evaluation.logistic_probe import INVERSE_REGULARISATIONS, fit_logistic_probe
from sdclr.jobs.pretrain import PretrainConfig
from sdclr.presentation.progress import AnyProgress, NoProgress
from sdclr.run import Run

Protocol = Literal["cached", "sdclr"]
PROBES = ("linear", "few_shot", "knn")
PROBE_SCHEDULES = {"cifar": CIFAR, "imagenet": IMAGENET}
GROUP_CONVENTIONS = {"cifar": "thirds", "imagenet": "thresholds"}


@dataclass(frozen=True)
class ProbeResult:
    """One probe on one backbone."""

    per_class_accuracy: list[float]
    """[C], fractions."""
    num_test: list[int]
    """[C] test images."""
    seconds: float
    detail: str
    """What was chosen on validation, and anything a reader should know."""


def evaluate(
    run: Run | Path | str,
    *,
    protocol: Protocol = "cached",
    probes: Sequence[str] = PROBES,
    data_path: str | None = None,
    network: nn.Module | None = None,
    device: str = "auto",
    progress: AnyProgress | None = None,
) -> dict[str, Any]:
    """Probe a finished run and write evaluation/<protocol>.json; returns its content.

    ``data_path`` replaces the config's when the images have moved. ``network``: your own module, for a run with one.
    Probes that were measured before and are not asked for again stay in the file.
    """
    run = (run if isinstance(run, Run) else Run(run)).require()
    _check(protocol, probes)
    config = PretrainConfig.from_yaml(run.config_path)
    data_config = config.data if data_path is None else config.data.with_values({"path": data_path})
    data = build_data(data_config)
    split = data.labelled_split()
    trained_on = run.read_json("split.json", "fingerprint")["fingerprint"]
    if data.fingerprint != trained_on:
        raise ConfigError(
            f"{run.folder} was trained on data with fingerprint {trained_on}, these have {data.fingerprint}: "
            "images, labels or split differ. Give the data it was trained on with --data."
        )
    where = resolve_device(device)
    if where.type == "cpu":
        keep_freed_memory()
    backbone = load_backbone(run.folder, network).to(where).to(memory_format=torch.channels_last)
    measure = _Measurement(backbone, data, config.views.size, progress)
    results = {probe: asdict(measure.run(protocol, probe)) for probe in PROBES if probe in probes}
    assert data.train.labels is not None
    num_classes = len(data.class_names)
    path = run.evaluation_path(protocol)
    name = str(path.relative_to(run.folder))
    facts = {
        "protocol": protocol,
        "dataset": data.name,
        "group_convention": GROUP_CONVENTIONS[data.conventions],
        "train_counts": split.counts("long_tail", data.train.labels, num_classes),
        "class_names": data.class_names,
        "split": {
            "number": split.number,
            "fingerprint": data.fingerprint,
            "name": f"{data.name} split {split.number}",
        },
        "chance": 1 / num_classes,
    }
    with run:  # nobody else adds probes between reading and writing
        earlier = run.read_json(name, "probes")["probes"] if path.exists() else {}
        content = facts | {"probes": earlier | results}
        run.write_json(name, content)
    return content


def _check(protocol: str, probes: Sequence[str]) -> None:
    if protocol not in get_args(Protocol):
        raise ConfigError(f"protocol must be {' or '.join(get_args(Protocol))}, got {protocol!r}.")
    unknown = [probe for probe in probes if probe not in PROBES]
    if unknown or not probes:
        raise ConfigError(f"probes must be among {', '.join(PROBES)}, got {', '.join(probes) or 'none'}.")


class _Measurement:
    """The images of one split at the size the backbone was trained on, and their features, extracted when needed."""

    def __init__(self, backbone: nn.Module, data: Data, size: int, progress: AnyProgress | None) -> None:
        self.backbone, self.data, self.size = backbone, data, size
        self.split = data.labelled_split()
        self.show = progress or NoProgress()
        self.test_labels = self.data.part_labels("test")
        self.num_classes = len(data.class_names)
        self._features: dict[str, Tensor] = {}

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
        accuracies = per_class_accuracy(predictions, self.test_labels, self.num_classes)
        counts = np.bincount(self.test_labels, minlength=self.num_classes).tolist()
        return ProbeResult(accuracies, counts, round(time.perf_counter() - begun, 3), detail)

    def _knn(self) -> tuple[Labels, str]:
        predictions = knn_predict(self.features("train"), self.data.part_labels("train"), self.features("test"))
        return predictions, "k = 10, cosine, bank: every training image"

    def _cached(self, subset: str) -> tuple[Labels, str]:
        features, validation = self.features(subset), self.features("validation")
        task = self.show.add(f"logistic probe ({subset})", total=len(INVERSE_REGULARISATIONS), unit="fits")
        probe = fit_logistic_probe(
            features,
            self.data.part_labels(subset),
            validation,
            self.data.part_labels("validation"),
            advance=self._advance(task),
        )
        self.show.finish(task)
        detail = f"C = {probe.inverse_regularisation:g}"
        if probe.validation_accuracy is not None:
            detail += f", validation accuracy {probe.validation_accuracy:.4f}"
        return probe.predict(self.features("test")), detail + ("" if probe.converged else ", NOT converged")

    def _sgd(self, subset: str, schedule: ProbeSchedule) -> tuple[Labels, str]:
        images = self.data.part(subset)
        task = self.show.add(f"linear probe ({subset})", total=schedule.epochs * len(images), unit="images")
        probe = train_linear_probe(
            self.backbone,
            lambda batches, epoch: images.probe_crops(batches, self.size, seed=0, epoch=epoch),
            self.data.part_labels(subset),
            self.features("validation"),
            self.data.part_labels("validation"),
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
            images = self.data.part(part)
            task = self.show.add(f"features ({part})", total=len(images), unit="images")
            batches = images.stills(self.size)
            self._features[part] = extract_features(self.backbone, batches, advance=self._advance(task))
            self.show.finish(task)
        return self._features[part]

    def _advance(self, task: int) -> Callable[[int], None]:
        return lambda amount: self.show.advance(task, amount)
