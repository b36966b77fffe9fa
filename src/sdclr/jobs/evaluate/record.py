"""What an evaluation leaves in the run folder: evaluation/<protocol>.json."""

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
"""What must be equal for two results to stand side by side -> words where it is not."""
_SINCE_LATER = ("test_contents",)
"""Of these what an earlier version did not write: compared where both are known."""


def measured_on(run: Run, found: Evaluated) -> dict[str, Any]:
    """What a number is of: weights, data, what is kept apart, precision. For files beside an evaluation."""
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
    """Write the results beside those of other probes; returns all that the file then holds.

    ``usable``: the split of ``data`` without files that cannot be decoded, in which the classes are counted.
    ``num_predicted``: classes of which a probe has learned, one of which a guess names. ``wanted``: all probes that are
    measured now. Others stay where they are comparable; else they are left out with a warning.
    ``more``: what else is to be said, such as whose labels they are where they are not the training's.
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
        # the long-tailed counts, also for a run on the balanced twin: the paper's groups
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
    """Probes of the same backbone, data and precision; what was measured on others is not kept beside this one's.

    ``drawn``: images of each class in the split as it was drawn, which an earlier version wrote for those that can be
    used; its accuracies are of these all the same.
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
