"""Whether the parts of a run folder belong together: settings, split, backbone and evaluations.

Each part carries facts about the others. A file that was copied from another run, overwritten or replaced later
contradicts them, and is reported instead of measured or printed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdclr.config import differing_fields
from sdclr.errors import ConfigError
from sdclr.run.files import IMAGES_FILE
from sdclr.run.folder import Run
from sdclr.safe_text import command, shown
from sdclr.storage.tensor_files import read_facts


def require_own_backbone(run: Run) -> None:
    """ConfigError, naming every contradiction, unless the run's backbone was trained by this run.

    Does nothing where there is no backbone yet. Facts that an earlier version did not write are not compared; nor are,
    with a warning, those of a split.json or an environment.json that is missing or damaged.
    """
    if not run.backbone_path.is_file() or not run.exists:
        return
    facts, settings, split = (
        read_facts(run.backbone_path),
        run.settings(),
        run.read_side_file("split.json"),
    )
    environment = run.read_side_file("environment.json")
    # where it is not known, nothing is compared
    adopted = "adopted" in environment or not environment
    architecture = _mapping(facts.get("architecture"))
    architecture.pop("pretrained", None)  # where the first weights came from
    claims: dict[str, Any] = {
        "backbone": architecture,
        "method": _mapping(facts.get("method")),
        "views": {"size": facts.get("image_size")},
    }
    if not adopted:
        claims |= {"epochs": facts.get("epochs")} | _mapping(facts.get("training"))
    problems = _contradictions(claims, settings, "config.yaml")
    written = {"fingerprint": "data_fingerprint", "dataset": "data"}
    data = {name: facts[key] for name, key in written.items() if key in facts}
    problems += _contradictions(data, split, "split.json")
    if problems:
        raise ConfigError(
            f"{run.backbone_path} is not the backbone of this run (the file -> the run):\n  "
            + "\n  ".join(problems)
            + "\nPut the run's own file back, or give the file itself instead of the folder."
        )


def foreign_metrics(run: Run) -> str | None:
    """A sentence where metrics.jsonl was not written by the training of a finished run's backbone; else None.

    Lost lines and another last loss are detected; facts that an earlier version did not write are not compared.
    """
    if not run.backbone_path.is_file():
        return None
    facts = read_facts(run.backbone_path)
    epochs, loss = facts.get("epochs"), facts.get("loss")
    if not isinstance(epochs, int) or not isinstance(loss, int | float):
        return None
    entries, _ = run.metrics_file.sound()
    if len(entries) < epochs:
        return f"{run.metrics_path} holds {len(entries)} of {epochs} epochs; the others are lost."
    if entries[-1].get("loss") != loss:
        return (
            f"{run.metrics_path} is not of this run: it ends with the loss {entries[-1].get('loss')}, and this run's "
            f"ended with {loss}."
        )
    return None


def require_own_evaluation(run: Run, protocol: str, evaluation: Mapping[str, Any]) -> None:
    """ConfigError unless an evaluation was made of this run's split and its current backbone."""
    where, split = run.evaluation_path(protocol), run.read_side_file("split.json")
    counts = (split.get("counts") or {}).get("long_tail")
    known = {
        "fingerprint": split.get("fingerprint"),
        "class_names": split.get("class_names"),
        # an evaluation does not count images that were left out; the fingerprint identifies its data
        "train_counts": None if _left_out(run) else counts,
    }
    claims: dict[str, Any] = {
        "fingerprint": evaluation["split"]["fingerprint"],
        "class_names": evaluation["class_names"],
        "train_counts": evaluation["train_counts"],
    }
    if "trained_on" in evaluation:  # its labels or its test set are its own
        claims = {"fingerprint": evaluation["trained_on"]}
    claims = {key: value for key, value in claims.items() if known[key] is not None}
    problems = _contradictions(claims, known, "split.json")
    if problems:
        raise ConfigError(
            f"{where} is not an evaluation of this run (the file -> the run):\n  "
            + "\n  ".join(problems)
        )
    measured = evaluation.get("backbone")
    if measured is None:  # an earlier version did not write it
        return
    with_labels = " --labels FILE" if "labels" in evaluation else ""
    again = (
        f"Put it back, or evaluate again: {command('sdclr', 'evaluate', run.folder)}{with_labels}"
    )
    if not run.backbone_path.is_file():
        raise ConfigError(
            f"{where} was measured on a backbone that is no longer in {run.folder}. {again}"
        )
    if measured != run.backbone_identity():
        raise ConfigError(
            f"{where} was measured on another backbone than {run.backbone_path}. {again}"
        )


def _left_out(run: Run) -> bool:
    """Whether pre-training has left out files that cannot be decoded."""
    return bool(run.read_side_file(IMAGES_FILE, optional=True).get("skipped"))


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _contradictions(claims: Mapping[str, Any], known: Mapping[str, Any], where: str) -> list[str]:
    """Lines ``field: claimed -> known (where)`` for fields that both sides state differently."""
    claimed, stated = _shared(claims, known), _shared(known, claims)
    return [f"{shown(line, 200)} ({where})" for line in differing_fields(claimed, stated)]


def _shared(mine: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """``mine`` without the fields that ``other`` does not have."""
    shared: dict[str, Any] = {}
    for key, value in mine.items():
        if key not in other:
            continue
        theirs = other[key]
        both = isinstance(value, Mapping) and isinstance(theirs, Mapping)
        shared[key] = _shared(value, theirs) if both else value
    return shared
