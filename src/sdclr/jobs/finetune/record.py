"""model.json and validation.csv: a classifier's results on images that it was not trained on."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import binomtest
from torch import Tensor

from sdclr.data.collections.images import Images
from sdclr.data.splits import Positions
from sdclr.evaluation.balancedness import GROUPS, balancedness, class_groups
from sdclr.evaluation.calibration import BINS, expected_calibration_error, fit_temperature
from sdclr.evaluation.features import per_class_accuracy
from sdclr.jobs.finetune.labelled import Labelled
from sdclr.safe_text import as_text, csv_row

NOT_CALIBRATED = "not calibrated"


def temperature_of(logits: Tensor | None, labels: Positions) -> tuple[float | None, dict[str, Any]]:
    """The temperature fitted to validation logits [N, C], or None, and what model.json records about it."""
    if logits is None:
        return None, {"temperature": None, "note": f"{NOT_CALIBRATED}: no validation images"}
    truth = torch.from_numpy(labels)
    found = fit_temperature(logits, truth)
    before = expected_calibration_error(logits.double().softmax(dim=1), truth)
    facts: dict[str, Any] = {"temperature": None, "num_images": len(labels), "bins": BINS}
    facts["ece_before"] = before
    if found.problem:
        note = f"{NOT_CALIBRATED}: {found.problem}, so no temperature fits best"
        return None, facts | {"ece_after": None, "note": note}
    after = expected_calibration_error((logits.double() / found.value).softmax(dim=1), truth)
    note = "fitted on the validation images, on which ece_after is measured, too"
    return found.value, facts | {"temperature": found.value, "ece_after": after, "note": note}


def validation_result(logits: Tensor | None, labelled: Labelled) -> dict[str, Any] | None:
    """Accuracies of logits [N, C]; None without validation images. A class without any has accuracy None."""
    if logits is None:
        return None
    train, validation = labelled.labels
    names, num_classes = labelled.class_names, len(labelled.class_names)
    predicted = logits.argmax(dim=1).numpy()
    counts = np.bincount(train, minlength=num_classes).tolist()
    tested = np.bincount(validation, minlength=num_classes).tolist()
    untested = [c for c, num in enumerate(tested) if num == 0]
    per_class = per_class_accuracy(predicted, validation, num_classes, untested)
    right = int((predicted == validation).sum())
    interval = binomtest(right, len(validation)).proportion_ci(method="wilson")
    found = balancedness(per_class, counts, labelled.convention)
    groups = class_groups(counts, labelled.convention)
    return {
        "num_images": len(validation),
        "accuracy": right / len(validation),
        "accuracy_interval": [float(interval.low), float(interval.high)],
        "interval": "Wilson's, 95 %, over the validation images alone",
        "balanced_accuracy": found.all,
        "groups": {
            name: {
                "accuracy": None if math.isnan(value := asdict(found)[name]) else value,
                "classes": [names[c] for c in groups[name]],
            }
            for name in GROUPS
        },
        "largest_class_share": max(tested) / len(validation),
        "log_loss": float(F.cross_entropy(logits.double(), torch.from_numpy(validation))),
        "classes": [
            {
                "name": names[c],
                "num_train": counts[c],
                "num_validation": tested[c],
                "accuracy": per_class[c],
            }
            for c in range(num_classes)
        ],
        "note": "The epoch and the temperature were chosen on these images: a test on others may be a little worse.",
    }


def validation_table(
    images: Images, labels: Positions, probabilities: Tensor, names: Sequence[str]
) -> str:
    """Each validation image: path, label, predicted label, confidence."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "predicted", "confidence"])
    confidence, predicted = probabilities.max(dim=1)
    rows = zip(images.names, labels.tolist(), predicted.tolist(), confidence.tolist(), strict=True)
    for path, label, guess, sure in rows:
        cells = csv_row([as_text(str(path)), as_text(names[label]), as_text(names[guess])])
        writer.writerow([*cells, f"{sure:.6f}"])
    return text.getvalue()


def summary(content: dict[str, Any]) -> str:
    """The main results, in a few lines."""
    found, calibration = content["validation"], content["calibration"]
    if found is None:
        return f"no validation images: how good this model is, is not known; {NOT_CALIBRATED}."
    low, high = found["accuracy_interval"]
    lines = [
        f"validation: {found['accuracy']:.1%} right of {found['num_images']:,} images ({low:.1%} to {high:.1%}), "
        f"balanced {found['balanced_accuracy']:.1%}; the largest class alone is {found['largest_class_share']:.1%}"
    ]
    measured = {one["name"] for one in found["classes"] if one["accuracy"] is not None}
    parts = [
        f"{name} {group['accuracy']:.1%} ({_counted_classes(group['classes'], measured)})"
        for name, group in found["groups"].items()
        if group["accuracy"] is not None
    ]
    lines.append(f"groups by training images: {', '.join(parts)}")
    if calibration["temperature"] is None:
        lines.append(f"confidences: {calibration['note']}")
    else:
        lines.append(
            f"confidences: temperature {calibration['temperature']:.3g}, calibration error "
            f"{calibration['ece_before']:.3f} before, {calibration['ece_after']:.3f} after"
        )
    return "\n".join(lines)


def _counted_classes(names: Sequence[str], measured: Collection[str]) -> str:
    """ "2 classes", or "2 of 3 classes" if some have no validation image."""
    num = sum(name in measured for name in names)
    if num == len(names):
        return "1 class" if num == 1 else f"{num} classes"
    return f"{num} of {len(names)} classes"
