"""What every probe of the table keeps to, those from outside the package included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sdclr import Run, evaluate
from sdclr.evaluation.cross_validation import cross_validate, stratified_folds
from sdclr.evaluation.features import Labels
from sdclr.evaluation.probe import GivenImages, ProbeTask, content_of
from sdclr.evaluation.probes import ProbeRow, Protocol

NUM_CLASSES = 4


def blobs(per_class: int, seed: int) -> tuple[Tensor, Labels]:
    """Features [N, 6] around a centre for each of 4 classes, well apart."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(NUM_CLASSES, 6)) * 3
    labels = rng.permutation(np.repeat(np.arange(NUM_CLASSES), per_class))
    return torch.from_numpy(
        centres[labels] + 0.5 * rng.normal(size=(len(labels), 6))
    ).float(), labels


def check_on_features(row: ProbeRow) -> None:
    """A probe on features predicts each image for itself, is deterministic and changes nothing."""
    for protocol, fitter in row.fitters.items():
        if fitter.needs == "features":
            _check_on_features(row, protocol)


def _check_on_features(row: ProbeRow, protocol: str) -> None:
    features, labels = blobs(20, seed=1)
    held_out, tests = GivenImages(*blobs(5, seed=2)), blobs(10, seed=3)[0]
    task = ProbeTask(GivenImages(features, labels), held_out, NUM_CLASSES, subset=row.subset)
    before = content_of([features, held_out.features, tests])
    predictions = fitted_predictions(row, protocol, task, tests)
    assert content_of([features, held_out.features, tests]) == before, "it changed features"
    assert np.array_equal(predictions, fitted_predictions(row, protocol, task, tests)), (
        "it is not deterministic"
    )
    probe, _ = row.build(protocol)
    probe.fit(task)
    for position in range(0, len(tests), 7):
        (alone,) = np.asarray(probe.predict(tests[position : position + 1]))
        assert alone == predictions[position], "an image's class depends on the other test images"
    if protocol == "cached":
        _check_folds(row, features, labels)


def fitted_predictions(row: ProbeRow, protocol: str, task: ProbeTask, tests: Tensor) -> Labels:
    probe, _ = row.build(protocol)
    probe.fit(task)
    return np.asarray(probe.predict(tests))


def _check_folds(row: ProbeRow, features: Tensor, labels: Labels) -> None:
    folds = stratified_folds(labels)
    found = [
        cross_validate(
            row.build("cached")[0], features, labels, folds, subset=row.subset
        ).predictions
        for _ in range(2)
    ]
    assert np.array_equal(*found), "cross-validated, it is not deterministic"


def check_settings(row: ProbeRow, folder: Path) -> None:
    """The settings of each protocol come back from YAML as they were."""
    for protocol in row.fitters:
        _, settings = row.build(protocol)
        path = folder / f"{row.name}-{protocol}.yaml"
        path.write_text(settings.to_yaml())
        assert type(settings).from_yaml(path) == settings
        assert type(settings).parse(settings.to_dict()) == settings


def check_on_run(row: ProbeRow, run: Run, protocol: Protocol) -> None:
    """On a run: an accuracy for each class, the same twice, and the run's weights as they were."""
    before = run.backbone_path.read_bytes()
    first = evaluate(run, protocol=protocol, probes=[row.name])
    measured = first.probe(row.name)
    assert len(measured.per_class_accuracy) == len(first.class_names)
    assert all(one is not None and 0 <= one <= 1 for one in measured.per_class_accuracy)
    assert measured.num_test is not None
    assert len(measured.num_test) == len(first.class_names)
    assert measured.display_name == row.display_name
    again = evaluate(run, protocol=protocol, probes=[row.name]).probe(row.name)
    assert again.per_class_accuracy == measured.per_class_accuracy, "it is not deterministic"
    assert again.detail == measured.detail
    assert run.backbone_path.read_bytes() == before
