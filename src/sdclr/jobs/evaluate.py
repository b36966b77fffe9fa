"""JOB: a finished run -> probes on its frozen backbone -> accuracy per class, in RUN/evaluation/<protocol>.json.

Protocols carry names and never mix: ``sdclr`` is the paper's (SGD on augmented images, epoch chosen on validation),
``cached`` extracts features once and fits regularised logistic regressions: seconds instead of minutes.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from sdclr.backbones.authors_checkpoint import read_authors_checkpoint
from sdclr.backbones.weights import load_backbone
from sdclr.checkpoint import load_strictly
from sdclr.data import Data, Images, build_data
from sdclr.data.decode import printable
from sdclr.data.images import left_out
from sdclr.device import resolve_device
from sdclr.errors import CheckpointError, ConfigError, DataError
from sdclr.evaluation.features import Labels, extract_features, per_class_accuracy
from sdclr.evaluation.knn import knn_predict
from sdclr.evaluation.linear_probe import CIFAR, IMAGENET, ProbeSchedule, predict, train_linear_probe
from sdclr.evaluation.logistic_probe import INVERSE_REGULARISATIONS, fit_logistic_probe
from sdclr.jobs.pretrain import PretrainConfig
from sdclr.presentation.progress import AnyProgress, NoProgress
from sdclr.run import Run

Protocol = Literal["cached", "sdclr"]
PROBES = ("linear", "few_shot", "knn")
PROBE_SCHEDULES = {"cifar": CIFAR, "imagenet": IMAGENET}
AUTHORS_CLASSIFIER = "authors_classifier"
"""The protocol of classifiers that somebody else trained: never mixed with our own probes."""
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
    check_protocol(protocol)
    _check_probes(probes)
    with run:  # from start to end: nobody measures the same thing meanwhile
        config, data = _config_and_data(run, data_path)
        backbone = _placed(load_backbone(run.folder, network), device)
        measure = _Measurement(backbone, data, config, progress)
        results = {probe: measure.run(protocol, probe) for probe in PROBES if probe in probes}
        return _record(run, data, protocol, results)


def evaluate_classifier(
    run: Run | Path | str,
    checkpoint: Path | str,
    probe: str,
    *,
    data_path: str | None = None,
    device: str = "auto",
    progress: AnyProgress | None = None,
) -> dict[str, Any]:
    """Test the classifier that the authors fine-tuned, with the backbone in its file, on the run's test set.

    ``probe``: what it was tuned for, linear or few_shot. Nothing is trained: the reference's ``--test_only``. Writes
    evaluation/authors_classifier.json, a protocol of its own. Raises CheckpointError for a file without a classifier
    and ConfigError for another architecture or number of classes than the run's.
    """
    run = (run if isinstance(run, Run) else Run(run)).require()
    if probe not in ("linear", "few_shot"):
        raise ConfigError(f"a classifier was tuned for linear or few_shot, got {probe!r}.")
    with run:
        config, data = _config_and_data(run, data_path)
        found = read_authors_checkpoint(checkpoint)
        if found.classifier is None:
            raise CheckpointError(f"{checkpoint} holds no classifier: it is a pre-training checkpoint. Use --protocol.")
        num_classes = len(data.class_names)
        if found.architecture != config.backbone or len(found.classifier["weight"]) != num_classes:
            raise ConfigError(
                f"{checkpoint} is a {found.architecture.name} of width {found.architecture.width} for "
                f"{len(found.classifier['weight'])} classes; {run.folder} has a {config.backbone.name} of width "
                f"{config.backbone.width} and {num_classes} classes."
            )
        classifier = skip_init(nn.Linear, found.classifier["weight"].shape[1], num_classes)
        load_strictly(classifier, found.classifier, str(checkpoint))
        measure = _Measurement(_placed(found.backbone, device), data, config, progress)
        theirs, ours = found.backbone.net.state_dict(), load_backbone(run.folder).net.state_dict()
        changed = [name for name in ours if not torch.equal(ours[name], theirs[name].cpu())]
        detail = f"the authors' classifier ({Path(checkpoint).name}, epoch {found.epoch}), backbone " + (
            f"differs from the run's in {len(changed)} tensors" if changed else "equal to the run's"
        )
        return _record(run, data, AUTHORS_CLASSIFIER, {probe: measure.classifier(classifier, detail)})


def check_protocol(name: str) -> Protocol:
    """The protocol of this name; ConfigError for one that does not exist."""
    if name not in get_args(Protocol):
        raise ConfigError(f"protocol must be {' or '.join(get_args(Protocol))}, got {name!r}.")
    return cast(Protocol, name)


def _check_probes(probes: Sequence[str]) -> None:
    unknown = [probe for probe in probes if probe not in PROBES]
    if unknown or not probes:
        raise ConfigError(f"probes must be among {', '.join(PROBES)}, got {', '.join(probes) or 'none'}.")


def _config_and_data(run: Run, data_path: str | None) -> tuple[PretrainConfig, Data]:
    """The run's config and the very images and split that it was trained on."""
    config = PretrainConfig.from_yaml(run.config_path)
    where = config.data if data_path is None else config.data.with_values({"path": data_path})
    data = build_data(where, exclude=[run.folder])
    data.labelled_split()  # raises where there is nothing to evaluate on
    if data.train.labels is not None and len(np.unique(data.train.labels)) < 2:
        raise DataError(
            f"{data.name} cannot be evaluated: all its labelled training images are of one class, "
            f"{data.class_names[int(data.train.labels[0])]}. A probe tells classes apart."
        )
    trained_on = run.read_json("split.json", "fingerprint")["fingerprint"]
    if data.fingerprint != trained_on:
        raise ConfigError(
            f"{run.folder} was trained on data with fingerprint {trained_on}, these have {data.fingerprint}: "
            "images, labels or split differ. Give the data it was trained on with --data."
        )
    return config, data


def _placed(backbone: nn.Module, device: str) -> nn.Module:
    return backbone.to(resolve_device(device)).to(memory_format=torch.channels_last)


def _record(run: Run, data: Data, protocol: str, results: dict[str, ProbeResult]) -> dict[str, Any]:
    """Write the results beside those of other probes; returns the file's content."""
    assert data.train.labels is not None
    split, num_classes = data.labelled_split(), len(data.class_names)
    path = run.evaluation_path(protocol)
    facts = {
        "protocol": protocol,
        "dataset": data.name,
        "group_convention": GROUP_CONVENTIONS[data.conventions],
        # the long-tailed counts, also for a run on the balanced twin: the paper's groups
        "train_counts": split.counts("long_tail", data.train.labels, num_classes),
        "class_names": data.class_names,
        "split": {
            "number": split.number,
            "fingerprint": data.fingerprint,
            "name": f"{data.name} split {split.number}",
        },
        "chance": 1 / num_classes,
        "backbone": run.backbone_identity(),
    }
    probes = _measured_before(run, protocol, facts) if path.exists() else {}
    content = facts | {"probes": probes | {probe: asdict(result) for probe, result in results.items()}}
    run.write_json(str(path.relative_to(run.folder)), content)
    return content


def _measured_before(run: Run, protocol: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Probes of the same backbone, split and classes; what was measured on others is not kept beside this one's."""
    earlier = run.read_evaluation(protocol)
    same = ("backbone", "split", "class_names", "train_counts")
    return earlier["probes"] if all(earlier.get(key) == facts[key] for key in same) else {}


class _Measurement:
    """The images of one split at the size the backbone was trained on, and their features, extracted when needed."""

    def __init__(self, backbone: nn.Module, data: Data, config: PretrainConfig, progress: AnyProgress | None) -> None:
        self.backbone, self.data = backbone, data
        self.size, self.on_error = config.views.size, config.data.on_error
        self.split = data.labelled_split()
        self.show = progress or NoProgress()
        self.num_classes = len(data.class_names)
        self._parts: dict[str, Images] = {}
        self._features: dict[str, Tensor] = {}
        self.test_labels = self._labels("test")

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
        accuracies = per_class_accuracy(predictions, self.test_labels, self.num_classes)
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
            images = self.data.part(part)
            if self.on_error == "skip":
                found = len(images)
                images, bad = images.verified(self.on_error, lambda done: None)
                if bad:
                    warnings.warn(f"{part}: {left_out(bad, found)}", stacklevel=2)
            self._parts[part] = images.to(torch.device("cpu"))  # files are all looked for, before any work
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
