"""What an evaluation leaves in the run folder: evaluation/<protocol>.json."""

from __future__ import annotations

from typing import Any

from sdclr.data import Data
from sdclr.evaluation.balancedness import OF_DATA
from sdclr.evaluation.results import Evaluation, ProbeResult
from sdclr.run import Run


def record(
    run: Run,
    data: Data,
    protocol: str,
    results: dict[str, ProbeResult],
    more: dict[str, Any],
    num_predicted: int,
) -> Evaluation:
    """Write the results beside those of other probes; returns all that the file then holds.

    ``num_predicted``: classes of which a probe has learned, one of which a guess names.
    ``more``: what else is to be said, such as whose labels they are where they are not the training's.
    """
    assert data.train.labels is not None
    assert data.split is not None
    split, num_classes = data.split, len(data.class_names)
    path = run.evaluation_path(protocol)
    facts = {
        "protocol": protocol,
        "dataset": data.name,
        "group_convention": OF_DATA[data.conventions],
        # the long-tailed counts, also for a run on the balanced twin: the paper's groups
        "train_counts": split.counts("long_tail", data.train.labels, num_classes),
        "class_names": data.class_names,
        "split": {
            "number": split.number,
            "fingerprint": data.fingerprint,
            "name": f"{data.name} split {split.number}",
        },
        "chance": 1 / num_predicted,
        "backbone": run.backbone_identity(),
        "tested_on": "cross-validation" if data.test is None else "test set",
        **more,
    }
    probes = _measured_before(run, protocol, facts) if path.exists() else {}
    evaluation = Evaluation.model_validate(facts | {"probes": probes | results})
    evaluation.save(path)
    return evaluation


def _measured_before(run: Run, protocol: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Probes of the same backbone, split and classes; what was measured on others is not kept beside this one's."""
    earlier = run.read_evaluation(protocol)
    same = ["backbone", "split", "class_names", "train_counts", "tested_on"]
    same += ["kept_together", "features_in"]
    earlier.setdefault("tested_on", "test set")  # an earlier version had no other way
    return earlier["probes"] if all(earlier.get(key) == facts.get(key) for key in same) else {}
