"""What an evaluation leaves in the run folder: evaluation/<protocol>.json."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sdclr.data import Data
from sdclr.jobs.evaluate.measurement import ProbeResult
from sdclr.run import Run

GROUP_CONVENTIONS = {"cifar": "thirds", "imagenet": "thresholds"}


def record(run: Run, data: Data, protocol: str, results: dict[str, ProbeResult]) -> dict[str, Any]:
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
