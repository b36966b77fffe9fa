"""JOB: a finished run -> probes on its frozen backbone -> accuracy per class, in RUN/evaluation/<protocol>.json.

Protocols carry names and never mix: ``sdclr`` is the paper's (SGD on augmented images, epoch chosen on validation),
``cached`` extracts features once and fits regularised logistic regressions: seconds instead of minutes.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
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
from sdclr.data.contents import require_recorded
from sdclr.data.decode import printable
from sdclr.data.images import allowed_to_skip, left_out
from sdclr.data.splits import natural_split
from sdclr.device import resolve_device
from sdclr.errors import CheckpointError, ConfigError, DataError
from sdclr.evaluation.features import Labels, extract_features, per_class_accuracy
from sdclr.evaluation.knn import knn_predict
from sdclr.evaluation.linear_probe import CIFAR, IMAGENET, ProbeSchedule, predict, train_linear_probe
from sdclr.evaluation.logistic_probe import INVERSE_REGULARISATIONS, fit_logistic_probe
from sdclr.jobs.pretrain import PretrainConfig
from sdclr.presentation.progress import AnyProgress, NoProgress
from sdclr.run import CONTENTS_FILE, IMAGES_FILE, Run

Protocol = Literal["cached", "sdclr"]
Untested = Literal["raise", "leave_out"]
"""What becomes of a class without a usable test or training image."""
PROBES = ("linear", "few_shot", "knn")
PROBE_SCHEDULES = {"cifar": CIFAR, "imagenet": IMAGENET}
AUTHORS_CLASSIFIER = "authors_classifier"
"""The protocol of classifiers that somebody else trained: never mixed with our own probes."""
GROUP_CONVENTIONS = {"cifar": "thirds", "imagenet": "thresholds"}


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


def evaluate(
    run: Run | Path | str,
    *,
    protocol: Protocol = "cached",
    probes: Sequence[str] = PROBES,
    data_path: str | None = None,
    network: nn.Module | None = None,
    device: str = "auto",
    untested: Untested = "raise",
    progress: AnyProgress | None = None,
) -> dict[str, Any]:
    """Probe a finished run and write evaluation/<protocol>.json; returns its content.

    ``data_path`` replaces the config's when the images have moved. ``network``: your own module, for a run with one.
    Probes that were measured before and are not asked for again stay in the file. ``untested``: what a class without a
    usable test or training image does: ``raise`` a DataError that names it, before any work, or ``leave_out``, and then
    its accuracy is None and counts in no mean.
    """
    run = (run if isinstance(run, Run) else Run(run)).require()
    check_protocol(protocol)
    check_untested(untested)
    _check_probes(probes)
    with run:  # from start to end: nobody measures the same thing meanwhile
        config, data = _config_and_data(run, data_path)
        for remark in data.remarks:
            (progress or NoProgress()).print(remark)
        backbone = _placed(load_backbone(run.folder, network), device)
        measure = _Measurement(backbone, _usable(run, config, data, progress), config, progress, untested)
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
        measure = _Measurement(_placed(found.backbone, device), _usable(run, config, data, progress), config, progress)
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


def check_untested(name: str) -> Untested:
    """The choice of this name; ConfigError for one that does not exist."""
    if name not in get_args(Untested):
        raise ConfigError(f"untested must be {' or '.join(get_args(Untested))}, got {name!r}.")
    return cast(Untested, name)


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
    files = data.files(config.data.subset)
    recorded = require_recorded(run.folder / CONTENTS_FILE, files, trained_on, data.fingerprint)
    if files and not recorded:
        warnings.warn(
            f"{run.folder} was begun by an earlier version, which kept no record of its images' contents: names and "
            "labels are those of the run; whether the pixels are, nobody can say.",
            stacklevel=3,
        )
    run.require_classes(data.class_names)
    return config, data


def _usable(run: Run, config: PretrainConfig, data: Data, progress: AnyProgress | None) -> Data:
    """The same data without the files that cannot be decoded, decided once for the pool and once for the test set.

    What the run has left out stays out; what it has not looked at (validation and test images) is decoded once.
    """
    split = data.labelled_split()
    if config.data.on_error != "skip" or data.test is None or data.train.labels is None:
        return data
    show, pool = progress or NoProgress(), data.train
    skipped = _skipped_by_the_run(run)
    paths = getattr(pool, "paths", ())
    bad = [position for position, path in enumerate(paths) if path in skipped]
    kept: dict[str, Images] = {}
    for part, images, before in (("validation", pool.at(split.validation), len(bad)), ("test", data.test, 0)):
        limit = allowed_to_skip(config.data.max_skipped, len(pool) if part == "validation" else len(images))
        task = show.add(f"looking at {len(images)} {part} images", total=len(images), unit="images")
        advance = partial(show.advance, task)
        kept[part], found = images.verified("skip", advance, max(limit - before, 0))
        show.finish(task)
        if found:
            warnings.warn(f"{part}: {left_out(found, len(images))}", stacklevel=3)
        if part == "validation":
            lost = {one.path for one in found}
            bad += [int(position) for position in split.validation if paths[position] in lost]
    unusable = np.array(sorted(set(bad)), dtype=np.int64)
    few_shot = natural_split(
        data.train.labels,
        validation=split.validation,
        seed=config.data.split,
        unusable=unusable,
    ).few_shot
    split = replace(
        split,
        few_shot=few_shot,
        long_tail=np.setdiff1d(split.long_tail, unusable),
        train=np.setdiff1d(split.train, unusable),
        validation=np.setdiff1d(split.validation, unusable),
    )
    return replace(data, split=split, test=kept["test"])


def _skipped_by_the_run(run: Run) -> set[str]:
    """The files that pre-training has left out."""
    if not (run.folder / IMAGES_FILE).is_file():
        return set()
    return {path for path, _ in run.read_json(IMAGES_FILE, "skipped")["skipped"]}


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
