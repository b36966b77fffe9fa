"""What an evaluation writes to the run folder: evaluation/<protocol>.json."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import Any

from sdclr.data import Data
from sdclr.data.splits import Split
from sdclr.evaluation.balancedness import OF_DATA
from sdclr.evaluation.results import Evaluation, ProbeResult
from sdclr.jobs.evaluate.images import Evaluated
from sdclr.run import Run
from sdclr.safe_text import shown

_WHAT_DIFFERS = {
    "backbone": "another backbone",
    "split": "other labels, other images or another split",
    "class_names": "other classes",
    "train_counts": "other numbers of images",
    "tested_on": "another way of testing",
    "kept_together": "other groups of images",
    "features_in": "features of another precision",
    "test_contents": "other test images",
}
"""What must be equal for two results to be comparable -> its description if it differs."""
_SINCE_LATER = ("test_contents",)
"""Keys of these that earlier versions did not write: compared only if both are known."""


def measured_on(run: Run, found: Evaluated) -> dict[str, Any]:
    """What a number was measured on: weights, data, groups, precision. For files beside an evaluation."""
    data = found.data
    return {
        "backbone": run.backbone_identity(),
        "fingerprint": data.fingerprint,
        "tested_on": _tested_on(data),
        "kept_together": found.facts.get("kept_together"),
        "features_in": "bf16" if found.config.precision == "bf16" else None,
        "test_contents": data.test_contents,
    }


def _tested_on(data: Data) -> str:
    return "cross-validation" if data.test is None else "test set"


def record(
    run: Run,
    data: Data,
    protocol: str,
    results: dict[str, ProbeResult],
    more: dict[str, Any],
    num_predicted: int,
    wanted: Collection[str] = (),
    *,
    usable: Split | None = None,
) -> Evaluation:
    """Write the results beside those of other probes; return the file's new content.

    ``usable``: the split of ``data`` without files that cannot be decoded, in which the classes are counted.
    ``num_predicted``: classes that a probe has learned from, which set the accuracy of chance. ``wanted``: all probes
    that are measured now. Others are kept if they are comparable; otherwise they are left out with a warning.
    ``more``: further facts to record, such as the source of labels that are not those of training.
    """
    assert data.train.labels is not None
    assert data.split is not None
    split, num_classes = data.split, len(data.class_names)
    counted = split if usable is None else usable
    path = run.evaluation_path(protocol)
    facts = {
        "protocol": protocol,
        "dataset": data.name,
        "group_convention": OF_DATA[data.conventions],
        # the long-tailed counts, even for a run on the balanced twin: they define the paper's groups
        "train_counts": counted.counts("long_tail", data.train.labels, num_classes),
        "class_names": data.class_names,
        "split": {
            "number": split.number,
            "fingerprint": data.fingerprint,
            "name": f"{data.name} split {split.number}",
        },
        "chance": 1 / num_predicted,
        "backbone": run.backbone_identity(),
        "tested_on": _tested_on(data),
        "pool": data.pool_fingerprint,
        **more,
    }
    if data.test_contents is not None:
        facts["test_contents"] = data.test_contents
    now = {*wanted, *results}
    probes: dict[str, Any] = {}
    if path.exists():
        drawn = split.counts("long_tail", data.train.labels, num_classes)
        probes = _measured_before(run, protocol, facts, now, drawn)
    evaluation = Evaluation.model_validate(facts | {"probes": probes | results})
    evaluation.save(path)
    return evaluation


def _measured_before(
    run: Run,
    protocol: str,
    facts: Mapping[str, Any],
    measured_now: Collection[str],
    drawn: list[int],
) -> dict[str, Any]:
    """Earlier probes of the same backbone, data and precision; any others are dropped with a warning.

    ``drawn``: images of each class in the split as drawn. An earlier version recorded these counts instead of those of
    the usable images, although its accuracies came from the usable ones.
    """
    earlier = run.read_evaluation(protocol)
    if earlier.get("train_counts") == drawn:
        earlier["train_counts"] = facts["train_counts"]
    earlier.setdefault("tested_on", "test set")  # an earlier version had no other way
    probes: dict[str, Any] = earlier["probes"]
    differs = [
        words
        for key, words in _WHAT_DIFFERS.items()
        if earlier.get(key) != facts.get(key)
        and not (key in _SINCE_LATER and None in (earlier.get(key), facts.get(key)))
    ]
    if not differs:
        return probes
    if replaced := [name for name in probes if name not in measured_now]:
        warnings.warn(
            f"{', '.join(map(shown, replaced))} in {shown(run.evaluation_path(protocol))} came from another evaluation "
            f"({'; '.join(differs)}), not comparable with this one: their results are replaced.",
            stacklevel=5,
        )
    return {}
